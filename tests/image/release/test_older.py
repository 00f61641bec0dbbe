"""A release that was signed before the one that is pinned does not come back unnoticed.

Whoever is on the way to a mirror without TLS has every release that was ever published, with its
right signature. So has a mirror that is behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import MalformedRelease, NotAuthentic
from imager.release.lock import Pin, RackLock
from imager.release.openpgp import signed_at
from imager.release.request import OlderRelease
from tests.support.fetching import PATH, Scene, md5_line, some_bytes
from tests.support.mirror import Manners, Mirror, serving
from tests.support.pacman import package
from tests.support.signing import GnuPG, gnupg, make_key
from tests.support.terminal import on_terminal
from tests.support.workplace import TARBALL, workplace

pytestmark = pytest.mark.image
OLD, NEW = some_bytes(1), some_bytes(2)
HEADERS = {
    OLD: Manners(etags=['"old"'], last_modified="Fri, 01 Jan 2021 00:00:00 GMT"),
    NEW: Manners(etags=['"new"'], last_modified="Tue, 01 Sep 2026 00:00:00 GMT"),
}
_WHEN = {OLD: "20210101T000000", NEW: "20260901T000000"}


class Dated(Scene):
    """A release of 2021 and one of 2026, signed then by the same key; ``offer`` says which one a
    mirror has."""

    def __init__(self, tmp_path: Path, gpg: GnuPG) -> None:
        super().__init__(tmp_path, make_key())
        self.gpg = gpg
        words = ("--faked-system-time", "20200101T000000", "--quick-gen-key", "s <s@x>", "rsa2048")
        gpg(*words, "sign", "never")
        lines = gpg("--with-colons", "--list-keys").splitlines()
        fingerprint = next(line for line in lines if line.startswith(b"fpr")).split(b":")[9]
        certificate = gpg("--armor", "--export")
        self.key = replace(
            self.key, certificate=certificate, fingerprint=fingerprint.decode().upper()
        )
        self.key_file.write_bytes(certificate)
        self.signatures = {
            data: gpg("--faked-system-time", f"{when}!", "--detach-sign", stdin=data)
            for data, when in _WHEN.items()
        }

    def offer(self, mirror: Mirror, data: bytes) -> None:
        mirror.files = {
            PATH: data,
            f"{PATH}.sig": self.signatures[data],
            f"{PATH}.md5": md5_line(data),
        }
        mirror.misbehave(PATH, replace(HEADERS[data], etags=list(HEADERS[data].etags)))

    @property
    def pin(self) -> Pin:
        pin = RackLock.load(self.lock_path).pin("stand-in")
        assert pin is not None
        return pin


@pytest.fixture
def dated(tmp_path: Path) -> Iterator[Dated]:
    with gnupg() as gpg:
        yield Dated(tmp_path, gpg)


@pytest.fixture
def pinned(dated: Dated, mirror: Mirror) -> Dated:
    """The one of 2026 is pinned."""
    dated.offer(mirror, NEW)
    dated.fetch(mirror, locked=True)
    return dated


@pytest.fixture
def scene(dated: Dated) -> Scene:
    return dated


def test_an_older_one_does_not_become_the_pin(pinned: Dated, mirror: Mirror) -> None:
    before = pinned.lock_path.read_bytes()
    pinned.offer(mirror, OLD)
    mirror.log.clear()
    with pytest.raises(OlderRelease) as caught:
        pinned.fetch(mirror, locked=True, update=True)
    assert caught.value.exit_code == 12
    assert "it was signed 2021-01-01T00:00:00Z, that was signed 2026-09-01T00:00:00Z" in (
        caught.value.what
    )
    assert "fetch --update --yes" in caught.value.hint
    assert pinned.lock_path.read_bytes() == before
    assert mirror.asked(PATH) == [], "its signature says it before the long download"


def test_a_person_may_want_it_all_the_same(pinned: Dated, mirror: Mirror) -> None:
    pinned.offer(mirror, OLD)
    with pytest.raises(OlderRelease) as caught:
        pinned.fetch(mirror, locked=True, update=True)
    later = caught.value.signed_at.replace(year=2022)
    with pytest.raises(OlderRelease):
        pinned.fetch(mirror, locked=True, update=True, not_before=later)
    pinned.fetch(mirror, locked=True, update=True, not_before=caught.value.signed_at)
    assert pinned.heard.notes[-1].endswith(
        "… (signed 2026-09-01T00:00:00Z) to " + pinned.pin.sha256[:12] + "… (signed "
        "2021-01-01T00:00:00Z)"
    )


@pytest.mark.parametrize("headers", ["etag", "date"])
def test_a_header_does_not_bring_back_what_is_archived(
    dated: Dated, mirror: Mirror, headers: str
) -> None:
    for data in (OLD, NEW):
        dated.offer(mirror, data)
        dated.fetch(mirror, locked=True, update=True)
    before = dated.lock_path.read_bytes()
    mirror.files = {PATH: bytes(len(OLD))}
    old = HEADERS[OLD]
    mirror.misbehave(PATH, Manners(etags=old.etags) if headers == "etag" else old)
    with pytest.raises(NotAuthentic, match="comes without a signature"):
        dated.fetch(mirror, locked=True, update=True)
    assert dated.lock_path.read_bytes() == before


def test_a_header_may_name_the_newest_that_is_archived(
    pinned: Dated, mirror: Mirror, tmp_path: Path
) -> None:
    """Which another rack fetched; and for a rack that has no pin yet."""
    mirror.log.clear()
    other = tmp_path / "other" / "rack.lock"
    other.parent.mkdir()
    pinned.lock_path, first = other, pinned.lock_path
    pinned.fetch(mirror, locked=True)
    assert pinned.pin.sha256 == RackLock.load(first).pins["stand-in"].sha256
    assert mirror.asked(PATH) == []


def test_a_mirror_that_is_behind_is_passed_over(
    dated: Dated, mirror: Mirror, second: Mirror, tmp_path: Path
) -> None:
    dated.offer(mirror, OLD)
    dated.fetch(mirror, locked=True)
    old = dated.lock_path.read_bytes()
    dated.offer(mirror, NEW)
    dated.fetch(mirror, locked=True, update=True)
    new = dated.pin.sha256
    dated.offer(mirror, OLD)
    dated.offer(second, NEW)
    dated.fetch(mirror, second, locked=True, update=True)
    assert dated.pin.sha256 == new
    dated.lock_path.write_bytes(old)
    dated.fetch(mirror, locked=True, update=True)
    assert dated.lock_path.read_bytes() == old, "what is pinned is never older than itself"


def test_of_several_older_ones_the_last_is_told(
    pinned: Dated, mirror: Mirror, second: Mirror
) -> None:
    for server in (mirror, second):
        pinned.offer(server, OLD)
    with pytest.raises(OlderRelease) as caught:
        pinned.fetch(mirror, second, locked=True, update=True)
    assert len(caught.value.details) == 2
    del second.files[f"{PATH}.sig"]
    with pytest.raises(NotAuthentic, match="without a signature") as forged:
        pinned.fetch(mirror, second, locked=True, update=True)
    assert not isinstance(forged.value, OlderRelease), "a forgery is worse"


def test_where_the_pinned_one_is_not_archived_it_counts_when_it_was_fetched(
    pinned: Dated, mirror: Mirror, tmp_path: Path
) -> None:
    """A rack that comes from git."""
    before = pinned.lock_path.read_bytes()
    pinned.cache = Cache(tmp_path / "another")
    pinned.offer(mirror, OLD)
    with pytest.raises(OlderRelease, match=r"may be older than .* that was fetched 20"):
        pinned.fetch(mirror, locked=True, update=True)
    assert pinned.lock_path.read_bytes() == before
    pinned.offer(mirror, NEW)
    pinned.fetch(mirror, locked=True, update=True)
    assert pinned.lock_path.read_bytes() == before, "the very same is no older one"
    pinned.cache = Cache(tmp_path / "a third")
    pinned.offer(mirror, OLD)
    pinned.fetch(mirror, locked=True, update=True, not_before=datetime.fromtimestamp(0, UTC))
    assert pinned.lock_path.read_bytes() != before
    assert "(fetched 20" in pinned.heard.notes[-1]


def test_a_time_that_nobody_signed_counts_for_nothing(
    pinned: Dated, mirror: Mirror, tmp_path: Path
) -> None:
    """A signature over other bytes is put beside the old one: it has the right maker, and a later
    time."""
    pinned.offer(mirror, OLD)
    mirror.files[f"{PATH}.sig"] = pinned.signatures[NEW] + pinned.signatures[OLD]
    with pytest.raises(NotAuthentic, match="is not what the key"):
        pinned.fetch(mirror, locked=True, update=True)
    pinned.lock_path.unlink()
    pinned.cache = Cache(tmp_path / "another")
    pinned.offer(mirror, NEW)
    mirror.files[f"{PATH}.sig"] = pinned.signatures[OLD] + pinned.signatures[NEW]
    release = pinned.fetch(mirror, locked=True)
    kept = (release.tarball.parent / "release.tar.gz.sig").read_bytes()
    assert signed_at(kept) == datetime(2026, 9, 1, tzinfo=UTC), "only what proves it is kept"


def test_without_a_pin_what_comes_is_taken(dated: Dated, mirror: Mirror) -> None:
    with serving() as other:
        dated.offer(other, NEW)
        dated.fetch(other)
    dated.offer(mirror, OLD)
    dated.fetch(mirror, locked=True)
    assert dated.pin.size_bytes == len(OLD)


def test_whoever_runs_it_is_asked(dated: Dated, tmp_path: Path) -> None:
    """And not moved by a no; where nobody can be asked, it ends."""
    (tmp_path / "place").mkdir()
    with workplace(tmp_path / "place", key=dated.key) as place:
        lock = place.rack / "rack.lock"

        def offer(data: bytes) -> None:
            names = zip((TARBALL, f"{TARBALL}.sig"), (data, dated.signatures[data]), strict=True)
            place.mirror.files = dict(names)
            place.mirror.misbehave(TARBALL, HEADERS[data])

        offer(NEW)
        assert place.run("fetch").code == 0
        before = lock.read_bytes()
        offer(OLD)
        said = place.run("fetch", "--update")
        assert (said.code, lock.read_bytes()) == (12, before)
        assert "is older than the StandIn-rpi-armv7-latest that rack.lock pins" in said.err
        typed = partial(
            on_terminal, ["fetch", "--update"], 200, cwd=tmp_path / "place", env=place.environment
        )
        shown = typed(typed="n\n")
        assert (shown.status, lock.read_bytes()) == (130, before), shown.text
        assert "signed 2021-01-01T00:00:00Z" in shown.text
        shown = typed(typed="yes\n")
        assert shown.status == 0, shown.text
        assert lock.read_bytes() != before
        lock.write_bytes(before)
        assert place.run("fetch", "--update", "--yes").code == 0
        assert lock.read_bytes() != before


def test_a_signed_package_is_no_release(
    dated: Dated, mirror: Mirror, second: Mirror, tmp_path: Path
) -> None:
    """The same key signs packages. It stays in the archive, pins nothing, and stops nobody: not the
    next mirror, and not the next run."""
    other = package(tmp_path, "docker", "1:1.5.0-1", {"etc/": ""}).read_bytes()
    signed = dated.gpg("--detach-sign", stdin=other)
    mirror.files = {PATH: other, f"{PATH}.sig": signed}
    for _ in range(2):  # the second time it is known by its headers
        with pytest.raises(MalformedRelease, match=r"is the package docker 1:1\.5\.0-1") as caught:
            dated.fetch(mirror, locked=True)
        assert mirror.address + PATH in caught.value.what
        assert not dated.lock_path.exists()
    second.files = {}
    with pytest.raises(MalformedRelease) as both:
        dated.fetch(mirror, second, locked=True)
    assert len(both.value.details) == 2
    dated.offer(second, OLD)
    dated.fetch(mirror, second, locked=True)
    assert dated.pin.size_bytes == len(OLD)
    before = dated.lock_path.read_bytes()
    with pytest.raises(MalformedRelease):
        dated.fetch(mirror, locked=True, update=True)
    assert dated.lock_path.read_bytes() == before
