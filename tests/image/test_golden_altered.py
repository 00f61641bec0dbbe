"""A cached golden image that decayed or was altered never reaches a card: it is composed anew.

What is altered is drawn by chance: something of all nodes, and something of one alone; ``--all``
has all of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.disk.ext4.filesystem import Ext4
from imager.disk.fat.volume import FatVolume
from imager.disk.mbr import parse
from tests.support.sampling import one_of_each
from tests.support.usedcard import content_of
from tests.support.workplace import Said, Workplace, workplace

pytestmark = pytest.mark.image

LARGE = "/usr/odd/large"
OWN = "node's own file"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        found.pi7()
        yield found


@pytest.fixture
def golden(place: Workplace) -> Iterator[Path]:
    """The one entry of the cache; whatever a test sets aside is removed after it."""
    (entry,) = entries(place)
    yield entry
    for aside in asides(place):
        shutil.rmtree(aside)


def entries(place: Workplace) -> list[Path]:
    found = (image.parent for image in (place.cache / "golden").glob("*/image"))
    return [entry for entry in found if ".damaged-" not in entry.name]


def asides(place: Workplace) -> list[Path]:
    return [*(place.cache / "golden").glob("*.damaged-*")]


def position_of(image: Path, what: str) -> int:
    """A byte of the image: in a file of which no node has its own, or in a structure."""
    with image.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        table = parse(read(0, 512))
        boot, root = (partition.extent for partition in table.partitions[:2])
        if what == "boot file":
            entry = FatVolume.parse(read, boot.offset, boot.length).find("kernel7.img")
            assert entry is not None
            return entry.extents[0].offset + 64
        if what == "superblock":
            return root.offset + 1024 + 8
        filesystem = Ext4.open(read, root.offset)
        inode = filesystem.lookup(LARGE if what == "file" else "/etc/passwd")
        assert inode is not None
        if what == "inode":
            return next(iter(filesystem.metadata)).offset + 4096
        return inode.extents[0].offset + 8


def alter(image: Path, position: int) -> None:
    """Eight bytes become others; neither size nor time tells."""
    status = image.stat()
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.seek(position)
        old = file.read(8)
        file.seek(position)
        file.write(bytes(byte ^ 0xFF for byte in old))
    image.chmod(0o444)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def warnings(said: Said) -> list[str]:
    """What was said of the image."""
    found = [event["message"] for event in said.events if event["event"] == "warning"]
    return [message for message in found if "was altered" in message]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "what" in metafunc.fixturenames:
        places = ["file", "boot file", "superblock", "inode", OWN]
        if not metafunc.config.getoption("--all"):
            places = one_of_each(places, lambda what: what == OWN)
        metafunc.parametrize("what", places)


def test_a_card_never_gets_what_was_altered(
    place: Workplace, golden: Path, tmp_path: Path, what: str
) -> None:
    before = content_of(golden / "image")
    alter(golden / "image", position_of(golden / "image", what))
    card = tmp_path / "card.img"
    said = place.json("write", card, "--node", "pi7", "--size", "2GiB")
    assert said.code == 0, said.err + said.out
    (warning,) = warnings(said)
    (aside,) = asides(place)
    assert str(golden / "image") in warning
    assert aside.name in warning
    verified = place.json("verify", card)
    assert (verified.code, verified.result["matches"]) == (0, True)
    assert content_of(golden / "image") == before
    assert content_of(aside / "image") != before


def test_no_card_of_a_batch_gets_what_was_altered(
    place: Workplace, golden: Path, tmp_path: Path
) -> None:
    alter(golden / "image", position_of(golden / "image", "file"))
    said = place.json("rack", "flash", "pi[1-4]", "--images", tmp_path, "--size", "2GiB")
    assert said.code == 0, said.err + said.out
    assert len(warnings(said)) == 1
    assert len(asides(place)) == 1
    for name in ("pi1", "pi2", "pi3", "pi4"):
        assert place.run("verify", tmp_path / f"{name}.img").code == 0


def test_who_only_looks_is_told_and_nothing_is_changed(
    place: Workplace, golden: Path, tmp_path: Path
) -> None:
    made = place.run("rack", "flash", "pi5", "--images", tmp_path, "--size", "2GiB")
    assert made.code == 0, made.err
    alter(golden / "image", position_of(golden / "image", "superblock"))
    said = place.run("rack", "flash", "pi5", "--images", tmp_path, "--dry-run")
    assert said.code == 41, said.err
    assert "the golden image was altered" in said.err
    shown = place.run("rack", "show")
    assert shown.code == 0, shown.err
    assert "the golden image was altered" in shown.err
    assert asides(place) == []
    again = place.run("rack", "flash", "pi5", "--images", tmp_path, "--yes")
    assert again.code == 0, again.err
    assert len(asides(place)) == 1
