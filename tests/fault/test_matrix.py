"""Every fault at every place in every phase: said rightly, named rightly, nothing good that is not.

The table is in ``tests.fault.cases``; each case makes one real card on a block device.
"""

from __future__ import annotations

import pytest

from tests.fault.cases import Case, all_cases
from tests.fault.rig import Rig, faults_of
from tests.support.faultcard import why_not

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in all_cases()])
def test_a_card_under_fault(bench: Rig, case: Case) -> None:
    assert list(faults_of(bench.run(case))) == []


def test_the_table_is_as_long_as_promised() -> None:
    cases = all_cases()
    assert len(cases) >= 300
    assert len({case.name for case in cases}) == len(cases)
