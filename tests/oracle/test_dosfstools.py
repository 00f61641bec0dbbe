"""dosfstools' own damaged filesystems, and ours with a byte changed by chance, against fsck.fat.

What fsck.fat finds wrong must be a fault here too, and what it calls clean must have none.
"""

from __future__ import annotations

import os
import random
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.units import KiB
from imager.disk.fat.geometry import FatError
from imager.disk.fat.volume import FatVolume
from tests.support.bootdisk import reading
from tests.support.corpora import Package, Tally, ends_in
from tests.support.fatdisk import make_fat
from tests.support.telling import Tell

pytestmark = [pytest.mark.image, pytest.mark.long(minutes=10)]
SOURCE = Package(
    "d/dosfstools/dosfstools_4.2.orig.tar.gz",
    "64926eebf90092dca21b14259a5301b7b98e7b1943e8a201c7d726084809b527",
    "14efc68c64987a9067b6a919ad2870007247686b",
)
SECONDS = 20
LARGEST = 2 << 30
SEED, ROUNDS = 16, 300
FILES = {
    "kernel7.img": bytes(20 * KiB),
    "config.txt": b"arm_64bit=0\n",
    "overlays/a-rather-long-name.dtbo": b"x" * 700,
    "overlays/README": b"",
}
_LINE = re.compile(r"([0-9a-f]+): ((?:[0-9a-f]+ )+)")
DIFFER = {
    "abel": "the label in the boot sector is not the one in the root directory: nobody boots by it",
    "Both FATs appear": "entry 0 of the table, a copy of the media byte that no system reads",
    "first cluster in FAT": "entry 0 of the table, a copy of the media byte that no system reads",
    "Free cluster summary": "the number of free clusters in FSInfo, which is a hint",
    "'.' entry": "the number in the entry . of a directory, which no system follows",
    "Start does point to root": "a file that is marked as a label, and so is lost",
    "Bad short file name": "a character that is not usual in a short name",
}
"""What fsck.fat says of which only the name or a byte that has no reader is wrong."""
STRICTER = {
    "a name FAT does not allow": "a long name with a character that Windows refuses",
    "55 AA": "a boot sector without its mark, which firmware does not take for one",
    "media byte": "a media byte with which Linux mounts no FAT",
    "belong to no file": "a file that is marked as a label, and so is lost",
}
"""What is found here and not by fsck.fat."""


def dumps(package: Path) -> Iterator[tuple[str, str]]:
    """The dumps of damaged filesystems (.fsck), and those of whole ones (.xxd)."""
    with tarfile.open(package) as archive:
        for member in archive:
            path = Path(member.name)
            if path.parent.name == "tests" and path.suffix in (".fsck", ".xxd"):
                file = archive.extractfile(member)
                assert file is not None
                yield path.name, file.read().decode()


def restore(dump: str, image: Path) -> None:
    """What xxd -r makes of a dump: a file with holes."""
    with image.open("wb") as file:
        for line in dump.splitlines():
            if match := _LINE.match(line):
                at = int(match[1], 16)
                assert at < LARGEST
                file.seek(at)
                file.write(bytes.fromhex(match[2]))


def faults(image: Path) -> list[str]:
    """What is wrong with the filesystem in ``image``, as it is seen here."""
    with reading(image) as read:
        try:
            return [fault.what for fault in FatVolume.parse(read, 0, image.stat().st_size).faults]
        except FatError as error:
            return [str(error)]


def compare(image: Path, name: str, tally: Tally) -> None:
    """Count whether both find something wrong with ``image``, or both nothing."""
    verdict, output, errors = ends_in(["fsck.fat", "-n", image], SECONDS)
    said, found = output.decode(errors="replace") + errors, faults(image)
    # Of some faults it speaks and still ends with 0.
    bad = verdict != 0 or "Not auto" in said
    words, known = (said, DIFFER) if bad else ("; ".join(found), STRICTER)
    why = next((why for part, why in known.items() if part in words), None)
    tally.count(same=bad == bool(found), what=f"{name}: {said} / {found}", reason=why)


def test_what_fsck_finds_is_found_here(tmp_path: Path, tell: Tell) -> None:
    image, tally = tmp_path / "image", Tally()
    for name, dump in dumps(SOURCE.fetched()):
        restore(dump, image)
        compare(image, name, tally)
    tell(f"dosfstools' filesystems: {tally}")
    assert tally.tried > 50
    assert not tally.unexplained


def test_what_chance_damages_is_found_as_fsck_finds_it(tmp_path: Path, tell: Tell) -> None:
    image, tally = tmp_path / "image", Tally()
    chance = random.Random(SEED)
    for kind, size_kib in ((32, 34 * 1024), (16, 17 * 1024), (12, 1440)):
        image.unlink(missing_ok=True)
        make_fat(image, FILES, size_kib=size_kib, kind=kind)
        assert not faults(image)
        places = metadata_in_use(image)
        for _ in range(ROUNDS):
            at, value = chance.choice(places), chance.randrange(256)
            with changed(image, at, value):
                compare(image, f"FAT{kind}, byte {at} = {value}", tally)
    tell(f"FATs with one byte changed: {tally}")
    assert not tally.unexplained


@contextmanager
def changed(image: Path, at: int, value: int) -> Iterator[None]:
    """One byte of ``image`` is ``value`` in the block."""
    with image.open("r+b", buffering=0) as file:
        before = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([value]), at)
        yield
        os.pwrite(file.fileno(), before, at)


def metadata_in_use(image: Path) -> list[int]:
    """The bytes of tables and directories that are not zero: the others say nothing."""
    with reading(image) as read:
        volume = FatVolume.parse(read, 0, image.stat().st_size)
        return [
            extent.offset + at
            for extent in volume.metadata
            for at, byte in enumerate(read(extent.offset, extent.length))
            if byte
        ]
