"""Every fault at every place in every phase: said rightly, named rightly, nothing good that is not.

The table is in ``tests.fault.cases``; each case makes one real card on a block device. An ordinary
run has each fault in each phase at one place, drawn by chance; ``--all`` and scripts/reliability
have them all.
"""

from __future__ import annotations

import pytest

from tests.fault.cases import Case, all_cases
from tests.fault.rig import Rig, faults_of
from tests.support.faultcard import why_not
from tests.support.sampling import one_of_each

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all")
        cases = all_cases() if whole else one_of_each(all_cases(), lambda c: (c.fault, c.phase))
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def test_a_card_under_fault(bench: Rig, case: Case) -> None:
    assert list(faults_of(bench.run(case))) == []


def test_the_table_is_as_long_as_promised() -> None:
    cases = all_cases()
    assert len(cases) >= 300
    assert len({case.name for case in cases}) == len(cases)
