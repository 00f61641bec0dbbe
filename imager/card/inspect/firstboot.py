"""What a node wrote of its first boot: picloud/firstboot.json on its card's boot partition.

In: the bytes of the file. Out: a FirstBoot, or why there is none to believe. It is text from
outside, written by a shell script on a computer that may lose power at any moment, on a partition
anybody can change: every field that is not what it should be is left out, lengths are bounded, and
nothing in it can move a terminal's cursor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

_LONGEST = 400
_MOST_STEPS = 100


class State(StrEnum):
    """How far first boot came."""

    RUNNING = "running"
    FAILED = "failed"
    SKIPPED = "skipped"
    COMPLETE = "complete"


class StepState(StrEnum):
    """How far one step came."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class FirstBootStep:
    """One step; ``note`` says what it did or why it failed, ``hint`` what to do about that."""

    name: str
    state: StepState
    since: str
    note: str
    hint: str


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """The report. ``step`` is the first that runs or failed, else empty; ``since`` when it was
    first begun, ``note`` and ``hint`` its own; ``time`` when this was written. Times are UTC by
    the node's clock, texts may be empty."""

    node: str
    state: State
    step: str
    since: str
    note: str
    hint: str
    time: str
    tries: int
    retry_s: int
    steps: tuple[FirstBootStep, ...]

    def to_json(self) -> dict[str, object]:
        """Itself as JSON says it."""
        return asdict(self)


def parse_firstboot(data: bytes) -> FirstBoot:
    """The report in ``data``; ValueError says why it is none."""
    if not data.strip(b"\0 \r\n\t"):
        raise ValueError("is empty, as after a loss of power while it was written")
    try:
        found = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        raise ValueError("is not JSON, as after a loss of power while it was written") from None
    if not isinstance(found, dict) or found.get("format") != 1:
        raise ValueError("is not a report in format 1")
    try:
        state = State(_text(found, "state"))
    except ValueError:
        raise ValueError(f"knows no state {_text(found, 'state')!r}") from None
    listed = found.get("steps")
    steps = [step for step in listed if isinstance(step, dict)] if isinstance(listed, list) else []
    return FirstBoot(
        node=_text(found, "node"),
        state=state,
        step=_text(found, "step"),
        since=_text(found, "since"),
        note=_text(found, "note"),
        hint=_text(found, "hint"),
        time=_text(found, "time"),
        tries=_count(found, "tries"),
        retry_s=_count(found, "retry_s"),
        steps=tuple(_step(step) for step in steps[:_MOST_STEPS]),
    )


def _step(found: Mapping[str, object]) -> FirstBootStep:
    known = tuple(StepState)
    state = _text(found, "state")
    return FirstBootStep(
        name=_text(found, "name"),
        state=StepState(state) if state in known else StepState.PENDING,
        since=_text(found, "since"),
        note=_text(found, "note"),
        hint=_text(found, "hint"),
    )


def _text(found: Mapping[str, object], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in value[:_LONGEST] if letter.isprintable())


def _count(found: Mapping[str, object], key: str) -> int:
    value = found.get(key)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if good and isinstance(value, int) else 0
