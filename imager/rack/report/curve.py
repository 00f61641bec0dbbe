"""How fast a card was written and read, second by second, as points of a drawing.

In: a receipt's phases with their one-second samples. Out: coordinates for an SVG. The line has
steps and is not smoothed: each step is one measurement. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imager.base.units import format_rate, format_transfer
from imager.card.medium.meter import PhaseFigures

WIDTH, HEIGHT = 420, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 20
_STEPS_AT_MOST = 120
_NICE = (1, 2, 5)
_Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its place and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Band:
    """One phase: the line of its steps, the area below that line, and its figures as text."""

    name: str
    figures: str
    line: str
    area: str


@dataclass(frozen=True, slots=True)
class Curve:
    """All phases of a card on one time axis; coordinates are inside a box of WIDTH × HEIGHT."""

    bands: tuple[Band, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    left: float
    right: float
    base: float
    spoken: str


@dataclass(frozen=True, slots=True)
class _Step:
    start: float
    end: float
    rate: float


def curve_of(phases: Sequence[PhaseFigures]) -> Curve | None:
    """The curve of ``phases``; None when no second of them was measured."""
    shown = [phase for phase in phases if any(phase.samples) and phase.seconds > 0]
    if not shown:
        return None
    stepped: list[tuple[PhaseFigures, list[_Step]]] = []
    begun = 0.0
    for phase in shown:
        steps = _steps(phase, begun)
        stepped.append((phase, steps))
        begun = max(begun + phase.seconds, steps[-1].end)
    top = _nice_above(max(step.rate for _, steps in stepped for step in steps))
    right, base = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(second: float) -> float:
        return round(_LEFT + (right - _LEFT) * second / begun, 1)

    def y(rate: float) -> float:
        return round(base - (base - _TOP) * rate / top, 1)

    bands = tuple(_band(phase, steps, x, y) for phase, steps in stepped)
    every = _nice_above(begun / 5)
    return Curve(
        bands=bands,
        across=tuple(Tick(x(n * every), f"{n * every:g} s") for n in range(int(begun / every) + 1)),
        up=tuple(Tick(y(top * part), f"{top * part / 1e6:g}") for part in (0, 0.5, 1)),
        left=_LEFT,
        right=right,
        base=base,
        spoken="; ".join(f"{p.name} {format_rate(p.bytes_per_second)}" for p in shown),
    )


def _steps(phase: PhaseFigures, begun: float) -> list[_Step]:
    """The samples as rates over time. The last sample covers the rest of the phase, which may be
    less than a second. Where there are more seconds than the drawing can show, some are joined."""
    size = -(-len(phase.samples) // _STEPS_AT_MOST)
    steps: list[_Step] = []
    for start in range(0, len(phase.samples), size):
        part = phase.samples[start : start + size]
        seconds = min(start + len(part), phase.seconds) - start
        if seconds < 0.5 and steps:  # too short a time to calculate a rate from
            last = steps.pop()
            amount = sum(part) + last.rate * (last.end - last.start)
            end = begun + phase.seconds
            steps.append(_Step(last.start, end, amount / (end - last.start)))
        else:
            seconds = max(seconds, 1e-3)
            steps.append(_Step(begun + start, begun + start + seconds, sum(part) / seconds))
    return steps


def _band(phase: PhaseFigures, steps: Sequence[_Step], x: _Scale, y: _Scale) -> Band:
    points = [f"V{y(step.rate)}H{x(step.end)}" for step in steps]
    first = x(steps[0].start)
    line = f"M{first} {y(steps[0].rate)}" + "".join(points)
    area = f"M{first} {y(0)}" + "".join(points) + f"V{y(0)}Z"
    figures = format_transfer(phase.size_bytes, phase.seconds)
    return Band(phase.name, figures, line, area)


def _nice_above(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 … that is not below ``value``."""
    power = 1.0
    while power * 10 < value:
        power *= 10
    while power > value and power > 1e-6:
        power /= 10
    return next((power * step for step in _NICE if power * step >= value), power * 10)
