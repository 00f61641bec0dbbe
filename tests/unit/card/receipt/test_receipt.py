"""Receipts: what is saved is what is loaded, and nothing malformed is believed."""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.diagnosis.damage import Damage, DamageKind
from imager.card.diagnosis.places import CardPlace
from imager.card.diagnosis.trouble import Trouble
from imager.card.host.target import TargetFacts
from imager.card.medium.meter import Meter, PhaseFigures, metered
from imager.card.receipt.receipt import (
    ImageFacts,
    Receipt,
    ReceiptError,
    ReceiptResult,
    SourceFacts,
    decode_receipt,
)
from imager.card.receipt.store import (
    all_receipts,
    by_disk_id,
    find_receipt,
    load_receipt,
    save_receipt,
)
from imager.card.stages import Log, WriteOptions
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest

RECEIPT = Receipt(
    node="pi7",
    result=ReceiptResult.VERIFIED,
    failure="",
    finished_at="2026-11-23T06:05:04.123Z",
    tool_version="0.1.0",
    target=TargetFacts("/dev/sdb", 32 << 30, "usb", slot="/dev/disk/by-path/pci-2", diskseq=9),
    image=ImageFacts(
        "ab" * 32,
        "cd" * 32,
        "alarm",
        "ef" * 32,
        0x00ABCDEF,
        Layout(16 * MiB, Extent(2 * MiB, MiB), Extent(4 * MiB, 12 * MiB)),
    ),
    options=WriteOptions(4 * MiB, 2),
    cache_bypassed=True,
    fallbacks=("no lock",),
    phases=(PhaseFigures("write", 40 * MiB, 2.5, (20 * MiB, 15 * MiB, 5 * MiB)),),
    boot_files={"overlays/ü.dtbo": "12" * 32},
    manifest=Manifest(
        16 * MiB, ExtentMap([Extent(0, 4096), Extent(3 * MiB, 512)]), (b"1" * 32, b"2" * 32)
    ),
)


def test_a_receipt_survives_its_file(tmp_path: Path) -> None:
    path = save_receipt(RECEIPT, TrustedFolder(tmp_path / "receipts"))
    assert load_receipt(path) == RECEIPT
    assert path.name == "20261123T060504.123Z-pi7.json"


def test_text_that_no_encoding_has_survives_too(tmp_path: Path) -> None:
    """A path that is no UTF-8; a word of a station, whose JSON can name half a character."""
    target = replace(RECEIPT.target, path="/media/caf\udce9.img")
    strange = replace(RECEIPT, target=target, failure="\ud800")
    assert load_receipt(save_receipt(strange, TrustedFolder(tmp_path))) == strange


def test_it_is_private(tmp_path: Path) -> None:
    path = save_receipt(RECEIPT, TrustedFolder(tmp_path / "receipts"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_in_one_moment_are_both_kept(tmp_path: Path) -> None:
    assert save_receipt(RECEIPT, TrustedFolder(tmp_path)) != save_receipt(
        RECEIPT, TrustedFolder(tmp_path)
    )
    assert len(list(all_receipts(TrustedFolder(tmp_path)))) == 2


@pytest.mark.parametrize("letter", ["n", "ü", "木", "\U0001f600"])
def test_names_that_are_too_long_together_are_cut(tmp_path: Path, letter: str) -> None:
    """And stay apart, though all that is left of them is the same."""
    long = letter * (250 // len(letter.encode()))
    image = ImageFacts("ab" * 32, "", "", "", 7, None, source=SourceFacts(long, "cd" * 32, MiB))
    targets = (replace(RECEIPT.target, path=f"/media/{long}{number}") for number in range(3))
    receipts = [replace(RECEIPT, node=long, target=target, image=image) for target in targets]
    paths = [save_receipt(receipt, TrustedFolder(tmp_path)) for receipt in receipts]
    assert [load_receipt(path) for path in paths] == receipts
    assert all(path.name.startswith(f"20261123T060504.123Z-{letter * 40}") for path in paths)


def test_the_newest_proven_one_is_found(tmp_path: Path) -> None:
    save_receipt(
        replace(RECEIPT, finished_at="2026-01-01T00:00:00.000Z", node="z"), TrustedFolder(tmp_path)
    )
    newest = save_receipt(replace(RECEIPT, node="a"), TrustedFolder(tmp_path))
    save_receipt(
        replace(RECEIPT, finished_at="2027-01-01T00:00:00.000Z", result=ReceiptResult.FAULTY),
        TrustedFolder(tmp_path),
    )
    (tmp_path / "9999-broken.json").write_text("{")
    found = find_receipt(TrustedFolder(tmp_path), by_disk_id(0xABCDEF))
    assert found is not None
    assert found[0] == newest
    assert find_receipt(TrustedFolder(tmp_path), by_disk_id(1)) is None
    assert find_receipt(TrustedFolder(tmp_path / "none"), by_disk_id(0xABCDEF)) is None


def test_what_a_station_says_of_a_card_proves_nothing(tmp_path: Path) -> None:
    """It could name the disk id of any card, and what it likes as what that should hold."""
    path = f"desk1:{RECEIPT.target.path}"
    told = replace(
        RECEIPT,
        finished_at="2999-01-01T00:00:00.000Z",
        target=replace(RECEIPT.target, path=path),
    )
    save_receipt(told, TrustedFolder(tmp_path))
    assert find_receipt(TrustedFolder(tmp_path), by_disk_id(0xABCDEF)) is None
    own = save_receipt(RECEIPT, TrustedFolder(tmp_path))
    found = find_receipt(TrustedFolder(tmp_path), by_disk_id(0xABCDEF))
    assert found is not None
    assert found[0] == own


def test_the_disk_id_is_written_as_the_partuuid_has_it() -> None:
    assert json.loads(RECEIPT.encode())["image"]["disk_id"] == "00abcdef"


def test_rates_are_in_the_file_for_people() -> None:
    assert json.loads(RECEIPT.encode())["phases"][0]["mb_per_second"] == 16.78


def test_an_absent_or_malformed_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_receipt(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="not a JSON object"):
        load_receipt(tmp_path / "x.json")


def every_key(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [
        found for key in value for found in [(*path, key), *every_key(value[key], (*path, key))]
    ]


UNREAD = {("phases",), ("boot_files", "overlays/ü.dtbo"), ("trouble",)}
KEYS = [key for key in every_key(json.loads(RECEIPT.encode())) if key not in UNREAD]


@pytest.mark.parametrize("key", KEYS, ids=".".join)
@pytest.mark.parametrize("wrong", [None, [None], {"x": {}}, -1, "zzz"])
def test_a_wrong_value_is_refused_by_name_or_is_text(key: tuple[str, ...], wrong: object) -> None:
    value = json.loads(RECEIPT.encode())
    inner = value
    for part in key[:-1]:
        inner = inner[part]
    before = inner[key[-1]]
    inner[key[-1]] = wrong
    if (
        isinstance(before, str)
        and wrong == "zzz"
        and key[-1] not in ("format", "result", "disk_id")
    ):
        decode_receipt(json.dumps(value).encode())
        return
    with pytest.raises(ReceiptError):
        decode_receipt(json.dumps(value).encode())


NEW = {("options", "why"), ("image", "salt")}
"""Keys that the first receipts did not have."""


@pytest.mark.parametrize("key", [key for key in KEYS if key not in NEW], ids=".".join)
def test_a_missing_key_is_refused(key: tuple[str, ...]) -> None:
    value = json.loads(RECEIPT.encode())
    inner = value
    for part in key[:-1]:
        inner = inner[part]
    del inner[key[-1]]
    with pytest.raises(ReceiptError):
        decode_receipt(json.dumps(value).encode())


def test_a_later_version_is_refused() -> None:
    with pytest.raises(ReceiptError, match="version 3"):
        decode_receipt(RECEIPT.encode().replace(b'"version": 1', b'"version": 3'))


@given(st.binary())
def test_any_bytes_are_a_receipt_or_refused(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        decode_receipt(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(KEYS), JSON)
def test_any_value_anywhere_is_taken_or_refused(key: tuple[str, ...], replacement: object) -> None:
    value = json.loads(RECEIPT.encode())
    inner = value
    for part in key[:-1]:
        inner = inner[part]
    inner[key[-1]] = replacement
    with suppress(ReceiptError):
        decode_receipt(json.dumps(value).encode())


def test_a_receipt_keeps_what_went_wrong(tmp_path: Path) -> None:
    damage = Damage(
        Extent(4096, 512), DamageKind.FLIPPED, 4100, bits=1, places=(CardPlace("/boot/x"),)
    )
    trouble = Trouble((damage,), (), (Extent(0, 512),), 1, "Mended.")
    path = save_receipt(replace(RECEIPT, trouble=trouble), TrustedFolder(tmp_path))
    assert load_receipt(path).trouble == trouble
    value = json.loads(path.read_bytes())
    value["trouble"]["found"][0]["kind"] = "bad"
    with pytest.raises(ReceiptError, match=r'trouble.found\[0\].kind: "bad" is none of zeros'):
        decode_receipt(json.dumps(value).encode())


def test_samples_are_bytes_per_second_of_the_phase() -> None:
    now = 100.0
    with Quiet().phase("x") as phase:
        meter = Meter("write", phase, lambda: now)
        meter.advance(5)
        now = 102.5
        meter.advance(7)
        meter.advance(1)
    assert meter.figures() == PhaseFigures("write", 13, 2.5, (5, 0, 8))


def test_a_phase_that_failed_is_in_the_log() -> None:
    log = Log()
    with pytest.raises(RuntimeError), metered(Quiet(), "write", 10, log.phases) as meter:
        meter.advance(4)
        raise RuntimeError
    assert [(phase.name, phase.size_bytes) for phase in log.phases] == [("write", 4)]


def test_a_receipt_of_the_first_kind_says_neither_why_nor_which_salt() -> None:
    value = json.loads(RECEIPT.encode())
    del value["options"]["why"], value["image"]["salt"]
    assert decode_receipt(json.dumps(value).encode()) == RECEIPT
