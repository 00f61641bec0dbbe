"""Part of a long table, drawn by chance: all of it is for ``--all`` and scripts/reliability.

What is drawn depends on a seed, which the run says at its beginning; ``PICLOUD_SEED=…`` in the
environment draws the same again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import pytest

SEED = "PICLOUD_SEED"
_T = TypeVar("_T")


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Draw the seed, for this process and those it starts."""
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1_000_000)))


def pytest_report_header() -> str:
    return f"samples: {SEED}={os.environ[SEED]} draws the same again"


def one_of_each(table: Iterable[_T], kind: Callable[[_T], Hashable]) -> list[_T]:
    """One of each ``kind`` in ``table``, drawn by the seed of this run."""
    kinds: dict[Hashable, list[_T]] = {}
    for row in table:
        kinds.setdefault(kind(row), []).append(row)
    chance = random.Random(os.environ[SEED])
    return [chance.choice(rows) for rows in kinds.values()]


def a_part_of(table: Sequence[_T], share: float) -> list[_T]:
    """So large a ``share`` of ``table``, drawn by the seed of this run."""
    return random.Random(os.environ[SEED]).sample(table, round(len(table) * share))
