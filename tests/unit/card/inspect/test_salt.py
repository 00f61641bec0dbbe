"""Which Salt is on a card: by its metadata folder, whoever put it there, and never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import CardIOError
from imager.base.units import MiB
from imager.bootcheck.partitions import read_card
from imager.card.inspect.own_notes import read_notes
from imager.card.inspect.salt import salt_on
from imager.disk.manifest import Reader
from tests.support.hostile import HostileFat
from tests.support.racks import tool

OURS = "opt/picloud/salt"
OWN = "usr/lib/python3.13/site-packages"


def reader_of(image: Path) -> Reader:
    data = image.read_bytes()
    return lambda offset, length: data[offset : offset + length]


def filesystem(folder: Path, *folders: str) -> Path:
    """A real ext4 of 8 MiB, behind 1 MiB of something else, with these folders in it."""
    for name in ("etc", *folders):
        (folder / "tree" / name).mkdir(parents=True)
    image = folder / "image"
    image.write_bytes(b"\xff" * MiB)
    tool(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-d", folder / "tree"),
        *("-E", f"offset={MiB}", image, "8M"),
    )
    return image


@pytest.mark.parametrize(
    ("folders", "version"),
    [
        ((f"{OURS}/salt", f"{OURS}/salt-3006.9.dist-info"), "3006.9"),
        ((f"{OWN}/salt-3007.1-py3.13.egg-info",), "3007.1"),
        ((f"{OWN}/salt-3007.1.dist-info",), "3007.1"),
        ((f"{OWN}/salt-3005.1+ds.egg-info", "usr/lib/python2"), "3005.1+ds"),
        (("usr/lib/python3/dist-packages/salt-3008.0rc1.dist-info",), "3008.0rc1"),
        ((f"{OWN}/salt-3007.1.dist-info", f"{OURS}/salt-3008.3.dist-info"), "3008.3"),
        ((f"{OWN}/salt-ssh-3007.1.dist-info", f"{OWN}/saltpylint-1.0.dist-info"), ""),
        ((), ""),
    ],
)
@pytest.mark.image
def test_the_version_is_that_of_its_metadata(
    tmp_path: Path, folders: tuple[str, ...], version: str
) -> None:
    assert salt_on(reader_of(filesystem(tmp_path, *folders)), MiB) == version


@pytest.mark.image
def test_a_card_has_it_on_its_second_partition(tmp_path: Path) -> None:
    card, image = tmp_path / "card", filesystem(tmp_path, f"{OURS}/salt-3006.9.dist-info")
    layout = HostileFat().write(card)
    with card.open("r+b") as file:
        file.seek(layout.root.offset)
        file.write(image.read_bytes()[MiB:])
    assert read_notes(read_card(reader_of(card), layout.size_bytes)).salt == "3006.9"


@pytest.mark.image
def test_a_name_that_would_draw_on_the_terminal_is_not_believed(tmp_path: Path) -> None:
    image = filesystem(tmp_path, f"{OURS}/salt-3\x1b[2J.dist-info")
    assert salt_on(reader_of(image), MiB) == ""


def test_a_card_that_cannot_be_read_there_says_nothing() -> None:
    def read(offset: int, length: int) -> bytes:
        raise CardIOError("no", hint="no")

    assert salt_on(read, 0) == ""


@given(st.binary(max_size=4096))
def test_no_filesystem_has_no_salt(data: bytes) -> None:
    padded = data.ljust(MiB, b"\0")
    assert salt_on(lambda offset, length: padded[offset : offset + length], 0) == ""
