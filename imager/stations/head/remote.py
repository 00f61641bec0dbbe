"""A card in a station's reader, as the head plans with it.

In: a surveyed card. Out: a Target that is never opened here, a Candidate of it, and the job of
making it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from imager.base.errors import TargetRefused
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import HeldTarget, Limits, Refusal, Target, TargetFacts
from imager.config.rack import Node
from imager.rack.plan.candidates import Candidate
from imager.stations.wire.survey import SurveyedCard


@dataclass(frozen=True, slots=True)
class RemoteCard(Target):
    """A card of ``station``, which looked at it and found no reason against it."""

    station: str = field()
    seen: SurveyedCard = field()

    noun = "a card of a station"

    @property
    def node(self) -> str:
        """See Target: ``desk2:/dev/sdb``."""
        return f"{self.station}:{self.seen.facts.path}"

    @property
    def size_bytes(self) -> int:
        """See Target."""
        return self.seen.facts.size_bytes

    @property
    def facts(self) -> TargetFacts:
        """See Target."""
        return replace(self.seen.facts, path=self.node)

    @property
    def title(self) -> str:
        """See Target."""
        return f"{self.station}: {self.seen.title}"

    @property
    def capacity_bytes(self) -> int:
        """See Target."""
        return self.size_bytes

    @property
    def first_mib(self) -> str | None:
        """See Target."""
        return self.seen.first_mib

    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        """See Target: the station has said what is against it."""
        del need_bytes, limits
        yield from ()

    def hold(
        self, size_bytes: int, limits: Limits, kernel: HostTrees
    ) -> AbstractContextManager[HeldTarget]:
        """See Target; only its station opens it."""
        del size_bytes, limits, kernel
        raise TargetRefused(
            f"{self.node} is a card of {self.station}", hint="only its own station writes it"
        )


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """The card of ``node`` to be made on a station."""

    node: Node
    target: RemoteCard
    slot: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def station(self) -> str:
        """Who makes it."""
        return self.target.station


def candidate_of(card: RemoteCard) -> Candidate:
    """The card as a plan sees it."""
    seen = card.seen
    return Candidate(card, seen.holds, seen.about, seen.slot, seen.stamp)
