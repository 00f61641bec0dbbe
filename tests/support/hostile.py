"""Cards of strangers who mean harm: a few kilobytes that ask for hours or gigabytes.

In: a path. Out: a sparse card image with one FAT32 and, where it is wanted, one ext4 filesystem,
laid out by hand because no honest tool makes such things. ``measured`` runs the real command on it
and tells how long that took and how much memory.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.units import MiB
from imager.disk.extents import Extent
from imager.disk.fat.directory import short_name_checksum
from imager.disk.layout import Layout
from imager.disk.mbr import encode
from tests.support.fatdisk import tool

BOOT = 8 * MiB
END = 0x0FFFFFFF
SECTOR = 512
_RESERVED = 32
ROOT_CLUSTER = 2


@dataclass(slots=True)
class HostileFat:
    """A FAT32 of ``clusters`` clusters of one sector. ``table`` says which follows which."""

    clusters: int = 70_000
    per_cluster: int = 1
    label: bytes = b"BOOT       "
    table: array[int] = field(default_factory=lambda: array("I"))
    data: dict[int, bytes] = field(default_factory=dict)
    root: bytearray = field(default_factory=bytearray)
    _next: int = 3

    def __post_init__(self) -> None:
        self.table = array("I", bytes(4 * (self.clusters + 2)))
        self.table[0], self.table[1], self.table[ROOT_CLUSTER] = 0x0FFFFFF8, END, END

    def claim(self, content: bytes, size: int | None = None) -> int:
        """Clusters in a row for ``content``, or for ``size`` bytes of which the rest is a hole."""
        unit = SECTOR * self.per_cluster
        count = max(1, -(-max(len(content), size or 0) // unit))
        first, self._next = self._next, self._next + count
        self.table[first : first + count] = array("I", range(first + 1, first + count + 1))
        self.table[first + count - 1] = END
        self.data[first] = content
        return first

    def put(self, name: str, content: bytes = b"", size: int | None = None) -> None:
        """A file in the root directory."""
        first = self.claim(content, size) if content or size else 0
        self.root += record(name, first, len(content) if size is None else size)

    def folder(self, name: str, records: bytes) -> None:
        """A folder in the root directory."""
        self.root += record(name, self.claim(OWN_ENTRIES + records), 0, is_dir=True)

    def write(self, path: Path, *, root_bytes: int = 8 * MiB) -> Layout:
        """The card; the second partition is left empty."""
        unit = SECTOR * self.per_cluster
        table_sectors = -(-len(self.table) * 4 // SECTOR)
        sectors = _RESERVED + 2 * table_sectors + self.clusters * self.per_cluster
        length = -(-sectors * SECTOR // MiB) * MiB
        layout = Layout(
            BOOT + length + root_bytes,
            Extent(BOOT, length),
            Extent(BOOT + length, root_bytes),
        )
        self._put_root(unit)
        start = BOOT + (_RESERVED + 2 * table_sectors) * SECTOR
        with path.open("wb") as file:
            file.truncate(layout.size_bytes)
            file.write(encode(layout, 0x0BADCA2D))
            for place in (0, 6):
                file.seek(BOOT + place * SECTOR)
                file.write(self._boot_sector(sectors, table_sectors))
            for copy in (0, 1):
                file.seek(BOOT + (_RESERVED + copy * table_sectors) * SECTOR)
                file.write(self.table.tobytes())
            for first, content in self.data.items():
                file.seek(start + (first - 2) * unit)
                file.write(content)
        return layout

    def _put_root(self, unit: int) -> None:
        if len(self.root) <= unit:
            self.data[ROOT_CLUSTER] = bytes(self.root)
            return
        self.table[ROOT_CLUSTER] = self.claim(bytes(self.root[unit:]))
        self.data[ROOT_CLUSTER] = bytes(self.root[:unit])

    def _boot_sector(self, sectors: int, table_sectors: int) -> bytes:
        sector = bytearray(SECTOR)
        sector[:3], sector[510:] = b"\xeb\x58\x90", b"\x55\xaa"
        struct.pack_into(
            "<HBHBHHBH", sector, 11, SECTOR, self.per_cluster, _RESERVED, 2, 0, 0, 0xF8, 0
        )
        struct.pack_into("<II", sector, 32, sectors, table_sectors)
        struct.pack_into("<HHIHH", sector, 40, 0, 0, ROOT_CLUSTER, 1, 6)
        sector[66] = 0x29
        sector[71:82] = self.label
        return bytes(sector)


OWN_ENTRIES = b"".join(name.ljust(11) + bytes([0x10]) + bytes(20) for name in (b".", b".."))
"""The first two records of every folder but the root."""


def record(name: str, first: int, size: int, *, is_dir: bool = False) -> bytes:
    """The records of one name: long ones, and a short one made up from ``first``."""
    short = f"{first:08X}{(size + first) % 1000:03d}".encode()[:11]
    units = name.encode("utf-16-le", "surrogatepass")
    parts = -(-len(units) // 26)
    units = (units + b"\0\0").ljust(26 * parts, b"\xff")[: 26 * parts]
    records = []
    for number in range(parts, 0, -1):
        part = units[26 * (number - 1) : 26 * number]
        order = number | (0x40 if number == parts else 0)
        head = bytes([order]) + part[:10] + b"\x0f\0" + bytes([short_name_checksum(short)])
        records.append(head + part[10:22] + b"\0\0" + part[22:])
    attribute = 0x10 if is_dir else 0x20
    tail = struct.pack("<HHHHI", first >> 16, 0, 0, first & 0xFFFF, size)
    return b"".join(records) + short + bytes([attribute]) + bytes(8) + tail


def with_files(files: Mapping[str, bytes], *, clusters: int = 70_000) -> HostileFat:
    """A FAT with ``files`` in its root directory."""
    fat = HostileFat(clusters=clusters)
    for name, content in files.items():
        fat.put(name, content)
    return fat


def nested(fat: HostileFat, name: str, depth: int) -> None:
    """``depth`` folders of one name within each other."""
    inner = b""
    for _ in range(depth):
        inner = record(name, fat.claim(OWN_ENTRIES + inner), 0, is_dir=True)
    fat.root += inner


def make_ext4(path: Path, layout: Layout, commands: Iterable[str] = (), *options: str) -> None:
    """An ext4 in the second partition, changed by ``commands`` of debugfs."""
    where = layout.root
    tool(
        "mke2fs", "-q", "-t", "ext4", "-O", "^orphan_file", "-E",
        f"offset={where.offset},nodiscard", *options, "-F", path, f"{where.length // 1024}k",
    )  # fmt: skip
    script = path.with_suffix(".debugfs")
    script.write_text("".join(f"{line}\n" for line in commands))
    if script.stat().st_size:
        tool("debugfs", "-w", "-f", script, f"{path}?offset={where.offset}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of the command said and took."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int


def measured(*words: str | Path, limit_seconds: float = 120) -> Cost:
    """Run ``picloud-image`` with ``words``; seconds are those its processor was busy, so that
    other work on this computer does not count."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURING, *(os.fspath(word) for word in words)],
        capture_output=True,
        timeout=limit_seconds,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert time.monotonic() - began < limit_seconds
    err, _, figures = done.stderr.decode().rpartition("\nCOST ")
    seconds, peak = figures.split()
    return Cost(done.returncode, done.stdout.decode(), err, float(seconds), int(peak) * 1024)


_MEASURING = """
import os, resource, sys
code = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-m", "imager", *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
sys.stderr.write(f"\\nCOST {used.ru_utime + used.ru_stime} {used.ru_maxrss}\\n")
sys.exit(code)
"""
