"""Times are UTC with a Z, and those that earlier versions wrote are understood beside them."""

from __future__ import annotations

import re
import time

import pytest

from imager.base.timestamps import is_precise, timestamp
from imager.release.lock import encode_lock, parse_lock


def test_seconds_since_1970_as_iso_8601() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(1_795_889_000) == "2026-11-28T18:03:20Z"
    assert timestamp(1_795_889_000.25, precise=True) == "2026-11-28T18:03:20.250Z"


def test_now_is_utc_wherever_the_computer_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        before, text, after = time.time(), timestamp(), time.time()
        precise = timestamp(precise=True)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert timestamp(before) <= text <= timestamp(after)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", precise)


def test_old_and_new_forms_sort_by_time() -> None:
    times = [
        "2026-11-28T18:03:19+00:00",
        timestamp(1_795_889_000),
        "2026-11-28T18:03:21+00:00",
        timestamp(1_795_889_002),
    ]
    assert sorted(reversed(times)) == times


@pytest.mark.parametrize("at", ["2026-11-28T18:03:20+00:00", timestamp()], ids=["old", "new"])
def test_rack_lock_takes_both_forms(at: str) -> None:
    text = (
        f'[release.x]\nsha256 = "{"ab" * 32}"\nsize_bytes = 1\nurl = "http://m/x"\n'
        f'fingerprint = "{"AB" * 20}"\nfetched_at = "{at}"\n'
    )
    pins, faults = parse_lock(text.encode())
    assert not faults
    assert f'fetched_at = "{at}"' in encode_lock(pins), "and is not rewritten"


@pytest.mark.parametrize(
    ("text", "precise"),
    [
        (timestamp(0, precise=True), True),
        (timestamp(0), False),
        ("1970-01-01T00:00:00.000Z\n", False),
        ("1970-01-01T00:00:00.000+00:00", False),
        ("١٩٧٠-01-01T00:00:00.000Z", False),
    ],
)
def test_what_has_the_form_of_a_time(text: str, precise: bool) -> None:
    assert is_precise(text) is precise
