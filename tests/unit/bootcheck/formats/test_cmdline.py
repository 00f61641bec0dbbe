"""cmdline.txt and the names of the root partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.formats.cmdline import RootNames, parse_cmdline, root_fault

NAMES = RootNames("1a2b3c4d-02", "0f0f0f0f-0000-4000-8000-000000000000", "root")


def test_the_distributions_own_line_is_understood() -> None:
    line = parse_cmdline(b"root=/dev/mmcblk0p2 rw rootwait console=serial0,115200 console=tty1\n")
    assert line.value("root") == "/dev/mmcblk0p2"
    assert line.value("console") == "tty1"
    assert "rootwait" in line.words
    assert (line.extra, line.has_control) == (None, False)


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


@pytest.mark.parametrize(
    "root",
    ["/dev/mmcblk0p2", "/dev/mmcblk1p2", "PARTUUID=1a2b3c4d-02", "PARTUUID=1A2B3C4D-02",
     "UUID=0f0f0f0f-0000-4000-8000-000000000000", "LABEL=root"],
)  # fmt: skip
def test_names_of_this_card(root: str) -> None:
    assert root_fault(root, NAMES, initramfs=True) is None


@pytest.mark.parametrize(
    "root", ["/dev/mmcblk0p1", "/dev/sda2", "PARTUUID=1a2b3c4d-01", "UUID=ffff", "LABEL=x", "x"]
)
def test_names_of_something_else_are_quoted(root: str) -> None:
    fault = root_fault(root, NAMES, initramfs=True)
    assert fault is not None
    assert root in fault


def test_a_filesystem_name_that_cannot_be_checked_is_believed() -> None:
    unknown = RootNames("1a2b3c4d-02", None, None)
    assert root_fault("UUID=ffff", unknown, initramfs=True) is None
    assert root_fault("UUID=ffff", unknown, initramfs=False) is not None


@given(st.text(max_size=60))
def test_any_value_gets_an_answer(root: str) -> None:
    answer = root_fault(root, NAMES, initramfs=True)
    assert answer is None or "\n" not in answer or "\n" in root
