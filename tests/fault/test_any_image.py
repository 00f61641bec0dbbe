"""The table of faults again, with an image that is none of ours and is read only once.

What must be said is the same, in other words: a partition has a number and no name, and while the
image is still coming in nobody knows which file lies where. An ordinary run draws some cases by
chance; ``--all`` and scripts/reliability have all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.fault.cases import Case, Outcome, Phase, all_cases
from tests.fault.rig import Rig, Seen, faults_of
from tests.support.faultcard import why_not
from tests.support.sampling import one_of_each
from tests.support.smallcard import SIZE, Position

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]
_WORDS = {
    "boot partition (p1)": "partition 1",
    "root partition (p2)": "partition 2",
    "partition table (first MiB)": "partition table",
    "/boot/": "/",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all")
        cases = all_cases() if whole else one_of_each(all_cases(), lambda c: c.outcome)
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(scope="module")
def foreign(bench: Rig) -> Iterator[Rig]:
    """The same rig, with the image as a plain file."""
    source = bench.folder / "any.img"
    with bench.image.open() as reader, source.open("wb") as file:
        file.truncate(SIZE)
        for extent in bench.image.manifest.extents:
            file.seek(extent.offset)
            file.write(reader.read(extent.offset, extent.length))
    yield replace(bench, source=source, places=tuple(map(_in_other_words, bench.places)))
    source.unlink()


def _in_other_words(place: Position) -> Position:
    words = place.words
    for ours, theirs in _WORDS.items():
        words = words.replace(ours, theirs)
    return replace(place, words=words)


def test_a_card_under_fault(foreign: Rig, case: Case) -> None:
    seen = foreign.run(case)
    assert list(faults_of(_while_it_came_in(seen))) == []


def _while_it_came_in(seen: Seen) -> Seen:
    """What was refused then is named by its partition alone."""
    early = seen.case.phase in (Phase.ZEROING, Phase.BODY)
    if seen.position is None or not early or seen.case.outcome is not Outcome.IO_ERROR:
        return seen
    at = seen.position.extent.offset
    number = 1 if at < 48 << 20 else 2
    return replace(seen, position=replace(seen.position, words=f"partition {number}"))
