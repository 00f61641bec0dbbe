"""The one image in a zip file: what is believed of the directory, and what is counted."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.errors import MalformedRelease
from imager.card.source.origin import local_file
from imager.card.source.zip import zipped
from imager.image.unpack.inflate import PackingError

CONTENT = random.Random(8).randbytes(3000) + bytes(50_000)
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def made(*names: str, way: int = DEFLATED, content: bytes = CONTENT) -> bytearray:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", way) as archive:
        for name in names:
            archive.writestr(name, content)
    return bytearray(whole.getvalue())


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "any.zip"


def unpacked(path: Path, block: int = 1 << 20) -> bytes:
    with local_file(path) as file:
        blocks = (data for at in range(0, file.size_bytes, block) if (data := file.look(at, block)))
        return b"".join(zipped(file).unpack(blocks))


@pytest.mark.parametrize("way", [STORED, DEFLATED])
@pytest.mark.parametrize("block", [1, 7, 1000, 1 << 20])
def test_it_is_found_between_others_in_blocks_of_any_size(path: Path, way: int, block: int) -> None:
    content = CONTENT[:4000]
    path.write_bytes(made("a/", "README.TXT", "a/any.img", "a.sha256", way=way, content=content))
    assert unpacked(path, block) == content


def test_what_macos_puts_beside_it_is_no_image(path: Path) -> None:
    names = ("__MACOSX/._a.img", "a.img", "__MACOSX/d/b.img", ".DS_Store", "d/._a.img")
    path.write_bytes(made(*names))
    assert unpacked(path) == CONTENT
    path.write_bytes(made("__MACOSX/._a.img", "._a.img", ".a.img"))
    with pytest.raises(MalformedRelease, match="0 files that could be the image"):
        unpacked(path)
    path.write_bytes(made("a.img", "MACOSX/a.img"))
    with pytest.raises(MalformedRelease, match="2 files that could be the image"):
        unpacked(path)


def field(data: bytearray, at: int, value: int) -> bytes:
    """``data`` with another number at byte ``at`` of the image's entry in the directory, and where
    it begins."""
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + at, value)
    struct.pack_into("<I", data, at - 2, value)
    return bytes(data)


CRC, PACKED_BYTES, SIZE = 16, 20, 24


@pytest.mark.parametrize(
    ("way", "at", "value", "why"),
    [
        (STORED, CRC, 7, "does not fit its checksum"),
        (DEFLATED, CRC, 7, "does not fit its checksum"),
        (STORED, SIZE, len(CONTENT) - 1, "is longer than"),
        (DEFLATED, SIZE, len(CONTENT) - 1, "is longer than"),
        (DEFLATED, SIZE, len(CONTENT) + 1, f"ends after {len(CONTENT)} of"),
        (DEFLATED, PACKED_BYTES, 3000, "ends after"),
    ],
)
def test_its_length_and_its_checksum_are_counted(
    path: Path, way: int, at: int, value: int, why: str
) -> None:
    path.write_bytes(field(made("any.img", way=way), at, value))
    with pytest.raises(PackingError, match=why):
        unpacked(path)


def test_a_damaged_byte_is_told_with_its_place(path: Path) -> None:
    data = made("any.img")
    data[len(b"any.img") + 30] = 0xFF
    path.write_bytes(data)
    with pytest.raises(PackingError, match="before its byte"):
        unpacked(path)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([f"{n}.txt" for n in range(1000)], "holds 1001 files$"),
        (["a", "x/b"], "holds 2 files that could be"),
        (["x\\..\\any"], "leads out"),
        (["\\any"], "leads out"),
    ],
)
def test_what_is_not_one_image(path: Path, names: list[str], why: str) -> None:
    path.write_bytes(made(*names, "any.img" if "1001" in why else "c.txt", content=b""))
    with pytest.raises(MalformedRelease, match=why):
        unpacked(path)


def test_behind_its_name_there_may_be_more_in_its_header(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", DEFLATED) as archive,
        archive.open("any.img", "w", force_zip64=True) as file,
    ):
        file.write(CONTENT)
    assert path.read_bytes()[28:30] == b"\x14\0"
    assert unpacked(path) == CONTENT


def test_an_empty_one_has_no_image(path: Path) -> None:
    path.write_bytes(made())
    with pytest.raises(MalformedRelease, match="holds 0 files"):
        unpacked(path)


def test_a_thousand_files_are_no_more_than_may_be(path: Path) -> None:
    path.write_bytes(made(*(f"{n}.txt" for n in range(999)), "any.img", content=b"x"))
    assert unpacked(path) == b"x"


def test_a_directory_larger_than_that_of_any_image(path: Path) -> None:
    """It is not read; one of just that size is."""
    whole = made("any.img", content=b"x")
    end = whole.index(b"PK\x05\x06")
    entry = bytearray(whole[whole.index(b"PK\x01\x02") : end])
    for more, why in ((0, ""), (1, "larger than that of any image")):
        filler = bytearray(entry + bytes(60_000))
        filler[46:53] = b"any.txt"
        struct.pack_into("<H", filler, 32, 60_000)  # a comment
        count = ((4 << 20) - len(entry)) // len(filler)
        last = bytearray(entry)
        rest = (4 << 20) - len(entry) - count * len(filler) + more
        struct.pack_into("<H", last, 32, rest)
        directory = bytes(filler) * count + last + bytes(rest)
        tail = bytearray(whole[end:])
        struct.pack_into("<HHI", tail, 8, count + 1, count + 1, len(directory))
        path.write_bytes(whole[: whole.index(b"PK\x01\x02")] + directory + tail)
        if why:
            with pytest.raises(MalformedRelease, match=why):
                unpacked(path)
        else:
            assert unpacked(path) == b"x"


def test_a_place_too_near_to_the_end_is_none(path: Path) -> None:
    """Also where something is there that begins as a file in it does."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("any.img", CONTENT[:4000])
        archive.comment = b"PK\x03\x04 and more"
    data = bytearray(whole.getvalue())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 42, data.index(b"PK\x03\x04", entry))
    path.write_bytes(data)
    with pytest.raises(MalformedRelease, match=r"any\.img is not where the zip file says"):
        unpacked(path)
