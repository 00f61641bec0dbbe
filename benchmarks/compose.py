"""From the archived tarball to a golden image, beside what a person would type for the same.

Ours proves the tarball's hash, refuses hostile members, checks both filesystems and hashes every
chunk on the way, and syncs the image to disk; the commands by hand do none of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.devices import call, card_of, missing_abilities, mounted
from benchmarks.process import measure, parts
from benchmarks.table import Row, Sample, tell
from benchmarks.workshop import Workshop
from imager.base.units import GiB, KiB
from imager.disk import mbr
from imager.image.compose.root_fs import FEATURES

LIMIT = 1.3
_DISK_BYTES = 4 * GiB
_BY_HAND = """
mkdir root
tar -xzpf cache/releases/*/release.tar.gz -C root --numeric-owner --xattrs --xattrs-include='*'
truncate -s "${BOOT_KIB}K" boot.img
mkfs.vfat -F 32 boot.img >/dev/null
mcopy -s -m -i boot.img root/boot/* ::/
rm -rf root/boot/*
mke2fs -q -F -t ext4 -b 4096 -I 256 -m 1 -J size=16 -E lazy_itable_init=1,lazy_journal_init=0 \
    -O "none,$FEATURES" -d root root.img "${ROOT_KIB}k"
"""


def compose_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Measure ours and theirs in turn, ``repetitions`` times."""
    place.picloud("compose")  # not counted
    environment = _environment(next(place.cache.glob("golden/*/image")))
    ours, theirs = [], []
    for number in range(repetitions):
        with fresh_folder(place.folder, place.cache) as folder:
            mine = place.picloud("--cache", folder / "cache", "compose")
        with fresh_folder(place.folder, place.cache) as folder:
            hand = measure(["sh", "-euc", _BY_HAND], cwd=folder, env=environment)
        ours.append(mine.seconds)
        theirs.append(hand.seconds)
        tell(
            f"compose {number + 1}: {mine.seconds:.1f} s (CPU {mine.cpu_seconds:.1f}), by hand "
            f"{hand.seconds:.1f} s (CPU {hand.cpu_seconds:.1f}); {parts(mine)}"
        )
    all_ours, all_theirs = Sample(tuple(ours)), Sample(tuple(theirs))
    ratio = all_ours.ratio_to(all_theirs)
    yield Row(
        "compose: archived tarball to golden image",
        f"{LIMIT} × by hand",
        all_ours.text("s"),
        f"tar, mkfs.vfat, mcopy, mke2fs: {all_theirs.text('s')}",
        ratio,
        ratio <= LIMIT,
    )


@contextmanager
def fresh_folder(beside: Path, cache: Path) -> Iterator[Path]:
    """A folder in ``beside`` with a copy of the archives of ``cache``, on a filesystem of its own
    where we may make one.

    ext4 avoids inodes deleted in the last minutes and looks at each of them again and again: on
    the same filesystem every repetition would pay for the files of the one before.
    """
    with ExitStack() as stack:
        folder = beside / "fresh"
        folder.mkdir()
        stack.callback(shutil.rmtree, folder)
        if not missing_abilities():
            backing = stack.enter_context(card_of(beside, _DISK_BYTES))
            call("mkfs.ext4", "-q", str(backing.node))
            stack.enter_context(mounted(backing.node, folder))
            folder = folder / "work"
        for archive in ("releases", "packages"):
            if (cache / archive).is_dir():
                shutil.copytree(cache / archive, folder / "cache" / archive)
        os.sync()
        yield folder


def _environment(image: Path) -> dict[str, str]:
    with image.open("rb") as file:
        boot, root = mbr.parse(file.read(512)).partitions[:2]
    return {
        "FEATURES": FEATURES,
        "BOOT_KIB": str(boot.sector_count * 512 // KiB),
        "ROOT_KIB": str(root.sector_count * 512 // KiB),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "MTOOLS_SKIP_CHECK": "1",
    }
