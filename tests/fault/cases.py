"""The table of the fault level: every fault at every place in every phase, and what must follow.

In: nothing. Out: cases, each with its expected outcome, from which the tests and the page
docs/reliability.md are made. Pure: no card is touched here. A fault that a phase cannot meet is
left out (the body's phase never writes the partition table).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from imager.base.units import MiB, align_down
from imager.disk.extents import Extent
from tests.support.faultcard import EVERY_TIME, Fault

POSITIONS = (
    "first MiB",
    "FAT",
    "kernel file",
    "ext4 metadata",
    "file data",
    "journal",
    "last MiB",
)


class Phase(StrEnum):
    """When a fault strikes; the phases of one card in their order."""

    ZEROING = "zeroing"
    BODY = "body"
    TABLE = "first MiB"
    READ = "read back"
    REPAIR = "repair"
    REREAD = "read after repair"


class Outcome(StrEnum):
    """What a card comes to. All but the first four are failures with an exit code."""

    GOOD = "0: good, nothing to notice"
    REPEATED = "0: good, the refused transfer was repeated"
    LIED = "0: good, the reader's lie is told"
    MENDED = "0: mended and proven anew"
    FAULTY = "21: card faulty"
    IO_ERROR = "22: card I/O error"
    FAKE = "24: fake capacity"

    @property
    def exit_code(self) -> int:
        return int(self.value.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Case:
    """One card to make. ``holds_fraction`` is that of a fake, as (numerator, denominator)."""

    fault: str
    position: str
    phase: str
    outcome: Outcome
    kind: str = ""
    whole_unit: bool = False
    times: int = EVERY_TIME
    lasting: bool = False
    seconds: float = 0.0
    on_read: bool = False
    mending: bool = False
    holds_fraction: tuple[int, int] = (1, 1)
    keeps_beyond: bool = True
    probe: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault} / {self.position} / {self.phase}".replace(" ", "_")

    def named(self, words: str) -> str:
        """What the error or the receipt must say of a position called ``words``.

        Where more than the position is hit (4 MiB, or a card that is full, locked or gone as a
        whole), the byte or the partition of the transfer that noticed is named.
        """
        if self.outcome not in (Outcome.MENDED, Outcome.FAULTY, Outcome.IO_ERROR):
            return ""
        if self.kind in ("vanish", "read-only"):
            return "byte"
        return words.partition(":")[0] if self.whole_unit or self.kind == "enospc" else words

    def faults(self, block: Extent) -> list[Fault]:
        """The faults for a card whose position is the 4 KiB ``block``."""
        if not self.kind:
            return []
        extent = block
        if self.whole_unit:
            extent = Extent(align_down(block.offset, 4 * MiB), 4 * MiB)
        every = list(map(str, Phase))
        phase = str(Phase.REPAIR) if self.phase == Phase.REREAD else self.phase
        phases = tuple(every[every.index(phase) :]) if self.lasting else (phase,)
        on = "read" if self.on_read else "write"
        found = [Fault(self.kind, extent, phases, on, self.times, self.seconds)]
        if self.mending:
            body = Phase.TABLE if self.position == "first MiB" else Phase.BODY
            seed = Extent(block.offset, 512)
            found.insert(0, Fault("flip", seed, (str(body),)))
        return found


@dataclass(frozen=True, slots=True)
class _Row:
    """A fault as the table knows it, and its outcome when it strikes in each kind of phase.

    ``zeroing`` is the outcome there; ``writing`` that of body, first MiB; ``repairing`` that of
    the repair.
    """

    fault: str
    kind: str
    zeroing: Outcome
    writing: Outcome
    repairing: Outcome
    times: int = EVERY_TIME
    whole_unit: bool = False
    lasting: bool = False
    seconds: float = 0.0


G, A, L, M = Outcome.GOOD, Outcome.REPEATED, Outcome.LIED, Outcome.MENDED
F, E = Outcome.FAULTY, Outcome.IO_ERROR

_WRITES = (
    _Row("EIO once", "eio", G, A, M, times=1),
    _Row("EIO always", "eio", E, E, E, lasting=True),
    _Row("flipped bit", "flip", G, M, F),
    _Row("flipped bit, at every write", "flip", F, F, F, lasting=True),
    _Row("flipped bit, once", "flip", G, M, M, times=1),
    _Row("dropped 4 KiB write", "drop", G, M, F),
    _Row("dropped 4 KiB write, at every write", "drop", F, F, F, lasting=True),
    _Row("dropped 4 MiB write", "drop", G, M, F, whole_unit=True),
    _Row("zeros", "zeros", G, M, F),
    _Row("zeros, at every write", "zeros", F, F, F, lasting=True),
    _Row("stale data", "stale", G, M, F),
    _Row("stale data, at every write", "stale", F, F, F, lasting=True),
    _Row("short write", "short", G, M, F),
    _Row("ENOSPC", "enospc", E, E, E, lasting=True),
    _Row("turning read-only", "read-only", E, E, E),
    _Row("vanishing", "vanish", E, E, E),
    _Row("stall", "stall", G, G, M, times=1, seconds=0.3),
)
_READS = (
    _Row("EIO once", "eio", G, L, M, times=1),
    _Row("EIO always", "eio", G, E, E, lasting=True),
    _Row("reads that lie once (bit)", "flip", G, L, M, times=1),
    _Row("reads that lie once (zeros)", "zeros", G, L, M, times=1),
    _Row("reads that lie once (stale)", "stale", G, L, M, times=1),
    _Row("reads that always lie (bit)", "flip", G, F, F, lasting=True),
    _Row("reads that always lie (zeros)", "zeros", G, F, F, lasting=True),
    _Row("reads that always lie (stale)", "stale", G, F, F, lasting=True),
    _Row("vanishing", "vanish", G, E, E),
    _Row("stall", "stall", G, G, M, times=1, seconds=0.3),
)


LONG_STALL = Case(
    fault="stall of 30 s",
    position="kernel file",
    phase=Phase.BODY,
    outcome=G,
    kind="stall",
    times=1,
    seconds=30.0,
)
"""As long as the kernel waits for a disk of its own accord; all other stalls are short ones."""


def all_cases() -> tuple[Case, ...]:
    """Every case of the level."""
    return (*_writing(), *_reading(), LONG_STALL, *_fakes())


def _writing() -> Iterator[Case]:
    for row in _WRITES:
        for position in POSITIONS:
            for phase in _phases_writing(position):
                yield _case(row, position, phase)


def _phases_writing(position: str) -> tuple[Phase, ...]:
    if position == "first MiB":
        return (Phase.ZEROING, Phase.TABLE, Phase.REPAIR)
    if position == "last MiB":
        return (Phase.ZEROING, Phase.BODY, Phase.REPAIR)
    return (Phase.BODY, Phase.REPAIR)


def _reading() -> Iterator[Case]:
    for row in _READS:
        for position in POSITIONS:
            for phase in (Phase.READ, Phase.REREAD):
                yield _case(row, position, phase)


def _case(row: _Row, position: str, phase: Phase) -> Case:
    match phase:
        case Phase.ZEROING:
            outcome = row.zeroing
        case Phase.REPAIR | Phase.REREAD:
            outcome = row.repairing
        case _:
            outcome = row.writing
    return Case(
        fault=row.fault,
        position=position,
        phase=phase,
        outcome=_where_zeros_belong(row, position, phase, outcome),
        kind=row.kind,
        whole_unit=row.whole_unit,
        times=row.times,
        lasting=row.lasting,
        seconds=row.seconds,
        on_read=phase in (Phase.READ, Phase.REREAD),
        mending=phase in (Phase.REPAIR, Phase.REREAD),
    )


def _where_zeros_belong(row: _Row, position: str, phase: Phase, outcome: Outcome) -> Outcome:
    """The last MiB of our card is zeros. There zeros are right, and so is a write that is lost
    when zeros were there before; only a repair notices what it was called for."""
    if position != "last MiB":
        return outcome
    if row.kind == "zeros":
        return M if phase in (Phase.REPAIR, Phase.REREAD) else G
    return G if phase is Phase.BODY and row.kind in ("drop", "stale", "short") else outcome


def _fakes() -> Iterator[Case]:
    for holds in ((1, 4), (1, 2), (7, 8)):
        for keeps_beyond in (True, False):
            for probe in (False, True):
                does = "wraps around" if keeps_beyond else "forgets what is beyond"
                yield Case(
                    fault=f"address {does} at {holds[0]}/{holds[1]}",
                    position="whole card",
                    phase="probe" if probe else "all",
                    outcome=Outcome.FAKE,
                    holds_fraction=holds,
                    keeps_beyond=keeps_beyond,
                    probe=probe,
                )
