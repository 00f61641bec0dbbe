"""What is said fits the terminal, and no word of it is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.cli.terminal.folding import folded, shortened, table, width_of, wrapped

PATH = "/dev/disk/by-id/usb-Generic_STORAGE_DEVICE_000000000819-0:0"
WORDS = st.lists(st.text("ab→…字", min_size=1, max_size=30), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("    why:  the boot ROM finds it", ["    why:  the boot ROM", "          finds it"]),
        ("  → put it in and switch it on", ["  → put it in and switch", "    it on"]),
        ("a sentence without a label, long", ["a sentence without a", "    label, long"]),
        ("size      as small as it can be", ["size      as small as it", "          can be"]),
        ("a card of 1234 with 31.9 GB free", ["a card of 1234 with", "    31.9 GB free"]),
        ("short", ["short"]),
    ],
)
def test_the_rest_stands_below_the_text(line: str, shown: list[str]) -> None:
    assert folded(line, 24) == shown
    assert folded(line, None) == [line]


@given(st.sampled_from(["", "    ", "    mend: ", "picloud-image: ", "  → "]), WORDS)
@pytest.mark.parametrize("columns", [60, 80])
def test_only_a_word_that_is_too_long_stands_out(columns: int, head: str, words: list[str]) -> None:
    lines = folded(head + " ".join(words), columns)
    assert " ".join(lines).split() == (head + " ".join(words)).split()
    assert all(width_of(line) <= columns for line in lines)


def test_a_path_is_whole_and_beside_its_label() -> None:
    assert folded(f"file      {PATH} is new", 40) == [f"file      {PATH}", "          is new"]


def test_letters_of_two_columns_and_of_none_are_counted_so() -> None:
    assert (width_of("字"), width_of("e\u0301"), width_of("é")) == (2, 1, 1)


def test_a_table_folds_its_widest_cells() -> None:
    head = ("node", "card", "because of")
    row = ("pi0", "/tmp/pi0.img", "the name of the file")
    assert table(head, [row], None)[1].split() == " ".join(row).split()
    assert table(head, [row], 28) == [
        "node  card          because",
        "                    of",
        "pi0   /tmp/pi0.img  the name",
        "                    of the",
        "                    file",
    ]


def test_where_a_row_does_not_fit_its_cells_stand_below_each_other() -> None:
    head = ("node", "card", "slot", "size")
    assert table(head, [("pi0", PATH, "–", "4 GB"), ("pi1", "/x", "A1", "new")], 60) == [
        "pi0",
        f"    card: {PATH}",
        "    size: 4 GB",
        "pi1",
        "    card: /x",
        "    slot: A1",
        "    size: new",
    ]


CELLS = st.text("ab ", max_size=40)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8), st.integers(60, 80))
def test_a_table_always_fits_and_says_everything(
    rows: list[tuple[str, str, str]], columns: int
) -> None:
    lines = table(("node", "card", "to do"), rows, columns)
    longest = max((len(word) for row in rows for cell in row for word in cell.split()), default=0)
    assert all(len(line) <= max(columns, longest + 10) for line in lines)
    said = sorted("".join(lines).replace(" ", ""))
    for cell in (cell for row in rows for cell in row):
        for letter in cell.replace(" ", ""):
            said.remove(letter)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("pi7  faulty: does not keep it", "pi7  faulty: does not …"),
        ("pi7  /dev/disk/by-id/usb-x", "pi7  /dev/disk/by-id/…"),
        ("pi7  waits for its turn", "pi7  waits for its turn"),
    ],
)
def test_what_is_drawn_over_and_over_is_shortened_between_words(line: str, shown: str) -> None:
    assert shortened(line, 23) == shown


@given(st.text("ab 字", max_size=99), st.integers(3, 99))
def test_what_is_shortened_fits(line: str, columns: int) -> None:
    shown = shortened(line, columns)
    assert width_of(shown) <= columns
    assert shown == line or line.startswith(shown.removesuffix("…").rstrip())


def test_where_nobody_looks_at_a_terminal_lines_are_whole() -> None:
    assert wrapped("a b " * 99, None, "- ", "  ") == ["- " + "a b " * 99]
