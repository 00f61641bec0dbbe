"""A batch at work as lines of text: a bar for each card and one for the whole rack.

In: how far each card is, and the size of the terminal. Out: lines that fit into it. Pure;
``batch_screen`` draws them over each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imager.base.units import clock, format_rate
from imager.cli.terminal.folding import shortened
from imager.rack.batch.card_progress import Moment
from imager.rack.batch.outlook import outlook
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
    def is_good(self) -> bool | None:
        """Whether it ended well; None until it has ended."""
        return None if self.result is None else self.result.is_verified


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
    share = now.phase_share
    if share is None:
        # Where there is nothing to count, the time gone by shows that it is at work.
        gone = f" {clock(now.phase_seconds)}" if now.phase and now.phase_seconds >= 1 else ""
        return shortened(f"{head}{phase} …{gone}", columns)
    rate = format_rate(now.bytes_per_second) if now.done_bytes else ""
    phase = f"{head}{phase:<{_PHASE_COLUMNS}}"
    return _with_bar(phase, share, rate, clock(now.known_seconds_left), columns)


def _ending(result: CardResult) -> str:
    if result.is_verified:
        return f"{result.outcome} in {clock(result.seconds)}"
    return result.fault


def _last_line(rows: Sequence[CardRow], columns: int, cardless: int, whole: str) -> str:
    ahead = outlook(rows, cardless)
    words = [f"{ahead.good} of {ahead.cards} done"]
    if ahead.failed:
        words.append(f"{ahead.failed} failed")
    rate = format_rate(ahead.bytes_per_second) if ahead.bytes_per_second else ""
    head = f"{whole}: {', '.join(words)} "
    return _with_bar(head, ahead.share, rate, clock(ahead.seconds_left), columns)


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
