"""``read`` as a person types it, on images of cards with real filesystems."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from imager.base.run import run as run_tool
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.cli.main import run
from imager.disk.bmap import parse_bmap
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent
from imager.disk.mbr import parse
from imager.disk.rescue_map import BlockState, RescueMap
from imager.disk.table import read_table
from tests.support.workplace import Said

pytestmark = pytest.mark.image

SIZE = 64 * MiB
ROOT = 24 * MiB
ROOT_BYTES = 36 * MiB
DOS = "label: dos\nstart=2048, size=40960, type=c\nstart=49152, size=73728, type=83\n"
GPT = DOS.replace("label: dos", "label: gpt").replace("type=c", "type=U").replace("type=83", "")
LOGICAL = """label: dos
start=2048, size=40960, type=c
start=43008, type=5
start=45056, size=2048, type=83
start=49152, size=73728, type=83
"""
"""The ext4 is the second of two logical partitions, and the extended one reaches further."""
BIG = os.urandom(3 * MiB)


Typed = Callable[..., Said]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    def typing(*words: str | Path) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(code, said.out, said.err)

    return typing


def made_card(folder: Path, script: str = DOS) -> Path:
    """A FAT and an ext4 with files, leftovers where nothing lies, and behind the partitions too."""
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("pi7\n")
    (tree / "big").write_bytes(BIG)
    boot, root, card = folder / "boot", folder / "root", folder / "card.img"
    run_tool(["mkfs.vfat", "-C", "-F", "16", "-s", "2", boot, "20480"])
    run_tool(["mcopy", "-i", boot, tree / "etc" / "hostname", "::/"])
    run_tool(["mke2fs", "-q", "-t", "ext4", "-d", tree, root, f"{ROOT_BYTES // KiB}k"])
    card.write_bytes(b"\x5a" * SIZE)
    with card.open("r+b") as file:
        file.write(bytes(MiB))
        file.seek(SIZE - MiB)
        file.write(bytes(MiB))
    run_tool(["sfdisk", "--quiet", card], stdin=script.encode())
    for part, at in ((boot, MiB), (root, ROOT)):
        run_tool(["dd", f"if={part}", f"of={card}", "bs=1M", f"seek={at // MiB}", "conv=notrunc"])
    return card


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_card(tmp_path_factory.mktemp("card"))


def part_of(image: Path, folder: Path, at: int, length: int) -> Path:
    """One filesystem of an image, as a file of its own."""
    with image.open("rb") as file:
        file.seek(at)
        (folder / "part").write_bytes(file.read(length))
    return folder / "part"


def assert_is_the_card(image: Path, folder: Path, root_bytes: int = ROOT_BYTES) -> None:
    boot = part_of(image, folder, MiB, 20 * MiB)
    assert run_tool(["mcopy", "-i", boot, "::/hostname", "-"]).stdout == b"pi7\n"
    root = part_of(image, folder, ROOT, root_bytes)
    assert run_tool(["e2fsck", "-fn", root]).returncode == 0
    assert run_tool(["debugfs", "-R", "cat big", root]).stdout == BIG


def test_a_saved_card_is_the_card_in_all_that_counts(
    card: Path, tmp_path: Path, typed: Typed
) -> None:
    image = tmp_path / "saved.img"
    before = hashlib.sha256(card.read_bytes()).digest()
    said = typed("read", card, image, "--json", "--verify")
    assert said.code == 0
    assert_is_the_card(image, tmp_path)
    assert image.stat().st_size == SIZE
    assert image.stat().st_blocks * 512 < 20 * MiB
    assert image.read_bytes()[62 * MiB :] == bytes(2 * MiB)  # behind the last partition
    assert [stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.glob("saved*"))] == [
        0o600,
        0o600,
    ]
    assert not [*tmp_path.glob(".saved*")]
    assert hashlib.sha256(card.read_bytes()).digest() == before

    bmap = parse_bmap((tmp_path / "saved.img.bmap").read_bytes())
    assert bmap.mapped_bytes == said.result["mapped_bytes"] == said.result["in_use_bytes"]
    data = image.read_bytes()
    for one in bmap.ranges:
        assert hashlib.sha256(data[one.extent.offset : one.extent.end]).digest() == one.digest
    sums = hashlib.sha256((tmp_path / "saved.img.bmap").read_bytes()).hexdigest()
    assert said.result["bmap_sha256"] == sums


@pytest.mark.parametrize(("suffix", "unpack"), [("zst", "zstd"), ("xz", "xz"), ("gz", "gzip")])
def test_a_packed_image_is_the_same_packed(
    tmp_path: Path, typed: Typed, suffix: str, unpack: str
) -> None:
    (tmp_path / "small").mkdir()
    card = tmp_path / "small" / "card.img"
    run_tool(["mke2fs", "-q", "-t", "ext4", card, "6m"])
    plain, packed = tmp_path / "saved.img", tmp_path / f"packed.img.{suffix}"
    typed("read", card, plain)
    said = typed("read", card, packed, "--json")
    assert said.result["sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert run_tool([unpack, "-dc", packed]).stdout == plain.read_bytes()
    ours = {path.name.replace("packed.img." + suffix, "saved.img") for path in tmp_path.iterdir()}
    assert ours == {"saved.img", "saved.img.bmap", "small"}
    assert (tmp_path / "saved.img.bmap").read_bytes() == Path(f"{packed}.bmap").read_bytes()


@pytest.mark.parametrize(("script", "number"), [(DOS, 2), (GPT, 2), (LOGICAL, 6)])
def test_an_image_made_smaller_is_whole_and_its_table_fits(
    tmp_path: Path, typed: Typed, script: str, number: int
) -> None:
    card, image = made_card(tmp_path, script), tmp_path / "saved.img"
    said = typed("read", card, image, "--shrink", "--json")
    assert said.code == 0, said.err
    size = image.stat().st_size
    assert size == said.result["image_bytes"]
    assert size < 40 * MiB
    data = image.read_bytes()
    table = read_table(lambda at, length: data[at : at + length], size)
    assert (table.gpt is not None) == (script is GPT) and not table.gpt_fault
    last = table.partition(number)
    assert last is not None and last.extent.end <= size
    if script is LOGICAL:
        assert table.mbr.partitions[1].extent.end == size
        first = 43008 * SECTOR_BYTES
        leads_on = parse(data[first : first + SECTOR_BYTES]).partitions[1]
        assert first + leads_on.extent.end == size
    assert_is_the_card(image, tmp_path, last.extent.length)
    told = run_tool(["sfdisk", "--verify", image])
    assert b"No errors detected" in told.stdout and not told.stderr
    bmap = parse_bmap(Path(f"{image}.bmap").read_bytes())
    assert bmap.size_bytes == size
    assert all(
        hashlib.sha256(data[one.extent.offset : one.extent.end]).digest() == one.digest
        for one in bmap.ranges
    )


def test_what_an_extended_partition_lies_behind_is_not_made_smaller(
    tmp_path: Path, typed: Typed
) -> None:
    card = tmp_path / "card.img"
    card.write_bytes(bytes(12 * MiB))
    table = b"label: dos\nstart=2048, size=8192, type=83\nstart=12288, type=5\n"
    run_tool(["sfdisk", "--quiet", card], stdin=table)
    run_tool(["mke2fs", "-q", "-t", "ext4", "-E", f"offset={MiB}", card, "4m"])
    said = typed("read", card, tmp_path / "saved.img", "--shrink")
    assert said.code == 2 and "what lies behind it counts too" in said.err


@pytest.mark.parametrize("entry", [0, 1])
def test_a_partition_of_type_00_is_saved(
    card: Path, tmp_path: Path, typed: Typed, entry: int
) -> None:
    own = Path(shutil.copy(card, tmp_path / "own.img"))
    poke(own, 446 + 16 * entry + 4, b"\0")
    said = typed("read", own, tmp_path / "saved.img")
    assert said.code == 0 and "p1: FAT16" in said.err and "p2: ext4" in said.err
    assert_is_the_card(tmp_path / "saved.img", tmp_path)


def test_a_partition_that_the_table_has_lost_is_saved_and_told(
    card: Path, tmp_path: Path, typed: Typed
) -> None:
    own = Path(shutil.copy(card, tmp_path / "own.img"))
    poke(own, 446 + 16, bytes(16))
    said = typed("read", own, tmp_path / "saved.img")
    assert said.code == 0
    assert f"all behind the last partition too: ext4 begins at byte {ROOT}" in said.err
    assert_is_the_card(tmp_path / "saved.img", tmp_path)
    assert typed("read", own, tmp_path / "small.img", "--shrink").code == 2
    told = typed("clone", own, tmp_path / "copy.img", "--dry-run")
    assert f"ext4 begins at byte {ROOT}" in told.err


def poke(card: Path, at: int, data: bytes) -> None:
    with card.open("r+b") as file:
        file.seek(at)
        file.write(data)


def with_journal(card: Path, folder: Path) -> None:
    """Leave a file's new content in the journal only, as a card that lost power has it."""
    root = part_of(card, folder, ROOT, ROOT_BYTES)
    (block,) = (
        int(word)
        for word in run_tool(["debugfs", "-R", "blocks etc/hostname", root]).stdout.split()
    )
    (folder / "new").write_bytes(b"new\n".ljust(1024, b"\0"))
    script = f"journal_open\njournal_write -b {block} {folder}/new\njournal_close\n"
    (folder / "commands").write_text(script)
    run_tool(["debugfs", "-w", "-f", folder / "commands", root])
    with card.open("r+b") as file:
        file.seek(ROOT)
        file.write(root.read_bytes())


def hostname_in(image: Path, folder: Path) -> bytes:
    return run_tool(
        ["debugfs", "-R", "cat etc/hostname", part_of(image, folder, ROOT, ROOT_BYTES)]
    ).stdout


def test_a_journal_stays_as_it_is_unless_it_is_asked_for(
    card: Path, tmp_path: Path, typed: Typed
) -> None:
    own = Path(shutil.copy(card, tmp_path / "own.img"))
    with_journal(own, tmp_path)
    kept = typed("read", own, tmp_path / "kept.img")
    assert "its journal is not replayed" in kept.err
    assert hostname_in(tmp_path / "kept.img", tmp_path) == b"pi7\n"
    done = typed("read", own, tmp_path / "done.img", "--replay", "--json")
    assert done.code == 0, done.out
    assert done.result["replayed"] == ["p2"]
    assert hostname_in(tmp_path / "done.img", tmp_path) == b"new\n"
    data = (tmp_path / "done.img").read_bytes()
    assert not Ext4.open(lambda at, length: data[at : at + length], ROOT).needs_recovery


def test_looking_writes_nothing(card: Path, tmp_path: Path, typed: Typed) -> None:
    said = typed("read", card, tmp_path / "saved.img", "--dry-run")
    assert said.code == 0 and "p2: ext4" in said.err
    assert "nothing was written" in said.out
    assert not [*tmp_path.iterdir()]


def test_a_name_that_is_taken_is_left_alone(card: Path, tmp_path: Path, typed: Typed) -> None:
    image = tmp_path / "saved.img"
    image.write_text("mine")
    said = typed("read", card, image)
    assert said.code == 20 and f"{image} exists" in said.err
    assert image.read_text() == "mine" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("name", ["saved", "saved.img.bz2", ".img", "saved.raw"])
def test_a_name_says_what_the_file_is_to_be(
    card: Path, tmp_path: Path, typed: Typed, name: str
) -> None:
    said = typed("read", card, tmp_path / name)
    assert said.code == 2 and "ends in .img" in said.err


def test_what_is_no_card_is_refused(tmp_path: Path, typed: Typed) -> None:
    for source in (tmp_path, tmp_path / "missing.img", Path("/dev/null")):
        said = typed("read", source, tmp_path / "saved.img")
        assert said.code == 20, said.err
    assert not [*tmp_path.iterdir()]


def half_done(card: Path, folder: Path, typed: Typed, name: str = "saved.img") -> Path:
    """The image as a run leaves it that was killed when half was read: its map calls the rest not
    tried, and it holds something else there."""
    image = folder / name
    typed("read", card, image)
    partial = folder / f".{name}.partial"
    image.rename(partial)
    return partial


def test_a_run_goes_on_with_what_another_one_left(card: Path, tmp_path: Path, typed: Typed) -> None:
    partial = half_done(card, tmp_path, typed)
    state = RescueMap(SIZE)
    state.put(Extent(0, 26 * MiB), BlockState.SAVED)
    Path(f"{partial}.map").write_bytes(state.encode())
    with partial.open("r+b") as file:
        file.truncate(26 * MiB)
    said = typed("read", card, tmp_path / "saved.img", "--json")
    assert said.result["went_on"] is True
    (phase,) = cast(list[dict[str, int]], said.result["phases"])
    assert phase["bytes"] < cast(int, said.result["in_use_bytes"]) - 4 * MiB
    assert_is_the_card(tmp_path / "saved.img", tmp_path)


def test_a_run_does_not_go_on_with_another_card(card: Path, tmp_path: Path, typed: Typed) -> None:
    """Nor with this one after it was in use: its superblock says so."""
    partial = half_done(card, tmp_path, typed)
    state = RescueMap(SIZE, ["card: 000000000000 - 111111111111"])
    state.put(Extent(0, MiB), BlockState.SAVED)
    Path(f"{partial}.map").write_bytes(state.encode())
    said = typed("read", card, tmp_path / "saved.img")
    assert said.code == 20 and "another card" in said.err
    assert "rm " in said.err
    Path(f"{partial}.map").write_bytes(RescueMap(SIZE - 512).encode())
    assert "card of" in typed("read", card, tmp_path / "saved.img").err


def test_ddrescue_s_map_beside_an_image_is_gone_on_with(
    card: Path, tmp_path: Path, typed: Typed
) -> None:
    image = tmp_path / "saved.img"
    shutil.copy(card, image)
    with image.open("r+b") as file:
        file.seek(ROOT)
        file.write(bytes(MiB))
    state = RescueMap(SIZE)
    state.put(Extent(0, SIZE), BlockState.SAVED)
    state.put(Extent(ROOT, MiB), BlockState.BAD)
    Path(f"{image}.map").write_bytes(state.encode())
    warned = typed("write", tmp_path / "other.img", "--image", image, "--dry-run", "--json")
    assert warned.result["lacks_bytes"] == MiB and "is not whole" in warned.out
    other = tmp_path / "other"
    other.mkdir()
    (other / "saved.img.map").write_text("torn")
    shutil.copy(image, other)
    torn = typed("write", tmp_path / "other.img", "--image", other / "saved.img", "--dry-run")
    assert "whether" in torn.err and "is whole cannot be told" in torn.err
    said = typed("read", card, image, "--json")
    assert said.code == 0, said.err
    assert not Path(f"{image}.map").exists()
    assert_is_the_card(image, tmp_path)
