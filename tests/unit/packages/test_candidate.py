"""canary.lock becomes rack.lock only as the one that was tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.packages.candidate import candidate_in, changes_between, drop, not_tried, promote, undo
from imager.packages.plan import LockChange
from imager.release.lock import PacmanPin, Pin, RackLock, SetPin

AT = "2026-11-02T10:00:00Z"
RELEASE = Pin("ab" * 32, 612, "http://m/os/x.tar.gz", "AB" * 20, AT)
FILE = "docker-1.6-1-any.pkg.tar.xz"
OLD = PacmanPin("1.6-1", "any", FILE, "01" * 32, 5, "AB" * 20, f"http://m/{FILE}", AT)
NEW = replace(OLD, version="1.7-1", sha256="02" * 32)
SETS = {"k": SetPin("ab" * 32, ("docker",), ("docker",), ())}


@pytest.fixture
def candidate(tmp_path: Path) -> RackLock:
    promoted = RackLock.load(tmp_path / "rack.lock").with_pin("r", RELEASE)
    promoted.with_packages({"docker": OLD}, SETS)
    assert candidate_in(tmp_path / "canary.lock") is None
    return RackLock.load(tmp_path / "canary.lock").with_packages({"docker": NEW}, SETS)


def test_it_is_a_lock_with_a_head_of_its_own_and_leaves_the_release(candidate: RackLock) -> None:
    path = candidate.path.with_name("rack.lock")
    assert candidate.path.read_text().startswith("# canary.lock: ")
    changes = changes_between(RackLock.load(path), candidate)
    assert changes == (LockChange("docker", "1.6-1", "1.7-1"),)
    assert not_tried(changes, candidate, ["k"]) == ()
    assert not_tried(changes, candidate, ["other"]) == ("docker",)
    promote(candidate, path)
    lock = RackLock.load(path)
    assert (lock.pins, lock.pacman, lock.sets) == ({"r": RELEASE}, {"docker": NEW}, SETS)
    assert not candidate.path.exists()
    drop(candidate.path)


@pytest.mark.parametrize("dropped", [True, False])
def test_another_one_than_was_asked_about_is_not_promoted_nor_dropped(
    candidate: RackLock, dropped: bool
) -> None:
    if dropped:
        drop(candidate.path)
    else:
        candidate.with_packages({"docker": replace(NEW, version="1.8-1")}, SETS)
    path = candidate.path.with_name("rack.lock")
    with pytest.raises(ConfigurationError, match="was changed"):
        promote(candidate, path)
    assert RackLock.load(path).pacman["docker"] == OLD
    with pytest.raises(ConfigurationError, match="was changed"):
        undo(candidate)
    assert candidate.path.exists() is not dropped


def test_what_was_seen_is_dropped(candidate: RackLock) -> None:
    undo(candidate)
    assert candidate_in(candidate.path) is None
