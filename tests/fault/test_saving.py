"""A card that is dying is saved: all it gives, and what it does not give is named by its file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from imager.base.run import run as run_tool
from imager.base.units import KiB, MiB
from imager.cli.main import run
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import LOST, BlockState, RescueMap
from tests.support.faultcard import Fault, FaultCard, fault_card, why_not

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

SIZE = 24 * MiB
ROOT = MiB
BIG = random.Random(3).randbytes(16 * MiB)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultCard]:
    """A card with one ext4 on which two files lie."""
    folder = tmp_path_factory.mktemp("dying")
    (folder / "tree").mkdir()
    (folder / "tree" / "big").write_bytes(BIG)
    (folder / "tree" / "small").write_bytes(b"small\n" * 1000)
    with fault_card(folder / "card", SIZE) as made:
        run_tool(["sfdisk", "--quiet", made.store], stdin=b"label: dos\nstart=2048, type=83\n")
        where = f"offset={ROOT}"
        size = f"{(SIZE - ROOT) // KiB}k"
        tree = folder / "tree"
        run_tool(["mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", where, made.store, size])
        yield made


def places_of(card: FaultCard, path: str) -> tuple[Extent, ...]:
    found = Ext4.open(card.holds, ROOT).lookup(path)
    assert found is not None
    return found.extents


def sectors(*offsets: int) -> ExtentMap:
    return ExtentMap(Extent(offset, 512) for offset in offsets)


def lost_in(image: Path) -> ExtentMap:
    return RescueMap.parse(Path(f"{image}.map").read_bytes()).having(*LOST)


def dying(card: FaultCard, bad: ExtentMap) -> None:
    card.arm([Fault("eio", extent, ("dying",), on="read") for extent in bad])
    card.phase("dying")


def well(card: FaultCard) -> None:
    card.arm()
    card.phase("")


def read(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, object], str]:
    capsys.readouterr()
    code = run(["read", *map(str, words), "--json"])
    lines = capsys.readouterr().out.splitlines()
    return code, json.loads(lines[-1]), "\n".join(lines)


def test_what_cannot_be_read_is_named_and_tried_again_by_the_next_run(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    big, small = places_of(card, "/big")[0].offset, places_of(card, "/small")[0].offset
    bad = sectors(big + 512, big + 5 * MiB, small)
    dying(card, bad)
    try:
        code, result, said = read(capsys, card.node, image)
        assert code == 22, said
        assert result["lost_ranges"] == 3 and result["lost_files"] == ["/big", "/small"]
        assert lost_in(image) == bad
        kept = image.read_bytes()
        for extent in bad:
            assert not any(kept[extent.offset : extent.end])
        whole = card.holds(big, 5 * MiB)
        assert kept[big + 1024 : big + 5 * MiB] == whole[1024:]
        dying(card, sectors(small))
        code, result, said = read(capsys, card.node, image)
        assert code == 22 and result["lost_files"] == ["/small"]
        assert result["went_on"] is True
    finally:
        well(card)
    code, result, said = read(capsys, card.node, image, "--verify")
    assert code == 0, said
    assert not Path(f"{image}.map").exists()
    kept = image.read_bytes()
    assert Ext4.open(lambda at, size: kept[at : at + size], ROOT).read_file("/big") == BIG
    assert len([*tmp_path.iterdir()]) == 2


def test_of_a_hundred_bad_sectors_no_other_byte_is_lost(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    big = places_of(card, "/big")[0]
    chosen = random.Random(11).sample(range(big.offset, big.end, 512), 100)
    bad = sectors(*chosen)
    dying(card, bad)
    try:
        code, result, said = read(capsys, card.node, image)
    finally:
        well(card)
    assert code == 22, said
    assert lost_in(image) == bad and result["lost_bytes"] == 100 * 512
    wanted = bytearray(card.holds(big.offset, big.length))
    for extent in bad:
        wanted[extent.offset - big.offset : extent.end - big.offset] = bytes(extent.length)
    assert image.read_bytes()[big.offset : big.end] == wanted


def test_tables_that_cannot_be_read_leave_nothing_out(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the card does not say what of a group is in use, all of the group is read."""
    image = tmp_path / "saved.img"
    bitmap = ROOT + Ext4.open(card.holds, ROOT)._volume.groups[0].block_bitmap * 1024
    dying(card, sectors(bitmap))
    try:
        code, _, said = read(capsys, card.node, image)
    finally:
        well(card)
    assert code == 22, said
    saved = RescueMap.parse(Path(f"{image}.map").read_bytes()).having(BlockState.SAVED)
    group = ExtentMap([Extent(ROOT, 8 * MiB)])
    assert group - saved == sectors(bitmap)
    big = places_of(card, "/big")[0]
    assert image.read_bytes()[big.offset : big.end] == card.holds(big.offset, big.length)


def test_a_card_whose_first_sector_is_lost_is_read_whole(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    dying(card, sectors(0))
    try:
        code, result, said = read(capsys, card.node, image)
    finally:
        well(card)
    assert code == 22, said
    assert lost_in(image) == sectors(0) and result["in_use_bytes"] == SIZE
    assert image.read_bytes()[512:] == card.holds(512, SIZE)


def test_one_bad_sector_of_a_table_does_not_hide_those_beside_it(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies behind a partition table of one sector is nobody's, and is lost alone."""
    image = tmp_path / "saved.img"
    dying(card, sectors(512))
    try:
        code, result, said = read(capsys, card.node, image)
    finally:
        well(card)
    assert code == 22, said
    assert lost_in(image) == sectors(512)
    (partition,) = cast(list[dict[str, Any]], result["partitions"])
    assert partition["note"] == "" and partition["used_bytes"] < partition["length"]


def test_when_another_program_has_read_all_that_counts_nothing_is_read(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    image.write_bytes(card.holds(0, SIZE))
    state = RescueMap(SIZE)
    state.put(Extent(0, SIZE), BlockState.SAVED)
    free = Extent(SIZE - 64 * KiB, 512)
    state.put(free, BlockState.BAD)
    Path(f"{image}.map").write_bytes(state.encode())
    code, result, said = read(capsys, card.node, image)
    assert code == 0, said
    assert result["went_on"] is True and result["phases"] == []
    assert not Path(f"{image}.map").exists()


@pytest.mark.long(minutes=1)
def saved_by(state: Path) -> int:
    """What this map says is saved, in bytes; it takes its place whole."""
    if not state.exists():
        return 0
    return RescueMap.parse(state.read_bytes()).having(BlockState.SAVED).total_bytes


def test_a_run_that_is_killed_is_gone_on_with(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    state = tmp_path / ".saved.img.partial.map"
    card.set_speed(read_bps=4e6)
    try:
        words = [sys.executable, "-m", "imager", "read", str(card.node), str(image), "--quiet"]
        with subprocess.Popen(words) as process:
            deadline = time.monotonic() + 60
            while not saved_by(state) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
    finally:
        card.set_speed()
    assert not image.exists()
    assert 0 < saved_by(state) < 17 * MiB
    code, result, said = read(capsys, card.node, image)
    assert code == 0, said
    assert result["went_on"] is True
    big = places_of(card, "/big")[0]
    assert image.read_bytes()[big.offset : big.end] == card.holds(big.offset, big.length)
    assert sorted(os.listdir(tmp_path)) == ["saved.img", "saved.img.bmap"]


@pytest.mark.skipif(shutil.which("ddrescue") is None, reason="ddrescue is not installed")
def test_ddrescue_goes_on_with_our_map_and_we_with_its(
    card: FaultCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, state = tmp_path / "saved.img", tmp_path / "saved.img.map"
    big = places_of(card, "/big")[0].offset
    dying(card, sectors(big + 512, big + 5 * MiB))
    try:
        assert read(capsys, card.node, image)[0] == 22
        dying(card, sectors(big + 5 * MiB))
        run_tool(["ddrescue", "-d", "-r1", "--force", card.node, image, state])
        assert lost_in(image) == sectors(big + 5 * MiB)
    finally:
        well(card)
    code, _, said = read(capsys, card.node, image)
    assert code == 0, said
    assert image.read_bytes() == card.holds(0, SIZE)
