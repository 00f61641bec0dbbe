"""One throwaway key for all of these tests, and no proxy between them and loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fetching import Scene
from tests.support.mirror import Mirror, serving
from tests.support.signing import SigningKey, make_key


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    return make_key("somebody else <else@localhost>")


@pytest.fixture
def scene(tmp_path: Path, key: SigningKey) -> Scene:
    return Scene(tmp_path, key)


@pytest.fixture
def mirror(scene: Scene) -> Iterator[Mirror]:
    with serving(scene.files) as server:
        yield server


@pytest.fixture
def second(scene: Scene) -> Iterator[Mirror]:
    with serving(scene.files) as server:
        yield server
