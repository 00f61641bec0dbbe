"""A moved lock is tried on the canary nodes, and goes further when they are well, or never.

The diary's story: Docker 1.7.0 does not start a container. The Salt master is a folder of programs
that answer as Salt's do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mirror import Mirror
from tests.support.pacman import package
from tests.support.release import everyday_tree
from tests.support.repository import (
    add_pacman,
    database_of,
    files_of,
    packages_in,
    serving_packages,
)
from tests.support.signing import SigningKey, make_key
from tests.support.workplace import Workplace, workplace

pytestmark = pytest.mark.image
CHECK = """test "$(docker run --rm "it's" 'a: {b} #100%')" = ok"""
PACKAGES = f"""
[packages]
install = ["docker"]
canary = ["pi3"]
check = {json.dumps(CHECK)}
"""
OLD, NEW = "1:1.6.2-1", "1:1.7.0-1"
WELL = """[ "$3" = "it's" ] && [ "$4" = 'a: {b} #100%' ] && echo ok"""


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Mirror]:
    with serving_packages(tmp_path_factory.mktemp("repository"), key) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, key: SigningKey, mirror: Mirror) -> Iterator[Workplace]:
    """A rack that is locked, on whose mirror there is a newer docker, and the older no more."""
    kept = dict(mirror.files)
    tree = everyday_tree()
    add_pacman(tree, mirror.address)
    with workplace(tmp_path, tree=tree, key=key) as found:
        toml = found.rack / "rack.toml"
        toml.write_text(toml.read_text().replace("\n[packages]\n", PACKAGES))
        locked = found.json("lock")
        assert locked.code == 0, locked.err
        assert locked.result["candidate"] is None
        folder = tmp_path / "newer"
        paths = [path for path in packages_in(folder) if not path.name.startswith("docker")]
        depend = ["containerd>=1.7", "glibc"]
        paths.append(package(folder, "docker", NEW, {"x": "y"}, arch="armv7h", depend=depend))
        mirror.files = files_of(paths, database_of(paths, folder), key)
        yield found
    mirror.files = kept


def salt_says(place: Workplace, docker: str, *, check: str = WELL, up: bool = True) -> None:
    """Make this computer a Salt master whose pi3 has this version of docker. What is to be run on
    the node is run by sh, where ``docker`` is a program that does ``check``."""
    programs, node = place.folder / "programs", place.folder / "node"
    has = "\n".join([f"docker {docker}", "containerd 1.7.0-1", "runc 1.1.0-1", "nano 8.0-1"])
    answers = {
        "keys": {"minions": ["pi3"]},
        "up": {"up": ["pi3"] if up else []},
        "packages": {"pi3": {"pid": 1, "retcode": 0, "stdout": has, "stderr": ""}},
    }
    texts = {
        programs / "salt-key": f"cat {place.folder}/keys",
        programs / "salt-run": f"cat {place.folder}/up",
        programs / "sudo": 'while [ "$1" != sh ]; do shift; done\nexec "$@"',
        programs / "salt": f"""
case "$*" in
*pacman*) cat {place.folder}/packages ;;
*python_shell=True*)
    while [ "$1" != cmd.run_all ]; do shift; done
    out=$(PATH={node}:$PATH sh -c "$2" 2>&1); code=$?
    printf '{{"pi3": {{"pid": 2, "retcode": %s, "stdout": "%s", "stderr": ""}}}}' $code "$out" ;;
*) echo '{{}}' ;;
esac""",
        node / "docker": check,
    }
    for name, answer in answers.items():
        (place.folder / name).write_text(json.dumps(answer))
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    if str(programs) not in place.environment["PATH"]:
        place.environment["PATH"] = f"{programs}:{place.environment['PATH']}"


def test_a_docker_that_is_broken_never_leaves_the_canary(place: Workplace, mirror: Mirror) -> None:
    pinned = (place.rack / "rack.lock").read_text()
    composed = place.json("compose")
    assert composed.code == 0, composed.err
    image = composed.result["key"]
    moved = place.json("lock", "--update", "--yes")
    assert moved.code == 0, moved.err
    assert moved.result["candidate"]["nodes"] == ["pi3"]
    assert moved.result["candidate"]["changes"] == [{"name": "docker", "old": OLD, "new": NEW}]
    others, canary = sorted(moved.result["sets"], key=lambda each: each["nodes"] == ["pi3"])
    assert NEW in str(canary)
    assert NEW not in str(others)
    assert (place.rack / "rack.lock").read_text() == pinned
    assert place.json("lock", "--verify").result["proven"] == 4
    composed = place.json("compose")
    assert composed.result["key"] == image, "the others keep their bytes"
    assert [each["nodes"] for each in composed.result["others"]] == [["pi3"]]

    (place.folder / "cards").mkdir()
    for words in (["flash"], ["flash", "pi[3-4]", "--dry-run"]):
        refused = place.run("rack", *words, "--images", place.folder / "cards")
        assert refused.code == 10
        assert "rack flash pi3" in refused.err
        assert "lock undo" in refused.err
    assert place.run("write", place.folder / "x.img", "--node", "pi4").code == 10
    allowed = place.run("rack", "flash", "pi3", "--images", place.folder / "cards", "--dry-run")
    assert allowed.code == 0, allowed.err
    assert place.json("rack", "show").result["on_trial"] == ["pi3"]
    assert "on trial: pi3 by canary.lock" in place.run("rack", "plan", "--images", "cards").out

    toml = place.rack / "rack.toml"
    named = toml.read_text()
    its = ("canary = ", "check = ")
    toml.write_text("\n".join(line for line in named.split("\n") if not line.startswith(its)))
    for forgotten in (
        ["lock"], ["lock", "--update"], ["lock", "promote"], ["rack", "plan", "--images", "cards"],
        ["rack", "flash", "pi4", "--images", "cards"], ["write", "x.img", "--node", "pi3"],
    ):  # fmt: skip
        refused = place.run(*forgotten)
        assert (refused.code, refused.out) == (10, ""), forgotten
        assert "rack.toml names no canary that tries them" in refused.err
        assert "lock undo" in refused.err
    looked = place.run("rack", "show")
    assert looked.code == 0
    assert "rack.toml names no canary that tries them: name it again" in looked.err
    toml.write_text(named)

    # Its card is still the old one, then it is off, then its check fails; each is said.
    salt_says(place, OLD)
    old = place.run("lock", "promote", "--local")
    assert old.code == 30
    assert f"pi3: it does not run what is on trial: docker is {OLD}, not {NEW}" in old.out
    salt_says(place, NEW, up=False)
    assert "pi3: it does not answer" in place.run("lock", "promote", "--local").out
    salt_says(place, NEW, check="echo cannot start a container >&2; exit 125")
    broken = place.json("lock", "promote", "--local")
    assert broken.code == 30
    (node,) = broken.result["nodes"]
    assert (node["answers"], node["check"]) == (True, 1)
    assert node["said"] == ["cannot start a container"]
    assert (place.rack / "rack.lock").read_text() == pinned

    mirror.log.clear()
    assert place.json("lock", "undo", "--dry-run").result["dry_run"] is True
    back = place.json("lock", "undo", "--offline")
    assert back.code == 0, back.err
    assert back.result["changes"] == [{"name": "docker", "old": NEW, "new": OLD}]
    shown = place.json("lock", "--offline")
    assert shown.code == 0, shown.err
    assert [OLD in str(each) for each in shown.result["sets"]] == [True]
    again = place.json("compose", "--offline").result
    assert (again["key"], "others" in again) == (image, False)
    assert not mirror.log
    assert place.json("lock", "undo").result["undone"] is False


def test_one_that_is_well_goes_to_all(place: Workplace) -> None:
    """The check reaches the node letter by letter, past Salt and two shells."""
    assert place.json("lock", "promote").result["promoted"] is False
    assert place.json("lock", "--update", "docker", "--yes").code == 0
    salt_says(place, NEW)
    looked = place.run("lock", "promote", "--dry-run", "--local")
    assert f"~ docker {OLD} -> {NEW}" in looked.out
    assert (place.rack / "canary.lock").exists()
    toml = place.rack / "rack.toml"
    toml.write_text(toml.read_text().replace('["docker"]', '["docker", "nano"]'))
    other = place.json("lock", "promote", "--local")
    assert other.code == 30
    (fault,) = other.result["nodes"][0]["faults"]
    assert fault.startswith("canary.lock has no packages for what rack.toml asks for it now: ")
    assert place.json("lock", "--update", "--yes").code == 0
    done = place.json("lock", "promote", "--local")
    assert done.code == 0, done.err
    assert done.result["promoted"] is True
    assert not (place.rack / "canary.lock").exists()
    shown = place.json("lock", "--offline")
    assert [NEW in str(each) for each in shown.result["sets"]] == [True]
