"""Keeps the live state of a run (``snapshot``) while the run shows itself on its own screen.

In: what the workers report. Out: the same reports, handed on, and once a second a new file. A page
is worth no card: what the disk says against the file is not heard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from imager.base.errors import PicloudError
from imager.config.nodeset import fold
from imager.rack.batch.card_progress import CardEvent, Said
from imager.rack.batch.workers import AtWork, CardResult, Job, Watch
from imager.rack.history.events import now
from imager.rack.live.snapshot import LiveCard, LiveEnding, LiveRun, remove_live, write_live

_SECONDS = 1.0
_MOST_SAID = 20


class Warnings:
    """The last warnings of a run, in the order in which they came. What is said of many nodes in
    the same words is one of them: else it would push out all others."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, dict[str, None]]] = {}

    def add(self, node: str, message: str) -> None:
        """Remember what was said of ``node``; words that name it are the same for all nodes."""
        words = message.replace(node, "")
        first, nodes = self._said.pop(words, (f"{node}: {message}", {}))
        self._said[words] = (first, nodes | {node: None})
        if len(self._said) > _MOST_SAID:
            del self._said[next(iter(self._said))]

    def lines(self) -> tuple[str, ...]:
        """A line for each."""
        return tuple(
            f"{first} (the same of {fold(others)})" if (others := list(nodes)[1:]) else first
            for first, nodes in self._said.values()
        )


class LiveWatch:
    """A Watch (``imager.rack.batch.workers``) that hands everything on to another one."""

    def __init__(
        self,
        run: LiveRun,
        rack: Path,
        shown: Watch,
        wanting: Callable[[], Sequence[str]],
        offers: Callable[[], Sequence[str]],
    ) -> None:
        self._run, self._rack, self._shown = run, rack, shown
        self._wanting, self._offers = wanting, offers
        self._cards: dict[str, LiveCard] = {}
        self._warnings = Warnings()
        self._said: tuple[str, ...] = ()
        self._last = 0.0

    def expect(self, job: Job) -> None:
        """Show a card as one that waits."""
        target = job.target
        self._cards[job.name] = LiveCard(job.name, target.node, job.slot, target.station)

    def began(self, job: Job) -> None:
        """See Watch."""
        self.expect(job)
        self._shown.began(job)

    def heard(self, job: Job, event: CardEvent) -> None:
        """See Watch."""
        if isinstance(event, Said) and event.warning:
            self._warnings.add(job.name, event.message)
            self._said = ()
        self._shown.heard(job, event)

    def ended(self, result: CardResult) -> None:
        """See Watch."""
        error = result.error
        ending = LiveEnding(
            str(result.outcome),
            round(result.seconds),
            error.what if error else "",
            error.hint if error else "",
        )
        card = self._cards.get(result.job.name)
        if card is None:
            self.expect(result.job)
            card = self._cards[result.job.name]
        self._cards[card.node] = replace(card, moment=None, ending=ending)
        self._shown.ended(result)

    def turn(self, crew: AtWork) -> None:
        """See Watch."""
        moment = time.monotonic()
        if moment - self._last >= _SECONDS:
            self._last = moment
            self._keep(crew)
        self._shown.turn(crew)

    def _keep(self, crew: AtWork) -> None:
        for name in crew.at_work:
            self._cards[name] = replace(self._cards[name], moment=crew.moment(name))
        self._said = self._said or self._warnings.lines()
        run = replace(
            self._run,
            cardless=sum(name not in self._cards for name in self._wanting()),
            cards=tuple(self._cards.values()),
            offers=tuple(self._offers()),
            said=self._said,
        )
        with suppress(PicloudError, FileNotFoundError):
            write_live(self._rack, run)


@contextmanager
def kept_live(
    rack: Path,
    command: str,
    shown: Watch,
    jobs: Sequence[Job] = (),
    *,
    wanting: Callable[[], Sequence[str]] = tuple,
    offers: Callable[[], Sequence[str]] = tuple,
) -> Iterator[LiveWatch]:
    """A Watch that hands on to ``shown`` and lets others see, until the block ends, what
    ``command`` does with the cards of the rack in the folder ``rack``; the caller holds its
    ``batch_lock``.

    ``jobs`` wait from the beginning; ``wanting`` returns the nodes that have no good card yet,
    ``offers`` a line for each card that is in and not begun.
    """
    watch = LiveWatch(LiveRun(command, os.getpid(), now()), rack, shown, wanting, offers)
    for job in jobs:
        watch.expect(job)
    try:
        yield watch
    finally:
        with suppress(PicloudError, FileNotFoundError):
            remove_live(rack)
