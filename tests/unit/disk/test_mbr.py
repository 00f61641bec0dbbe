"""The first sector says what the layout says, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import SECTOR_BYTES, GiB, MiB
from imager.disk import mbr
from imager.disk.extents import Extent
from imager.disk.layout import Layout, plan_layout

LAYOUTS = st.builds(
    lambda boot, root, more: plan_layout(boot, root).grown_to(
        plan_layout(boot, root).size_bytes + more
    ),
    st.integers(0, 2 * GiB),
    st.integers(MiB, 64 * GiB),
    st.integers(0, 512 * GiB),
)


@given(LAYOUTS, st.integers(0, 2**32 - 1))
def test_what_is_encoded_is_parsed(layout: Layout, disk_id: int) -> None:
    found = mbr.parse(mbr.encode(layout, disk_id))
    assert found.disk_id == disk_id
    assert [part.extent for part in found.partitions] == [layout.boot, layout.root]
    assert [part.type_id for part in found.partitions] == [0x0C, 0x83]
    assert [part.index for part in found.partitions] == [1, 2]
    assert not any(part.bootable for part in found.partitions)


@given(st.binary(max_size=600))
def test_any_bytes_are_parsed_or_refused(sector: bytes) -> None:
    try:
        found = mbr.parse(sector)
    except mbr.MbrError:
        return
    assert len(found.partitions) <= 4


@given(st.binary(min_size=446, max_size=446), st.binary(min_size=64, max_size=64))
def test_any_signed_sector_is_parsed_or_refused(code: bytes, table: bytes) -> None:
    try:
        found = mbr.parse(code + table + b"\x55\xaa")
    except mbr.MbrError:
        return
    assert all(part.sector_count for part in found.partitions)


def test_partuuid_is_what_the_kernel_derives() -> None:
    found = mbr.parse(mbr.encode(plan_layout(0, GiB), 0x0A2B3C4D))
    assert found.partuuid(2) == "0a2b3c4d-02"
    assert found.partition(1) == found.partitions[0]
    assert found.partition(3) is None


def test_bytes_of_a_4_gib_card_are_these() -> None:
    """Taken from ``sfdisk`` (util-linux 2.38) given the same table."""
    layout = plan_layout(0, GiB).grown_to(4 * GiB)
    assert mbr.encode(layout, 0x1A2B3C4D)[440:].hex() == (
        "4d3c2b1a0000"
        "0005"
        "0501"
        "0ca7062100400000"
        "00000800"
        "00a7072183"
        "2aa00a"
        "00400800"
        "00c07700" + "00" * 32 + "55aa"
    )


def test_a_card_past_2_tib_is_refused() -> None:
    layout = Layout(3 << 40, Extent(8 * MiB, 8 * MiB), Extent(16 * MiB, 3 << 40))
    with pytest.raises(mbr.MbrError, match="2 TiB"):
        mbr.encode(layout, 1)


@pytest.mark.parametrize(
    ("sector", "says"),
    [
        (bytes(SECTOR_BYTES), "55 AA"),
        (b"\x55\xaa", "2 bytes long"),
        (b"\x7f" * 510 + b"\x55\xaa", "entry 1 begins with 0x7f"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(sector: bytes, says: str) -> None:
    with pytest.raises(mbr.MbrError, match=says):
        mbr.parse(sector)


def test_a_card_of_2_tib_is_the_largest() -> None:
    boot, end = Extent(8 * MiB, 8 * MiB), 2 << 40
    whole = Layout(end, boot, Extent(16 * MiB, end - 16 * MiB))
    assert mbr.parse(mbr.encode(whole, 1)).partitions[1].extent == whole.root
    longer = Layout(end, boot, Extent(16 * MiB, end - 16 * MiB + SECTOR_BYTES))
    with pytest.raises(mbr.MbrError, match="2 TiB"):
        mbr.encode(longer, 1)


def test_old_addresses_end_with_cylinder_1023() -> None:
    """At 255 heads of 63 sectors: 1023 of 10 bits, two of which stand in the sector's byte."""
    per_cylinder = 255 * 63
    boot = Extent(1023 * per_cylinder * SECTOR_BYTES, (per_cylinder - 62) * SECTOR_BYTES)
    root = Extent(1024 * per_cylinder * SECTOR_BYTES, SECTOR_BYTES)
    sector = mbr.encode(Layout(root.end, boot, root), 1)
    assert sector[447:450].hex() == "00c1ff"
    assert sector[451:454].hex() == "fec1ff"
    assert sector[463:466].hex() == sector[467:470].hex() == "feffff"


def test_entries_in_use_have_sectors_whatever_their_type_and_may_be_active() -> None:
    sector = bytearray(mbr.encode(plan_layout(0, GiB), 1))
    sector[446] = 0x80
    sector[462 + 12 : 462 + 16] = bytes(4)  # no sectors
    sector[478 + 8 : 478 + 16] = b"\1\0\0\0" * 2  # no type
    sector[494:510] = b"\0\0\0\0\x83\0\0\0" + b"\1\0\0\0" * 2
    found = mbr.parse(bytes(sector))
    assert [(part.index, part.type_id, part.bootable) for part in found.partitions] == [
        (1, 0x0C, True), (3, 0, False), (4, 0x83, False),
    ]  # fmt: skip
    assert found.partitions[2].extent == Extent(512, 512)
    sector[494] = 1
    with pytest.raises(mbr.MbrError, match="entry 4 begins with 0x01"):
        mbr.parse(bytes(sector))
    assert mbr.parse(mbr.encode(plan_layout(0, GiB), 1) + b"more").disk_id == 1
