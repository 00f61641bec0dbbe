"""What the fuzzers begin with: small inputs that the real tools made.

In: an empty folder. Out: bytes that a reader takes without a word. Zeros at the end are cut off, as
``targets.disk`` puts them back: a fuzzer is quick with kilobytes only.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pysequoia import Cert

from imager.base.units import KiB, MiB
from imager.bootcheck.sums import encode_sums
from imager.disk.bmap import Bmap, BmapRange, encode_bmap
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent
from imager.disk.fat.geometry import parse_geometry
from imager.disk.rescue_map import BlockState, RescueMap
from imager.node.image import Delta
from imager.rack.batch.card_progress import Moment
from imager.rack.live.snapshot import LiveCard, LiveEnding, LiveRun, encode_live
from imager.release.openpgp import parse_certificate
from imager.stations.wire.delta import pack_delta
from tests.support.bootfiles import (
    CMDLINE_TXT,
    CONFIG_TXT,
    arm64_image,
    boot_script,
    cpio,
    fixup_dat,
    minimal_boot_files,
    start_elf,
    uboot,
    zimage,
)
from tests.support.carrying import Carrying
from tests.support.fatdisk import make_fat, reader, tool
from tests.support.pacman import package
from tests.support.repository import database_of
from tests.support.signing import SigningKey, make_key, sign_detached
from tests.support.stamps import by_hand
from tests.unit.stations.wire.test_documents import READERS

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ROOT / "tests/data/before_rooms/written.tar.xz"
STAND_IN = ROOT / "scripts/stand-in.d"
NEXT_FILE = b"\n==next file==\n"
"""Between two files of one input."""

_TREE = "tree"


def tables(folder: Path) -> Iterator[bytes]:
    """Partition tables by sfdisk: MBR and GPT."""
    image = folder / "disk"
    for label in ("dos", "gpt"):
        image.write_bytes(bytes(16 * MiB))
        # sfdisk reads what to do from its input, and so from a script here.
        script = folder / "script"
        script.write_text(f"label: {label}\nsize=4MiB, type={'c' if label == 'dos' else 'U'}\n;\n")
        tool("sh", "-c", f"sfdisk --quiet {image} <{script}")
        yield image.read_bytes()[: 34 * 512].rstrip(b"\0")


def fats(folder: Path) -> Iterator[bytes]:
    """FAT12, FAT16 and FAT32 with a folder, long names and a file of several clusters."""
    files = {"config.txt": CONFIG_TXT, "overlays/A long name.dtbo": b"d" * 1500, "ü.txt": b"u"}
    for kind, size_kib in ((12, 64), (16, 2300)):
        image = folder / f"fat{kind}"
        make_fat(image, files, size_kib=size_kib, kind=kind)
        yield image.read_bytes().rstrip(b"\0")
    image = folder / "fat32"
    make_fat(image, {}, size_kib=128, kind=32)
    yield _filled(image.read_bytes()).rstrip(b"\0")


def _filled(empty: bytes) -> bytes:
    """A FAT32 of few clusters, which mcopy takes for a FAT12, given a folder with a file."""
    data = bytearray(empty)
    volume = parse_geometry(empty[:512], 0, len(empty))
    for table in (0, 1):
        at = volume.table(table).offset + 4 * 3
        data[at : at + 12] = struct.pack("<III", 0x0FFFFFFF, 5, 0x0FFFFFFF)
    for cluster, name, kind, first, size in (
        (2, b"OVERLAYS   ", 0x10, 3, 0),
        (3, b"A       DTB", 0x20, 4, 600),
    ):
        at = volume.clusters(cluster, 1).offset + (32 if cluster == 2 else 0)
        data[at : at + 32] = struct.pack("<11sB14xHI", name, kind, first, size)
    return bytes(data)


def tree(folder: Path) -> Path:
    """A few files of every kind."""
    place = folder / _TREE
    (place / "etc").mkdir(parents=True)
    (place / "etc/hostname").write_text("pi7\n")
    (place / "up").mkdir()
    (place / "up/name").symlink_to("../etc/hostname")
    (place / "up/far").symlink_to("./" * 40 + "etc/hostname")
    (place / "linked").hardlink_to(place / "etc/hostname")
    with (place / "holes").open("wb") as file:
        for number in range(6):
            file.seek(number * 4096)
            file.write(b"%d" % number)
    os.mkfifo(place / "pipe")
    return place


_EXT4 = ("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-N", "32", "-m", "0")


def ext4s(folder: Path) -> Iterator[bytes]:
    """ext4 with extents and attributes, and one with the older map of blocks."""
    files = tree(folder)
    for number, features in enumerate(("metadata_csum,64bit", "^extent,^64bit,^metadata_csum")):
        image = folder / f"ext4-{number}"
        words = ("-O", f"^has_journal,^resize_inode,{features}", "-I", "256")
        tool(*_EXT4, *words, "-d", files, image, "512k")
        tool("debugfs", "-w", "-R", "ea_set /etc/hostname user.color blue", image)
        yield image.read_bytes().rstrip(b"\0")


def disks(folder: Path) -> Iterator[bytes]:
    """Filesystems without a table of partitions before them, and tables without filesystems."""
    for name, kind in (("table", tables), ("fat", fats), ("ext4", ext4s)):
        (folder / name).mkdir()
        yield from kind(folder / name)


def gpts(folder: Path) -> Iterator[bytes]:
    """A disk of 128 KiB with two partitions and both copies; and one whose first copy is spoilt."""
    image, script = folder / "disk", folder / "script"
    image.write_bytes(bytes(128 * KiB))
    lines = ("label: gpt", "table-length: 4", "first-lba: 34", "start=40, size=8, name=a")
    script.write_text("\n".join((*lines, "start=48, size=8", "")))
    tool("sh", "-c", f"sfdisk --quiet {image} <{script}")
    whole = image.read_bytes()
    yield whole[: 34 * 512].rstrip(b"\0")
    yield whole[:512] + bytes(512) + whole[1024:]


def sources(folder: Path) -> Iterator[bytes]:
    """The smallest image of a disk in every way of packing."""
    (folder / "fat").mkdir()
    small = next(iter(fats(folder / "fat")))[: 64 * KiB].ljust(64 * KiB, b"\0")
    yield small
    yield gzip.compress(small, mtime=0)
    yield lzma.compress(small, check=lzma.CHECK_CRC32)
    yield bz2.compress(small)
    tool("sh", "-c", f"head -c {len(small)} {folder}/fat/fat12 | zstd -qc >{folder}/zst")
    yield (folder / "zst").read_bytes()
    for way in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with zipfile.ZipFile(folder / "zip", "w", way) as archive:
            archive.writestr("README.txt", "read me")
            archive.writestr("any.img", small)
        yield (folder / "zip").read_bytes()


def told_sums(_: Path) -> Iterator[bytes]:
    """The forms of sha256sum(1) and of BSD."""
    yield f"{'ab' * 32}  any.img\n{'cd' * 32} *other.img\n".encode()
    yield f"SHA256 (any.img) = {'AB' * 32}\n".encode()


@cache
def _key() -> SigningKey:
    return make_key()


@cache
def certificate() -> Cert:
    """The key that ``signatures`` are made with."""
    found = parse_certificate(_key().certificate, _key().fingerprint)
    assert found is not None
    return found


def signatures(_: Path) -> Iterator[bytes]:
    """A detached signature, in armour, and beside another."""
    one = sign_detached(_key(), b"signed")
    yield from (one, sign_detached(_key(), b"signed", armor=True), one + one)


def keyrings(_: Path) -> Iterator[bytes]:
    """A certificate, and the same in binary twice."""
    yield _key().certificate
    yield bytes(certificate()) * 2


def bmaps(_: Path) -> Iterator[bytes]:
    """A block map with ranges of one block and of several."""
    ranges = (BmapRange(Extent(0, 8192), bytes(32)), BmapRange(Extent(40960, 4096), None))
    yield encode_bmap(Bmap(1 << 20, ranges))


def rescue_maps(_: Path) -> Iterator[bytes]:
    """A map with ranges in every state."""
    found = RescueMap(1 << 20, ["card: 0123456789ab"])
    for number, state in enumerate(BlockState):
        found.put(Extent(number * 4096, 4096), state)
    yield found.encode()


def journalled(folder: Path) -> tuple[bytes, tuple[Extent, ...]]:
    """A filesystem that was not unmounted, and where its journal lies."""
    image = folder / "journalled"
    words = ("-O", "has_journal,^resize_inode,metadata_csum,64bit", "-J", "size=1")
    tool(*_EXT4, *words, "-d", tree(folder), image, "3M")
    (folder / "old").write_bytes(b"o" * KiB)
    (folder / "magic").write_bytes(bytes.fromhex("c03b3998") + b"m" * 1020)
    commands = folder / "commands"
    commands.write_text(
        "journal_open\n"
        f"journal_write -b 2500 {folder}/old\n"
        f"journal_write -b 2501 {folder}/old\n"
        "journal_write -r 2501\n"
        f"journal_write -b 2502 {folder}/magic\n"
        "journal_close\n"
    )
    tool("debugfs", "-w", "-f", commands, image)
    data = image.read_bytes()
    return data, Ext4.open(reader(data), 0).journal_extents


def journals(folder: Path) -> Iterator[bytes]:
    """The blocks of that journal."""
    data, extents = journalled(folder)
    content = b"".join(data[extent.offset : extent.end] for extent in extents)
    yield content[: 16 * KiB].rstrip(b"\0")


def tars(folder: Path) -> Iterator[bytes]:
    """GNU tar's formats, with holes, links and attributes."""
    files = tree(folder)
    (files / "boot").mkdir()
    (files / "boot/config.txt").write_bytes(CONFIG_TXT)
    (files / ("d" * 120)).mkdir()
    tool("setfattr", "-n", "user.color", "-v", "blue", files / "etc/hostname")
    archive = folder / "archive"
    for words in (
        ("--format=pax", "--xattrs", "--acls", "--sparse"),
        ("--format=gnu", "--sparse"),
        ("--format=ustar", "--exclude=./ddd*"),
    ):
        tool("tar", "-c", "-b", "1", "-f", archive, *words, "-C", files, ".")
        yield archive.read_bytes()


def tarballs(folder: Path) -> Iterator[bytes]:
    """The same, compressed: as one member, and as two."""
    for archive in tars(folder):
        yield gzip.compress(archive, mtime=0)
        yield gzip.compress(archive[:512], mtime=0) + gzip.compress(archive[512:], mtime=0)


def carried(folder: Path) -> Iterator[bytes]:
    """A release, two packages and Salt in one file."""
    carrying = Carrying(folder, make_key())
    carrying.export()
    yield carrying.file.read_bytes()


def packages(folder: Path) -> Iterator[bytes]:
    """A pacman package, packed in each way that is read."""
    files = {"usr/bin/python3": "->python3.13", "usr/lib/os.py": "#\n", ".MTREE": "x"}
    made = package(folder, "python", "3.13.1-1", files, depend=["glibc>=2.40"]).read_bytes()
    plain = lzma.decompress(made)
    yield from (plain, made, gzip.compress(plain, mtime=0), bz2.compress(plain))


def databases(folder: Path) -> Iterator[bytes]:
    """A repository's database by repo-add, plain and packed."""
    made = package(folder, "python", "3.13.1-1", {}, depend=["glibc>=2.40"], provides="python3")
    packed = database_of([made], folder)
    yield from (packed, gzip.decompress(packed))


def settings(_: Path) -> Iterator[bytes]:
    """pacman.conf and a list of mirrors."""
    servers = "#Server = http://a/$repo\nServer = http://b/$arch/$repo\n"
    conf = "[options]\nArchitecture = armv7h\n[core]\nInclude = /etc/pacman.d/*\n"
    yield conf.encode() + NEXT_FILE + servers.encode()


def initramfs(folder: Path) -> Iterator[bytes]:
    """An archive by cpio, plain and as each program compresses it, behind an early one."""
    (folder / "init").write_text("#!/bin/sh\n" + random.Random(1).randbytes(60).hex())
    plain = folder / "plain"
    tool("sh", "-c", f"cd {folder} && echo init | cpio --quiet -o -H newc >{plain}")
    early = cpio({"early_cpio": b"1\n"})
    yield plain.read_bytes()
    for words in ("gzip -n", "xz --check=crc32", "bzip2", "lzma", "zstd", "lz4 -l"):
        tool("sh", "-c", f"{words} -c <{plain} >{folder}/packed")
        packed = (folder / "packed").read_bytes()
        yield packed
        yield early + bytes(-len(early) % 512) + packed


def device_trees(folder: Path) -> Iterator[bytes]:
    """By dtc: an overlay, and a board's."""
    board = folder / "board.dts"
    board.write_text(
        '/dts-v1/; / { compatible = "raspberrypi,2-model-b", "x"; soc { a = <1>; }; };'
    )
    for source in (STAND_IN / "overlay.dts", board):
        tool("dtc", "-q", "-I", "dts", "-O", "dtb", "-o", folder / "blob", source)
        yield (folder / "blob").read_bytes()


def configs(_: Path) -> Iterator[bytes]:
    """config.txt, and a file it includes."""
    yield CONFIG_TXT
    yield (STAND_IN / "boot/config.txt").read_bytes()
    filters = b"[pi2]\nkernel=a.img\n[gpio4=1]\ndtoverlay=b\n[all]\ninclude more.txt\n[edid=c]\n"
    yield filters + b"arm_64bit=0x1\n" + NEXT_FILE + b"dtoverlay=d,e=f\ninclude config.txt\n"


def cmdlines(_: Path) -> Iterator[bytes]:
    """cmdline.txt with each form of root=."""
    yield CMDLINE_TXT
    yield b'root="PARTUUID=1a2b3c4d-02" a="b c"\nmore\n'
    yield b"root=LABEL=root\0\n"


def firmwares(_: Path) -> Iterator[bytes]:
    """A start.elf and its fixup.dat."""
    yield start_elf() + NEXT_FILE + fixup_dat()
    yield start_elf(headers=3) + NEXT_FILE + fixup_dat(headers=3)


def kernels(_: Path) -> Iterator[bytes]:
    """Every kind of kernel, and U-Boot's script."""
    yield from (zimage(size=64), arm64_image(size=256), uboot(), boot_script())
    yield gzip.compress(arm64_image(), mtime=0)


def sums(_: Path) -> Iterator[bytes]:
    """A list as sha256sum writes it."""
    yield encode_sums({"config.txt": "ab" * 32, "a\\b\nc": "cd" * 32})


def stamps(_: Path) -> Iterator[bytes]:
    """A stamp made of its documentation."""
    yield by_hand()
    yield by_hand(ranges=(), digests=(), files=())


def receipts(_: Path) -> Iterator[bytes]:
    """Receipts of real cards."""
    yield from _written("/receipts/")


def ledgers(_: Path) -> Iterator[bytes]:
    """A real ledger, whole and line by line."""
    for ledger in _written("/ledger.jsonl"):
        yield ledger
        yield from (line + b"\n" for line in ledger.splitlines()[:8])


def _written(part: str) -> Iterator[bytes]:
    with lzma.open(WRITTEN) as stream, tarfile.open(fileobj=stream) as archive:
        for member in archive:
            if part in member.name and member.isreg():
                file = archive.extractfile(member)
                assert file is not None
                yield file.read()


_NODE = {"format": 1, "node": "pi1", "release_sha256": "ab" * 32, "imaged_at": 1_795_000_000}
_STEP = {"name": "10-clock", "state": "done", "since": "", "note": "later", "hint": ""}
_FIRSTBOOT = {
    "format": 1,
    "node": "pi7",
    "state": "failed",
    "step": "60-reach-master",
    "since": "2026-11-25T03:10:00Z",
    "time": "2026-11-25T03:40:00Z",
    "note": "pi0 does not answer",
    "hint": "switch it on",
    "tries": 4,
    "retry_s": 240,
    "steps": [_STEP],
}


def notes(_: Path) -> Iterator[bytes]:
    """What a node says of its first boot, and what is known of each node."""
    yield json.dumps(_FIRSTBOOT).encode()
    yield from _written("/presence.json")


def answers(_: Path) -> Iterator[bytes]:
    """What the programs of a Salt master print."""
    said = {
        "keys": json.dumps({"minions": ["pi0"], "minions_pre": ["pi2"]}),
        "up": json.dumps({"up": ["pi0"], "down": ["pi1"]}),
        "cards": json.dumps({"pi1": json.dumps(_NODE) + "\n" + json.dumps(_FIRSTBOOT)}),
    }
    mark = "==picloud=="
    parts = (f"\n{mark} begin {name}\n{text}\n{mark} end {name} 0\n" for name, text in said.items())
    yield "".join(parts).encode()
    yield (json.dumps(_NODE) + "\n" + json.dumps(_FIRSTBOOT)).encode()


def live(_: Path) -> Iterator[bytes]:
    """A run with a card under way and one that ended."""
    moment = Moment("write", 5, 10, 1.5, 5, 20)
    ended = LiveEnding("faulty", 95, "byte 7 differs", "throw it away")
    cards = (
        LiveCard("pi1", "/dev/sdb", "A1", "", moment, None),
        LiveCard("pi2", "/dev/sdc", "", "desk1", None, ended),
    )
    yield encode_live(LiveRun("rack flash", 7, "2026-11-29T00:00:00Z", 1, cards, ("o",), ("s",)))


def wire(_: Path) -> Iterator[bytes]:
    """An order, a survey, reports and progress."""
    for document, _reader, _value in READERS:
        yield json.dumps(document).encode()


def deltas(_: Path) -> Iterator[bytes]:
    """A delta of two pieces, packed and not."""
    packed = pack_delta(Delta([(0, b"first"), (4096, b"second")]))
    yield from (packed, zlib.decompress(packed))


def cards(folder: Path) -> Iterator[bytes]:
    """A whole card, as small as one can be: table, FAT12 with all boot files, ext4."""
    image = folder / "card"
    boot, root = (4 * KiB, 72 * KiB), (76 * KiB, 512 * KiB)
    image.write_bytes(bytes(sum(root)))
    script = folder / "script"
    lines = (f"start={at // 512}, size={length // 512}" for at, length in (boot, root))
    script.write_text("label: dos\nlabel-id: 0x1a2b3c4d\n" + ", type=c\n".join(lines) + "\n")
    tool("sh", "-c", f"sfdisk --quiet {image} <{script}")
    make_fat(
        image, minimal_boot_files("pi2"), size_kib=boot[1] // KiB, kind=12, offset_bytes=boot[0]
    )
    words = ("-O", "^has_journal,^resize_inode", "-E", f"offset={root[0]},nodiscard")
    tool(*_EXT4, *words, "-d", tree(folder), image, f"{root[1] // KiB}k")
    yield image.read_bytes().rstrip(b"\0")
