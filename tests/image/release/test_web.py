"""What an answer of a server means, and how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from imager.base.errors import NetworkError
from imager.release.transfer.web import NotThere, TryAgain, Web
from tests.support.fetching import LIMITS
from tests.support.mirror import Manners, Mirror, serving

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def server() -> Iterator[Mirror]:
    with serving({"/x": b"12345678"}) as server:
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    with closing(Web(replace(LIMITS, attempts=3, back_off_seconds=0))) as web:
        yield web


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (TryAgain, (408, 425, 429, 500, 502, 503, 504)),
        (NotThere, (404, 410)),
        (NetworkError, (400, 403, 407, 409, 424, 428, 430, 499, 501, 505)),
    ],
)
def test_a_status_says_whether_to_try_again(
    server: Mirror, web: Web, kind: type[NetworkError], statuses: tuple[int, ...]
) -> None:
    for status in statuses:
        server.misbehave("/x", Manners(status=status))
        with pytest.raises(NetworkError, match=f"/x: the server answered {status}") as caught:
            web.small_file(server.address + "/x", 8)
        assert type(caught.value) is kind, status


def test_a_small_file_is_whole_and_small(server: Mirror, web: Web) -> None:
    url = server.address + "/x"
    server.misbehave("/x", Manners())
    assert web.small_file(url, 8) == b"12345678"
    with pytest.raises(NetworkError, match="is larger than 7 B"):
        web.small_file(url, 7)
    server.misbehave("/x", Manners(cut_after=[5]))
    with pytest.raises(TryAgain):
        web.small_file(url, 8)


@pytest.mark.parametrize(("error", "times"), [(TryAgain, 3), (NotThere, 1), (NetworkError, 1)])
def test_what_may_pass_is_tried_so_often(web: Web, error: type[NetworkError], times: int) -> None:
    tried: list[int] = []

    def action() -> None:
        tried.append(1)
        raise error("no", hint="no")

    with pytest.raises(error):
        web.patiently(action)
    assert len(tried) == times


def test_the_cause_of_a_failure_is_said_in_one_line(web: Web) -> None:
    with serving() as gone:
        pass
    with pytest.raises(TryAgain, match=r"/x: Connection refused$"):
        web.small_file(gone.address + "/x", 8)
