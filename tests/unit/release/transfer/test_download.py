"""What is kept of a download, and when a server's answer is the rest of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from imager.base.cache import Cache
from imager.base.json_fields import JsonFault
from imager.release.transfer.download import (
    Partial,
    Version,
    continues,
    parse_version,
    version_of,
)
from imager.release.transfer.web import TryAgain, cut_short

MONDAY, TUESDAY = "Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"
KNOWN = Version(200, '"v1"', MONDAY)


def answer(status: int = 206, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): text for name, text in headers.items()})
    return response


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    cache = Cache(tmp_path / "cache")
    cache.made("partial")
    return Partial(cache.looked_at("partial") / "stand-in")


@pytest.mark.parametrize(
    ("status", "headers", "version"),
    [
        (200, {"Content_Length": "200", "ETag": '"v1"'}, Version(200, '"v1"', None)),
        (200, {"ETag": 'W/"v1"', "Last_Modified": MONDAY}, Version(None, None, MONDAY)),
        (206, {"Content_Length": "1", "Content_Range": "bytes 0-0/200"}, Version(200, None, None)),
        (206, {"Content_Length": "1", "Content_Range": "bytes 0-0/*"}, Version(None, None, None)),
        (206, {"Content_Length": "1"}, Version(None, None, None)),
    ],
)
def test_headers_say_which_version_it_is(
    status: int, headers: dict[str, str], version: Version
) -> None:
    assert version_of(answer(status, **headers)) == version


@pytest.mark.parametrize(
    "other",
    [
        Version(200, '"v2"', None),
        Version(200, '"v2"', TUESDAY),
        Version(200, None, TUESDAY),
        Version(200, None, None),
        Version(201, '"v1"', MONDAY),
        Version(None, '"v1"', MONDAY),
    ],
)
def test_another_version_is_not_the_same_file(other: Version) -> None:
    assert not KNOWN.is_same_file(other)
    assert not other.is_same_file(KNOWN)


@pytest.mark.parametrize("other", [Version(200, '"v1"', TUESDAY), Version(200, '"v2"', MONDAY)])
def test_one_of_tag_and_time_is_enough(other: Version) -> None:
    assert KNOWN.is_same_file(other)


REST = "bytes 50-199/200"


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({"Content_Range": REST, "ETag": '"v1"'}, KNOWN),
        ({"Content_Range": REST, "ETag": '"v1"', "Last_Modified": TUESDAY}, KNOWN),
        ({"Content_Range": REST, "Last_Modified": MONDAY}, KNOWN),
        ({"Content_Range": REST}, KNOWN),
        ({"Content_Range": "bytes 50-199/*", "ETag": '"v1"'}, KNOWN),
        ({"Content_Range": REST, "ETag": '"v1"'}, Version(None, '"v1"', None)),
        ({"Content_Range": REST, "ETag": '"v2"', "Last_Modified": MONDAY},
         Version(200, None, MONDAY)),
        ({"Content_Range": REST, "Last_Modified": TUESDAY}, Version(200, '"v1"', None)),
    ],
)  # fmt: skip
def test_the_rest_of_the_same_version_is_appended(headers: dict[str, str], known: Version) -> None:
    assert continues(answer(206, **headers), 50, known)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"ETag": '"v1"'}),
        (200, {"Content_Range": REST, "ETag": '"v1"'}),
        (206, {"ETag": '"v1"'}),
        (206, {"Content_Range": "bytes 49-199/200", "ETag": '"v1"'}),
        (206, {"Content_Range": "bytes 51-199/200", "ETag": '"v1"'}),
        (206, {"Content_Range": "bytes 50-200/201", "ETag": '"v1"'}),
        (206, {"Content_Range": REST, "ETag": '"v2"', "Last_Modified": MONDAY}),
        (206, {"Content_Range": REST, "Last_Modified": TUESDAY}),
    ],
)
def test_what_is_not_the_rest_is_never_appended(status: int, headers: dict[str, str]) -> None:
    assert not continues(answer(status, **headers), 50, KNOWN)


def test_nothing_is_kept_of_a_download_that_did_not_begin(partial: Partial) -> None:
    assert (partial.size_bytes(), partial.version()) == (0, None)


def test_what_began_anew_or_was_discarded_leaves_nothing(partial: Partial) -> None:
    partial.begin(KNOWN)
    partial.path.write_bytes(b"12345")
    assert (partial.size_bytes(), partial.version()) == (5, KNOWN)
    partial.begin(Version(7, None, None))
    assert (partial.size_bytes(), partial.version()) == (0, Version(7, None, None))
    partial.path.write_bytes(b"12345")
    partial.discard()
    assert list(partial.path.parent.iterdir()) == []


def test_what_is_rejected_lies_beside_and_nothing_else_is_left(partial: Partial) -> None:
    partial.begin(KNOWN)
    partial.path.write_bytes(b"12345")
    rejected = partial.reject("x.tar.gz")
    assert rejected == partial.path.parent.with_name("x.tar.gz.rejected")
    assert rejected.read_bytes() == b"12345"
    assert list(partial.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"size_bytes": 5, "etag": null}', "last_modified"),
        ('{"size_bytes": 5, "etag": null, "last_modified": null, "x": 1}', "x"),
        ('{"size_bytes": 5, "etag": "\\"a\\"\\r\\nHost: x", "last_modified": null}', "etag"),
    ],
)
def test_a_version_that_was_tampered_with_is_none(text: str, why: str) -> None:
    """What is in it is sent to the server as a header."""
    with pytest.raises(JsonFault, match=why):
        parse_version(text.encode())


def test_a_body_that_ended_early_may_be_whole_the_next_time() -> None:
    error = cut_short("http://a/b", 5, 9)
    assert isinstance(error, TryAgain)
    assert error.what == "http://a/b: the connection was cut after 5 of 9 bytes"
