"""Cards that wear out: a few of the table that scripts/reliability runs whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault.dying import Death, all_deaths, dying_card, faults_of
from tests.support.faultcard import why_not
from tests.support.sampling import SEED, one_of_each

pytestmark = [
    pytest.mark.fault,
    pytest.mark.long(minutes=7),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


def worn_and_way(death: Death) -> tuple[int, str]:
    return death.worn, death.way


DRAWN = one_of_each(all_deaths(), worn_and_way)


@pytest.mark.parametrize("death", DRAWN, ids=str)
def test_all_that_is_sound_is_saved_and_the_rest_is_named(death: Death, tmp_path: Path) -> None:
    with dying_card(tmp_path, death.kind) as dying:
        (tmp_path / "out").mkdir()
        assert [*faults_of(dying, death, tmp_path / "out", os.environ[SEED])] == []
