"""Shows a batch while it works: bars on a terminal, a line per phase without one, or JSON.

In: what the crew reports. Out: on a terminal, bars that are drawn anew a few times a second; else
lines that begin with the name of the node; with ``--json``, events that name node and target.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imager.base.text import printable
from imager.base.units import clock
from imager.cli.console import Console
from imager.cli.terminal.phases import phase_summary
from imager.cli.terminal.streams import spoken
from imager.cli.views.batch_bars import CardRow, draw
from imager.rack.batch.card_progress import CardEvent, FindingReported, PhaseBegan, PhaseEnded, Said
from imager.rack.batch.workers import AtWork, CardResult, Job, Watch
from imager.rack.live.keeper import kept_live

_REDRAW_SECONDS = 0.2
_JSON_SECONDS = 0.5


@contextmanager
def shown_batch(
    console: Console, rack: Path, command: str, jobs: Sequence[Job], *, whole: str = "rack"
) -> Iterator[Watch]:
    """Show how far each of ``jobs`` is until the block ends, on ``console``, and to others as what
    ``command`` does with the rack in the folder ``rack``. ``whole`` is as for Screen."""
    with (
        Screen(console, whole=whole) as screen,
        kept_live(rack, command, screen, jobs) as watch,
    ):
        for job in jobs:
            screen.expect(job)
        yield watch


class Screen:
    """A Watch (``imager.rack.batch.workers``) on a console."""

    def __init__(
        self,
        console: Console,
        *,
        on_end: Callable[[CardResult], None] | None = None,
        standing: Callable[[], Sequence[str]] = tuple,
        wanting: Callable[[], Sequence[str]] = tuple,
        whole: str = "rack",
    ) -> None:
        """``on_end`` is called for each card that has ended and shows it itself. ``standing``
        returns lines to show above the bars, ``wanting`` the nodes that have no good card yet.
        ``whole`` is what all cards together are called."""
        self._console = console
        self._on_end, self._standing, self._wanting = on_end, standing, wanting
        self._whole = whole
        self._rows: dict[str, CardRow] = {}
        self._drawn = 0
        self._last = 0.0
        self.draws = console.on_terminal and not (console.as_json or console.quiet)

    def __enter__(self) -> Screen:
        if self.draws:
            sys.stderr.write("\033[?25l")  # a cursor that jumps from line to line is no help
        return self

    def __exit__(self, *_: object) -> None:
        if self.draws:
            self._erase()
            sys.stderr.write("\033[?25h")
            sys.stderr.flush()

    def expect(self, job: Job) -> None:
        """Show a card as one that waits."""
        self._rows[job.name] = CardRow(job)

    def began(self, job: Job) -> None:
        """See Watch."""
        self._rows[job.name] = CardRow(job)

    def heard(self, job: Job, event: CardEvent) -> None:
        """See Watch."""
        about = {"node": job.name, "target": job.target.node}
        match event:
            case PhaseBegan():
                self._tell(about, event.phase, "begin", 0, event.total_bytes, 0.0)
            case PhaseEnded():
                state = "failed" if event.failed else "done"
                done, total = event.done_bytes, event.total_bytes
                self._tell(about, event.phase, state, done, total, event.seconds)
                if not (self.draws or event.failed):
                    summary = phase_summary(event.phase, event.done_bytes, event.seconds)
                    self._console.say(f"{job.name}: {summary}")
            case Said(warning=True):
                self._above(f"warning: {job.name}: {event.message}", job, "warning", event.message)
            case Said() if not self.draws:  # the bars say what goes on
                self._above(f"{job.name}: {event.message}", job, "note", event.message)
            case FindingReported():
                self._console.event("finding", **about, **event.finding.to_json())

    def ended(self, result: CardResult) -> None:
        """See Watch."""
        job = result.job
        self._rows[job.name] = CardRow(job, result=result)
        self._console.event(
            "card",
            node=job.name,
            target=job.target.node,
            outcome=result.outcome,
            reason=result.error.what if result.error else "",
            seconds=round(result.seconds, 3),
        )
        if self._on_end is not None:
            self._on_end(result)
        elif not self.draws:
            words = f"{result.outcome} in {clock(result.seconds)}"
            self._console.say(f"{job.name}: {result.error.what if result.error else words}")

    def turn(self, crew: AtWork) -> None:
        """See Watch."""
        now = time.monotonic()
        if now - self._last < (_JSON_SECONDS if self._console.as_json else _REDRAW_SECONDS):
            return
        self._last = now
        for name in crew.at_work:
            moment = crew.moment(name)
            self._rows[name] = CardRow(self._rows[name].job, moment)
            if moment is not None and moment.phase:
                job = self._rows[name].job
                about = {"node": job.name, "target": job.target.node}
                done, total = moment.done_bytes, moment.total_bytes
                self._tell(about, moment.phase, "running", done, total, moment.phase_seconds)
        if self.draws:
            self._redraw()

    def _redraw(self) -> None:
        size = self._console.screen
        # The last column makes some terminals wrap, and the last line makes all of them scroll.
        above = self._standing()
        room = max(4, size.lines - 1 - len(above))
        rows = list(self._rows.values())
        cardless = sum(name not in self._rows for name in self._wanting())
        bars = (
            draw(rows, size.columns - 1, room, cardless=cardless, whole=self._whole) if rows else ()
        )
        lines = [*above, *bars]
        up = f"\033[{self._drawn}A" if self._drawn else ""
        shown = (spoken(printable(line), sys.stderr)[: size.columns - 1] for line in lines)
        text = "".join(f"{line}\033[K\n" for line in shown)
        sys.stderr.write(f"\r{up}{text}\033[J")
        sys.stderr.flush()
        self._drawn = len(lines)

    def _above(self, line: str, job: Job, kind: str, message: str) -> None:
        """Write a line that stays, above the bars; with ``--json``, an event instead."""
        if self._console.as_json:
            self._console.event(kind, node=job.name, target=job.target.node, message=message)
        else:
            self.say(line)

    def say(self, line: str) -> None:
        """Write a line for the person that stays, above the bars; silent with ``--json``."""
        if self.draws:
            self._erase()
        self._console.say(line)

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\r\033[{self._drawn}A\033[J")
            self._drawn = 0

    def _tell(
        self,
        about: dict[str, str],
        phase: str,
        state: str,
        done_bytes: int,
        total_bytes: int | None,
        seconds: float,
    ) -> None:
        self._console.event(
            "progress",
            **about,
            phase=phase,
            state=state,
            done_bytes=done_bytes,
            total_bytes=total_bytes,
            seconds=round(seconds, 3),
            bytes_per_second=round(done_bytes / max(seconds, 1e-6)) if done_bytes else 0,
        )
