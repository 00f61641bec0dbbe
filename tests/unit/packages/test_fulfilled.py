"""A rack.lock that was edited or merged gives the nodes what rack.toml asks for, or says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.packages.locking import carry_out, packages_at_hand, packages_of, plan_packages
from imager.packages.wish import PackageWish
from tests.support.mirror import Mirror
from tests.support.repository import PackageScene, serving_packages
from tests.support.signing import SigningKey, make_key

DOCKER = PackageWish(("docker",), ("nano",))


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Mirror]:
    with serving_packages(tmp_path_factory.mktemp("repository"), key) as found:
        yield found


@pytest.fixture
def scene(tmp_path: Path, key: SigningKey, mirror: Mirror) -> PackageScene:
    return PackageScene(tmp_path, key, (mirror,))


def edited(scene: PackageScene, wish: PackageWish, **change: tuple[str, ...]) -> None:
    """Let rack.lock say something else of the set for ``wish``."""
    lock = scene.lock
    of_wish = replace(lock.sets[wish.key], **change)  # type: ignore[arg-type]
    lock.with_packages(lock.pacman, {**lock.sets, wish.key: of_wish})


FAULTS = [
    ({"packages": ("runc",)}, "has no docker, which rack.toml asks for"),
    ({"packages": ()}, "has no docker, which rack.toml asks for"),
    ({"remove": ("nano", "glibc")}, "removes glibc, nano, and rack.toml nano"),
    ({"remove": ()}, "removes nothing, and rack.toml nano"),
    ({"wanted": ("docker", "runc")}, "wants docker, runc, and rack.toml docker"),
    ({"wanted": ()}, "wants nothing, and rack.toml docker"),
]


@pytest.mark.parametrize(("change", "why"), FAULTS, ids=[why for _, why in FAULTS])
def test_a_set_that_is_not_what_rack_toml_asks_for(
    scene: PackageScene, change: dict[str, tuple[str, ...]], why: str
) -> None:
    packages_of(scene.order(DOCKER))
    good = scene.lock_path.read_bytes()
    edited(scene, DOCKER, **change)
    for offline in (True, False):
        for ask in (packages_of, packages_at_hand):
            with pytest.raises(ConfigurationError) as caught:
                ask(scene.order(DOCKER, offline=offline))
            assert caught.value.what == f"{scene.lock_path}: set.{DOCKER.key} {why}"
    order = scene.order(DOCKER)
    carry_out(order, plan_packages(order, []))
    assert scene.lock_path.read_bytes() == good, "the words of its hint work"


def test_every_way_in_which_it_differs_is_told(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    edited(scene, DOCKER, packages=(), remove=())
    with pytest.raises(ConfigurationError) as caught:
        packages_of(scene.order(DOCKER))
    assert len(caught.value.details) == 2


def test_what_the_release_has_or_a_package_provides_is_there(scene: PackageScene) -> None:
    wish = PackageWish(("glibc", "cronie"))
    packages_of(scene.order(wish))
    provided = PackageWish(("cron",))
    lock = scene.lock
    pin = lock.sets[wish.key]
    lock.with_packages(lock.pacman, {provided.key: replace(pin, wanted=provided.install)})
    (found,) = packages_of(scene.order(provided, offline=True))
    assert [each.name for each in found.install] == ["cronie"]
    edited(scene, provided, packages=())
    with pytest.raises(ConfigurationError, match="has no cron, which"):
        packages_of(scene.order(provided))


def test_what_is_removed_from_the_release_is_not_there(scene: PackageScene) -> None:
    wish = PackageWish(("linux-rpi-16k",), ("linux-rpi",))
    packages_of(scene.order(wish))
    other = PackageWish(("linux-rpi",), ("linux-rpi",))
    lock = scene.lock
    pin = replace(lock.sets[wish.key], wanted=other.install, packages=())
    lock.with_packages({}, {other.key: pin})
    with pytest.raises(ConfigurationError, match="has no linux-rpi, which"):
        packages_of(scene.order(other))


def test_what_the_release_has_is_looked_up_where_nobody_did_so_yet(scene: PackageScene) -> None:
    """As on a computer whose archive came by archive import."""
    wish = PackageWish(("nano", "docker"))
    first = packages_of(scene.order(wish))
    (known,) = (scene.cache.root / "databases").iterdir()
    known.unlink()
    assert packages_at_hand(scene.order(wish, offline=True)) == first, "nothing is made to look"
    assert not known.exists()
    assert packages_of(scene.order(wish, offline=True)) == first
    edited(scene, wish, packages=())
    known.unlink()
    with pytest.raises(ConfigurationError, match="has no docker, which"):
        packages_of(scene.order(wish, offline=True))


def test_a_long_list_is_told_in_a_line(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    edited(scene, DOCKER, wanted=tuple(f"name-{number}" for number in range(9_000)))
    with pytest.raises(ConfigurationError, match="wants name-0, ") as caught:
        packages_at_hand(scene.order(DOCKER))
    assert len(caught.value.what) < 6_000
