"""Batches of 14 cards with faults drawn by a seed, and batches killed at a random moment.

One seed and two kills in an ordinary run of the tests; a full run has
``PICLOUD_BATCH_ROUNDS=50``.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.batches import CARDS, KINDS, Row, faults_of, killed, row
from tests.support.faultcard import why_not
from tests.support.rackcards import blank_cards, flash_words
from tests.support.sampling import SEED
from tests.support.workplace import Workplace, workplace

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(3600),
]

SEEDS = int(os.environ.get("PICLOUD_BATCH_ROUNDS", "1"))
TRIED = range(max(50, SEEDS))
KILLS = int(os.environ.get("PICLOUD_BATCH_ROUNDS", "2"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


@pytest.fixture(scope="module")
def cards(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    with row(tmp_path_factory.mktemp("cards"), place) as made:
        yield made


@pytest.mark.parametrize("seed", random.Random(os.environ[SEED]).sample(TRIED, SEEDS))
def test_every_good_card_is_verified_and_every_bad_one_named(cards: Row, seed: int) -> None:
    kinds = cards.lay(seed)
    assert list(faults_of(cards, kinds, cards.run())) == []


def test_a_killed_batch_is_completed_by_the_next(place: Workplace, tmp_path: Path) -> None:
    chance = random.Random(9)
    assert place.run("compose").code == 0
    with blank_cards(tmp_path, CARDS) as loops:
        began = time.monotonic()
        words = flash_words(f"pi[0-{CARDS - 1}]", [loop.node for loop in loops])
        assert place.run(*words).code == 0
        whole = time.monotonic() - began
        moments = [chance.uniform(0, whole) for _ in range(KILLS)]
        assert list(killed(place, loops, moments, Counter())) == []


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
