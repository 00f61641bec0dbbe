"""What may be on the boot partition, and what is refused before a tool would mangle it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.disk.fat.names import name_fault, same_on_fat


@pytest.mark.parametrize(
    "name",
    [
        *(
            "com0",
            "lpt10",
            "config.txt",
            "A long name",
            "ünïcödé-long",
            "日本語の名前です。",
            "größe.conf",
            ".hidden",
            "n" * 255,
            "CONSOLE",
            "a;b]",
        ),
        "config.txt~",
        "kernel~.img",
        "kernel~12345678.img",
        "kernel-seven~.img",
        "kernels~",
        "a.b~1",
        "long name~1",
    ],
)
def test_ordinary_names_are_fine(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((f"a{bad}b", "has") for bad in '"*:<>?\\|\x01\x7f'),
        ("a[b]", "a pattern"),
        ("ends.", "ends in a dot"),
        ("ends ", "ends in a dot or a space"),
        (" starts", "begins with a space"),
        ("n" * 256, "256 characters"),
        ("\udce9", "not UTF-8"),
        ("🥧", "16-bit"),
        *((name, "DOS device") for name in ("con", "prn", "AUX.b", "nul", "CLOCK$", "LPT1.txt")),
        *((f"{port}{number}", "DOS device") for port in ("com", "lpt") for number in "123456789"),
        ("kernel~1.img", "short name"),
        ("KERNEL~1", "short name"),
        ("a~123456.x", "short name"),
        *((f"{letter}.txt", "code page") for letter in "€œÿıüÁ日\u212a"),
        ("e\u0301", "code page"),
        ("kernel7€", "code page"),
        (".€", "code page"),
        *((name, "damaged") for name in ("a b~", "kernels~1.img", ".a+b~", "it's~")),
        *((f"a long{tilde} näme", "damaged") for tilde in "~˜∼～"),
    ],
)
def test_what_fat_cannot_hold_is_named(name: str, says: str) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert says in fault


@given(st.text())
def test_case_alone_makes_no_difference(name: str) -> None:
    assert same_on_fat(name.lower()) == same_on_fat(name.lower().upper())
