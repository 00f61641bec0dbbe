"""Hints about the release and the Salt that a rack is pinned to, and an archive that is carried."""

from __future__ import annotations

from functools import partial

import pytest

from tests.hints.following import Row, follow, small_disk
from tests.hints.locked import OTHER, Locked, altered, another_release, htop, install
from tests.support.pacman import arch_tree, python_package
from tests.support.pypi import source_release
from tests.support.release import build_release
from tests.support.workplace import TARBALL


def _salt(place: Locked, version: str) -> None:
    place.pypi.publish("salt-3008.4.tar.gz", source_release("3008.4"))
    place.change("^version = .*", f'version = "{version}"')


def _small(place: Locked, options: str) -> None:
    small_disk(place.folder / "small", place.held, options)


def _mirror_off(place: Locked) -> None:
    place.change(r"127\.0\.0\.1:\d+/os", "127.0.0.1:1/os")


def _without_python(place: Locked) -> None:
    """The rack goes over to a release without Python and without mirrors."""
    install(place, "[]")
    built = build_release(place.folder, arch_tree()).tarball.read_bytes()
    place.offer_release(TARBALL, built)
    assert place.typed("fetch --update").code in (0, 10)


def _behind(place: Locked) -> None:
    """The mirror goes back to the release before the one that is pinned."""
    before = dict(place.workplace.mirror.files)
    another_release(place)
    assert place.typed("fetch --update").code == 0
    place.workplace.mirror.files = before


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


DISKS = {
    "put the cache elsewhere with --cache DIR": Row(
        "doctor --offline --cache small/cache",
        "--cache DIR",
        "doctor --offline {said}",
        0,
        fill={"DIR": "new"},
        before=(partial(_small, options="size=1m"),),
    ),
    "look at the connection; with --offline what is archived is enough": Row(
        "doctor", "--offline", "doctor {said}", 0, before=(_mirror_off,)
    ),
    "free some space on its disk; if that is the cache, --cache DIR puts it elsewhere": Row(
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
        before=(another_release,),
        again=0,
    ),
    "if it is to be that one, say picloud-image fetch --update --yes": Row(
        "fetch --update",
        "picloud-image fetch --update --yes",
        code=12,
        before=(_behind,),
        again=0,
    ),
    "run it once without --offline, or name the key's file with --signing-key FILE": Row(
        "PICLOUD_SIGNING_KEY= lock --verify --offline",
        "--signing-key FILE",
        "PICLOUD_SIGNING_KEY= lock --verify --offline {said}",
        11,
        fill={"FILE": "signing-key.asc"},
        before=("$ rm cache/keys/*",),
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
        before=(partial(altered, name="release.tar.gz"),),
    ),
    "run picloud-image fetch, then export again": Row(
        "archive export a.tar", "picloud-image fetch(?=,)", code=11, before=(htop,), again=0
    ),
    "run picloud-image fetch to get it anew, then export again": Row(
        "archive export a.tar",
        "picloud-image fetch(?= to)",
        code=12,
        before=(partial(altered, name="release.tar.gz"),),
        again=0,
    ),
    "run picloud-image fetch: it sets this aside and fetches it anew": Row(
        "archive export a.tar",
        "picloud-image fetch(?=:)",
        code=12,
        before=(partial(altered, name="salt-3008.3.tar.gz", more=b""),),
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

PINNED = DISKS | SALT | RELEASES


@pytest.mark.image
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", PINNED)
def test_it_works_with_what_is_pinned(locked: Locked, text: str) -> None:
    follow(PINNED[text], locked, locked.folder, locked.typed)
