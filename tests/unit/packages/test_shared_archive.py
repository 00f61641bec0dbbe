"""One archive serves many racks: what one rack.lock says takes nothing away from the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, NetworkError, NotAuthentic, PicloudError
from imager.packages.carry.lists import missing_of
from imager.packages.fetch.archive import PackageArchive, WrongPin
from imager.packages.locking import (
    carry_out,
    packages_of,
    plan_packages,
    require_archived,
    verify_archive,
)
from imager.packages.wish import PackageWish
from imager.release.lock import PacmanPin
from tests.support.mirror import Mirror, serving
from tests.support.repository import PackageScene, database_of, files_of, packages_in
from tests.support.signing import SigningKey, make_key, revoked

RUNC = PackageWish(("runc",))


@pytest.fixture(scope="module")
def keys() -> tuple[SigningKey, SigningKey]:
    return make_key("one"), make_key("two")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], bytes]:
    folder = tmp_path_factory.mktemp("packages")
    paths = packages_in(folder)
    return paths, database_of(paths, folder)


@pytest.fixture
def mirrors(
    keys: tuple[SigningKey, SigningKey], packages: tuple[list[Path], bytes]
) -> Iterator[tuple[Mirror, Mirror]]:
    """Two that have the same packages, each signed by a key of its own."""
    with serving(files_of(*packages, keys[0])) as one, serving(files_of(*packages, keys[1])) as two:
        yield one, two


@pytest.fixture
def racks(
    tmp_path: Path, keys: tuple[SigningKey, SigningKey], mirrors: tuple[Mirror, Mirror]
) -> tuple[PackageScene, PackageScene]:
    """A rack of each key; they have one cache."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (
        PackageScene(tmp_path / name, key, (mirror,))
        for name, key, mirror in zip(("one", "two"), keys, mirrors, strict=True)
    )
    two.cache = one.cache
    return one, two


def folders(scene: PackageScene) -> list[str]:
    return sorted(path.name for path in scene.cache.packages.iterdir() if path.is_dir())


def repinned(scene: PackageScene, name: str, pin: PacmanPin) -> None:
    """Let the rack.lock of ``scene`` pin ``name`` as ``pin``."""
    scene.lock.with_packages({**scene.lock.pacman, name: pin}, scene.lock.sets)


def test_the_same_bytes_by_two_keys_serve_the_racks_of_both(
    racks: tuple[PackageScene, PackageScene], mirrors: tuple[Mirror, Mirror]
) -> None:
    one, two = racks
    (first,) = packages_of(one.order(RUNC))
    (second,) = packages_of(two.order(RUNC))
    mine, theirs = first.install[0], second.install[0]
    assert (mine.path, mine.sha256) == (theirs.path, theirs.sha256)
    assert (mine.signer, theirs.signer) == (one.key.fingerprint, two.key.fingerprint)
    assert mine.signature.read_bytes() != theirs.signature.read_bytes()
    for mirror in mirrors:
        mirror.files.clear()
    for scene in racks:
        (again,) = packages_of(scene.order(RUNC, offline=True))
        assert again.install[0].signer == scene.key.fingerprint
        assert [each.name for each in verify_archive(scene.order(RUNC))] == ["runc"]
        assert "runc" not in {entry.name for entry in missing_of(scene.cache, scene.lock)}
    assert folders(one) == [mine.sha256]
    assert not one.heard.warnings
    assert not two.heard.warnings


def test_a_signer_that_rack_lock_only_claims_is_no_proof(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    """The bytes are archived as another key signed them."""
    one, two = racks
    packages_of(one.order(RUNC))
    claimed = replace(one.lock.pacman["runc"], signer=two.key.fingerprint)
    packages_of(two.order(PackageWish(("htop",))))
    lock = two.lock
    of_one = replace(one.lock.sets[RUNC.key], release=two.release.sha256)
    lock.with_packages({"runc": claimed}, {RUNC.key: of_one})
    order = two.order(RUNC, offline=True)
    with pytest.raises(NetworkError, match=r"runc 1\.1\.0-1, which rack.lock pins, is not in"):
        packages_of(order)
    with pytest.raises(NetworkError):
        require_archived(order)
    assert "runc" in {entry.name for entry in missing_of(two.cache, two.lock)}
    (found,) = packages_of(two.order(RUNC))  # its own mirror has its signature
    assert found.install[0].signer == two.key.fingerprint


WRONG = [
    ("size_bytes", {"size_bytes": 5}),
    ("version", {"version": "9-1"}),
    ("arch", {"arch": "any"}),
]


@pytest.mark.parametrize(("what", "change"), WRONG, ids=[what for what, _ in WRONG])
@pytest.mark.parametrize("offline", [True, False])
def test_a_wrong_pin_is_a_fault_of_rack_lock_and_renames_nothing(
    racks: tuple[PackageScene, PackageScene],
    what: str,
    change: dict[str, str | int],
    offline: bool,
) -> None:
    scene, _ = racks
    packages_of(scene.order(RUNC))
    good, before = scene.lock_path.read_bytes(), folders(scene)
    repinned(scene, "runc", replace(scene.lock.pacman["runc"], **change))  # type: ignore[arg-type]
    order = scene.order(RUNC, offline=offline)
    actions = (
        lambda: packages_of(order),
        lambda: require_archived(order),
        lambda: list(verify_archive(order)),
        lambda: plan_packages(order),
    )
    for action in actions:
        with pytest.raises(WrongPin, match=f"rack.lock pins a runc whose {what} is ") as caught:
            action()
        assert caught.value.exit_code == 10
        assert "lock --update runc" in caught.value.hint
    assert folders(scene) == before
    assert not scene.heard.warnings
    order = scene.order(RUNC)
    carry_out(order, plan_packages(order, ["runc"]))
    assert scene.lock_path.read_bytes() == good, "the words of its hint work"


def test_a_pin_under_another_name_is_a_fault_of_rack_lock(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    scene, _ = racks
    packages_of(scene.order(RUNC))
    pin = scene.lock.pacman["runc"]
    with pytest.raises(WrongPin, match=r"pins a nano whose name is nano, and .* has runc"):
        PackageArchive(scene.cache).find("nano", pin)
    with pytest.raises(ConfigurationError):
        repinned(scene, "nano", pin)
        list(verify_archive(scene.order(RUNC)))
    assert folders(scene) == [pin.sha256]


def test_a_mirror_s_name_for_the_file_is_no_matter(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    scene, _ = racks
    (first,) = packages_of(scene.order(RUNC))
    repinned(scene, "runc", replace(scene.lock.pacman["runc"], file="r.pkg.tar.xz"))
    assert packages_of(scene.order(RUNC, offline=True)) == (first,)


def test_what_pypi_published_is_not_taken_for_a_damaged_package(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    """It lies in a folder like those of packages; a rack.lock that names it renames nothing."""
    scene, _ = racks
    packages_of(scene.order(RUNC))
    salt = scene.cache.packages / ("5a" * 32)
    salt.mkdir()
    (salt / "salt-3008.3.tar.gz").write_bytes(b"salt")
    repinned(scene, "runc", replace(scene.lock.pacman["runc"], sha256=salt.name))
    with pytest.raises(PicloudError):
        packages_of(scene.order(RUNC))
    assert salt.is_dir()


def test_a_package_without_its_record_is_set_aside_and_fetched_anew(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    scene, _ = racks
    (first,) = packages_of(scene.order(RUNC))
    (first.install[0].path.parent / "package.json").unlink()
    assert packages_of(scene.order(RUNC)) == (first,)
    assert folders(scene) == [first.install[0].sha256, f"{first.install[0].sha256}.damaged-1"]


def test_a_key_that_was_revoked_makes_no_package_a_damaged_one(
    racks: tuple[PackageScene, PackageScene],
) -> None:
    scene, _ = racks
    packages_of(scene.order(RUNC))
    (scene.folder / "key.asc").write_bytes(revoked(scene.key))
    before = folders(scene)
    with pytest.raises(NotAuthentic, match="is revoked"):
        list(verify_archive(scene.order(RUNC)))
    assert folders(scene) == before
