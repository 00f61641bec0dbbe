"""A Watch that only remembers how far each card of a batch was in the end."""

from __future__ import annotations

from imager.rack.batch.card_progress import CardEvent, Moment
from imager.rack.batch.workers import AtWork, CardResult, Job


class Watching:
    """``last`` is how far the card of each job that has ended was, by the job's name."""

    def __init__(self) -> None:
        self.last: dict[str, Moment] = {}

    def began(self, job: Job) -> None:
        pass

    def heard(self, job: Job, event: CardEvent) -> None:
        pass

    def ended(self, result: CardResult) -> None:
        self.last.setdefault(result.job.name, Moment("", 0, None, 0, 0, 0))

    def turn(self, crew: AtWork) -> None:
        self.last |= {name: now for name in self.last if (now := crew.moment(name))}
