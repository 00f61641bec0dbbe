"""Which versions of Salt go on a card, and which can talk to each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.release.salt.version import (
    cannot_talk,
    master_version_fault,
    parse_version,
    python_too_new,
    version_fault,
)


@pytest.mark.parametrize("good", ["3006.0", "3006.30", "3007.17", "3008.3", "3010.1"])
def test_versions_that_go_on_a_card(good: str) -> None:
    assert version_fault(good) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("3005.5", "older than 3006.0"),
        ("2019.2.8", "older than 3006.0"),
        ("3004", "older than 3006.0"),
        ("3008", "not a version"),
        ("newest", "not a version"),
        ("3008.3rc1", "not a version"),
        ("3008.3 --hash", "not a version"),
        ("", "not a version"),
    ],
)
def test_versions_that_do_not(bad: str, why: str) -> None:
    assert why in (version_fault(bad) or "")


@pytest.mark.parametrize("good", ["3008.3", "3005.4", "3004", "3000", "2019.2.8"])
def test_a_master_may_have_any_version_there_was(good: str) -> None:
    assert master_version_fault(good) is None


@pytest.mark.parametrize("bad", ["3006", "300", "2019", "newest", "3004rc1", ""])
def test_what_no_master_has(bad: str) -> None:
    assert master_version_fault(bad) == "is not a version of Salt"


@given(st.text(max_size=20))
def test_any_text_is_a_version_or_a_fault(text: str) -> None:
    if version_fault(text) is None:
        assert parse_version(text) >= (3006, 0)


@pytest.mark.parametrize(
    ("minion", "master"),
    [
        ("3008.3", "3008.3"),
        ("3008.3", "3006.12"),
        ("3006.12", "3008.3"),
        ("3007.4", "3006.17"),
        ("3006.11", "3006.11"),
        ("3006.11", "3006.16"),
        ("3007.3", "3007.8"),
    ],
)
def test_versions_that_can_talk(minion: str, master: str) -> None:
    assert cannot_talk(minion, master) is None


@pytest.mark.parametrize(
    ("minion", "master", "why"),
    [
        ("3006.11", "3006.17", "minimum_auth_version 3"),
        ("3007.3", "3007.9", "minimum_auth_version 3"),
        ("3007.3", "3008.0", "minimum_auth_version 3"),
        ("3006.12", "3006.11", "session key"),
        ("3008.3", "3007.3", "session key"),
        ("3008.3", "3005.5", "session key"),
        ("3008.3", "3004", "session key"),
        ("3006.12", "2019.2.8", "session key"),
    ],
)
def test_versions_that_cannot_talk(minion: str, master: str, why: str) -> None:
    said = cannot_talk(minion, master) or ""
    assert why in said
    assert said.endswith("3006.12, 3007.4 or newer")


@pytest.mark.parametrize(
    ("version", "minor"), [("3006.30", 13), ("3007.17", 14), ("3008.3", 14), ("3008.5", 15)]
)
def test_a_python_that_nothing_is_known_against(version: str, minor: int) -> None:
    assert python_too_new(version, minor) is None


@pytest.mark.parametrize("minor", [14, 15])
def test_a_python_on_which_salt_never_talks(minor: int) -> None:
    said = python_too_new("3006.30", minor)
    assert said == f"Salt 3006.30 starts on Python 3.{minor} and never talks to its master"
