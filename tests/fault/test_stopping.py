"""What reads and copies cards is stopped at any moment: a few rounds of scripts/reliability."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fault.stopping import HOWS, Pair, both_at_once, killed, pair, pulled
from tests.support.faultcard import why_not
from tests.support.sampling import SEED

pytestmark = [
    pytest.mark.fault,
    pytest.mark.long(minutes=7),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.parametrize("how", HOWS),
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("stopping")) as made:
        yield made


def test_killed_it_leaves_nothing_in_between_and_the_next_run_succeeds(at: Pair, how: str) -> None:
    assert sum(killed(at, how, 3, os.environ[SEED]).values()) == 3


def test_with_a_card_pulled_out_too(at: Pair, how: str) -> None:
    assert sum(pulled(at, how, 2, os.environ[SEED]).values()) == 2


def test_of_two_at_once_the_second_waits_a_while_or_is_refused(at: Pair, how: str) -> None:
    first, second = both_at_once(at, how)
    assert first == 0 and second in (0, 20)
