"""The table of faults again, with an image that is none of ours and is read only once.

An ordinary run draws a case of each outcome by chance; ``--all`` and scripts/reliability have all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fault.cases import Case, all_cases
from tests.fault.foreign import foreign, foreign_faults_of
from tests.fault.rig import Rig
from tests.support.faultcard import why_not
from tests.support.sampling import one_of_each

pytestmark = [
    pytest.mark.fault,
    pytest.mark.long(minutes=1),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all")
        cases = all_cases() if whole else one_of_each(all_cases(), lambda c: c.outcome)
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(scope="module")
def stranger(bench: Rig) -> Iterator[Rig]:
    with foreign(bench) as made:
        yield made


def test_a_card_under_fault(stranger: Rig, case: Case) -> None:
    assert list(foreign_faults_of(stranger.run(case))) == []
