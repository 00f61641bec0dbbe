"""``clone`` on disks: to several at once, of which one fails, or all are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imager.base.run import run as run_tool
from imager.base.units import KiB, MiB
from imager.card.save.original import opened_original
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import Delta
from tests.support.faultcard import Fault, FaultCard, fault_card, why_not
from tests.support.loop import Loop, loop_over, missing_abilities, mounted, sized_file
from tests.support.workplace import Said

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

SIZE = 64 * MiB
ROOT, ROOT_BYTES = 8 * MiB, 40 * MiB
JUNK = b"\x5a" * 4096


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A card with an ext4 of which 12 MiB are in use, and nothing behind it."""
    folder = tmp_path_factory.mktemp("source")
    tree, card = folder / "tree", folder / "card.img"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(10 * MiB))
    sized_file(card, SIZE)
    table = f"label: dos\nstart={ROOT // 512}, size={ROOT_BYTES // 512}, type=83\n"
    run_tool(["sfdisk", "--quiet", card], stdin=table.encode())
    options = ["-q", "-t", "ext4", "-E", f"offset={ROOT}", "-d", str(tree)]
    run_tool(["mke2fs", *options, card, f"{ROOT_BYTES // KiB}k"])
    with loop_over(card) as loop:
        yield loop


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[list[Loop]]:
    """Three that were in use before; one is larger and one as small as can be."""
    sizes = (SIZE, SIZE + 8 * MiB, ROOT + ROOT_BYTES)
    with ExitStack() as stack:
        files = [sized_file(tmp_path / f"{size}.card", size, JUNK) for size in sizes]
        yield [stack.enter_context(loop_over(file)) for file in files]


def words(tmp_path: Path, *given: str | Path) -> tuple[list[str], dict[str, str]]:
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(tmp_path / "home"),
        "PICLOUD_CACHE": str(tmp_path / "cache"),
    }
    line = [sys.executable, "-m", "imager", "clone", *map(str, given)]
    return [*line, "--yes", "--allow-fixed-disk", "--no-probe", "--json"], environment


def clone(tmp_path: Path, *given: str | Path) -> Said:
    line, environment = words(tmp_path, *given)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    return Said(done.returncode, done.stdout, done.stderr)


def in_use(source: Loop) -> ExtentMap:
    with opened_original(source.node) as original:
        return original.extents


def is_copy(source: Loop, card: Path, extents: ExtentMap) -> bool:
    with source.node.open("rb") as first, card.open("rb") as second:
        return all(
            os.pread(first.fileno(), part.length, part.offset)
            == os.pread(second.fileno(), part.length, part.offset)
            for part in extents.split(MiB)
        )


def is_blank(card: Path) -> bool:
    with card.open("rb") as file:
        return not any(file.read(MiB))


def test_three_cards_of_other_sizes_become_copies(
    source: Loop, cards: list[Loop], tmp_path: Path
) -> None:
    said = clone(tmp_path, source.node, *(card.node for card in cards))
    assert said.code == 0, said.err
    assert said.result["verified"] == [str(card.node) for card in cards]
    extents = in_use(source)
    assert all(is_copy(source, card.node, extents) for card in cards)
    names = {one["receipt"] for one in said.result["cards"]}
    assert len(names) == len(cards)
    for card in cards:
        run_tool(["e2fsck", "-fn", f"{card.node}?offset={ROOT}"])
        with card.node.open("rb") as disk:
            disk.seek(ROOT + ROOT_BYTES - 8192)
            assert disk.read(4096) == bytes(4096), "a label of RAID might be left there"
    written = {one["phases"]["write"]["bytes"] for one in said.result["cards"]}
    assert max(written) < 26 * MiB, "what nobody reads is not written"


def test_what_is_changed_in_a_copy_is_read_in_whole_blocks(source: Loop) -> None:
    with opened_original(source.node) as original:
        changed = replace(original, delta=Delta([(ROOT - 1536, b"x" * 512)]))
        assert all(e.offset % 4096 == e.length % 4096 == 0 for e in changed.extents)
        with changed.read(SIZE) as reading:
            found = [
                bytes(data[ROOT - 1536 - offset :][:512])
                for offset, data in reading.pieces()
                if offset <= ROOT - 1536 < offset + len(data)
            ]
    assert found == [b"x" * 512]


@pytest.mark.long(minutes=1)
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_one_that_fails_drops_out_and_the_others_go_on(
    source: Loop, cards: list[Loop], tmp_path: Path
) -> None:
    with fault_card(tmp_path / "bad", SIZE) as bad:
        bad.arm([Fault("eio", Extent(ROOT + 2 * MiB, MiB), ("any",))])
        bad.phase("any")
        said = clone(tmp_path, source.node, cards[0].node, bad.node, cards[1].node)
        assert said.code == 30, said.err
        assert said.result["verified"] == [str(cards[0].node), str(cards[1].node)]
        (failed,) = (one for one in said.result["cards"] if not one["verified"])
        assert (failed["target"], failed["outcome"]) == (str(bad.node), "io-error")
        assert "visibly blank" in " ".join(failed["details"])
        assert not any(bad.holds(0, MiB))
    extents = in_use(source)
    assert all(is_copy(source, card.node, extents) for card in cards[:2])


@pytest.mark.long(minutes=1)
@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_in_the_middle_every_card_is_blank(
    source: Loop, tmp_path: Path, number: int
) -> None:
    with fault_card(tmp_path / "a", SIZE) as slow, fault_card(tmp_path / "b", SIZE) as other:
        for card in (slow, other):
            with card.store.open("r+b") as file:
                file.write(JUNK * 256)
            card.set_speed(write_bps=4e6)
        line, environment = words(tmp_path, source.node, slow.node, other.node)
        seen = run_until(line, environment, slow, number)
        assert [card.holds(0, MiB).strip(b"\0") for card in (slow, other)] == [b"", b""]
    if number == signal.SIGINT:
        assert seen["exit_code"] == 130
        assert {one["outcome"] for one in seen["cards"]} == {"interrupted"}


def run_until(
    line: list[str], environment: dict[str, str], slow: FaultCard, number: int
) -> dict[str, Any]:
    """The last thing that is said when the signal ``number`` comes while ``slow`` is written."""
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        event: dict[str, Any] = {}
        for text in process.stdout:
            event = json.loads(text)
            if event.get("done_bytes", 0) > 2 * MiB and event["target"] == str(slow.node):
                process.send_signal(number)
                break
        for text in process.stdout:
            event = json.loads(text)
        return event


def test_a_source_in_use_and_a_small_target_are_refused_before_anything_is_written(
    source: Loop, cards: list[Loop], tmp_path: Path
) -> None:
    small = sized_file(tmp_path / "small.card", ROOT + ROOT_BYTES - MiB, JUNK)
    with loop_over(small) as little:
        said = clone(tmp_path, source.node, cards[0].node, little.node)
        assert said.code == 20
        assert "1048576 bytes short" in said.out
        assert f"picloud-image read {source.node} smaller.img --shrink" in said.out
        assert not is_blank(little.node)
        assert not is_blank(cards[0].node)
    where = tmp_path / "mounted"
    where.mkdir()
    with mounted(source.partition_nodes()[0], where):
        said = clone(tmp_path, source.node, cards[0].node)
    assert said.code == 20
    assert "changes while it is read" in said.out
    assert clone(tmp_path, source.node, Path(os.path.realpath(source.node))).code == 2
