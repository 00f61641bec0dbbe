"""What a card's boot partition says of it, on small FATs built by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imager.bootcheck.partitions import read_card
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.firstboot import FirstBoot, State
from imager.card.inspect.own_notes import CardNotes, read_notes
from imager.card.inspect.use import (
    DIFFERS,
    UNREADABLE,
    Damaged,
    damaged_boot_files,
    was_used,
)
from imager.disk.budget import MAX_TEXT_BYTES, Budget, ReadLimits
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Reader
from tests.support.hostile import HostileFat, record

FIRSTBOOT = json.dumps({"format": 1, "state": "complete", "node": "pi7"}).encode()


def made(path: Path, fat: HostileFat) -> tuple[Reader, Layout]:
    layout = fat.write(path)
    data = path.read_bytes()
    return (lambda offset, length: data[offset : offset + length]), layout


def with_notes(path: Path, files: Mapping[str, bytes | None]) -> CardNotes:
    """The notes of a card with ``files`` in the folder picloud; None is a folder."""
    fat = HostileFat()
    records = b"".join(
        record(name, fat.claim(bytes(32)), 0, is_dir=True)
        if content is None
        else record(name, fat.claim(content), len(content))
        for name, content in files.items()
    )
    fat.folder("picloud", records)
    read, layout = made(path, fat)
    return read_notes(read_card(read, layout.size_bytes))


def padded(content: bytes, size: int) -> bytes:
    return content.ljust(size)


@pytest.mark.parametrize(
    ("files", "node", "firstboot"),
    [
        ({}, None, None),
        ({"node.json": b'{"node": "pi7"}'}, {"node": "pi7"}, None),
        ({"node.json": b"{"}, None, None),
        ({"node.json": b""}, None, None),
        ({"node.json": None, "firstboot.json": None}, None, None),
        ({"firstboot.json": FIRSTBOOT}, None, State.COMPLETE),
        ({"firstboot.json": b"{"}, None, "is not a JSON object"),
        ({"firstboot.json": padded(FIRSTBOOT, MAX_TEXT_BYTES)}, None, State.COMPLETE),
        ({"firstboot.json": padded(FIRSTBOOT, MAX_TEXT_BYTES + 1)}, None, "is empty"),
    ],
)
def test_a_cards_notes_are_its_two_files(
    tmp_path: Path, files: dict[str, Any], node: object, firstboot: State | str | None
) -> None:
    found = with_notes(tmp_path / "card", files)
    assert (found.node, found.salt) == (node, "")
    if isinstance(firstboot, State):
        assert isinstance(found.firstboot, FirstBoot)
        assert (found.firstboot.state, found.firstboot.node) == (firstboot, "pi7")
    elif firstboot is None:
        assert found.firstboot is None
    else:
        assert isinstance(found.firstboot, str)
        assert found.firstboot.startswith(firstboot)


def test_a_card_without_partitions_has_no_notes() -> None:
    assert read_notes(read_card(lambda _, length: bytes(length), 8 << 20)) == CardNotes()


class Held:
    """A record of boot files alone."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        self.digests = digests

    def boot_digests(self, volume: FatVolume) -> Mapping[str, str]:
        return self.digests


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_boot_file_that_is_not_as_written_is_named(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.put("good", b"good")
    fat.put("bad", b"bad")
    fat.put("refused", b"refused" * 100)
    fat.folder("folder", b"")
    read, layout = made(tmp_path / "card", fat)
    files = CardFiles(read, layout)
    held: Any = Held(
        {
            "good": sha256(b"good"),
            **dict.fromkeys(("bad", "refused", "folder", "gone"), sha256(b"written")),
        }
    )
    volume = files.boot
    assert isinstance(volume, FatVolume)
    entry = volume.find("refused")
    assert entry is not None
    refused = ExtentMap([Extent(entry.extents[0].offset + 512, 1)])
    assert damaged_boot_files(held, files, refused) == (
        1,
        (
            Damaged("/boot/bad", DIFFERS),
            Damaged("/boot/refused", UNREADABLE),
            Damaged("/boot/folder", "is missing"),
            Damaged("/boot/gone", "is missing"),
        ),
    )
    count, (_, _, folder, gone) = damaged_boot_files(held, files, volume.metadata)
    assert count == 1
    assert "cannot be read" in folder.why
    assert folder.why == gone.why
    assert str(gone) == f"/boot/gone {gone.why}"


def test_a_boot_partition_that_is_none_is_one_damage(tmp_path: Path) -> None:
    read, layout = made(tmp_path / "card", HostileFat())
    spoilt = CardFiles(lambda offset, length: bytes(length), layout)
    held: Any = Held({"good": sha256(b"")})
    count, (damage,) = damaged_boot_files(held, spoilt)
    assert (count, damage.path) == (0, "boot partition (p1)")
    assert damage.why.startswith("cannot be read: not a FAT filesystem")
    assert spoilt.boot_unseen == ""
    assert not was_used(spoilt)
    with pytest.raises(ValueError, match="magic number"):
        spoilt.root()
    with pytest.raises(ValueError, match="magic number"):
        spoilt.root_as_its_node_knows_it()
    assert not was_used(CardFiles(read, layout))


def test_first_boots_report_shows_that_a_node_ran(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.folder("picloud", record("firstboot.json", fat.claim(b"{}"), 2))
    assert was_used(CardFiles(*made(tmp_path / "card", fat)))


def test_what_was_not_looked_at_is_said_and_paid_from_one_purse(tmp_path: Path) -> None:
    fat = HostileFat()
    for name in "abc":
        fat.put(name, b"x")
    read, layout = made(tmp_path / "card", fat)
    assert CardFiles(read, layout).boot_unseen == ""
    files = CardFiles(read, layout, Budget(ReadLimits(names=2)))
    assert files.boot_unseen == "there are more than 2 names: not looked at further"
    assert isinstance(files.boot, FatVolume)
    assert files.boot is files.boot


def test_a_file_whose_folder_was_not_read_to_its_end_is_not_said_to_be_lost(tmp_path: Path) -> None:
    fat = HostileFat()
    for name in "abc":
        fat.put(name, b"x")
    read, layout = made(tmp_path / "card", fat)
    held: Any = Held(dict.fromkeys("abcd", sha256(b"x")))
    assert damaged_boot_files(held, CardFiles(read, layout))[0] == 3
    files = CardFiles(read, layout, Budget(ReadLimits(names=2)))
    assert damaged_boot_files(held, files) == (2, ())
