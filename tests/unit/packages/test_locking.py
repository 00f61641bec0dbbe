"""Packages are resolved by pacman, proven, archived, pinned; what is pinned does not move."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import (
    ConfigurationError,
    MissingTool,
    NetworkError,
    NotAuthentic,
    PicloudError,
)
from imager.packages.fetch.alone import alone
from imager.packages.locking import (
    carry_out,
    packages_at_hand,
    packages_of,
    plan_packages,
    require_archived,
    verify_archive,
)
from imager.packages.plan import LockPlan
from imager.packages.resolve.database import Database, own_database
from imager.packages.wish import PackageWish
from tests.support.mirror import Mirror, serving
from tests.support.pacman import package
from tests.support.release import build_release
from tests.support.repository import (
    FOLDER,
    PackageScene,
    database_of,
    files_of,
    packages_in,
    release_tree,
    repository_in,
)
from tests.support.signing import SigningKey, make_key, sign_detached

DOCKER = PackageWish(("docker",), enable=("docker.service",))


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> dict[str, bytes]:
    return repository_in(tmp_path_factory.mktemp("repository"), key)


@pytest.fixture
def mirror(served: dict[str, bytes]) -> Iterator[Mirror]:
    with serving(served) as found:
        yield found


@pytest.fixture
def scene(tmp_path: Path, key: SigningKey, mirror: Mirror) -> PackageScene:
    return PackageScene(tmp_path, key, (mirror,))


def refused(scene: PackageScene, *wishes: PackageWish, offline: bool = False) -> PicloudError:
    before = scene.lock_path.read_bytes()
    with pytest.raises(PicloudError) as caught:
        packages_of(scene.order(*wishes, offline=offline))
    assert scene.lock_path.read_bytes() == before
    return caught.value


def test_a_wish_becomes_proven_packages_in_the_order_of_their_needs(scene: PackageScene) -> None:
    (found,) = packages_of(scene.order(DOCKER))
    assert [each.name for each in found.install] == ["runc", "containerd", "docker"]
    assert found.explicit == {"docker"}
    assert found.enable == ("docker.service",)
    docker = found.install[-1]
    assert (docker.version, docker.arch, docker.signer) == (
        "1:1.6.2-1",
        "armv7h",
        scene.key.fingerprint,
    )
    assert docker.path.name == "docker-1:1.6.2-1-armv7h.pkg.tar.xz"
    assert docker.path.is_file()
    assert docker.signature.is_file()
    lock = scene.lock
    assert lock.sets[DOCKER.key].packages == ("runc", "containerd", "docker")
    assert lock.pacman["docker"].sha256 == docker.sha256
    assert lock.pins, "the release's pin stays"
    assert [each.name for each in verify_archive(scene.order(DOCKER))] == sorted(lock.pacman)


def test_what_is_locked_and_archived_asks_nobody(scene: PackageScene, mirror: Mirror) -> None:
    first = packages_of(scene.order(DOCKER))
    asked = len(mirror.log)
    assert packages_of(scene.order(DOCKER)) == first
    assert packages_at_hand(scene.order(DOCKER, offline=True)) == first
    assert packages_of(scene.order(DOCKER, offline=True)) == first
    assert len(mirror.log) == asked


def test_a_salt_that_never_talks_on_the_nodes_python_is_refused_when_it_is_planned(
    scene: PackageScene, mirror: Mirror, key: SigningKey
) -> None:
    folder = scene.folder / "python"
    paths = [package(folder, "python", "3.14.10-1", {"usr/bin/python3.14": ""}, arch="armv7h")]
    mirror.files |= files_of(paths, database_of(paths, folder), key)
    wish = PackageWish(("python",))
    old = replace(scene.order(wish), salt_version="3006.30")
    with pytest.raises(ConfigurationError, match="never talks to its master") as no:
        packages_of(old)
    assert "the nodes get python 3.14.10-1" in no.value.what
    assert {each.path for each in mirror.log} == {f"{FOLDER}/core.db"}, "and nothing more"
    (found,) = packages_of(replace(old, salt_version="3008.3"))
    assert [each.version for each in found.install] == ["3.14.10-1"]
    with pytest.raises(ConfigurationError, match="never talks to its master"):
        packages_at_hand(replace(scene.order(wish), salt_version="3006.30"))


def test_a_lock_that_is_dropped_meanwhile_is_not_made_anew(
    scene: PackageScene, mirror: Mirror
) -> None:
    packages_of(scene.order(DOCKER))
    order = scene.order(DOCKER, PackageWish(("htop",)))
    scene.lock_path.unlink()
    with pytest.raises(ConfigurationError, match="changed by another run"):
        packages_of(order)
    assert not scene.lock_path.exists()


def test_what_the_release_has_is_left_as_it_is(scene: PackageScene) -> None:
    wish = PackageWish(("openssl", "nano", "glibc"))
    (found,) = packages_of(scene.order(wish))
    assert found.install == ()
    assert scene.lock.sets[wish.key].packages == ()
    (found,) = packages_of(scene.order(PackageWish(("openssl>=3.6",))))
    assert [(each.name, each.version) for each in found.install] == [("openssl", "3.6.0-1")]


def test_what_a_package_needs_newer_comes_with_it(scene: PackageScene) -> None:
    plan = plan_packages(scene.order(PackageWish(("modern",))))
    assert [(change.name, change.base, change.asked_by) for change in plan.changes] == [
        ("modern", None, ()),
        ("openssl", "3.5.0-1", ("modern",)),
    ]
    assert plan.size_bytes > 0


REFUSED = [
    (("dokcer",), (), "no repository has dokcer; did you mean docker?"),
    (("cron",), (), "cron is no package; each of cronie, fcron provides it: name the one that is"),
    (("backup",), (), "backup needs cron, which cronie, fcron provide: name one of them"),
    (("tomorrow",), (), "tomorrow needs openssl>=4: stand-in-rpi-armv7 has 3.5.0-1 and the mirror"
     " has 3.6.0-1"),
    (("docker>=2:1",), (), "docker>=2:1 cannot be had: the mirror has 1:1.6.2-1"),
    (("linux-rpi-16k",), (), 'write replace = { "linux-rpi" = "linux-rpi-16k" } to have it'),
    (("cronie", "linux-rpi-16k"), ("glibc",), "nano needs glibc: stand-in-rpi-armv7 has 2.40-1"),
    ((), ("nanoo",), "nanoo cannot be removed: stand-in-rpi-armv7 has no package of that name"),
]  # fmt: skip


@pytest.mark.parametrize(("install", "remove", "why"), REFUSED, ids=[each[2] for each in REFUSED])
def test_what_cannot_be_is_said_in_words(
    scene: PackageScene, install: tuple[str, ...], remove: tuple[str, ...], why: str
) -> None:
    error = refused(scene, PackageWish(install, remove))
    assert isinstance(error, ConfigurationError)
    assert why in "\n".join((error.what, *error.details))


def test_one_of_several_providers_is_taken_when_it_is_named(scene: PackageScene) -> None:
    (found,) = packages_of(scene.order(PackageWish(("backup", "fcron"))))
    assert {each.name for each in found.install} == {"backup", "fcron"}


def test_a_kernel_takes_the_place_of_another(scene: PackageScene) -> None:
    (found,) = packages_of(scene.order(PackageWish(("linux-rpi-16k",), ("linux-rpi",))))
    assert [each.name for each in found.install] == ["linux-rpi-16k"]
    assert found.remove == ("linux-rpi",)


def newer(
    mirror: Mirror, folder: Path, key: SigningKey, *versions: tuple[str, str], drop: bool = True
) -> None:
    """Let the mirror publish new versions, and drop the old ones as the distribution does."""
    paths = packages_in(folder)
    for name, version in versions:
        old = next(path for path in paths if path.name.startswith(f"{name}-"))
        info: dict[str, str | list[str]] = {"arch": "armv7h"}
        if name == "docker":
            info["depend"] = ["containerd>=1.7", "glibc"]
        paths[paths.index(old)] = package(folder, name, version, {"usr/x": version}, **info)
        if drop:
            del mirror.files[f"{FOLDER}/{old.name}"]
    mirror.files |= files_of(paths, database_of(paths, folder), key)


def test_nothing_moves_until_it_is_told_to(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    first = packages_of(scene.order(DOCKER))
    old = scene.lock_path.read_bytes()
    newer(mirror, tmp_path / "new", scene.key, ("docker", "1:1.7.0-1"), ("runc", "1.2-1"))
    assert packages_of(scene.order(DOCKER)) == first

    order = scene.order(DOCKER)
    plan = plan_packages(order, ["runc"])
    assert [(each.name, each.old, each.new) for each in plan.changes] == [
        ("runc", "1.1.0-1", "1.2-1")
    ]
    plan = plan_packages(order, [])
    assert [(each.name, each.old, each.new, each.asked_by) for each in plan.changes] == [
        ("docker", "1:1.6.2-1", "1:1.7.0-1", ()),
        ("runc", "1.1.0-1", "1.2-1", ("containerd",)),
    ]
    assert scene.lock_path.read_bytes() == old, "a plan changes nothing"
    carry_out(order, plan)
    (moved,) = packages_of(scene.order(DOCKER))
    assert [each.version for each in moved.install] == ["1.2-1", "1.7.0-1", "1:1.7.0-1"]

    scene.lock_path.write_bytes(old)
    assert packages_of(scene.order(DOCKER, offline=True)) == first, "back from the archive alone"


def test_what_is_held_stays(scene: PackageScene, mirror: Mirror, tmp_path: Path) -> None:
    packages_of(scene.order(DOCKER))
    newer(mirror, tmp_path / "new", scene.key, ("docker", "1:1.7.0-1"), ("runc", "1.2-1"))
    held = scene.order(DOCKER, hold=frozenset({"docker"}))
    assert [each.name for each in plan_packages(held, []).changes] == ["runc"]
    with pytest.raises(ConfigurationError, match="docker is held"):
        plan_packages(held, ["docker"])
    with pytest.raises(ConfigurationError, match="dokcer is not among the 3 packages"):
        plan_packages(held, ["dokcer"])


def test_a_new_wish_does_not_move_what_is_pinned(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    """The mirror has dropped the version of runc that the rack has: the archive has it."""
    packages_of(scene.order(PackageWish(("runc",))))
    newer(mirror, tmp_path / "new", scene.key, ("runc", "1.2-1"))
    runc, docker = packages_of(scene.order(PackageWish(("runc",)), DOCKER))
    assert runc.install[0] == docker.install[0]
    assert runc.install[0].version == "1.1.0-1"
    assert len(scene.lock.sets) == 2


def older_openssl(mirror: Mirror, folder: Path, key: SigningKey) -> None:
    """Let the mirror have an openssl older than the release's, which htop is said to need."""
    kept = [
        path for path in packages_in(folder) if path.name.split("-")[0] not in ("openssl", "htop")
    ]
    made = [
        package(folder, "openssl", "3.4.0-1", {"usr/x": ""}, arch="armv7h"),
        package(folder, "htop", "3.3-1", {"usr/x": ""}, arch="any", depend="openssl<3.5"),
    ]
    paths = [*kept, *made]
    mirror.files |= files_of(paths, database_of(paths, folder), key)


@pytest.mark.parametrize("locked", [False, True])
def test_what_the_release_has_does_not_become_older_unasked(
    scene: PackageScene, mirror: Mirror, tmp_path: Path, locked: bool
) -> None:
    """Neither with the first lock nor with a later one: nobody signs a database."""
    wishes = (PackageWish(("htop",)), *((DOCKER,) if locked else ()))
    if locked:
        packages_of(scene.order(DOCKER))
    older_openssl(mirror, tmp_path / "old", scene.key)
    error = refused(scene, *wishes)
    assert isinstance(error, NotAuthentic)
    assert error.details == ("openssl 3.5.0-1 -> 3.4.0-1",)
    assert error.hint.endswith("picloud-image lock --update openssl --yes")
    held = scene.order(*wishes, hold=frozenset({"openssl"}))
    plan = plan_packages(held, ["openssl"])
    assert plan.older == ("openssl",)
    assert {each.name: each.older_than for each in plan.changes} == {
        "htop": None,
        "openssl": "3.5.0-1",
    }
    with pytest.raises(ConfigurationError, match="glibc is not among the"):
        plan_packages(held, ["glibc"])
    carry_out(held, plan)
    found = packages_of(scene.order(*wishes))[0]
    assert [each.version for each in found.install] == ["3.4.0-1", "3.3-1"]
    assert plan_packages(scene.order(*wishes), []).changes == (), "that was agreed to"


def test_what_a_person_agreed_to_have_older_is_locked(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    older_openssl(mirror, tmp_path / "old", scene.key)
    order = replace(scene.order(PackageWish(("htop",))), agreed=frozenset({"openssl"}))
    (found,) = packages_of(order)
    assert [each.version for each in found.install] == ["3.4.0-1", "3.3-1"]


def test_a_newer_release_is_not_made_older_by_what_was_agreed_for_the_last_one(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    wish = PackageWish(("htop",))
    older_openssl(mirror, tmp_path / "old", scene.key)
    order = scene.order(wish)
    carry_out(order, plan_packages(order, ["openssl"]))
    (scene.folder / "newer").mkdir()
    tree = release_tree(mirror.address)
    tree.file("./etc/issue", "newer")
    built = build_release(scene.folder / "newer", tree)
    order = replace(scene.order(wish), release=replace(built, fingerprint=scene.key.fingerprint))
    with pytest.raises(NotAuthentic) as caught:
        packages_of(order)
    assert caught.value.details == ("openssl 3.5.0-1 -> 3.4.0-1",)
    carry_out(order, plan_packages(order, ["openssl"]))
    assert len(packages_of(replace(order, lock=scene.lock))) == 1


@pytest.mark.parametrize("moving", [None, ["docker"]])
def test_a_plan_that_fetches_waits_for_who_fetches_already(
    scene: PackageScene, mirror: Mirror, moving: list[str] | None
) -> None:
    """Both would write to the same file of what came in so far."""
    packages_of(scene.order(DOCKER))
    scene.cache = Cache(scene.folder / "another")
    order = scene.order(DOCKER)
    mirror.log.clear()
    plans: list[LockPlan] = []
    planning = threading.Thread(target=lambda: plans.append(plan_packages(order, moving)))
    with alone(order.terms):
        planning.start()
        while planning.is_alive() and not any("another run" in n for n in scene.heard.notes):
            time.sleep(0.01)
        assert planning.is_alive()
        assert not any(".pkg.tar" in each.path for each in mirror.log)
    planning.join()
    assert [plan.changes for plan in plans] == [()]
    assert any(".pkg.tar" in each.path for each in mirror.log)


def test_what_would_have_to_move_is_named(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    wish = PackageWish(("openssl>=3.6",))
    packages_of(scene.order(wish))
    newer(mirror, tmp_path / "new", scene.key, ("openssl", "4.0-1"))
    both = (wish, PackageWish(("tomorrow",)))
    error = refused(scene, *both)
    assert isinstance(error, ConfigurationError)
    assert "tomorrow would have openssl 4.0-1 for armv7h, and rack.lock pins 3.6.0-1" in error.what
    assert "lock --update" in error.hint
    carry_out(scene.order(*both), plan_packages(scene.order(*both), ["openssl"]))
    assert scene.lock.pacman["openssl"].version == "4.0-1"


def test_a_package_packed_by_zstd_is_proven_like_any_other(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    packed = package(tmp_path / "z", "zed", "1.0-1", {"usr/x": "y"}, arch="armv7h")
    plain = lzma.decompress(packed.read_bytes())
    path = packed.with_suffix(".zst")
    path.write_bytes(subprocess.run(["zstd", "-cq"], input=plain, capture_output=True).stdout)
    mirror.files |= files_of([path], database_of([path], tmp_path / "z"), scene.key)
    (found,) = packages_of(scene.order(PackageWish(("zed",))))
    assert found.install[0].file_name == "zed-1.0-1-armv7h.pkg.tar.zst"


def test_a_set_that_nobody_wishes_any_more_is_forgotten(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    packages_of(scene.order(PackageWish(("htop",))))
    assert set(scene.lock.pacman) == {"htop"}


def test_a_mirror_that_has_dropped_a_version(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    packages_of(scene.order(DOCKER))
    lost = scene.lock.pacman["docker"]
    newer(mirror, tmp_path / "new", scene.key, ("docker", "1:1.7.0-1"))
    (scene.cache.packages / lost.sha256).rename(tmp_path / "elsewhere")
    with pytest.raises(NetworkError, match="not in"):
        require_archived(scene.order(DOCKER))
    error = refused(scene, DOCKER)
    assert isinstance(error, NetworkError)
    assert error.what == "no mirror has docker 1:1.6.2-1 any more, which rack.lock pins"
    assert "archive export" in error.hint
    assert "404" in error.details[0]
    (tmp_path / "elsewhere").rename(scene.cache.packages / lost.sha256)
    assert packages_of(scene.order(DOCKER))


def test_a_database_that_changes_between_two_requests(
    scene: PackageScene, mirror: Mirror, tmp_path: Path
) -> None:
    """The first answer is of yesterday, the packages are those of today."""
    old = mirror.files[f"{FOLDER}/core.db"]
    newer(mirror, tmp_path / "new", scene.key, ("docker", "1:1.7.0-1"))
    mirror.manners(f"{FOLDER}/core.db").bodies.append(old)
    (found,) = packages_of(scene.order(DOCKER))
    assert found.install[-1].version == "1:1.7.0-1"
    assert any("asking again" in note for note in scene.heard.notes)


def test_a_mirror_whose_database_never_fits_is_an_error(
    scene: PackageScene, mirror: Mirror
) -> None:
    del mirror.files[f"{FOLDER}/docker-1:1.6.2-1-armv7h.pkg.tar.xz"]
    error = refused(scene, DOCKER)
    assert (type(error).__mro__[1], error.exit_code) == (NetworkError, 11)


RUNC = f"{FOLDER}/runc-1.1.0-1-armv7h.pkg.tar.xz"


def altered(files: dict[str, bytes]) -> None:
    data = files[RUNC]
    files[RUNC] = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def signed_by_another(files: dict[str, bytes]) -> None:
    files[f"{RUNC}.sig"] = sign_detached(make_key(), files[RUNC])


def without_signature(files: dict[str, bytes]) -> None:
    del files[f"{RUNC}.sig"]


def another_of_the_key(files: dict[str, bytes]) -> None:
    """A package that the right key signed, under the name and size of the one that was asked."""
    other = f"{FOLDER}/htop-3.3-1-any.pkg.tar.xz"
    files[RUNC], files[f"{RUNC}.sig"] = files[other], files[f"{other}.sig"]


def another_and_a_database_that_fits(files: dict[str, bytes]) -> None:
    """The same from a mirror that lies about size and hash, too."""
    another_of_the_key(files)
    told = Database("core", "", files[f"{FOLDER}/core.db"])
    offers = [offer for name in told.names if (offer := told.offer(name)) is not None]
    data = files[RUNC]
    digest = hashlib.sha256(data).hexdigest()
    files[f"{FOLDER}/core.db"] = own_database(
        "core",
        [
            replace(each, size_bytes=len(data), sha256=digest) if each.name == "runc" else each
            for each in offers
        ],
    ).packed


@pytest.mark.parametrize(
    "harm",
    [
        altered,
        signed_by_another,
        without_signature,
        another_of_the_key,
        another_and_a_database_that_fits,
    ],
)
def test_what_is_not_authentic_is_never_used(
    scene: PackageScene, mirror: Mirror, harm: Callable[[dict[str, bytes]], None]
) -> None:
    harm(mirror.files)
    error = refused(scene, DOCKER)
    wrong_size = harm is another_of_the_key
    assert error.exit_code == (11 if wrong_size else 12), error.what
    assert "runc" in error.what
    assert not list(scene.cache.packages.glob("*/runc*"))


def test_no_signature_is_kept_that_proved_nothing(scene: PackageScene, mirror: Mirror) -> None:
    path = f"{FOLDER}/htop-3.3-1-any.pkg.tar.xz.sig"
    right = mirror.files[path]
    mirror.files[path] = sign_detached(scene.key, b"something else") + right
    (found,) = packages_of(scene.order(PackageWish(("htop",))))
    assert found.install[0].signature.read_bytes() == right


def test_another_build_of_the_pinned_version_is_not_the_pinned_one(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    runc = replace(scene.lock.pacman["runc"], sha256="ab" * 32)
    scene.lock.with_packages({**scene.lock.pacman, "runc": runc}, scene.lock.sets)
    error = refused(scene, DOCKER)
    assert isinstance(error, NotAuthentic)
    assert "is not the runc 1.1.0-1 that rack.lock pins" in error.what
    assert "lock --update runc" in error.hint


def test_a_pin_of_another_key_is_refused(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    runc = replace(scene.lock.pacman["runc"], signer="AB" * 20)
    scene.lock.with_packages({**scene.lock.pacman, "runc": runc}, scene.lock.sets)
    assert isinstance(refused(scene, DOCKER), NotAuthentic)


def test_a_damaged_archive_is_seen_and_mended(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    pin = scene.lock.pacman["runc"]
    file = scene.cache.packages / pin.sha256 / pin.file
    file.chmod(0o600)
    data = file.read_bytes()
    file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(NotAuthentic, match=r"runc.*altered") as no:
        list(verify_archive(scene.order(DOCKER)))
    assert no.value.hint.endswith(f"kept as {pin.sha256}.damaged-1")
    packages_of(scene.order(DOCKER))
    assert file.read_bytes() == data, "its words work"
    file.chmod(0o600)
    file.write_bytes(data[:-1])
    with pytest.raises(NotAuthentic, match="instead of"):
        packages_of(scene.order(DOCKER, offline=True))
    packages_of(scene.order(DOCKER))
    assert file.read_bytes() == data
    assert any("damaged-2" in warning for warning in scene.heard.warnings)


def test_the_next_mirror_is_asked(tmp_path: Path, key: SigningKey, mirror: Mirror) -> None:
    """It is commented out in the release's list, as all but one are in the distribution's."""
    with serving({}) as empty:
        scene = PackageScene(tmp_path, key, (empty, mirror))
        assert packages_of(scene.order(DOCKER))
        assert any("asking the next mirror" in note for note in scene.heard.notes)


def test_the_next_mirror_is_asked_where_pacman_finds_no_sound_databases(
    tmp_path: Path, key: SigningKey, mirror: Mirror, served: dict[str, bytes]
) -> None:
    """It does not tell how large its packages are; in the end the other one does not, too."""
    core = f"{FOLDER}/core.db"
    wrong = re.sub(rb"(?<=%CSIZE%\n)\d", b"x", gzip.decompress(served[core]))
    with serving({**served, core: wrong}) as other:
        scene = PackageScene(tmp_path, key, (other, mirror))
        assert packages_of(scene.order(DOCKER))
        assert scene.lock.pacman["runc"].url == mirror.address + RUNC
        (note,) = (note for note in scene.heard.notes if "asking the next mirror" in note)
        assert "core.db is not sound" in note
        mirror.files[core] = wrong
        (tmp_path / "two").mkdir()
        error = refused(PackageScene(tmp_path / "two", key, (other, mirror)), DOCKER)
        assert isinstance(error, NetworkError)
        assert "none of 2 mirrors gave sound databases" in error.what
        assert len(error.details) == 2


def test_a_server_that_sends_to_mirrors_is_followed_once(
    tmp_path: Path, key: SigningKey, mirror: Mirror
) -> None:
    with serving({}) as geo:
        geo.manners(f"{FOLDER}/core.db").redirect = f"{mirror.address}{FOLDER}/core.db"
        scene = PackageScene(tmp_path, key, (geo,))
        packages_of(scene.order(DOCKER))
        assert {each.path for each in geo.log} == {f"{FOLDER}/core.db"}
        assert scene.lock.pacman["runc"].url == mirror.address + RUNC


def test_without_the_network_and_without_a_lock(scene: PackageScene) -> None:
    error = refused(scene, DOCKER, offline=True)
    assert isinstance(error, NetworkError)
    assert "run picloud-image lock once without --offline" in error.hint


def test_the_archive_alone_can_be_enough(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    (found,) = packages_of(scene.order(PackageWish(("containerd",)), offline=True))
    assert [each.name for each in found.install] == ["runc", "containerd"]


def test_pacman_must_be_there(scene: PackageScene, monkeypatch: pytest.MonkeyPatch) -> None:
    packages_of(scene.order(DOCKER))
    monkeypatch.setattr("imager.base.run.search_path", lambda: "/nonexistent")
    assert packages_of(scene.order(DOCKER)), "what is locked needs none"
    error = refused(scene, PackageWish(("htop",)))
    assert isinstance(error, MissingTool)
    assert "pacman-package-manager" in error.hint


def test_a_rack_has_the_packages_of_one_release(scene: PackageScene) -> None:
    packages_of(scene.order(DOCKER))
    (scene.folder / "other").mkdir()
    built = build_release(scene.folder / "other", release_tree("http://127.0.0.1:9"))
    other = replace(built, name="other", fingerprint=scene.key.fingerprint)
    with pytest.raises(ConfigurationError, match="has the packages of stand-in-rpi-armv7"):
        packages_of(replace(scene.order(DOCKER), release=other))


def test_a_release_under_two_names_is_one_release(scene: PackageScene) -> None:
    first = packages_of(scene.order(DOCKER))
    called = replace(scene.release, name="other")
    (htop, docker) = packages_of(
        replace(scene.order(PackageWish(("htop",)), DOCKER), release=called)
    )
    assert (docker,) == first
    assert [each.name for each in htop.install] == ["htop"]
