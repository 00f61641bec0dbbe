"""A receipt's samples as points: all of them inside the drawing, none invented."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from imager.card.medium.meter import PhaseFigures
from imager.rack.report.curve import HEIGHT, WIDTH, curve_of

MB = 1_000_000


def points(path: str) -> list[tuple[float, float]]:
    """The corners of a path made of M, H and V."""
    x = y = 0.0
    found = []
    for letter, numbers in re.findall(r"([MHV])([\d. ]+)", path):
        values = [float(number) for number in numbers.split()]
        if letter == "M":
            x, y = values
        elif letter == "H":
            x = values[0]
        else:
            y = values[0]
        found.append((x, y))
    return found


def test_nothing_measured_is_no_curve() -> None:
    assert curve_of([]) is None
    assert curve_of([PhaseFigures("write", 0, 0.2, (0,))]) is None


def test_phases_follow_each_other_on_one_axis_of_time() -> None:
    write = PhaseFigures("write", 40 * MB, 2.0, (20 * MB, 20 * MB))
    read = PhaseFigures("read back", 40 * MB, 1.0, (40 * MB,))
    curve = curve_of([write, read])
    assert curve is not None
    first, second = (points(band.line) for band in curve.bands)
    assert first[-1][0] == second[0][0]
    assert second[-1][0] == curve.right
    assert curve.spoken == "write 20.0 MB/s; read back 40.0 MB/s"
    assert [tick.text for tick in curve.up] == ["0", "25", "50"]
    half = (curve.base - first[0][1]) / (curve.base - second[0][1])
    assert round(half, 2) == 0.5


def test_a_last_moment_is_no_spike() -> None:
    """4 MB in the last tenth of a second are not 40 MB/s."""
    curve = curve_of([PhaseFigures("write", 24 * MB, 1.1, (20 * MB, 4 * MB))])
    assert curve is not None
    assert [tick.text for tick in curve.up] == ["0", "25", "50"]
    (band,) = curve.bands
    assert len({y for _, y in points(band.line)}) == 1


samples = st.lists(st.integers(0, 10**10), min_size=0, max_size=700)
phases = st.builds(
    lambda name, values, part: PhaseFigures(
        name, sum(values), max(0.0, len(values) - 1 + part), tuple(values)
    ),
    st.text(max_size=8),
    samples,
    st.floats(0, 1),
)


@given(st.lists(phases, max_size=4))
def test_every_point_lies_inside_the_drawing(found: list[PhaseFigures]) -> None:
    curve = curve_of(found)
    if curve is None:
        return
    for band in curve.bands:
        drawn = points(band.area) + points(band.line)
        assert all(-0.5 <= x <= WIDTH + 0.5 and -0.5 <= y <= HEIGHT for x, y in drawn)
        assert len(drawn) < 1000
    assert 2 <= len(curve.across) <= 11
