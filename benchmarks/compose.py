"""From the archived tarball to a golden image, beside what a person would type for the same.

Ours proves the tarball's hash, refuses hostile members, checks both filesystems and hashes every
chunk on the way, and syncs the image to disk; the commands by hand do none of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.process import Ran, measure
from benchmarks.table import Row, Sample
from benchmarks.workshop import Workshop
from imager.base.units import KiB
from imager.image import mbr

LIMIT = 1.3
_BY_HAND = """
mkdir root
tar -xzpf "$TARBALL" -C root --numeric-owner --xattrs --xattrs-include='*'
truncate -s "${BOOT_KIB}K" boot.img
mkfs.vfat -F 32 boot.img >/dev/null
mcopy -s -m -i boot.img root/boot/* ::/
rm -rf root/boot/*
mke2fs -q -F -t ext4 -b 4096 -I 256 -m 1 -J size=64 -E lazy_itable_init=1,lazy_journal_init=0 \
    -O "none,$FEATURES" -d root root.img "${ROOT_KIB}k"
"""
_FEATURES = (
    "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,metadata_csum,"
    "metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
)


def compose_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Measure ours and theirs in turn, ``repetitions`` times."""
    image = _ours(place).result["image"]  # not counted: it brings the tarball into memory
    assert isinstance(image, str)
    environment = _environment(place, Path(image))
    ours, theirs = [], []
    for number in range(repetitions):
        shutil.rmtree(place.cache / "golden")
        os.sync()
        last = _ours(place)
        ours.append(last.seconds)
        with _empty(place.folder / "by-hand") as folder:
            os.sync()
            done = measure(["sh", "-euc", _BY_HAND], cwd=folder, env=environment)
            theirs.append(done.seconds)
        _say(
            f"compose {number + 1}: {last.seconds:.1f} s (CPU {last.cpu_seconds:.1f}), by hand "
            f"{done.seconds:.1f} s (CPU {done.cpu_seconds:.1f}); {_parts(last)}"
        )
    mine, hand = Sample(tuple(ours)), Sample(tuple(theirs))
    ratio = mine.ratio_to(hand)
    yield Row(
        "compose: archived tarball to golden image",
        f"{LIMIT} × by hand",
        mine.text("s"),
        f"tar, mkfs.vfat, mcopy, mke2fs: {hand.text('s')}",
        ratio,
        ratio <= LIMIT,
    )


def _ours(place: Workshop) -> Ran:
    return place.picloud("compose")


def _environment(place: Workshop, image: Path) -> dict[str, str]:
    with image.open("rb") as file:
        boot, root = mbr.parse(file.read(512)).partitions[:2]
    return {
        "TARBALL": str(place.tarball),
        "FEATURES": _FEATURES,
        "BOOT_KIB": str(boot.sector_count * 512 // KiB),
        "ROOT_KIB": str(root.sector_count * 512 // KiB),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "MTOOLS_SKIP_CHECK": "1",
    }


def _parts(ran: Ran) -> str:
    """How long each phase lasted until the next one began."""
    ends = [*(phase.began for phase in ran.phases[1:]), ran.seconds]
    named = (
        f"{phase.name} {end - phase.began:.1f}" for phase, end in zip(ran.phases, ends, strict=True)
    )
    return f"start {ran.phases[0].began:.1f}, {', '.join(named)}"


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
