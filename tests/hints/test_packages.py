"""Hints about the packages that a rack is pinned to, and about those that are on trial."""

from __future__ import annotations

import re
from functools import partial

import pytest

from tests.hints.following import Row, follow
from tests.hints.locked import OTHER, Locked, altered, another_release, htop, install, newer
from tests.hints.test_without_release import master
from tests.support.pacman import package
from tests.support.workplace import TARBALL

CANARY = 'canary = ["pi3"]'


def _on_trial(place: Locked) -> None:
    """A newer docker is tried on pi3."""
    newer(place)
    install(place, f'["docker"]\n{CANARY}')
    assert place.typed("lock --update --yes").code == 0


def _forgotten(place: Locked) -> None:
    """And rack.toml names pi3 no more."""
    _on_trial(place)
    place.change("^canary = .*", "")


def _is_off(place: Locked) -> None:
    """And pi3 is switched off."""
    _on_trial(place)
    master(place.folder, minions=[])


def _older(place: Locked) -> None:
    """The mirror has docker older than it is pinned."""
    depend = ["containerd>=1.7", "glibc"]
    made = package(place.folder, "docker", "1:1.5.0-1", {"x": ""}, arch="armv7h", depend=depend)
    place.offer(made)


def _older_than_the_release(place: Locked) -> None:
    """htop is wanted, too, and the mirror says that it needs an older openssl than it has."""
    made = partial(package, place.folder, arch="armv7h")
    needs = made("htop", "3.3-1", {"h": ""}, depend="openssl<3.5")
    place.offer(made("openssl", "3.4.0-1", {"o": ""}, depend="glibc"), needs)
    htop(place)


def _both_newer(place: Locked, what: str = "docker") -> None:
    """The mirror's newer ``what`` needs a newer containerd."""
    made = partial(package, place.folder, arch="armv7h")
    needs = ["containerd>=1.8", "glibc"]
    place.offer(made(what, "9-1", {what: ""}, depend=needs), made("containerd", "1.8-1", {"c": ""}))


def _other_bytes(place: Locked) -> None:
    """The mirror has another docker of the same version."""
    made = package(place.folder, "docker", "1:1.6.2-1", {"x": ""}, arch="armv7h", depend="glibc")
    place.offer(made)


def _htop_needs_newer(place: Locked) -> None:
    _both_newer(place, "htop")
    htop(place)


def _thief(place: Locked, file: str) -> None:
    """A package with a ``file`` that does not go together with others is wanted, and locked."""
    place.offer(package(place.folder, "thief", "1-1", {file: ""}, arch="armv7h", depend="glibc"))
    install(place, '["docker", "thief"]')
    assert place.typed("lock").code == 0


def _illegible(place: Locked) -> None:
    (path,) = place.workplace.cache.rglob("docker*.xz")
    altered(place, "docker*.xz", kept=0, more=bytes(path.stat().st_size))


def _another_name(place: Locked) -> None:
    """The rack goes over to a release of another name."""
    another_release(place, TARBALL.replace("latest", "other"))
    place.change("-latest.tar.gz", "-other.tar.gz")


def _miscounted(place: Locked) -> None:
    """rack.lock says that docker has other bytes than it has."""
    lock = place.workplace.rack / "rack.lock"
    before, table, after = lock.read_text().partition('[pacman."docker"]')
    lock.write_text(
        before + table + re.sub("size_bytes = [0-9]+", "size_bytes = 7", after, count=1)
    )


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
    "if they are to go back, name them: {}": Row(
        "lock --update --yes",
        "picloud-image lock --update docker --yes",
        code=12,
        before=(_older,),
    ),
    "if they are to be that old, name them: {}": Row(
        "lock",
        "picloud-image lock --update openssl --yes",
        code=12,
        before=(_older_than_the_release,),
        again=0,
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
        before=(partial(install, words='["docker", "no-such"]'),),
        between=(htop,),
        again=0,
    ),
    "run picloud-image lock once without --offline": Row(
        "lock --offline", "picloud-image lock", code=11, before=(htop,), again=0
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
    "take its last good state from git, or run picloud-image lock --update {} (without a name, all "
    "may move)": Row(
        "compose",
        "picloud-image lock --update docker",
        "{said} --yes",
        10,
        before=(_miscounted,),
        again=0,
    ),
    "take its last good state from git, or run picloud-image lock --update": Row(
        "compose",
        "picloud-image lock --update",
        "{said} --yes",
        10,
        before=("$ sed -i 's/^packages = .*/packages = []/' rack/rack.lock",),
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
        before=(partial(altered, name="docker*.xz"),),
        again=0,
    ),
    "run picloud-image lock without --offline: it sets this aside and fetches it anew": Row(
        "lock --offline",
        "picloud-image lock(?= without)",
        code=12,
        before=(partial(altered, name="docker*.xz", more=b""),),
        again=0,
    ),
    "choose others under [packages] in rack.toml": Row(
        "compose",
        "under .packages. in rack.toml",
        "lock",
        10,
        before=(partial(_thief, file="usr/lib/systemd/system/docker.service"),),
        between=(htop,),
    ),
    "choose another version of it under [packages] in rack.toml, and tell whoever publishes "
    "it": Row(
        "compose",
        "under .packages. in rack.toml",
        "lock",
        13,
        before=(partial(_thief, file="../x"),),
        between=(htop,),
    ),
    "name units that there are as enable under [packages] in rack.toml; a unit of an overlay is "
    "enabled in its overlay.toml": Row(
        "compose",
        "enable(?= under)",
        "compose",
        10,
        before=(partial(install, words='["docker"]\nenable = ["no-such.service"]'),),
        between=(lambda place: place.change("no-such.service", "docker.service"),),
    ),
}

TRIALS = {
    "on {} alone, until picloud-image lock promote": Row(
        "lock --update --yes",
        "picloud-image lock promote",
        "{said} --dry-run",
        0,
        before=(newer, partial(install, words=f'["docker"]\n{CANARY}')),
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

LOCKED = PACKAGES | TRIALS


@pytest.mark.image
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", LOCKED)
def test_it_works_in_a_locked_rack(locked: Locked, text: str) -> None:
    follow(LOCKED[text], locked, locked.folder, locked.typed)
