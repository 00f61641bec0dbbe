"""``lock`` as a person meets it: what is pinned, what would move, what the archive is worth."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.image.salt.needs import ARCH_PACKAGES
from tests.support.mirror import Mirror
from tests.support.pacman import package, python_package
from tests.support.pypi import index
from tests.support.release import everyday_tree
from tests.support.repository import (
    FOLDER,
    add_pacman,
    database_of,
    files_of,
    packages_in,
    release_tree,
    serving_packages,
)
from tests.support.signing import SigningKey, make_key
from tests.support.terminal import on_terminal
from tests.support.workplace import Workplace, workplace

pytestmark = pytest.mark.image
PACKAGES = """
[packages]
install = ["htop"]
[nodes.pi7.packages]
install = ["docker"]
replace = { linux-rpi = "linux-rpi-16k" }
"""


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Mirror]:
    with serving_packages(tmp_path_factory.mktemp("repository"), key) as mirror:
        yield mirror


@pytest.fixture
def place(tmp_path: Path, key: SigningKey, repository: Mirror) -> Iterator[Workplace]:
    kept = dict(repository.files)
    with workplace(tmp_path, tree=release_tree(repository.address), key=key) as found:
        toml = found.rack / "rack.toml"
        toml.write_text(toml.read_text().replace("\n[packages]\n", PACKAGES))
        yield found
    repository.files = kept


def test_a_rack_is_locked_shown_moved_and_brought_back(
    place: Workplace, repository: Mirror, tmp_path: Path, key: SigningKey
) -> None:
    planned = place.json("lock", "--dry-run")
    assert planned.code == 0, planned.err
    assert {change["name"] for change in planned.result["changes"]} == {
        "htop", "docker", "containerd", "runc", "linux-rpi-16k",
    }  # fmt: skip
    assert not (place.rack / "rack.lock").exists()

    said = place.run("lock")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("pi[0-6,8-13]: 1 package beyond the release")
    runc = next(line.split() for line in lines if line.startswith("runc "))
    assert (runc[1], runc[-1]) == ("1.1.0-1", "containerd")
    assert any("without linux-rpi" in line for line in lines)
    old = (place.rack / "rack.lock").read_text()
    asked = len(repository.log)
    again = place.json("lock", "--offline")
    assert again.code == 0, again.err
    assert [each["nodes"] for each in again.result["sets"]][1] == ["pi7"]
    assert len(repository.log) == asked

    paths = packages_in(tmp_path / "new")
    newer = package(tmp_path / "new", "runc", "1.2-1", {"x": "y"}, arch="armv7h")
    paths = [path for path in paths if not path.name.startswith("runc")] + [newer]
    del repository.files[f"{FOLDER}/runc-1.1.0-1-armv7h.pkg.tar.xz"]
    repository.files |= files_of(paths, database_of(paths, tmp_path / "new"), key)
    nobody = place.run("lock", "--update")
    assert nobody.code == 2
    assert "say --yes" in nobody.err
    looked = place.run("lock", "--update", "--dry-run")
    assert "~ runc 1.1.0-1 -> 1.2-1" in looked.out
    assert "containerd" in looked.out
    assert (place.rack / "rack.lock").read_text() == old
    moved = place.json("lock", "--update", "runc", "--yes")
    assert moved.code == 0, moved.err
    assert [(each["old"], each["new"]) for each in moved.result["changes"]] == [
        ("1.1.0-1", "1.2-1")
    ]
    assert place.json("lock", "--verify").result["proven"] == 5

    (place.rack / "rack.lock").write_text(old)
    back = place.json("lock", "--offline")
    assert back.code == 0, back.err
    assert "1.1.0-1" in json.dumps(back.result)


def test_a_dry_run_pins_nothing_and_fetches_no_package(place: Workplace) -> None:
    lock, made = place.rack / "rack.lock", {path.name for path in place.rack.iterdir()}
    for words in ((), ("--update",)):
        said = place.run("lock", *words, "--dry-run")
        assert said.code == 0, said.err
        assert "+ docker 1:1.6.2-1" in said.out
        assert "would be pinned\nrack.lock is as it was (--dry-run)" in said.out
        assert "pin moved" not in said.err
        assert {path.name for path in place.rack.iterdir()} == made
    assert not list(place.cache.glob("packages/*"))
    assert len(list(place.cache.glob("releases/*"))) == 1

    assert place.run("lock").code == 0
    before = lock.read_bytes()
    said = place.run("lock", "--dry-run", "--cache", "another")
    assert said.code == 0, said.err
    assert "5 of those that rack.lock pins are not in the archive" in said.out
    assert not list((place.folder / "another").glob("packages/*"))
    assert lock.read_bytes() == before
    assert "would be pinned" not in place.run("lock", "--dry-run").out
    assert place.run("lock", "--verify", "--dry-run").code == 2


def test_a_dry_run_asks_a_release_without_pacman_for_no_package(tmp_path: Path) -> None:
    """Salt is all that is wanted, and such a release may have what it needs."""
    with workplace(tmp_path, tree=everyday_tree()) as place:
        toml = place.rack / "rack.toml"
        toml.write_text(toml.read_text().replace("[salt]\n", '[salt]\nversion = "3008.3"\n'))
        said = place.run("lock", "--dry-run")
        assert said.code == 0, said.err
        assert "pinned in" not in said.out
        assert not (place.rack / "rack.lock").exists()


def test_what_gets_older_is_marked_and_must_be_named(
    place: Workplace, repository: Mirror, tmp_path: Path, key: SigningKey
) -> None:
    """A database is signed by nobody: an old one may come back, and old packages have signatures
    that are right."""
    assert place.run("lock").code == 0
    lock = place.rack / "rack.lock"
    before = lock.read_bytes()
    names = ("docker", "containerd", "runc")
    kept = [
        path
        for path in packages_in(tmp_path / "old")
        if path.name.partition("-")[0] not in ("docker", "containerd")
    ]
    older = [
        package(tmp_path / "old", name, version, {name: ""}, arch="armv7h", depend=depend)
        for name, version, depend in (
            ("docker", "1:1.5.0-1", "containerd"),
            ("containerd", "1.6.0-1", "runc"),
        )
    ]
    paths = [*kept, *older]
    repository.files = files_of(paths, database_of(paths, tmp_path / "old"), key)
    looked = place.run("lock", "--update", "--dry-run")
    assert "~ docker 1:1.6.2-1 -> 1:1.5.0-1 OLDER! (" in looked.out
    assert "change, 2 of them to an OLDER version" in looked.out
    refused = place.json("lock", "--update", "--yes")
    assert (refused.code, lock.read_bytes()) == (12, before)
    (error,) = [each for each in refused.events if each["event"] == "error"]
    assert "--yes alone does not agree to that" in error["what"]
    assert any("docker" in line for line in error["details"])
    env = place.environment
    words = ["lock", "--update"]
    shown = on_terminal(words, 200, cwd=place.folder, typed="yes\n", env=env)
    assert shown.status == 0, shown.text
    assert b'version = "1:1.5.0-1"' in lock.read_bytes()
    lock.write_bytes(before)
    named = place.json("lock", "--update", *names, "--yes")
    assert named.code == 0, named.err
    assert {each["name"] for each in named.result["changes"] if each["older"]} == {*names[:2]}


@pytest.mark.parametrize(
    ("canary", "named"), [(False, ["openssl"]), (True, ["openssl"]), (True, ["openssl", "runc"])]
)
def test_what_the_release_has_newer_must_be_named(
    place: Workplace,
    repository: Mirror,
    tmp_path: Path,
    key: SigningKey,
    canary: bool,
    named: list[str],
) -> None:
    """Also the first time, when nobody is asked, and for a wish that is new in a locked rack."""
    toml, lock = place.rack / "rack.toml", place.rack / "rack.lock"
    if canary:
        assert place.run("lock").code == 0
    before = '[packages]\ninstall = ["htop"'
    wanted = before.replace("\n", '\ncanary = ["pi3"]\n') if canary else before
    toml.write_text(toml.read_text().replace(f"\n{before}]", f'\n{wanted}, "old"]'))
    given = {"openssl": ("3.4.0-1", "glibc"), "old": ("1-1", "openssl<3.5")}
    if len(named) > 1:
        given["runc"] = ("1.2-1", "glibc")
    folder = tmp_path / "old"
    paths = [path for path in packages_in(folder) if path.name.split("-")[0] not in given]
    paths += [
        package(folder, name, version, {name: ""}, arch="armv7h", depend=depend)
        for name, (version, depend) in given.items()
    ]
    repository.files = files_of(paths, database_of(paths, folder), key)
    looked = place.run("lock", "--dry-run")
    assert "~ openssl 3.5.0-1 -> 3.4.0-1 OLDER! (" in looked.out
    assert "change, 1 of them to an OLDER version" in looked.out
    for words in (["lock"], ["fetch"], ["lock", "--update", "--yes"]):
        refused = place.json(*words)
        assert refused.code == 12, words
        (error,) = [each for each in refused.events if each["event"] == "error"]
        assert "lock --update openssl --yes" in error["hint"]
        assert any("3.5.0-1 -> 3.4.0-1" in line for line in error["details"])
    assert b"3.4.0-1" not in lock.read_bytes()
    moved = place.json("lock", "--update", *named, "--yes")
    assert moved.code == 0, moved.err
    assert {each["name"] for each in moved.result["changes"] if each["older"]} == {"openssl"}
    assert b"3.4.0-1" in lock.read_bytes()
    again = place.json("lock", "--offline")
    assert again.code == 0, again.err
    tried = again.result["candidate"]
    assert [each["name"] for each in tried["changes"]] == ["runc"] if tried else len(named) == 1


def test_a_lock_that_is_killed_goes_on_where_it_was(place: Workplace, repository: Mirror) -> None:
    """kill -9 while a package comes in: nothing is pinned, what is archived is whole."""
    slow = f"{FOLDER}/docker-1:1.6.2-1-armv7h.pkg.tar.xz"
    before = len(repository.asked(slow))
    repository.manners(slow).seconds_per_kib = 30
    running = subprocess.Popen(place.command("lock"), cwd=place.folder, env=place.environment)
    try:
        while len(repository.asked(slow)) == before:
            assert running.poll() is None
            time.sleep(0.05)
    finally:
        running.kill()
        running.wait()
    repository.manners(slow).seconds_per_kib = 0
    assert "[set" not in (place.rack / "rack.lock").read_text()
    asked = len(repository.asked(f"{FOLDER}/runc-1.1.0-1-armv7h.pkg.tar.xz"))
    said = place.json("lock")
    assert said.code == 0, said.err
    assert place.json("lock", "--verify").result["proven"] == 5
    assert len(repository.asked(f"{FOLDER}/runc-1.1.0-1-armv7h.pkg.tar.xz")) == asked


def test_what_does_not_go_together_is_a_usage_error(place: Workplace) -> None:
    for words in (["docker"], ["--update", "--verify"], ["--update", "--offline"]):
        assert place.run("lock", *words).code == 2


def test_an_ordinary_user_locks_as_root_does(place: Workplace) -> None:
    if os.geteuid():
        assert place.run("lock").code == 0
        return
    for folder in (place.folder, *place.folder.rglob("*")):
        os.chown(folder, 65534, 65534)
    for parent in place.folder.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
         *place.command("lock", "--json")],
        cwd=place.folder, env=place.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_fresh_rack_brings_what_salt_needs_by_itself(
    tmp_path: Path, key: SigningKey, repository: Mirror
) -> None:
    """The rack.toml of rack init, a release with pacman and no Python, one command."""
    kept = dict(repository.files)
    folder = tmp_path / "needs"
    paths = [
        python_package(folder),
        *(package(folder, name, "1.0-1", {f"usr/share/{name}": name}, depend="python")
          for name in ARCH_PACKAGES if name not in ("python", "openssl")),
    ]  # fmt: skip
    repository.files |= files_of(paths, database_of(paths, folder), key)
    tree = everyday_tree()
    tree.file("./usr/bin/pacman", b"\x7fELF", 0o755)
    tree.file("./usr/lib/libcrypto.so.3", b"\x7fELF")
    add_pacman(tree, repository.address)
    with index() as pypi, workplace(tmp_path, tree=tree, pypi=pypi, key=key) as place:
        toml = place.rack / "rack.toml"
        toml.write_text(toml.read_text() + '[nodes.pi3.packages]\nremove = ["nano"]\n')
        said = place.json("write", tmp_path / "pi7.img", "--node", "pi7", "--size", "2GiB")
        assert said.code == 0, said.err
        assert said.result["verified"] is True
        for log in (logs := (repository.log, place.mirror.log, pypi.mirror.log)):
            log.clear()
        composed = place.json("compose")
        assert composed.code == 0, composed.err
        again = place.json("compose")
        assert again.result == composed.result
        made = [
            any(event.get("phase") == "make filesystems" for event in said.events)
            for said in (composed, again)
        ]
        assert made == [True, False], "then both images are from the cache"
        assert [*map(len, logs)] == [0, 0, 0], "nobody is asked for what is pinned"
        (other,) = composed.result["others"]
        assert other["nodes"] == ["pi3"]
        assert other["key"] != composed.result["key"]
        fetched = place.json("fetch")
        assert {each["name"] for each in fetched.result["sets"][0]["install"]} == {
            name for name in ARCH_PACKAGES if name != "openssl"
        }
        planned = place.run("write", tmp_path / "x.img", "--node", "pi7", "--dry-run")
        assert "packages  12 beyond the release, pinned: python, python-cryptography" in planned.err
        assert "image     composed" in planned.err
    repository.files = kept


def test_a_salt_that_never_talks_is_refused_when_it_is_planned(
    place: Workplace, repository: Mirror, key: SigningKey, tmp_path: Path
) -> None:
    """Its version was changed after the Python of the nodes was pinned."""
    folder = tmp_path / "needs"
    paths = [
        package(folder, name, "3.14.10-1" if name == "python" else "1.0-1", {f"usr/{name}": ""})
        for name in ARCH_PACKAGES
        if name != "openssl"
    ]
    repository.files |= files_of(paths, database_of(paths, folder), key)
    toml = place.rack / "rack.toml"
    text = toml.read_text().replace(PACKAGES, "\n[packages]\n")
    text = text.replace("\n[salt]\n", "\n[salt]\nversion = 3008.3\n")
    toml.write_text(text.replace("= 3008.3", '= "3008.3"'))
    assert place.run("lock").code == 0
    toml.write_text(text.replace("= 3008.3", '= "3006.30"'))
    repository.log.clear()
    for words in (
        ["lock"], ["compose"], ["write", "x.img", "--node", "pi7", "--dry-run"],
        ["write", "x.img", "--node", "pi7"], ["rack", "plan", "--images", "."],
    ):  # fmt: skip
        said = place.run(*words)
        assert (said.code, said.out) == (10, ""), words
        assert "Salt 3006.30 starts on Python 3.14 and never talks" in said.err
        assert "target " not in said.err, "no plan is shown, and nobody is asked"
    assert not repository.log
