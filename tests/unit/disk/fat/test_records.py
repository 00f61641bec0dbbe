"""Directory records and table entries, decoded from bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.disk.budget import MAX_FINDINGS, Budget, OverBudget, ReadLimits
from imager.disk.fat.directory import DirectoryRecord, parse_directory, short_name_checksum
from imager.disk.fat.table import (
    BAD,
    END,
    Chains,
    FatFault,
    FaultKind,
    FaultList,
    decode_table,
)


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


@pytest.mark.parametrize("letter", '"*/:<>?\\|\x01\x1f\x7f ~.')
def test_a_long_name_has_no_letter_that_means_something_else(letter: str) -> None:
    """A space, a tilde and a dot mean nothing."""
    data = long(f"a{letter}b", b"ALIAS      ") + short(b"ALIAS      ")
    found, damage = parse_directory(data, wide=True)
    assert bool(damage) is (letter not in " ~.")
    assert len(found) == (letter in " ~.")


def test_the_checksum_of_a_short_name_is_rotated_and_added() -> None:
    """As fatgen103 has it: the sum so far rotated right by one bit, and the next byte added."""
    assert short_name_checksum(b"README  TXT") == 115
    assert short_name_checksum(b"ALIAS~1    ") == 200


def test_a_name_with_a_slash_is_damage() -> None:
    records, damage = parse_directory(short(b"A/B        "), wide=True)
    assert records == []
    assert damage == ["a name FAT does not allow: 'A/B'"]


def test_every_field_of_a_record_is_at_its_place() -> None:
    record = bytearray(short(b"BOOT       ", attributes=0x10, cluster=0x12345678))
    record[22:26] = bytes.fromhex("01020304")
    ((found,), damage) = parse_directory(bytes(record), wide=True)
    assert damage == []
    assert found == DirectoryRecord("BOOT", True, False, 0x12345678, 1234, 0x04030201)
    ((label,), _) = parse_directory(short(b"A/B        ", attributes=0x08), wide=True)
    assert (label.name, label.is_dir, label.is_volume_label) == ("A/B", False, True)


def test_a_record_cut_short_is_none() -> None:
    assert names(short(b"A          ") + short(b"B          ")[:31]) == ["A"]


@pytest.mark.parametrize(
    ("spoil", "damage"),
    [
        ((0, 0x42), []),
        ((0, 0x02), ["a broken long name in record 0", "a broken long name in record 1"]),
        ((0, 0x55), ["a broken long name in record 0", "a broken long name in record 1"]),
        ((0, 0x40), ["a broken long name in record 0", "a broken long name in record 1"]),
        ((13, 0), ["a broken long name in record 1"]),
        ((32, 0x02), ["a broken long name in record 1"]),
        ((32, 0x41), ["a broken long name in record 1"]),
        ((32 + 13, 0), ["a broken long name in record 1"]),
        ((32 + 11, 0xCF), []),
    ],
)
def test_a_long_name_is_whole_or_damage(spoil: tuple[int, int], damage: list[str]) -> None:
    data = bytearray(long("a name of two records", b"ALIAS      ") + short(b"ALIAS      "))
    data[spoil[0]] = spoil[1]
    found, said = parse_directory(bytes(data), wide=True)
    assert said == damage
    assert [record.name for record in found] == ["ALIAS" if damage else "a name of two records"]


def test_a_long_name_of_twenty_records_is_the_longest() -> None:
    for count, name in ((260, "x" * 260), (273, "ALIAS")):
        data = long("x" * count, b"ALIAS      ") + short(b"ALIAS      ")
        found, damage = parse_directory(data, wide=True)
        assert [record.name for record in found] == [name]
        assert bool(damage) is (count == 273)


@pytest.mark.parametrize("behind", [b"", b"\xe5" + bytes(31), bytes(32)])
def test_a_long_name_without_its_file_is_damage(behind: bytes) -> None:
    data = long("a name of two records", b"ALIAS      ") + behind
    assert parse_directory(data, wide=True) == ([], ["a long name without its file"])
    once = data + short(b"A          ")
    assert parse_directory(once, wide=True)[1][:1] != []


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


@pytest.mark.parametrize("index", range(2, 12))
def test_upper_bits_of_a_single_entry_are_left_out(index: int) -> None:
    data = bytearray(12 * 4)
    data[4 * index : 4 * index + 4] = b"\x09\0\0\xf0"
    decoded = decode_table(bytes(data), 32, 12)
    assert [number for number in range(12) if decoded[number]] == [index]
    assert decoded[index] == 9


@given(st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=50))
def test_fat16_entries_unpack(entries: list[int]) -> None:
    data = b"".join(entry.to_bytes(2, "little") for entry in entries)
    wide = [entry + 0x0FFF0000 if entry >= 0xFFF7 else entry for entry in entries]
    assert list(decode_table(data + b"more", 16, len(entries))) == wide


def chains(*entries: int, budget: Budget | None = None) -> Chains:
    """Chains of a table whose entries from number 2 on are these."""
    table = (0x0FFFFFF8, 0x0FFFFFFF, *entries)
    data = b"".join(entry.to_bytes(4, "little") for entry in table)
    return Chains(decode_table(data, 32, len(table)), budget or Budget())


@pytest.mark.parametrize(
    ("entries", "first", "wanted", "runs", "what"),
    [
        ((3, 4, END), 2, 3, [(2, 3)], None),
        ((3, 4, END), 2, None, [(2, 3)], None),
        ((3, 4, 0x0FFFFFFF), 2, 3, [(2, 3)], None),
        ((END,), 2, 1, [(2, 1)], None),
        ((4, 0, 6, 0, END), 2, 3, [(2, 1), (4, 1), (6, 1)], None),
        ((5, END, 0, 6, 3), 2, 4, [(2, 1), (5, 2), (3, 1)], None),
        ((), 0, 0, [], None),
        ((), 0, None, [], None),
        ((3, END), 2, 1, [(2, 2)], "f has 2 clusters; its size needs 1"),
        ((3, END), 2, 3, [(2, 2)], "f has 2 clusters; its size needs 3"),
        ((END,), 2, 0, [(2, 1)], "f has 1 clusters; its size needs 0"),
        ((), 0, 1, [], "the chain of f begins in cluster 0, which does not exist"),
        ((END,), 1, 1, [], "the chain of f begins in cluster 1, which does not exist"),
        ((END,), 3, 1, [], "the chain of f begins in cluster 3, which does not exist"),
        ((0,), 2, 1, [], "the chain of f begins in cluster 2, which is free"),
        ((1,), 2, 1, [], "the chain of f begins in cluster 2, which is free"),
        ((BAD,), 2, 1, [], "the chain of f begins in cluster 2, which is marked bad"),
        ((3, BAD), 2, 2, [(2, 1)], "the chain of f goes on in cluster 3, which is marked bad"),
        ((3, 4), 2, 2, [(2, 2)], "the chain of f goes on in cluster 4, which does not exist"),
        ((3, 2), 2, 2, [(2, 2)], "the chain of f returns to its own cluster 2"),
    ],
)
def test_a_chain_is_followed_to_where_it_ends_or_breaks(
    entries: tuple[int, ...],
    first: int,
    wanted: int | None,
    runs: list[tuple[int, int]],
    what: str | None,
) -> None:
    held = chains(*entries)
    assert held.claim("f", first, wanted) == runs
    assert [fault.what for fault in held.faults.listed] == ([what] if what else [])
    assert held.faults.hurt == ({"f"} if what else set())


def test_a_sound_filesystem_costs_next_to_nothing_to_follow() -> None:
    """Files in a row are compared, not followed; without lost clusters none is looked for."""
    budget = Budget()
    held = chains(*range(3, 102), END, 0, 0, *range(105, 204), END, budget=budget)
    assert held.claim("f", 2, 100) == [(2, 100)]
    assert held.claim("g", 104, 100) == [(104, 100)]
    assert held.lost() == []
    assert budget.spent == (0, 0)


def test_a_file_in_pieces_and_lost_clusters_are_paid_for() -> None:
    """A step for each piece, one for four clusters, and the table once to find what is lost."""
    budget = Budget()
    held = chains(4, 0, 5, 8, 0, 0, 9, END, END, 0, END, *[0] * 21, budget=budget)
    assert held.claim("f", 2, 5) == [(2, 1), (4, 2), (8, 2)]
    assert budget.spent == (3 + 1, 0)
    assert held.lost() == [(10, 1), (12, 1)]
    assert budget.spent == (3 + 1 + 34 // 8, 0)
    two = (END, 0, END)
    assert len(chains(*two, budget=Budget(ReadLimits(pieces=2))).lost()) == 2
    with pytest.raises(OverBudget, match="more than 1 pieces"):
        chains(*two, budget=Budget(ReadLimits(pieces=1))).lost()


def test_who_holds_a_cluster_and_which_nobody_does() -> None:
    held = chains(3, END, 0, 6, END, BAD, END)
    assert held.claim("first", 2, 2) == [(2, 2)]
    assert held.claim("second", 8, 1) == [(8, 1)]
    owners = [held.owner_of(cluster) for cluster in range(11)]
    assert owners == [None, None, "first", "first", None, None, None, None, "second", None, None]
    assert held.lost() == [(5, 2)]
    assert chains(0, 0).lost() == []
    whole = chains(3, END)
    whole.claim("f", 2, 2)
    assert whole.lost() == []
    assert chains(END, 0, END).lost() == [(2, 1), (4, 1)]


def test_a_file_in_too_many_pieces_is_followed_no_further() -> None:
    budget = Budget(ReadLimits(pieces=2))
    held = chains(4, 0, 6, 0, 8, 0, END, budget=budget)
    assert held.claim("f", 2, 4) == [(2, 1), (4, 1)]
    (fault,) = held.faults.listed
    assert fault.kind is FaultKind.NOT_LOOKED_AT
    assert "not followed further" in fault.what


def test_only_the_first_faults_are_put_into_words() -> None:
    faults = FaultList()
    for number in range(MAX_FINDINGS + 2):
        faults.add(FaultKind.LOOP, "loop", f"f{number}", offset=number)
    assert (len(faults.listed), faults.more) == (MAX_FINDINGS, 2)
    assert len(faults.hurt) == MAX_FINDINGS + 2
    assert faults.listed[1] == FatFault(FaultKind.LOOP, "loop", ("f1",), 1)


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
