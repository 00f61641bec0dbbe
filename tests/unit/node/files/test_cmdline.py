"""The kernel's command line keeps its words and finds this card's root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.formats.cmdline import parse_cmdline
from imager.node.files.cmdline import with_root, with_words, word_fault

ID = "1a2b3c4d-02"
CASES = [
    (
        b"root=/dev/mmcblk0p2 rw rootwait console=tty1 fsck.repair=yes\n",
        b"root=PARTUUID=1a2b3c4d-02 rw rootwait console=tty1 fsck.repair=yes\n",
    ),
    (b"console=tty1", b"root=PARTUUID=1a2b3c4d-02 rootwait console=tty1\n"),
    (b"", b"root=PARTUUID=1a2b3c4d-02 rootwait\n"),
    (b"\n\nrw root=LABEL=x\nquiet\n", b"rw root=PARTUUID=1a2b3c4d-02 rootwait\n"),
    (b"root=/dev/sda2 rw root=/dev/sdb2", b"root=PARTUUID=1a2b3c4d-02 rootwait rw\n"),
    (b"rw\r\n", b"root=PARTUUID=1a2b3c4d-02 rootwait rw\n"),
    (b"rootflags=noatime", b"root=PARTUUID=1a2b3c4d-02 rootwait rootflags=noatime\n"),
    (b"rw -- root=/dev/sda2", b"root=PARTUUID=1a2b3c4d-02 rootwait rw -- root=/dev/sda2\n"),
    (b"root=/dev/sda2 -- rootwait", b"root=PARTUUID=1a2b3c4d-02 rootwait -- rootwait\n"),
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_root_is_replaced_in_its_place(before: bytes, after: bytes) -> None:
    assert with_root(before, ID) == after


@given(st.binary(max_size=80) | st.text(alphabet="root=wait \n\t/x", max_size=60).map(str.encode))
def test_any_text_becomes_one_line_with_one_root(text: bytes) -> None:
    line = with_root(text, ID)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    words = line.split()
    assert [word for word in words if word.startswith(b"root=")] == [b"root=PARTUUID=1a2b3c4d-02"]
    assert b"rootwait" in words
    assert with_root(line, ID) == line


@given(st.lists(st.text(alphabet="abc=,.0129/-", min_size=1, max_size=8), max_size=8))
def test_every_other_word_keeps_its_place(words: list[str]) -> None:
    line = with_root(" ".join(words).encode(), ID)
    ours = (f"root=PARTUUID={ID}", "rootwait")
    kept = [word for word in line.decode().split() if word not in ours]
    assert kept == [word for word in words if not word.startswith("root=") and word != "rootwait"]
    assert set(ours) <= set(parse_cmdline(line).words), "the kernel gets them"


@pytest.mark.parametrize(
    ("before", "words", "after"),
    [
        (b"rw quiet\n", ["cgroup_enable=memory"], b"rw quiet cgroup_enable=memory"),
        (b"rw quiet\n", ["quiet", "rw"], b"rw quiet"),
        (b"panic=1\n", ["panic=5", "panic=5"], b"panic=1 panic=5"),
        (b"rw -- single\n", ["quiet", "single"], b"rw quiet single -- single"),
        (b"", ["quiet"], b"quiet"),
        (b"rw\n", [], b"rw"),
    ],
)
def test_words_come_last_once_and_before_those_for_init(
    before: bytes, words: list[str], after: bytes
) -> None:
    assert with_words(before, words) == after


@pytest.mark.parametrize(
    "word",
    [
        "",
        "a b",
        "a\nb",
        "a\tb",
        "a\0b",
        'x="y"',
        "x='y'",
        "$x",
        "a;b",
        "ü",
        "--",
        "a\n",
        "root",
        "root=x",
    ],
)
def test_what_is_no_word_of_ours_is_refused(word: str) -> None:
    assert word_fault(word)


@given(st.text(max_size=40))
def test_a_word_that_is_taken_stays_one_word_of_one_line(word: str) -> None:
    if word_fault(word) is None:
        line = with_words(b"root=PARTUUID=1-02\n", [word])
        assert parse_cmdline(line).words == ("root=PARTUUID=1-02", word)
