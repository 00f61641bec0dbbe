"""The stamp's bytes: as documented, whole or refused, and no danger to whoever reads them."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import MiB
from imager.bootcheck.sums import SUMS_PATH
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Chunk, Manifest
from imager.disk.mbr import MAX_DISK_BYTES, encode, parse
from imager.image.compose.file_digests import FileDigests
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import (
    STAMP_AREA,
    NoStamp,
    Stamp,
    StampTooLarge,
    encode_stamp,
    parse_stamp,
)
from tests.support.hostile import HostileFat, record
from tests.support.stamps import DOCUMENT, FACTS, KEY, LAYOUT, PUBLIC, by_hand

MANIFEST = Manifest(
    LAYOUT.size_bytes,
    ExtentMap([Extent(0, MiB), Extent(8 * MiB + 4096, MiB)]),
    (b"\1" * 32, b"\2" * 32, b"\3" * 32),
)
FILES = FileDigests({12: b"12345678", 400: b"abcdefgh"})


def encoded(manifest: Manifest = MANIFEST, files: FileDigests = FILES) -> bytes:
    return encode_stamp(FACTS, manifest, files, PUBLIC, KEY.sign)


def test_a_stamp_built_by_hand_from_the_document_is_read() -> None:
    found = parse_stamp(by_hand().ljust(STAMP_AREA.length, b"\0"))
    assert found == Stamp(FACTS, MANIFEST, FILES, PUBLIC, len(by_hand()))
    assert (found.kind, found.golden_key, found.image_id) == ("stamp", "cd" * 16, "ef" * 32)
    assert (found.node, found.layout, found.tool_version) == ("pi7", LAYOUT, "0.1.0")
    assert found.imaged_at == 1_790_000_000
    assert found.stamp is found


def test_what_is_written_is_what_the_document_says() -> None:
    assert encoded() == by_hand()


def test_the_same_facts_give_the_same_bytes() -> None:
    assert encoded() == encoded()


def test_keys_a_later_program_added_are_passed_over() -> None:
    later = by_hand({**DOCUMENT, "colour": {"deep": [1, None]}})
    assert parse_stamp(later).facts == FACTS


def test_facts_are_utf_8_and_not_escaped() -> None:
    attic = replace(FACTS, release_name="Dachböden")
    data = encode_stamp(attic, MANIFEST, FILES, PUBLIC, KEY.sign)
    assert "Dachböden".encode() in data
    assert parse_stamp(data).facts == attic


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("node", "a"),
        ("model", "m"),
        ("model", "m" * 1000),
        ("imaged_at", 253402300799),
        ("imaged_at", 0),
    ],
)
def test_a_fact_at_the_edge_of_what_may_be(key: str, value: object) -> None:
    parse_stamp(by_hand({**DOCUMENT, key: value}))


def test_ranges_may_be_one_byte_apart() -> None:
    ranges = [(0, 4096), (4097, 4096)]
    found = parse_stamp(by_hand(ranges=ranges, digests=[b"d" * 32]))
    assert list(found.manifest.extents) == [Extent(*pair) for pair in ranges]


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_one_flipped_bit_anywhere_is_found(byte: int, bit: int) -> None:
    data = bytearray(by_hand())
    data[byte % len(data)] ^= 1 << bit
    with pytest.raises(StampError):
        parse_stamp(bytes(data))


@given(st.integers(min_value=0))
def test_a_stamp_cut_short_anywhere_is_refused(length: int) -> None:
    data = by_hand()
    with pytest.raises(StampError):
        parse_stamp(data[: length % len(data)])


@given(st.binary(max_size=4096))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(StampError):
        parse_stamp(data)


@given(st.binary(max_size=300))
def test_garbage_behind_the_magic_is_refused(data: bytes) -> None:
    with pytest.raises(StampError):
        parse_stamp(b"PICSTAMP" + struct.pack("<I", 1) + data)


@given(st.binary(max_size=300))
def test_signed_garbage_is_refused_too(facts: bytes) -> None:
    with pytest.raises(StampError, match="facts"):
        parse_stamp(by_hand(facts))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=6
    ),
    st.integers(0, 4),
)
def test_a_signed_map_of_nonsense_is_refused_at_once(
    ranges: list[tuple[int, int]], chunks: int
) -> None:
    try:
        found = parse_stamp(by_hand(ranges=ranges, digests=[b"d" * 32] * chunks))
    except StampError:
        return
    assert found.manifest.extents.total_bytes <= chunks * MiB


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([(4096, 4096), (0, 4096)], "not in order"),
        ([(0, 4096), (4096, 4096)], "not in order"),
        ([(0, 0)], "not in order"),
        ([(0, LAYOUT.size_bytes + 1)], "past byte"),
        ([(0, 4096), (LAYOUT.size_bytes, 4096)], "past byte"),
        ([(0, LAYOUT.size_bytes)], "as many chunks"),
        ([(0, 4096)], "as many chunks"),
    ],
)
def test_a_map_that_cannot_be_is_named(ranges: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(StampError, match=why):
        parse_stamp(by_hand(ranges=ranges))


def test_a_map_of_2_tib_with_one_digest_is_refused_without_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(extents: ExtentMap) -> list[Chunk]:
        raise AssertionError("it began to count two million chunks")

    monkeypatch.setattr("imager.disk.manifest.chunks_of", count)
    huge = by_hand({**DOCUMENT, "size_bytes": 1 << 41}, [(0, 1 << 41)], [b"d" * 32])
    with pytest.raises(StampError, match="as many chunks"):
        parse_stamp(huge)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("node", ""),
        ("node", 7),
        ("node", "pi7\x1b[2J"),
        ("node", "localhost"),
        ("rack", "x" * 1001),
        ("model", ""),
        ("model", "x" * 1001),
        ("model", "pi 2"),
        ("model", "pi2\x07"),
        ("disk_id", "1A2B3C4D"),
        ("disk_id", "1a2b"),
        ("imaged_at", -1),
        ("imaged_at", 2**40 + 1),
        ("imaged_at", True),
        ("imaged_at", 1.5),
        ("size_bytes", 2**42),
        ("boot", [0]),
        ("root", [0, 2**41]),
        ("root", [264 * MiB, 760 * MiB + 512]),  # a sector past the card
        ("boot", [0, 0]),
        ("boot", [8 * MiB, 0]),
        ("boot", [MiB - 512, MiB]),  # where the stamp lies
        ("boot", [8 * MiB + 256, MiB]),
        ("root", [264 * MiB, 511]),
        ("release_sha256", "zz" * 32),
        ("image_id", None),
    ],
)
def test_a_wrong_fact_is_named_by_its_key(key: str, value: object) -> None:
    with pytest.raises(StampError, match=key):
        parse_stamp(by_hand({**DOCUMENT, key: value}))


@pytest.mark.parametrize("end", [MiB + 1024, MAX_DISK_BYTES])
def test_partitions_that_a_table_can_hold_are_believed(end: int) -> None:
    boot, root = Extent(MiB, 512), Extent(MiB + 512, end - MiB - 512)
    pairs = {"boot": [boot.offset, boot.length], "root": [root.offset, root.length]}
    facts = parse_stamp(by_hand({**DOCUMENT, **pairs, "size_bytes": MAX_DISK_BYTES})).facts
    assert facts.layout == Layout(MAX_DISK_BYTES, boot, root)
    table = parse(encode(facts.layout, facts.disk_id))
    assert [part.extent for part in table.partitions] == [boot, root]


def test_a_missing_fact_is_named() -> None:
    with pytest.raises(StampError, match="golden_key"):
        parse_stamp(by_hand({key: DOCUMENT[key] for key in DOCUMENT if key != "golden_key"}))


@pytest.mark.parametrize("files", [((400, b"a" * 8), (12, b"b" * 8)), ((12, b"a" * 8),) * 2])
def test_files_out_of_order_are_refused(files: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(StampError, match="out of order"):
        parse_stamp(by_hand(files=files))


def test_zeros_are_no_stamp_and_other_bytes_no_stamp_either() -> None:
    with pytest.raises(NoStamp, match="no stamp"):
        parse_stamp(bytes(STAMP_AREA.length))
    with pytest.raises(NoStamp):
        parse_stamp(b"")
    with pytest.raises(StampError, match="does not begin a stamp") as caught:
        parse_stamp(b"EFI PART" * 100)
    assert not isinstance(caught.value, NoStamp)


def test_a_later_version_is_told_from_damage() -> None:
    with pytest.raises(StampError, match="version 2"):
        parse_stamp(by_hand(version=2))


@pytest.mark.parametrize("reserved", [1, 2**31])
def test_a_reserved_field_that_is_not_zero_is_refused(reserved: int) -> None:
    """It is kept for a form that this program does not know, however well it is signed."""
    with pytest.raises(StampError, match="cannot be"):
        parse_stamp(by_hand(reserved=reserved))


def test_the_list_of_files_gives_way_when_there_is_no_room() -> None:
    many = FileDigests({number: b"d" * 8 for number in range(11, 90_000)})
    found = parse_stamp(encoded(files=many))
    assert found.files == FileDigests()
    assert found.manifest == MANIFEST


def test_a_release_of_3_gb_with_70_000_files_fits() -> None:
    size = 3 * 1000**3 // MiB * MiB
    manifest = Manifest(1 << 37, ExtentMap([Extent(0, size)]), (b"d" * 32,) * (size // MiB))
    large = replace(FACTS, layout=replace(LAYOUT, size_bytes=1 << 37))
    files = FileDigests({number: b"d" * 8 for number in range(11, 70_011)})
    found = parse_stamp(encode_stamp(large, manifest, files, PUBLIC, KEY.sign))
    assert found.manifest == manifest
    assert found.files == files


def test_a_map_without_room_is_an_error_with_figures() -> None:
    size = 40_000 * MiB
    manifest = Manifest(size, ExtentMap([Extent(0, size)]), (b"d" * 32,) * 40_000)
    with pytest.raises(StampTooLarge, match="40000 chunks"):
        encoded(manifest, FileDigests())


def test_the_last_byte_of_the_room_is_used() -> None:
    """First for the list of files, then for the map alone; and not one byte more."""
    room = STAMP_AREA.length - len(encoded(files=FileDigests()))
    rows = FileDigests({number: b"d" * 8 for number in range(11, 11 + room // 12 - 3)})
    for count, files in ((3, rows), (room // 32, FileDigests())):
        size = count * MiB
        manifest = Manifest(size, ExtentMap([Extent(0, size)]), (b"d" * 32,) * count)
        facts = replace(FACTS, layout=replace(LAYOUT, size_bytes=64 * 1024 * MiB))
        left = STAMP_AREA.length - len(encode_stamp(facts, manifest, files, PUBLIC, KEY.sign))
        full = replace(facts, release_name=facts.release_name + "x" * left)
        stamp = encode_stamp(full, manifest, files, PUBLIC, KEY.sign)
        assert len(stamp) == STAMP_AREA.length
        assert parse_stamp(stamp).files == files
    longer = replace(full, release_name=full.release_name + "x")
    with pytest.raises(StampTooLarge):
        encode_stamp(longer, manifest, FileDigests(), PUBLIC, KEY.sign)


@pytest.mark.parametrize("believed", [True, False])
def test_the_list_of_boot_files_is_believed_when_the_stamp_vouches_for_it(
    tmp_path: Path, believed: bool
) -> None:
    listed = f"{'12' * 32}  kernel7.img\n".encode()
    fat = HostileFat()
    fat.folder("picloud", record("SHA256SUMS", fat.claim(listed), len(listed)))
    sums = hashlib.sha256(listed if believed else b"").hexdigest()
    stamp = parse_stamp(by_hand({**DOCUMENT, "boot_sums": sums}))
    boot = fat.write(tmp_path / "card").boot
    data = (tmp_path / "card").read_bytes()
    volume = FatVolume.parse(lambda at, n: data[at : at + n], boot.offset, boot.length)
    own = {SUMS_PATH: sums}
    assert stamp.boot_digests(volume) == (own | {"kernel7.img": "12" * 32} if believed else own)


def test_the_first_chunk_is_compared_with_zeros_in_the_stamps_place() -> None:
    found = parse_stamp(by_hand())
    data = bytearray(b"\xff" * MiB)
    found.without_itself(Chunk(0, (Extent(0, MiB),)), memoryview(data))
    assert data[: STAMP_AREA.offset] == b"\xff" * STAMP_AREA.offset
    assert not any(data[STAMP_AREA.offset : STAMP_AREA.offset + found.length])
    assert data[STAMP_AREA.offset + found.length :].count(0xFF) == STAMP_AREA.length - found.length
    other = bytearray(b"\xff" * MiB)
    found.without_itself(Chunk(MiB, (Extent(MiB, MiB),)), memoryview(other))
    assert other.count(0xFF) == MiB


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8), max_size=50))
def test_file_digests_come_back_from_their_rows(rows: dict[int, bytes]) -> None:
    assert FileDigests.unpack(FileDigests(rows).pack()) == FileDigests(dict(sorted(rows.items())))


def test_the_day_on_which_a_card_was_made() -> None:
    assert FACTS.day == "2026-09-21"
