"""Which partition can be made smaller, and what a run leaves that is killed meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imager.base.errors import CardIOError, ToolFailed, UsageError
from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.card.save import smaller
from imager.card.save.card_map import CardMap
from imager.card.save.saved_file import HeldFile, SavedFile
from imager.card.save.smaller import replay, require_shrinkable, shrink
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import Area
from imager.disk.rescue_map import BlockState, RescueMap
from imager.disk.table import read_table

BOOT = Area("p1", Extent(MiB, 4 * MiB), "FAT16", MiB)
ROOT = Area("p2", Extent(8 * MiB, 24 * MiB), "ext4", MiB)
SIZE = 40 * MiB
TABLE = b"label: dos\nstart=16384, size=49152, type=83\n"


def card(*areas: Area, has_gpt: bool = False, end: int = ROOT.extent.end) -> CardMap:
    """A card whose partitions are ``areas``; the last of its partitions ends at byte ``end``."""
    return CardMap(SIZE, ExtentMap(), areas, end, 0, has_gpt=has_gpt, note="", marks=())


def test_the_last_one_is_made_smaller_whatever_its_number() -> None:
    assert require_shrinkable(card(BOOT, ROOT)) == ROOT
    fourth, fifth = replace(ROOT, name="p4"), replace(ROOT, name="p5", kind="ext2")
    assert require_shrinkable(card(fourth, BOOT)) == fourth
    assert require_shrinkable(card(fifth, BOOT, has_gpt=True)) == fifth
    assert require_shrinkable(card(BOOT, fifth, end=ROOT.extent.end + MiB)) == fifth


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (
            replace(ROOT, kind="btrfs"),
            r"\(p2\) cannot be made smaller: it holds btrfs, not an ext4",
        ),
        (replace(ROOT, note="they overlap"), "they overlap"),
        (replace(ROOT, name="disk"), "it is not one partition of a table"),
        (replace(ROOT, name="p2+p3"), "it is not one partition of a table"),
    ],
)
def test_what_cannot_be_made_smaller_is_said_before_anything_is_read(last: Area, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        require_shrinkable(card(BOOT, last))
    assert caught.value.hint == "read it without --shrink"


def test_an_extended_partition_behind_it_would_be_cut_off() -> None:
    for last in (ROOT, replace(ROOT, name="p4")):
        with pytest.raises(UsageError, match="what lies behind it counts too"):
            require_shrinkable(card(BOOT, last, end=ROOT.extent.end + MiB))


def test_what_was_found_behind_the_last_partition_is_never_cut_off() -> None:
    fifth = replace(ROOT, name="p5")
    found = replace(card(BOOT, fifth, end=SIZE), note="all behind the last partition too: …")
    with pytest.raises(UsageError, match="what lies behind it counts too"):
        require_shrinkable(found)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[HeldFile]:
    """An image with an ext4 that is nearly empty, and all of it saved."""
    files = SavedFile.at(tmp_path / "saved.img")
    files.partial.write_bytes(bytes(SIZE))
    run(["sfdisk", "--quiet", files.partial], stdin=TABLE)
    where = f"offset={ROOT.extent.offset}"
    size = f"{ROOT.extent.length // KiB}k"
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", where, files.partial, size])
    state = RescueMap(SIZE, ["card: a b"])
    state.put(Extent(0, SIZE), BlockState.SAVED)
    files.put_beside(files.partial_map, state.encode())
    with files.partial.open("r+b") as file:
        yield HeldFile(files, file.fileno(), state)


def test_what_is_no_more_as_it_was_read_is_not_gone_on_with(image: HeldFile) -> None:
    size = shrink(image, replace(ROOT, name="p1"))
    assert size == image.names.partial.stat().st_size < 12 * MiB
    (last,) = read_table(image.read, size).partitions
    assert last.extent.end == size
    left = RescueMap.parse(image.names.partial_map.read_bytes())
    assert not left.having(BlockState.SAVED)
    assert "card: a b" in left.notes


def test_a_file_whose_journal_is_replayed_is_not_gone_on_with(image: HeldFile) -> None:
    where, size = f"offset={ROOT.extent.offset}", f"{ROOT.extent.length // KiB}k"
    run(["mke2fs", "-qF", "-t", "ext4", "-E", where, image.names.partial, size])
    assert replay(image, [BOOT]) == ()
    left = RescueMap.parse(image.names.partial_map.read_bytes())
    assert left.having(BlockState.SAVED), "there was nothing to replay"
    assert replay(image, [BOOT, replace(ROOT, dirty=True)]) == ("p2",)
    left = RescueMap.parse(image.names.partial_map.read_bytes())
    assert not left.having(BlockState.SAVED)


def test_what_is_copied_a_little_at_a_time_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may copy less than it was asked for; and nothing behind it, nor a hole's zeros."""
    copy = os.copy_file_range

    def little(source: int, target: int, count: int, start: int, to: int) -> int:
        return copy(source, target, min(count, 5000), start, to)

    monkeypatch.setattr("imager.card.save.smaller.os.copy_file_range", little)
    noise, page = os.urandom(64 * KiB), 4 * KiB
    with (tmp_path / "from").open("w+b") as source, (tmp_path / "to").open("w+b") as target:
        for at, length in ((0, 3 * page), (8 * page, 4 * page)):
            os.pwrite(source.fileno(), noise[at : at + length], at)
        os.pwrite(target.fileno(), b"x" * 16 * page, 0)
        smaller._copy(source.fileno(), target.fileno(), Extent(page, 10 * page), page // 2)
        found = os.pread(target.fileno(), 16 * page, 0)
    wanted = bytearray(b"x" * 16 * page)
    wanted[page // 2 : page // 2 + 2 * page] = noise[page : 3 * page]
    start = page // 2 + 7 * page
    wanted[start : start + 3 * page] = noise[8 * page : 11 * page]
    assert found == wanted


def test_what_is_a_hole_in_the_smaller_filesystem_is_no_old_content(
    image: HeldFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that the tools fill with zeros become holes."""
    make, hole = smaller._make_small, 512 * KiB

    def make_with_hole(small: int, name: str) -> None:
        make(small, name)
        words = ["fallocate", "--punch-hole", "-o", str(hole), "-l", "64KiB", f"/dev/fd/{small}"]
        run(words, inherit=[small])

    place = ROOT.extent.offset + hole
    os.pwrite(image.fd, b"x" * 64 * KiB, place)
    monkeypatch.setattr(smaller, "_make_small", make_with_hole)
    shrink(image, replace(ROOT, name="p1"))
    assert image.read(place, 64 * KiB) == bytes(64 * KiB)


def test_one_that_is_full_keeps_its_size(image: HeldFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller, "_make_small", lambda *_: None)
    before = image.names.partial.read_bytes()
    assert shrink(image, replace(ROOT, name="p1")) == SIZE
    assert image.names.partial.read_bytes() == before
    state = RescueMap.parse(image.names.partial_map.read_bytes())
    assert state.having(BlockState.SAVED).total_bytes == SIZE


@pytest.mark.parametrize("spoilt", [1, 2])
def test_what_the_tools_have_spoilt_is_not_put_back(
    image: HeldFile, monkeypatch: pytest.MonkeyPatch, spoilt: int
) -> None:
    """Neither after the first time nor after the second."""
    sizes = []

    def run_and_spoil(words: Sequence[str], **named: Any) -> object:
        done = run(words, **named)
        if words[0] == "resize2fs":
            sizes.append(words[-1])
            if len(sizes) == spoilt:
                os.pwrite(named["inherit"][0], bytes(64 * KiB), 0)
        return done

    monkeypatch.setattr(smaller, "run", run_and_spoil)
    before = image.names.partial.read_bytes()
    with pytest.raises(ToolFailed, match="e2fsck"):
        shrink(image, replace(ROOT, name="p1"))
    assert len(sizes) == spoilt
    assert image.names.partial.read_bytes() == before


def test_a_filesystem_that_is_damaged_is_left_as_it_is(image: HeldFile) -> None:
    data = bytearray(image.names.partial.read_bytes())
    data[ROOT.extent.offset + 1024 :] = bytes(64 * KiB)
    image.names.partial.write_bytes(data)
    with pytest.raises(CardIOError, match="p1 cannot be made smaller: e2fsck"):
        shrink(image, replace(ROOT, name="p1"))
    assert image.names.partial.read_bytes() == data
