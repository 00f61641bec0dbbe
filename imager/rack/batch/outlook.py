"""How far all cards of a run are together, and when they will be done.

In: for each card how far it is, or how it ended. Out: numbers for one line. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from imager.rack.batch.card_progress import Moment


class Row(Protocol):
    """One card. It has a ``moment`` while it is being made; ``is_good`` is None until it has
    ended."""

    @property
    def moment(self) -> Moment | None:
        """How far it is; None before it is begun."""

    @property
    def is_good(self) -> bool | None:
        """How it ended."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """``share`` is from 0 to 1. ``seconds_left`` is None while it cannot be told."""

    cards: int
    good: int
    failed: int
    share: float
    bytes_per_second: float
    seconds_left: float | None


def outlook(rows: Sequence[Row], cardless: int = 0) -> Outlook:
    """What is ahead of ``rows`` and of ``cardless`` more cards that nobody has put in yet."""
    cards = len(rows) + cardless
    good = sum(row.is_good is True for row in rows)
    failed = sum(row.is_good is False for row in rows)
    moments = [row.moment for row in rows if row.is_good is None]
    at_work = [moment for moment in moments if moment is not None]
    done = good + failed + sum(moment.share for moment in at_work)
    return Outlook(
        cards,
        good,
        failed,
        done / cards if cards else 1.0,
        sum(moment.bytes_per_second for moment in at_work),
        _seconds_left(at_work, len(moments) - len(at_work)),
    )


def _seconds_left(at_work: Sequence[Moment], waiting: int) -> float | None:
    """The time of the slowest card, and of the waiting ones if as many as now are made at a
    time."""
    known = [left for moment in at_work if (left := moment.seconds_left) is not None]
    if not known:
        return None
    least = min(moment.share for moment in at_work)
    whole = max(known) / max(0.01, 1 - least)
    return max(known) + whole * -(-waiting // len(at_work))
