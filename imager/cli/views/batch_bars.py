"""A batch at work as lines of text: a bar for each card and one for the whole rack.

In: how far each card is, and the size of the terminal. Out: lines that fit into it. Pure;
``batch_screen`` draws them over each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imager.base.units import format_rate
from imager.cli.terminal.folding import shortened
from imager.rack.batch.card_progress import Moment
from imager.rack.batch.workers import CardResult, Job

_PHASE_COLUMNS = 12
_RATE_COLUMNS = 11
_TIME_COLUMNS = 7
_LEAST_BAR = 4
_LEAST_HEAD = 12
_FULL, _EMPTY = "█", "·"


@dataclass(frozen=True, slots=True)
class CardRow:
    """One card. It has a ``moment`` while it is being made, a ``result`` afterwards, and neither
    before."""

    job: Job
    moment: Moment | None = None
    result: CardResult | None = None

    @property
    def share(self) -> float:
        """The part of its work that is done, from 0 to 1."""
        if self.result is not None:
            return 1.0
        if self.moment is None or not self.moment.expected_bytes:
            return 0.0
        # What is read a second time, or probed, was not expected.
        return min(0.99, self.moment.moved_bytes / self.moment.expected_bytes)

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the present rate; None while there is no rate."""
        if self.moment is None or not self.moment.done_bytes:
            return None
        left = max(0, self.moment.expected_bytes - self.moment.moved_bytes)
        return left / max(1.0, self.moment.bytes_per_second)


def draw(
    rows: Sequence[CardRow], columns: int, lines: int, *, cardless: int = 0, whole: str = "rack"
) -> list[str]:
    """At most ``lines`` lines of at most ``columns`` characters; the last is for the ``whole``.

    ``cardless`` is how many more nodes need a card that nobody has put in yet.

    If there is not room for every card, those at work come first, then the failed, the waiting and
    the finished ones. They are shown in the order of the rack.
    """
    name = max((len(row.job.name) for row in rows), default=4)
    slot = max((len(row.job.slot) for row in rows), default=0)
    shown = _chosen(rows, max(1, lines - 2))
    drawn = [_card_line(row, name, slot, columns) for row in shown]
    hidden = len(rows) - len(shown)
    if hidden:
        drawn.append(shortened(f"and {hidden} more", columns))
    return [*drawn, _last_line(rows, columns, cardless, whole)]


def _chosen(rows: Sequence[CardRow], room: int) -> list[CardRow]:
    if len(rows) <= room + 1:
        return list(rows)
    ranked = sorted(range(len(rows)), key=lambda place: (_rank(rows[place]), place))
    return [rows[place] for place in sorted(ranked[:room])]


def _rank(row: CardRow) -> int:
    if row.result is None:
        return 0 if row.moment is not None else 2
    return 3 if row.result.is_verified else 1


def _card_line(row: CardRow, name: int, slot: int, columns: int) -> str:
    label = f"{row.job.slot:<{slot}}  " if slot else ""
    head = f"{row.job.name:<{name}}  {label}"
    if row.result is not None:
        return shortened(head + _ending(row.result), columns)
    if row.moment is None:
        return shortened(f"{head}waits for its turn", columns)
    now = row.moment
    between = "goes on" if now.moved_bytes else "begins"
    phase = now.phase.removesuffix(row.job.name).strip() or between
    total = now.total_bytes
    if not total:
        # Where there are no bytes to count, the time gone by shows that it is at work.
        gone = f" {clock(now.phase_seconds)}" if now.phase and now.phase_seconds >= 1 else ""
        return shortened(f"{head}{phase} …{gone}", columns)
    rate = format_rate(now.bytes_per_second) if now.done_bytes else ""
    phase = f"{head}{phase:<{_PHASE_COLUMNS}}"
    return _with_bar(phase, now.done_bytes / total, rate, clock(row.seconds_left), columns)


def _ending(result: CardResult) -> str:
    if result.is_verified:
        return f"{result.outcome} in {clock(result.seconds)}"
    return result.fault


def _last_line(rows: Sequence[CardRow], columns: int, cardless: int, whole: str) -> str:
    over = [row.result for row in rows if row.result is not None]
    good = sum(result.is_verified for result in over)
    nodes = len(rows) + cardless
    words = [f"{good} of {nodes} done"]
    if len(over) > good:
        words.append(f"{len(over) - good} failed")
    at_work = [row for row in rows if row.result is None and row.moment is not None]
    rate = sum(row.moment.bytes_per_second for row in at_work if row.moment is not None)
    share = sum(row.share for row in rows) / nodes if nodes else 1.0
    shown = format_rate(rate) if rate else ""
    left = clock(_rack_seconds_left(rows))
    return _with_bar(f"{whole}: {', '.join(words)} ", share, shown, left, columns)


def _rack_seconds_left(rows: Sequence[CardRow]) -> float | None:
    """The time of the slowest card, and of the waiting ones if as many as now are made at a
    time."""
    times = [row.seconds_left for row in rows if row.result is None]
    known = [time for time in times if time is not None]
    at_work = sum(row.result is None and row.moment is not None for row in rows)
    waiting = sum(row.result is None and row.moment is None for row in rows)
    if not known or not at_work:
        return None
    whole = max(known) / max(0.01, 1 - max(0.0, min(row.share for row in rows if row.moment)))
    return max(known) + whole * -(-waiting // at_work)


def _with_bar(head: str, share: float, rate: str, left: str, columns: int) -> str:
    """Where it is too narrow, first the rate is left out, then the bar, then words of ``head``,
    and last the time left."""
    percent, time = f"{share * 100:3.0f}% ", f"{left:>{_TIME_COLUMNS}}"
    for tail in (f" {rate:>{_RATE_COLUMNS}}{time}", time):
        room = columns - len(head) - len(percent) - len(tail)
        if room >= _LEAST_BAR:
            full = int(share * room)
            return f"{head}{percent}{_FULL * full}{_EMPTY * (room - full)}{tail}"
    room = columns - len(percent) - len(time)
    if room < _LEAST_HEAD:
        return shortened(head.rstrip() + percent.rstrip(), columns)
    return shortened(head, room) + percent + time


def clock(seconds: float | None) -> str:
    """``0:34``, ``1:02:05``; a dash when it is not known."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
