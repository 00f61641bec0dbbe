"""One rig for the whole level: a card is made ready anew for each case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fault.rig import Rig, rig


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("fault")) as made:
        yield made
