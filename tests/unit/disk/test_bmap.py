"""Block maps: bmaptool's own are read, ours are read by bmaptool, and garbage costs nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.disk.bmap import MAX_BMAP_BYTES, Bmap, BmapError, BmapRange, encode_bmap, parse_bmap
from imager.disk.extents import Extent

SIZE = MiB + 100


def ranges_of(data: bytes, *places: tuple[int, int]) -> tuple[BmapRange, ...]:
    return tuple(
        BmapRange(Extent(low, high - low), hashlib.sha256(data[low:high]).digest())
        for low, high in places
    )


DATA = os.urandom(SIZE)
GOOD = Bmap(SIZE, ranges_of(DATA, (0, 8 * KiB), (8 * KiB, 12 * KiB), (MiB, SIZE)))


def with_own_sum(text: bytes) -> bytes:
    """``text`` with ``OWN`` replaced by the checksum that fits."""
    zeros = text.replace(b"OWN", b"0" * 64)
    return text.replace(b"OWN", hashlib.sha256(zeros).hexdigest().encode())


def changed(old: str, new: str) -> bytes:
    """GOOD's file with one word changed, and the checksum of the whole made right again."""
    text = encode_bmap(GOOD)
    own = text.split(b"BmapFileChecksum> ")[1].split()[0]
    assert old.encode() in text
    return with_own_sum(text.replace(own, b"OWN").replace(old.encode(), new.encode(), 1))


def test_what_is_written_is_read_again() -> None:
    assert parse_bmap(encode_bmap(GOOD)) == GOOD
    assert GOOD.mapped_bytes == 12 * KiB + 100


@given(
    cuts=st.lists(st.integers(0, 300), unique=True, max_size=12).map(sorted),
    tail=st.integers(1, 4096),
)
def test_any_map_is_read_as_it_was_written(cuts: list[int], tail: int) -> None:
    size = 300 * 4096 + tail
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    extents = [Extent(low * 4096, min(high * 4096, size) - low * 4096) for low, high in pairs]
    found = Bmap(size, tuple(BmapRange(extent, bytes(32)) for extent in extents))
    assert parse_bmap(encode_bmap(found)) == found


@pytest.mark.parametrize("block", [512, 4096, MiB])
@pytest.mark.parametrize(("algorithm", "length"), [("sha1", 20), ("sha256", 32), ("sha512", 64)])
def test_each_checksum_has_its_length_and_blocks_are_of_512_bytes_to_1_mib(
    block: int, algorithm: str, length: int
) -> None:
    last = BmapRange(Extent(MiB, 2 * MiB + 100), bytes(range(length)))
    found = Bmap(3 * MiB + 100, (last,), block, algorithm)
    assert parse_bmap(encode_bmap(found)) == found
    short = BmapRange(last.extent, bytes(length - 1))
    with pytest.raises(BmapError, match="a checksum is"):
        parse_bmap(encode_bmap(Bmap(found.size_bytes, (short,), block, algorithm)))


@pytest.mark.parametrize("block", [256, 768, 2 * MiB])
def test_blocks_of_another_size_are_refused(block: int) -> None:
    with pytest.raises(BmapError, match=f"blocks of {block} bytes"):
        parse_bmap(encode_bmap(Bmap(6 * MiB, (), block)))


def test_a_map_that_ends_in_the_middle_is_none() -> None:
    text = encode_bmap(GOOD)
    own = text.split(b"BmapFileChecksum> ")[1].split()[0]
    cut = text[: text.rindex(b"</bmap>")]
    with pytest.raises(BmapError):
        parse_bmap(with_own_sum(cut.replace(own, b"OWN")))


def test_an_image_without_bytes_has_no_map() -> None:
    with pytest.raises(BmapError, match="not an image of 0 bytes"):
        parse_bmap(encode_bmap(Bmap(0, ())))


def test_any_bytes_are_a_map_or_an_error() -> None:
    text = encode_bmap(GOOD)
    for at in range(0, len(text), 3):
        with pytest.raises(BmapError):
            parse_bmap(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        with pytest.raises(BmapError):
            parse_bmap(text[:at])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('version="2.0"', 'version="3.0"', "version is '3.0'"),
        ("> 0-1 <", "> 2-1 <", "out of order"),
        ("> 0-1 <", "> 0-2 <", "out of order"),
        ("> 0-1 <", "> 0-x <", "no range"),
        ("> 256 <", "> 257 <", "behind the image's end"),
        ("> 256 <", "> 255-256 <", "not the 4 blocks"),
        ("<BlockSize> 4096", "<BlockSize> 4095", "blocks of 4095"),
        ("<ImageSize> 1048676", "<ImageSize> 9048676", "not an image of"),
        ("<ImageSize> 1048676", "<ImageSize> -1", "ImageSize is '-1'"),
        ("<ChecksumType> sha256", "<ChecksumType> crc32", "'crc32'"),
        ("<BlockSize> 4096 </BlockSize>", "", "does not say its BlockSize"),
        ("<BlockMap>", "<BlockMap><BlockMap>", "not where it belongs"),
        ('<?xml version="1.0" ?>', '<!DOCTYPE bmap [<!ENTITY a "aaaa">]>', "DOCTYPE"),
        ('chksum="', 'chksum="00', "a checksum is"),
        ("BmapFileChecksum>", "Other>", "not XML"),
    ],
)
def test_what_does_not_fit_together_is_no_map(old: str, new: str, why: str) -> None:
    with pytest.raises(BmapError, match=why):
        parse_bmap(changed(old, new))


def test_a_map_longer_than_any_is_not_looked_at() -> None:
    with pytest.raises(BmapError, match="longer"):
        parse_bmap(bytes(MAX_BMAP_BYTES + 1))


@pytest.mark.parametrize(("mark", "most"), [(b"<", 1_000_000), (b"=", 500_000)])
def test_more_ranges_or_attributes_than_memory_is_for_are_not_looked_at(
    mark: bytes, most: int
) -> None:
    with pytest.raises(BmapError, match="more than 500000 ranges"):
        parse_bmap(mark * (most + 1))
    with pytest.raises(BmapError, match="not XML"):
        parse_bmap(mark * most)
    page = (Path(__file__).parents[3] / "docs/security.md").read_text()
    assert "32 MiB, 500,000 ranges, no DOCTYPE; 16 MiB, 500,000 lines" in page


@pytest.mark.skipif(shutil.which("bmaptool") is None, reason="bmaptool is not installed")
def test_bmaptool_writes_what_we_read_and_reads_what_we_write(tmp_path: Path) -> None:
    image, theirs, ours = tmp_path / "a.img", tmp_path / "a.bmap", tmp_path / "b.bmap"
    with image.open("wb") as file:
        file.truncate(SIZE)
        file.seek(64 * KiB)
        file.write(DATA[: 20 * KiB])
    run(["bmaptool", "create", "-o", theirs, image])
    found = parse_bmap(theirs.read_bytes())
    (one,) = found.ranges
    assert (found.size_bytes, one.extent) == (SIZE, Extent(64 * KiB, 20 * KiB))
    assert one.digest == hashlib.sha256(DATA[: 20 * KiB]).digest()

    ours.write_bytes(encode_bmap(GOOD))
    image.write_bytes(DATA)
    run(["bmaptool", "copy", "--bmap", ours, image, tmp_path / "copy.img"])
    copy = (tmp_path / "copy.img").read_bytes()
    assert copy[: 12 * KiB] == DATA[: 12 * KiB] and copy[MiB:] == DATA[MiB:]
    assert not any(copy[12 * KiB : MiB])
    image.write_bytes(b"!" + DATA[1:])
    with pytest.raises(Exception, match="bmaptool"):
        run(["bmaptool", "copy", "--bmap", ours, image, tmp_path / "copy.img"])
