"""cmdline.txt and the names of the root partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.formats.cmdline import parse_cmdline


def test_the_distributions_own_line_is_understood() -> None:
    line = parse_cmdline(b"root=/dev/mmcblk0p2 rw rootwait console=serial0,115200 console=tty1\n")
    assert line.value("root") == "/dev/mmcblk0p2"
    assert line.value("console") == "tty1"
    assert "rootwait" in line.words
    assert (line.extra, line.has_control) == (None, False)


@pytest.mark.parametrize(
    ("line", "words"),
    [('a "root=x y" b', ("a", "root=x y", "b")), ('root="x y"', ("root=x y",)),
     ('"root=x"', ("root=x",)), ('root=x"y"', ('root=x"y"',)), ('a "b c', ("a", "b c")),
     ('"rw" ""', ("rw",)), ("a -- init=/x root=b", ("a",)), ("--", ()),
     ("a --b -- c", ("a", "--b")), ('"a" "--" b', ("a",))],
)  # fmt: skip
def test_words_are_those_of_the_kernel(line: str, words: tuple[str, ...]) -> None:
    assert parse_cmdline(line.encode()).words == words


@pytest.mark.parametrize(
    ("line", "waits"),
    [("rootwait", True), ("rootwait=30", True), ('"rootwait"', True), ("norootwait", False),
     ("rootdelay=3", False), ("root=x -- rootwait", False)],
)  # fmt: skip
def test_a_wait_for_the_root_may_have_an_end(line: str, waits: bool) -> None:
    assert parse_cmdline(line.encode()).waits_for_root is waits


def test_quotes_hold_a_word_together_and_the_last_value_counts() -> None:
    line = parse_cmdline(b'dyndbg="file a.c +p" root=A root="B"')
    assert line.value("dyndbg") == "file a.c +p"
    assert line.value("root") == "B"
    assert line.value("absent") is None


@pytest.mark.parametrize("data", [b"root=a", b"root=a\n", b"root=a\n\n  \n"])
def test_one_line_is_one_line(data: bytes) -> None:
    assert parse_cmdline(data).extra is None


def test_the_first_further_line_with_words_is_named() -> None:
    assert parse_cmdline(b"root=a\n\nquiet\nmore\n").extra == (3, "quiet")


def test_a_return_at_the_end_is_a_control_character() -> None:
    assert parse_cmdline(b"root=a\r\n").has_control
    assert not parse_cmdline(b"root=a\tquiet\n").has_control


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    line = parse_cmdline(data)
    assert all(word.split() for word in line.words)
