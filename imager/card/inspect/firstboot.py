"""What a node wrote of its first boot: picloud/firstboot.json on its card's boot partition.

In: the bytes of the file. Out: a FirstBoot, or why there is none to believe. It is text from
outside, written by a shell script on a computer that may lose power at any moment, on a partition
anybody can change: every field that is not what it should be is left out, lengths are bounded, and
nothing in it can move a terminal's cursor.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from imager.base.json_fields import JsonFault, JsonObject, read_object

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
        read = read_object(data.decode(errors="replace"))
    except JsonFault:
        raise ValueError(
            "is not a JSON object, as after a loss of power while it was written"
        ) from None
    return firstboot_in(read)


def firstboot_in(read: JsonObject) -> FirstBoot:
    """The report that the object ``read`` is; ValueError says why it is none."""
    if read.values.get("format") != 1:
        raise ValueError("is not a report in format 1")
    state = _text(read, "state")
    if state not in list(State):
        raise ValueError(f"knows no state {state!r}")
    steps = [JsonObject(step) for step in _steps(read) if isinstance(step, dict)]
    return FirstBoot(
        node=_text(read, "node"),
        state=State(state),
        step=_text(read, "step"),
        since=_text(read, "since"),
        note=_text(read, "note"),
        hint=_text(read, "hint"),
        time=_text(read, "time"),
        tries=_count(read, "tries"),
        retry_s=_count(read, "retry_s"),
        steps=tuple(_step(step) for step in steps[:_MOST_STEPS]),
    )


def _step(read: JsonObject) -> FirstBootStep:
    state = _text(read, "state")
    return FirstBootStep(
        name=_text(read, "name"),
        state=StepState(state) if state in list(StepState) else StepState.PENDING,
        since=_text(read, "since"),
        note=_text(read, "note"),
        hint=_text(read, "hint"),
    )


def _steps(read: JsonObject) -> list[object]:
    try:
        return read.items("steps")
    except JsonFault:
        return []


def _text(read: JsonObject, key: str) -> str:
    try:
        value = read.text(key)[:_LONGEST]
    except JsonFault:
        return ""
    return "".join(letter for letter in value if letter.isprintable())


def _count(read: JsonObject, key: str) -> int:
    try:
        return read.integer(key, high=(1 << 31) - 1)
    except JsonFault:
        return 0
