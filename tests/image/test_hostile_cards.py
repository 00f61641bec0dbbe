"""No card, whoever made it, costs ``inspect`` or ``verify`` more than 10 s or 300 MiB.

Each card is made here, a few MB at most on disk, and the real command is run on it; what is counted
is the time its processor was busy and the most memory it held. None of them ends in 70. A quarter
of them, drawn by chance, are tried; ``--all`` tries all.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import random
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from pathlib import Path

import pytest

from imager.base.units import GiB, MiB
from imager.disk.ext4.filesystem import Ext4
from imager.disk.layout import Layout
from imager.node.stamp.stamp import STAMP_AREA
from tests.support.bootfiles import minimal_boot_files
from tests.support.hostile import (
    END,
    Cost,
    HostileFat,
    make_ext4,
    measured,
    nested,
    record,
    with_files,
)
from tests.support.sampling import a_part_of
from tests.support.stamps import DOCUMENT, by_hand

pytestmark = pytest.mark.image

SECONDS, PEAK_BYTES = 20, 300 * MiB
"""10 s on a quiet computer. On one whose processors are all busy the same work was seen to take
twice the processor time."""
BASE = minimal_boot_files("pi2")
INITRAMFS = "initramfs-linux.img"
LARGE = 5_000_000
"""Clusters of the largest FAT that is read."""

MadeBy = Callable[[Path], object]


def within_limits(cost: Cost, *codes: int) -> None:
    assert cost.code in codes, cost.err
    assert "Traceback" not in cost.err
    assert cost.seconds < SECONDS
    assert cost.peak_bytes < PEAK_BYTES
    assert all(line.isprintable() for line in (cost.out + cost.err).splitlines())


# -- inspect: the boot partition -------------------------------------------------------------------


def _nested(path: Path) -> None:
    fat = with_files(BASE, clusters=120_000)
    nested(fat, "n" * 250, 4000)
    fat.write(path)


def _broken_chains(path: Path) -> None:
    fat = with_files(BASE, clusters=200_000)
    for number in range(3):
        first = 110_000 + 22_000 * number
        fat.folder(f"d{number}", b"".join(record(f"{n:x}", first + n, 700) for n in range(21_000)))
    fat.write(path)


def _fragments(path: Path) -> None:
    fat = with_files(BASE, clusters=LARGE)
    start = 200_000
    fat.table[start::2] = array("I", [*range(start + 2, LARGE + 1, 2), END])
    fat.root += record("fragments.bin", start, 4_000_000_000)
    fat.write(path)


def _almost_straight(path: Path) -> None:
    """20,000 files say they are most of the card, in a row, and are not by one cluster."""
    fat = with_files(BASE, clusters=LARGE)
    start, end = 200_000, LARGE + 2
    fat.table[start:] = array("I", range(start + 1, end + 1))
    fat.table[-1], fat.table[-3] = END, 5
    records = (record(f"{n:x}", start + n, (end - start - n) * 512) for n in range(20_000))
    fat.folder("d", b"".join(records))
    fat.write(path)


def _lost_clusters(path: Path) -> None:
    fat = with_files(BASE, clusters=LARGE)
    fat.table[200_000::2] = array("I", [END]) * len(fat.table[200_000::2])
    fat.write(path)


def _long_names(path: Path) -> None:
    fat = with_files(BASE, clusters=600_000)
    for number in range(8):
        names = (record(f"{n:x}" + "x" * 120, 0, 0) for n in range(5900))
        fat.folder(f"{number}" + "x" * 120, b"".join(names))
    fat.write(path)


def _crossed_in_the_depth(path: Path) -> None:
    """Every fault has a path of nearly 4 KiB in it, twice."""
    fat = with_files(BASE, clusters=300_000)
    shared = fat.claim(b"x" * 512)
    inner = b"".join(record(f"{n:x}", shared, 512) for n in range(20_000))
    for _ in range(15):
        inner = record("n" * 250, fat.claim(inner), 0, is_dir=True)
    fat.root += inner
    fat.write(path)


FILESYSTEMS: Mapping[str, MadeBy] = {
    "4,000 folders of 250 letters within each other": _nested,
    "63,000 broken chains": _broken_chains,
    "a file in 2.4 million pieces": _fragments,
    "20,000 files of 2.5 GB on the same clusters": _almost_straight,
    "2.4 million lost clusters": _lost_clusters,
    "names of 11 MB": _long_names,
    "20,000 crossed files with paths of 4 KiB": _crossed_in_the_depth,
}


def test_a_fat_that_asks_for_too_much(tmp_path: Path, name: str) -> None:
    card = tmp_path / "card.img"
    FILESYSTEMS[name](card)
    cost = measured("inspect", card)
    within_limits(cost, 25)
    assert cost.out.count("\n    why: ") <= 200
    assert "[not-looked-at]" in cost.out or " more findings like these" in cost.out
    within_limits(measured("read", card, tmp_path / "saved.img", "--dry-run"), 0)


# -- inspect: the files of the boot partition ------------------------------------------------------


def _gzip_bomb(size_bytes: int) -> bytes:
    """A gzip stream of zeros, put together from one flushed MiB of them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
    once = packer.compress(bytes(MiB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + once * (size_bytes // MiB) + packer.flush()


def _initramfs(content: Callable[[], bytes], size: int | None = None) -> MadeBy:
    """Made when it is needed: every process of the tests reads this file."""

    def made(path: Path) -> None:
        files = {name: data for name, data in BASE.items() if name != INITRAMFS}
        fat = with_files(files, clusters=400_000)
        fat.put(INITRAMFS, content(), size)
        fat.write(path)

    return made


def _text(name: str, content: bytes, **others: bytes) -> MadeBy:
    def made(path: Path) -> None:
        files = {**BASE, **{f"{key}.txt": data for key, data in others.items()}, name: content}
        with_files(files).write(path)

    return made


def _kernels(path: Path) -> None:
    bomb = _gzip_bomb(4 * GiB)
    files = {**minimal_boot_files("pi3"), "kernel8.img": bomb, "kernel7.img": bomb}
    with_files(files).write(path)


def _everything_huge(path: Path) -> None:
    fat = HostileFat(clusters=2_000_000, per_cluster=4)
    for name in ("config.txt", "cmdline.txt"):
        fat.put(name, BASE[name])
    starts = ("start.elf", "start_x.elf", "start_cd.elf", "start_db.elf")
    for name in (*starts, "kernel7.img", "kernel8.img", INITRAMFS, "bootcode.bin"):
        fat.put(name, BASE.get(name, b"\x7fELF")[:64], 90 * MiB)
    fat.put("fixup.dat", b"\2" * (20 * MiB))
    head = struct.pack(">10I", 0xD00DFEED, 60 * MiB, 40, 30 * MiB, 0, 17, 0, 0, 20 * MiB, 20 * MiB)
    fat.put("bcm2709-rpi-2-b.dtb", head + b"\0\0\0\4" * (5 * MiB), 60 * MiB)
    fat.write(path)


def _listed(path: Path) -> None:
    lines = b"".join(b"%064x  f%06d\n" % (n, n) for n in range(14_000))
    fat = with_files(BASE)
    fat.folder("picloud", record("SHA256SUMS", fat.claim(lines), len(lines)))
    fat.write(path)


def _cpio_header(*, size: bytes = b"00000000") -> bytes:
    return b"070701" + b"0" * 48 + size + b"0" * 32 + b"00000001" + b"0" * 8 + b"a\0"


FILES: Mapping[str, MadeBy] = {
    "config.txt of 8 MB": _text("config.txt", b"x\n" * 4_000_000),
    "config.txt that includes itself": _text("config.txt", b"include config.txt\nx\n" * 3000),
    "40 includes of 64 KiB": _text(
        "config.txt",
        b"".join(b"include %d.txt\n" % n for n in range(40)),
        **{str(n): b"dtoverlay=a%d\n" % n * 4500 for n in range(40)},
    ),
    "cmdline.txt of 8 MB": _text("cmdline.txt", b'root="' * 1_400_000),
    "a bzip2 bomb of 0.1 KB": _initramfs(lambda: bz2.compress(bytes(64 * MiB))),
    "an xz bomb": _initramfs(lambda: lzma.compress(bytes(512 * MiB), preset=0)),
    "a gzip bomb of 4 GiB": _initramfs(lambda: _gzip_bomb(4 * GiB)),
    "slow bzip2": _initramfs(lambda: bz2.compress(random.Random(1).randbytes(MiB)) * 24),
    "30 million empty zstd blocks": _initramfs(lambda: b"\x28\xb5\x2f\xfd\0\0", 90 * MiB),
    "a cpio that leads back": _initramfs(lambda: _cpio_header(size=b"-000006c").ljust(900, b"\0")),
    "a cpio of 400,000 names": _initramfs(lambda: _cpio_header() * 400_000),
    "gzip bombs as kernels": _kernels,
    "every file huge": _everything_huge,
    "SHA256SUMS of 14,000 lost files": _listed,
}


def test_a_file_that_asks_for_too_much(tmp_path: Path, name: str) -> None:
    card = tmp_path / "card.img"
    FILES[name](card)
    cost = measured("inspect", card, "--json")
    within_limits(cost, 25)
    result = json.loads(cost.out.splitlines()[-1])
    assert len(result["findings"]) <= 200


def test_one_budget_is_for_all_files_together(tmp_path: Path) -> None:
    """Each of the two bombs alone would be within it."""
    bomb = _gzip_bomb(300 * MiB)
    files = {**BASE, "kernel7.img": bomb, INITRAMFS: bomb}
    with_files(files).write(tmp_path / "card.img")
    cost = measured("inspect", tmp_path / "card.img")
    within_limits(cost, 25)
    assert "unpack to more than 512 MiB: not looked at further" in cost.out


# -- inspect and verify: the root filesystem -------------------------------------------------------


def _with_root(
    path: Path, *commands: str, options: tuple[str, ...] = ("-N", "20000"), mib: int = 64
) -> Layout:
    layout = with_files(BASE).write(path, root_bytes=mib * MiB)
    make_ext4(path, layout, commands, *options)
    return layout


def _deep_root(path: Path) -> Layout:
    name = "n" * 20
    return _with_root(path, *islice(cycle([f"mkdir {name}", f"cd {name}"]), 12_000))


def _many_pythons(path: Path) -> Layout:
    folders = (f"mkdir python3.{n}" for n in range(6000))
    return _with_root(path, "mkdir usr", "mkdir usr/lib", "cd usr/lib", *folders)


def _sparse(path: Path) -> Layout:
    """300 files of 4 GiB that are holes."""
    content = path.with_suffix(".content")
    content.write_bytes(b"x")
    each = ((f"write {content} f{n}", f"sif f{n} size {4 * GiB}") for n in range(300))
    return _with_root(path, *(command for both in each for command in both))


def _one_content(path: Path) -> Layout:
    """3,000 files of 30 MB, all on the same blocks."""
    content = path.with_suffix(".content")
    content.write_bytes(b"x" * (30 * MiB))
    pairs = ((f"copy_inode <12> <{n}>", f"link <{n}> f{n}") for n in range(13, 3000))
    copies = (command for pair in pairs for command in pair)
    options = ("-N", "20000", "-O", "^metadata_csum")
    layout = _with_root(path, f"write {content} f", *copies, options=options)
    _use_every_inode(path, layout)
    return layout


def _no_file_is_whole(path: Path) -> Layout:
    """Hundreds of thousands of inodes of 1 KiB, none of which fits its checksum."""
    layout = _with_root(path, options=("-N", "300000", "-I", "1024"), mib=1024)
    _use_every_inode(path, layout, b"\xa4\x81" + bytes(1022))
    return layout


def _one_table(path: Path) -> Layout:
    """All groups share the inode table of the first."""
    layout = _with_root(path, options=("-N", "200000", "-O", "^metadata_csum,^64bit"), mib=1024)
    with path.open("r+b") as file:
        file.seek(layout.root.offset + 4096)
        table = bytearray(file.read(4096))
        for at in range(32, 32 * 8, 32):
            table[at + 8 : at + 12] = table[8:12]
        file.seek(layout.root.offset + 4096)
        file.write(table)
    return layout


def _use_every_inode(path: Path, layout: Layout, inode: bytes = b"") -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        filesystem = Ext4.open(lambda at, n: os.pread(descriptor, n, at), layout.root.offset)
        at, size = layout.root.offset, filesystem.block_size
        superblock = filesystem._volume.superblock
        table, step = (superblock.first_data_block + 1) * size, superblock.desc_size
        for number, group in enumerate(filesystem._volume.groups):
            os.pwrite(descriptor, b"\4\0", at + table + number * step + 18)  # zeroed, all in use
            os.pwrite(descriptor, b"\0\0", at + table + number * step + 28)
            os.pwrite(descriptor, b"\xff" * size, at + group.inode_bitmap * size)
            if inode and number:
                per_group = superblock.inodes_per_group
                os.pwrite(descriptor, inode * per_group, at + group.inode_table * size)
    finally:
        os.close(descriptor)


def _stamped(path: Path, layout: Layout, listed: range) -> None:
    """A stamp of a stranger, valid by itself, that says every second MiB is other than it is."""
    document = {
        **DOCUMENT,
        "boot": [layout.boot.offset, layout.boot.length],
        "root": [layout.root.offset, layout.root.length],
        "size_bytes": layout.size_bytes,
        "imaged_at": 4_000_000_000,
    }
    ranges = [(at, 4096) for at in range(0, layout.size_bytes, 2 * MiB)]
    files = [(number, b"abcdefgh") for number in listed]
    with path.open("r+b") as file:
        file.seek(STAMP_AREA.offset)
        file.write(by_hand(document, ranges, [b"w" * 32] * len(ranges), files))


ROOTS: Mapping[str, tuple[Callable[[Path], Layout], range, str]] = {
    "6,000 folders within each other": (_deep_root, range(12, 15_000), "folders within each other"),
    "6,000 Pythons": (_many_pythons, range(12, 15_000), ""),
    "300 holes of 4 GiB": (_sparse, range(12, 312), "unpack to more than 512 MiB"),
    "3,000 files on the same blocks": (_one_content, range(12, 3000), "larger together than"),
    "no inode fits its checksum": (_no_file_is_whole, range(12, 75_000), "takes too long"),
    "all groups share an inode table": (_one_table, range(12, 60_000), "share one inode table"),
}


def test_a_root_filesystem_that_asks_for_too_much(tmp_path: Path, name: str) -> None:
    make, listed, words = ROOTS[name]
    card = tmp_path / "card.img"
    _stamped(card, make(card), listed)
    within_limits(measured("inspect", card), 25)
    cost = measured("verify", card)
    within_limits(cost, 23)
    assert words in cost.err
    within_limits(measured("read", card, tmp_path / "saved.img", "--dry-run"), 0)


def test_a_list_of_boot_files_that_is_one_large_hole(tmp_path: Path) -> None:
    card = tmp_path / "card.img"
    fat = HostileFat(per_cluster=64)
    for name, content in BASE.items():
        fat.put(name, content)
    fat.folder("picloud", record("SHA256SUMS", fat.claim(b"", GiB), GiB))
    layout = fat.write(card)
    make_ext4(card, layout)
    _stamped(card, layout, range(12, 100))
    within_limits(measured("verify", card), 23)
    within_limits(measured("inspect", card), 25)


CUTS = [0, 1, 511, 512, 4096, 5000, MiB, 9 * MiB, 30 * MiB]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    tables = {
        test_a_fat_that_asks_for_too_much: FILESYSTEMS,
        test_a_file_that_asks_for_too_much: FILES,
        test_a_root_filesystem_that_asks_for_too_much: ROOTS,
    }
    whole = metafunc.config.getoption("--all")
    if table := tables.get(metafunc.function):
        names = list(table)
        metafunc.parametrize("name", names if whole else a_part_of(names, 1 / 4))
    if "length" in metafunc.fixturenames:
        metafunc.parametrize("length", CUTS if whole else a_part_of(CUTS, 1 / 4))


# -- what it says ----------------------------------------------------------------------------------

EVIL = "\x1b[2J\x07\u202e\x9b1m"
FORGED = "pi7\n    signed by this rack's key SHA256:AAAA"


def test_nothing_on_a_card_can_move_a_cursor_or_make_a_line(tmp_path: Path) -> None:
    card = tmp_path / "card.img"
    node = json.dumps({"node": FORGED, "escape": EVIL, "lone": "\ud800", "none": float("nan")})
    fat = with_files(
        {
            **BASE,
            "config.txt": f"[{EVIL}]\n{EVIL}\n".encode() + b"\xff\xfe\n",
            "cmdline.txt": f"root={EVIL} rootwait\nsecond {EVIL}\n".encode(),
            f"name {EVIL[3:]}.txt": b"x",
        }
    )
    fat.label = b"\x1b[2J       "
    first = json.dumps({"format": 1, "state": "failed", "note": FORGED, "hint": EVIL}).encode()
    inside = [("node.json", node.encode()), ("firstboot.json", first)]
    inside.append(("SHA256SUMS", b"0" * 64 + b"  gone \x1b[2J\n"))
    fat.folder("picloud", b"".join(record(n, fat.claim(d), len(d)) for n, d in inside))
    layout = fat.write(card)
    hostname = tmp_path / "hostname"
    hostname.write_text(f"{EVIL}\n")
    make_ext4(card, layout, ["mkdir etc", f"write {hostname} etc/hostname"], "-L", "\x1b[31mred")
    cost = measured("inspect", card)
    within_limits(cost, 25)
    assert not any(line.lstrip().startswith("signed by") for line in cost.out.splitlines())
    assert r"\n signed by" in cost.out or r"pi7 signed by" in cost.out
    assert r"\x1b[2J\x07\u202e\x9b1m" in cost.out
    told = measured("inspect", card, "--json")
    within_limits(told, 25)
    for line in told.out.splitlines():
        json.loads(line.encode(), parse_constant=lambda name: pytest.fail(name))


def test_a_card_cut_short_anywhere_is_no_mistake_of_ours(tmp_path: Path, length: int) -> None:
    card = tmp_path / "card.img"
    _stamped(card, _with_root(card), range(12, 100))
    os.truncate(card, length)
    within_limits(measured("inspect", card), 25)
    within_limits(measured("verify", card), 23)


def test_a_plan_looks_at_strangers_images_and_goes_on(tmp_path: Path) -> None:
    """The longest stamp there can be, one of a year nobody has, two with names that are none."""
    rack, images = tmp_path / "rack", tmp_path / "images"
    images.mkdir()
    assert measured("rack", "init", "--rack", rack, "--yes").code == 0
    ranges = [(at, 1) for at in range(0, 20_000 * MiB, MiB)]
    longest = by_hand({**DOCUMENT, "size_bytes": 64 * GiB}, ranges, [b"w" * 32] * len(ranges), [])
    stamps = {
        "pi0": longest,
        "pi1": by_hand({**DOCUMENT, "imaged_at": 1 << 39}),
        "pi2": by_hand({**DOCUMENT, "node": "pi7 signed by this rack's key"}),
        "pi3": by_hand({**DOCUMENT, "rack": "attic,      signed by this rack's key"}),
        "pi4": by_hand(b'{"node":' * 20_000),
        "pi5": by_hand(b'{"node": ' + b"9" * 100_000 + b"}"),
    }
    for node, stamp in stamps.items():
        (images / f"{node}.img").write_bytes(bytes(STAMP_AREA.offset) + stamp.ljust(2 * MiB, b"\0"))
    cost = measured("rack", "plan", "--rack", rack, "--images", images, "pi[0-5]")
    within_limits(cost, 0, 20)
    assert "signed by" not in cost.out
