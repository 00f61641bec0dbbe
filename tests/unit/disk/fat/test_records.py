"""Directory records and table entries, decoded from bytes alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imager.disk.budget import Budget
from imager.disk.fat.directory import parse_directory, short_name_checksum
from imager.disk.fat.table import BAD, END, Chains, FaultKind, decode_table


def short(name: bytes, *, attributes: int = 0x20, case: int = 0, cluster: int = 5) -> bytes:
    record = bytearray(32)
    record[:11], record[11], record[12] = name, attributes, case
    record[26:28] = (cluster & 0xFFFF).to_bytes(2, "little")
    record[20:22] = (cluster >> 16).to_bytes(2, "little")
    record[28:32] = (1234).to_bytes(4, "little")
    return bytes(record)


def long(name: str, alias: bytes) -> bytes:
    """The long-name records for ``name`` that stand before the short name ``alias``."""
    units = name.encode("utf-16-le")
    if len(units) % 26:
        units = (units + b"\0\0").ljust(-(-len(units) // 26) * 26, b"\xff")
    parts = [units[i : i + 26] for i in range(0, len(units), 26)]
    records = []
    for number, part in enumerate(parts, 1):
        order = number | (0x40 if number == len(parts) else 0)
        head = bytes([order]) + part[:10] + bytes([0x0F, 0, short_name_checksum(alias)])
        records.append(head + part[10:22] + b"\0\0" + part[22:26])
    return b"".join(reversed(records))


def names(data: bytes) -> list[str]:
    records, damage = parse_directory(data, wide=True)
    assert damage == []
    return [record.name for record in records]


def test_short_names_keep_the_case_windows_gave_them() -> None:
    data = (
        short(b"CONFIG  TXT")
        + short(b"CONFIG  TXT", case=0x18)
        + short(b"KERNEL7 IMG", case=0x08)
        + short(b"NOEXT      ")
    )
    assert names(data) == ["CONFIG.TXT", "config.txt", "kernel7.IMG", "NOEXT"]


def test_dot_entries_and_deleted_ones_are_left_out() -> None:
    data = short(b".          ") + short(b"..         ") + b"\xe5" + short(b"A          ")[1:]
    assert names(data + short(b"\x05AB        ")) == ["σAB"]


def test_nothing_is_read_after_the_end_mark() -> None:
    assert names(short(b"A          ") + bytes(32) + short(b"B          ")) == ["A"]


def test_cluster_numbers_have_32_bits_only_in_fat32() -> None:
    data = short(b"A          ", cluster=0x00020005)
    assert parse_directory(data, wide=True)[0][0].first_cluster == 0x20005
    assert parse_directory(data, wide=False)[0][0].first_cluster == 5


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"*/:<>?\\|\uffff'),
    min_size=1,
    max_size=120,
)


@given(NAMES)
def test_any_long_name_survives(name: str) -> None:
    assert names(long(name, b"ALIAS~1    ") + short(b"ALIAS~1    ")) == [name]


@given(NAMES)
def test_a_long_name_of_another_file_is_damage_and_the_short_name_stays(name: str) -> None:
    records, damage = parse_directory(long(name, b"ALIAS~1    ") + short(b"OTHER      "), wide=True)
    assert [record.name for record in records] == ["OTHER"]
    assert len(damage) == 1


def test_a_name_with_a_slash_is_damage() -> None:
    records, damage = parse_directory(short(b"A/B        "), wide=True)
    assert records == []
    assert damage == ["a name FAT does not allow: 'A/B'"]


@given(st.binary(max_size=2000))
def test_no_bytes_make_a_directory_raise(data: bytes) -> None:
    records, damage = parse_directory(data, wide=True)
    assert len(records) + len(damage) <= len(data) // 32 + 1


@given(st.lists(st.integers(0, 0xFFF), min_size=2, max_size=50))
def test_fat12_entries_unpack(entries: list[int]) -> None:
    packed = sum(entry << (12 * index) for index, entry in enumerate(entries))
    data = packed.to_bytes(-(-len(entries) * 12 // 8), "little")
    decoded = decode_table(data, 12, len(entries))
    assert [entry & 0xFFF for entry in decoded] == entries
    assert all(
        (entry >= END) == (raw >= 0xFF8) for entry, raw in zip(decoded, entries, strict=True)
    )
    assert all(
        (entry == BAD) == (raw == 0xFF7) for entry, raw in zip(decoded, entries, strict=True)
    )


@given(st.lists(st.integers(0, 0xFFFFFFFF), min_size=2, max_size=50))
def test_fat32_entries_unpack_without_their_upper_bits(entries: list[int]) -> None:
    data = b"".join(entry.to_bytes(4, "little") for entry in entries)
    decoded = decode_table(data, 32, len(entries))
    assert list(decoded[2:]) == [entry & 0x0FFFFFFF for entry in entries[2:]]


@given(
    st.lists(st.integers(0, 40) | st.just(END), min_size=2, max_size=40),
    st.lists(st.tuples(st.integers(0, 45), st.none() | st.integers(0, 45)), max_size=10),
)
def test_every_cluster_is_given_out_at_most_once(
    entries: list[int], claims: list[tuple[int, int | None]]
) -> None:
    chains = Chains(
        decode_table(b"".join(e.to_bytes(4, "little") for e in entries), 32, len(entries)), Budget()
    )
    given_out: list[int] = []
    for number, (first, wanted) in enumerate(claims):
        for start, count in chains.claim(f"f{number}", first, wanted):
            given_out.extend(range(start, start + count))
    lost = [cluster for start, count in chains.lost() for cluster in range(start, start + count)]
    assert len(given_out) == len(set(given_out))
    assert not set(given_out) & set(lost)
    used = {n for n in range(2, len(entries)) if entries[n] not in (0, BAD)}
    assert set(lost) <= used <= set(lost) | set(given_out)
    assert all(fault.kind is not FaultKind.LOST_CLUSTERS for fault in chains.faults.listed)


def test_a_chain_in_a_row_that_belongs_to_another_file_is_cross_linked() -> None:
    entries = [0, 0, 3, 4, END, 0]
    chains = Chains(
        decode_table(b"".join(e.to_bytes(4, "little") for e in entries), 32, 6), Budget()
    )
    assert chains.claim("first", 2, 3) == [(2, 3)]
    assert chains.claim("second", 2, 3) == []
    (fault,) = chains.faults.listed
    assert (fault.kind, fault.paths) == (FaultKind.CROSS_LINKED, ("first", "second"))
