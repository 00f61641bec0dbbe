"""Hints about what a rack is pinned to: releases, packages, Salt, an archive that is carried."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.hints.following import Row, follow, small_disk
from tests.hints.locked import Locked, locked, newer
from tests.hints.test_without_release import master
from tests.support.pacman import arch_tree, package, python_package
from tests.support.pypi import source_release
from tests.support.release import build_release
from tests.support.workplace import TARBALL

OTHER = "A" * 40
CANARY = 'canary = ["pi3"]'


def _install(place: Locked, words: str) -> None:
    place.change("^install = .*", f"install = {words}")


def _on_trial(place: Locked) -> None:
    """A newer docker is tried on pi3."""
    newer(place)
    _install(place, f'["docker"]\n{CANARY}')
    assert place.typed("lock --update --yes").code == 0


def _forgotten(place: Locked) -> None:
    """And rack.toml names pi3 no more."""
    _on_trial(place)
    place.change("^canary = .*", "")


def _is_off(place: Locked) -> None:
    """And pi3 is switched off."""
    _on_trial(place)
    master(place.folder, minions=[])


def _both_newer(place: Locked, what: str = "docker") -> None:
    """The mirror's newer ``what`` needs a newer containerd."""
    made = partial(package, place.folder, arch="armv7h")
    needs = ["containerd>=1.8", "glibc"]
    place.offer(made(what, "9-1", {what: ""}, depend=needs), made("containerd", "1.8-1", {"c": ""}))


def _other_bytes(place: Locked) -> None:
    """The mirror has another docker of the same version."""
    made = package(place.folder, "docker", "1:1.6.2-1", {"x": ""}, arch="armv7h", depend="glibc")
    place.offer(made)


def _htop(place: Locked) -> None:
    _install(place, '["docker", "htop"]')


def _htop_needs_newer(place: Locked) -> None:
    _both_newer(place, "htop")
    _htop(place)


def _thief(place: Locked, file: str) -> None:
    """A package with a ``file`` that does not go together with others is wanted, and locked."""
    place.offer(package(place.folder, "thief", "1-1", {file: ""}, arch="armv7h", depend="glibc"))
    _install(place, '["docker", "thief"]')
    assert place.typed("lock").code == 0


def _altered(place: Locked, name: str, *, kept: int = -1, more: bytes = b"X") -> None:
    """``more`` is in the archived file ``name`` instead of what follows its byte ``kept``."""
    (path,) = place.workplace.cache.rglob(name)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:kept] + more)


def _illegible(place: Locked) -> None:
    (path,) = place.workplace.cache.rglob("docker*.xz")
    _altered(place, "docker*.xz", kept=0, more=bytes(path.stat().st_size))


def _another_release(place: Locked, path: str = TARBALL) -> None:
    """The mirror has another release at ``path``."""
    data = gzip.decompress(place.workplace.mirror.files[TARBALL])
    place.offer_release(path, gzip.compress(data, mtime=1))


def _another_name(place: Locked) -> None:
    """The rack goes over to a release of another name."""
    _another_release(place, TARBALL.replace("latest", "other"))
    place.change("-latest.tar.gz", "-other.tar.gz")


def _salt(place: Locked, version: str) -> None:
    place.pypi.publish("salt-3008.4.tar.gz", source_release("3008.4"))
    place.change("^version = .*", f'version = "{version}"')


def _small(place: Locked, options: str) -> None:
    small_disk(place.folder / "small", place.held, options)


def _without_python(place: Locked) -> None:
    """The rack goes over to a release without Python and without mirrors."""
    _install(place, "[]")
    built = build_release(place.folder, arch_tree()).tarball.read_bytes()
    place.offer_release(TARBALL, built)
    assert place.typed("fetch --update").code in (0, 10)


def _beside(place: Locked, arch: str) -> None:
    """What Salt needs is in the folder ``packages``, for computers of that kind."""
    python_package(place.workplace.rack / "packages", arch=arch)
    toml = (place.workplace.rack / "rack.toml").read_text()
    if "\npackages = " not in toml:
        place.change(r"^\[salt\]$", '[salt]\npackages = "packages"')


def _other_rack(place: Locked, key: str | None = None) -> None:
    """All is in a.tar; the folder ``other`` is the rack as it is in git, without rack.lock, and
    trusts ``key``."""
    assert place.typed("archive export a.tar").code == 0
    toml = (place.workplace.rack / "rack.toml").read_text()
    (place.folder / "other").mkdir()
    (place.folder / "other/rack.toml").write_text(
        toml.replace(place.key.fingerprint, key or place.key.fingerprint)
    )


def _trusted(place: Locked) -> None:
    toml = place.folder / "other/rack.toml"
    toml.write_text(toml.read_text().replace(OTHER, place.key.fingerprint))


PACKAGES = {
    "say {}, or picloud-image lock to see what is pinned": Row(
        "lock docker", "picloud-image lock --update docker"
    ),
    "picloud-image lock shows them; what is new goes into [packages] in rack.toml": Row(
        "lock --update no-such", "picloud-image lock(?= shows)", code=10
    ),
    "look with --dry-run, then say --yes": Row(
        "lock --update", "--yes", "lock --update {said}", before=(newer,)
    ),
    "name what may move: picloud-image lock --update PKG…, or without names for all": Row(
        "lock --update docker --yes",
        "picloud-image lock --update PKG…",
        "{said} --yes",
        10,
        fill={"PKG…": "docker containerd"},
        before=(_both_newer,),
    ),
    "; picloud-image lock --update {} moves it": Row(
        "lock",
        "picloud-image lock --update containerd",
        "{said} --yes",
        10,
        before=(_htop_needs_newer,),
        again=0,
    ),
    "mend [packages] in rack.toml by what is named here (picloud-image docs locking)": Row(
        "lock",
        "picloud-image docs locking",
        code=10,
        before=(partial(_install, words='["docker", "no-such"]'),),
        between=(_htop,),
        again=0,
    ),
    "run picloud-image lock once without --offline": Row(
        "lock --offline", "picloud-image lock", code=11, before=(_htop,), again=0
    ),
    "use a rack of its own for it, or say picloud-image lock --update": Row(
        "lock", "picloud-image lock --update", "{said} --yes", 10, before=(_another_name,), again=0
    ),
    "for packages by {}, run picloud-image lock --update": Row(
        "lock",
        "picloud-image lock --update",
        "{said} --yes",
        12,
        before=(f"$ sed -i 's/^signer = .*/signer = \"{OTHER}\"/' rack/rack.lock",),
        again=0,
    ),
    "to use what is published now, run picloud-image lock --update {} (without a name, all may "
    "move)": Row(
        "lock --cache new",
        "picloud-image --cache new lock --update docker",
        "{said} --yes",
        12,
        before=(_other_bytes,),
        again=0,
    ),
    "take it from a computer whose archive has it (picloud-image archive export), or run "
    "picloud-image lock --update {} (without a name, all may move)": Row(
        "lock --cache new",
        "picloud-image --cache new lock --update containerd",
        "{said} docker --yes",
        11,
        before=(_both_newer,),
        again=0,
    ),
    "run picloud-image lock --verify: it sets aside what is damaged": Row(
        "lock",
        "picloud-image lock --verify",
        code=12,
        ends=12,
        before=(_illegible,),
        again=0,
    ),
    "run picloud-image lock to get it anew; what was here is kept as": Row(
        "lock --verify",
        "picloud-image lock(?= to)",
        code=12,
        before=(partial(_altered, name="docker*.xz"),),
        again=0,
    ),
    "run picloud-image lock without --offline: it sets this aside and fetches it anew": Row(
        "lock --offline",
        "picloud-image lock(?= without)",
        code=12,
        before=(partial(_altered, name="docker*.xz", more=b""),),
        again=0,
    ),
    "choose others under [packages] in rack.toml": Row(
        "compose",
        "under .packages. in rack.toml",
        "lock",
        10,
        before=(partial(_thief, file="usr/lib/systemd/system/docker.service"),),
        between=(_htop,),
    ),
    "choose another version of it under [packages] in rack.toml, and tell whoever publishes "
    "it": Row(
        "compose",
        "under .packages. in rack.toml",
        "lock",
        13,
        before=(partial(_thief, file="../x"),),
        between=(_htop,),
    ),
    "name units that there are as enable under [packages] in rack.toml; a unit of an overlay is "
    "enabled in its overlay.toml": Row(
        "compose",
        "enable(?= under)",
        "compose",
        10,
        before=(partial(_install, words='["docker"]\nenable = ["no-such.service"]'),),
        between=(lambda place: place.change("no-such.service", "docker.service"),),
    ),
}

TRIALS = {
    "on {} alone, until picloud-image lock promote": Row(
        "lock --update --yes",
        "picloud-image lock promote",
        "{said} --dry-run",
        0,
        before=(newer, partial(_install, words=f'["docker"]\n{CANARY}')),
    ),
    "picloud-image lock promote gives it to all nodes, picloud-image lock undo drops it": Row(
        "lock", "picloud-image lock undo", code=0, before=(_on_trial,)
    ),
    "on trial: {} by {}, the others by {} until picloud-image lock promote": Row(
        "rack plan --images .",
        "picloud-image lock promote",
        "{said} --dry-run",
        0,
        before=(_on_trial,),
    ),
    "try it: {}; then picloud-image lock promote gives it to all, or picloud-image lock undo "
    "drops it": Row(
        "write a.img --node pi1 --dry-run",
        "picloud-image rack flash pi3",
        "{said} --images . --dry-run",
        10,
        before=(_on_trial,),
    ),
    'name it again, as canary = ["pi3"] under [packages]; or drop what is on trial: picloud-image '
    "lock undo": Row(
        "lock promote --dry-run", r'canary = \["pi3"\]', "lock promote --dry-run", 10,
        before=(_forgotten,), section="packages",
    ),
    "back from the archive, with its next card: {}": Row(
        "lock undo",
        "picloud-image rack flash pi3",
        "{said} --images . --dry-run",
        0,
        before=(_on_trial,),
    ),
    "write it, if that was not done: {}; or go back: picloud-image lock undo": Row(
        "lock promote --local", "picloud-image lock undo", code=30, before=(_is_off,)
    ),
}  # fmt: skip

DISKS = {
    "free some space on its disk; the cache can be put elsewhere with --cache DIR": Row(
        "fetch --cache small/cache",
        "--cache DIR",
        "fetch {said}",
        41,
        fill={"DIR": "new"},
        before=(partial(_small, options="nr_inodes=1"),),
    ),
    "free some space, or put the cache elsewhere with --cache DIR": Row(
        "fetch --cache small/cache",
        "--cache DIR",
        "fetch {said}",
        41,
        fill={"DIR": "new"},
        before=(partial(_small, options="size=32k"),),
    ),
}

SALT = {
    "put the packages into a folder and name it as packages under [salt] in rack.toml "
    "(picloud-image docs salt); or choose a release that has them": Row(
        "compose",
        "name it as packages",
        "compose",
        10,
        fill={"name it as packages": 'packages = "packages"'},
        before=(_without_python,),
        between=(lambda place: python_package(place.workplace.rack / "packages"),),
        section="salt",
    ),
    "take packages of the same day and the same architecture as the release, with all they depend "
    "on (picloud-image docs salt)": Row(
        "compose",
        "picloud-image docs salt",
        code=10,
        before=(_without_python, partial(_beside, arch="aarch64")),
        between=("$ rm rack/packages/*", partial(_beside, arch="armv7h")),
    ),
}

RELEASES = {
    "for one by {}, run picloud-image fetch --update": Row(
        "fetch",
        "picloud-image fetch --update",
        code=12,
        before=(f"$ sed -i 's/^fingerprint = .*/fingerprint = \"{OTHER}\"/' rack/rack.lock",),
        again=0,
    ),
    "to use what is published now, run picloud-image fetch --update": Row(
        "fetch --cache new",
        "picloud-image --cache new fetch --update",
        code=12,
        before=(_another_release,),
        again=0,
    ),
    "get the key's file some other way and name it with --signing-key FILE": Row(
        "PICLOUD_SIGNING_KEY= https_proxy=http://127.0.0.1:1 fetch --cache new",
        "--signing-key FILE",
        "PICLOUD_SIGNING_KEY= fetch --cache new {said}",
        11,
        fill={"FILE": "signing-key.asc"},
    ),
    "run picloud-image fetch to get it anew; the altered one is kept as {}": Row(
        "compose",
        "picloud-image fetch(?= to)",
        code=12,
        before=(partial(_altered, name="release.tar.gz"),),
    ),
    "run picloud-image fetch, then export again": Row(
        "archive export a.tar", "picloud-image fetch(?=,)", code=11, before=(_htop,), again=0
    ),
    "run picloud-image fetch to get it anew, then export again": Row(
        "archive export a.tar",
        "picloud-image fetch(?= to)",
        code=12,
        before=(partial(_altered, name="release.tar.gz"),),
        again=0,
    ),
    "run picloud-image fetch: it sets this aside and fetches it anew": Row(
        "archive export a.tar",
        "picloud-image fetch(?=:)",
        code=12,
        before=(partial(_altered, name="salt-3008.3.tar.gz", more=b""),),
        again=0,
    ),
    "{} is no file that picloud-image archive export wrote": Row(
        "archive import rack/rack.toml",
        "picloud-image archive export",
        "{said} a.tar",
        13,
    ),
    "if you trust it, name it as signing_key under [release] in rack.toml": Row(
        "archive import a.tar --yes --rack other",
        "signing_key(?= under)",
        "archive import a.tar --yes --rack other",
        12,
        before=(partial(_other_rack, key=OTHER),),
        between=(_trusted,),
    ),
    "look with --dry-run, then say --yes if you trust where the file comes from": Row(
        "archive import a.tar --rack other",
        "--yes",
        "archive import a.tar --rack other {said}",
        before=(_other_rack,),
    ),
    "run picloud-image fetch": Row(
        "archive export a.tar",
        "picloud-image fetch",
        code=11,
        before=(partial(_salt, version="3008.4"),),
        again=0,
    ),
    "write one of them as version under [salt] in rack.toml": Row(
        "fetch",
        r"3008\.3",
        code=10,
        before=(partial(_salt, version="3008.99"),),
        between=(partial(_salt, version="3008.3"),),
        then="fetch",
    ),
    "choose a newer series as version under [salt] in rack.toml, such as 3008.3, which was seen "
    "to work there (picloud-image docs salt)": Row(
        "lock",
        r"3008\.3",
        "lock",
        10,
        before=(partial(_salt, version="3006.30"),),
        between=(partial(_salt, version="3008.3"),),
    ),
}

LOCKED = PACKAGES | TRIALS | RELEASES | DISKS | SALT


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    with locked(tmp_path_factory.mktemp("locked")) as found:
        yield found


@pytest.fixture
def place(template: Locked, tmp_path: Path) -> Iterator[Locked]:
    with template.copied(tmp_path / "here") as found:
        yield found


@pytest.mark.image
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", LOCKED)
def test_it_works_in_a_locked_rack(place: Locked, text: str) -> None:
    follow(LOCKED[text], place, place.folder, place.typed)
