"""What may be a node's name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.config.hostname import domain_fault, name_fault

GOOD = ["pi0", "pi13", "a", "rack-1-pi-07", "x" * 63, "3com", "pi00"]
BAD = [
    ("", "is empty"),
    ("x" * 64, "is 64 characters long; a host name has at most 63 (RFC 1123)"),
    ("Pi7", "has upper-case letters; write pi7"),
    ("pi_7", "has an underscore, which host names cannot have (RFC 1123); try pi-7"),
    ("-pi", "begins or ends with a hyphen, which RFC 1123 forbids"),
    ("pi-", "begins or ends with a hyphen, which RFC 1123 forbids"),
    ("pi.7", "has '.' in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"),
    ("pi 7", "has ' ' in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"),
    ("pí7", "has 'í' in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"),
    ("pi7\n", "has '\\n' in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"),
    ("../etc", "has '.' in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"),
    ("42", "is only digits, which many programs read as an address; begin with a letter"),
    ("localhost", "is reserved (RFC 6761)"),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_has_no_fault(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(("name", "fault"), BAD, ids=[name for name, _ in BAD])
def test_a_bad_name_is_told_why(name: str, fault: str) -> None:
    assert name_fault(name) == fault


@given(st.text())
def test_a_name_without_fault_is_safe_as_label_minion_id_and_file_name(name: str) -> None:
    if name_fault(name) is None:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
        assert domain_fault(name) is None or name.isdigit()


@pytest.mark.parametrize(
    "name", ["salt", "salt.lab.example.org", "salt.lab.", "Salt", "xn--bcher-kva.de"]
)
def test_a_good_domain_name_has_no_fault(name: str) -> None:
    assert domain_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "a_b.c", "10.0.0.300", "-x.y", "localhost", "a." * 130, "x y", "x\n"]
)
def test_a_bad_domain_name_has_one(name: str) -> None:
    assert domain_fault(name)
