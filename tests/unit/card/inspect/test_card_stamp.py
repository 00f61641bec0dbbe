"""Whose key signed a card's stamp, and when a stranger's is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import StampMismatch
from imager.card.host.targets import target_at
from imager.card.inspect.identity import identity_of, system_on
from imager.card.inspect.stamp import Signature, read_stamp, require_trusted, signature_of
from imager.card.inspect.verify import open_target, proof_for
from imager.node.keys.signing import fingerprint, rack_key
from imager.node.stamp.stamp import STAMP_AREA, NoStamp, parse_stamp
from tests.support.hostile import HostileFat, make_ext4
from tests.support.racks import rack_in
from tests.support.stamps import PUBLIC, by_hand
from tests.unit.disk.test_signature import BYTES

STAMP = parse_stamp(by_hand())
OURS = fingerprint(PUBLIC)


@pytest.fixture
def rack(tmp_path: Path) -> Path:
    """A rack with a key of its own."""
    made = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi7"\n')
    rack_key(made)
    return made.folder


def card(size_bytes: int) -> bytes:
    return (bytes(STAMP_AREA.offset) + by_hand()).ljust(size_bytes, b"\0")[:size_bytes]


def test_a_stamp_is_read_from_its_place_and_no_further() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return card(8 << 20)[offset : offset + length]

    assert read_stamp(read, 8 << 20) == STAMP
    assert read_stamp(read, 8192) == STAMP
    assert asked == [(4096, STAMP_AREA.length), (4096, 4096)]
    for size_bytes in (0, 4095, 4096):
        with pytest.raises(NoStamp):
            read_stamp(read, size_bytes)
    assert len(asked) == 2
    with pytest.raises(NoStamp, match="no stamp"):
        read_stamp(lambda *_: bytes(1), 4097)


def test_a_signature_says_whose_it_is(rack: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert signature_of(STAMP, None) == Signature(OURS, None)
    assert signature_of(STAMP, tmp_path / "empty") == Signature(OURS, None)
    assert signature_of(STAMP, rack) == Signature(OURS, False)
    own = rack_key(rack_in(rack, '[rack]\nnodes = "pi7"\n')).public
    mine = replace(STAMP, public_key=own)
    assert signature_of(mine, rack) == Signature(fingerprint(own), True)
    assert str(Signature("F", True)) == "signed by this rack's key F"
    assert str(Signature("F", None)) == "signed by key F, not known here"
    assert "which is not this rack's" in str(Signature("F", False))


def test_only_a_key_that_is_known_is_trusted(rack: Path) -> None:
    require_trusted("/dev/sdx", STAMP, None, None)
    require_trusted("/dev/sdx", STAMP, None, OURS)
    require_trusted("/dev/sdx", STAMP, rack, OURS)
    require_trusted("/dev/sdx", None, rack, None)
    for stamp, folder, key, says in (
        (STAMP, rack, None, f"signed by key {OURS}, which is not this rack's"),
        (STAMP, None, "SHA256:other", f"signed by key {OURS}, not by SHA256:other"),
        (STAMP, rack, "SHA256:other", "not by SHA256:other"),
        (None, None, OURS, "against a receipt, which no key signed"),
    ):
        with pytest.raises(StampMismatch, match=re.escape(says)):
            require_trusted("/dev/sdx", stamp, folder, key)


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_card_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    data, kind, _ = BYTES[name]
    (tmp_path / "file").write_bytes(data)
    with open_target(tmp_path / "file") as fresh, pytest.raises(StampMismatch) as caught:
        proof_for(fresh.raw, None)
    assert kind.partition(":")[0] in caught.value.what or not data
    assert caught.value.hint


def test_a_target_is_called_by_its_stamp_before_it_is_erased(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    assert identity_of(target_at(image)) == "", "nothing is there yet"
    image.write_bytes(card(1 << 20))
    assert identity_of(target_at(image)) == "pi7 of rack attic, written on 2026-09-21"
    image.write_bytes(bytes(1 << 20))
    assert identity_of(target_at(image)) == ""
    image.write_bytes(b"x" * 100)
    assert identity_of(target_at(image)) == ""
    (tmp_path / "other").write_bytes(card(1 << 20))
    assert identity_of(target_at(tmp_path / "other")) == "", "it is never written, so not asked"


@pytest.mark.image
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, ""),
        ({"hostname": "attic\n"}, ""),
        ({"os-release": 'PRETTY_NAME="Other OS"\n'}, "Other OS"),
        ({"os-release": 'PRETTY_NAME="Other OS"\n', "hostname": "attic\n"},
         "Other OS, host attic"),
    ],
)  # fmt: skip
def test_another_system_is_called_by_the_name_it_gives_itself(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    layout = HostileFat().write(tmp_path / "card.img")
    commands = ["mkdir etc"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        commands.append(f"write {tmp_path}/{name} /etc/{name}")
    make_ext4(tmp_path / "card.img", layout, commands)
    data = (tmp_path / "card.img").read_bytes()
    assert system_on(lambda at, length: data[at : at + length], layout.size_bytes) == said
    assert identity_of(target_at(tmp_path / "card.img")) == said
