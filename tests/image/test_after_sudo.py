"""One person, with sudo and without: what root makes in their rack and cache stays theirs.

The commands run as an ordinary user, and as root with what sudo(8) says of who called it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.units import GiB
from tests.support.forking import run_each
from tests.support.loop import loop_over, missing_abilities, sized_file
from tests.support.workplace import ROOT, Said, Workplace, workplace

PERSON, STRANGER = 1234, 65534
DISK = 6
PYTHON = "/usr/bin/python3"
"""That of the tests may lie in a folder of root's."""
AS_PERSON = ["setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups"]
AS_MEMBER = [*AS_PERSON[:-1], f"--groups={DISK}"]
BY_SUDO = {"SUDO_UID": str(PERSON), "SUDO_GID": str(PERSON)}

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else"),
]

LOOKING = (
    "rack show",
    "rack known-hosts",
    "rack keys list",
    "rack plan --images . --offline",
    "rack report --out -",
    "receipt --node pi0",
)


@pytest.fixture(scope="module")
def made() -> Iterator[Workplace]:
    """A person's workplace, in a folder that they can reach."""
    folder = Path(tempfile.mkdtemp(prefix="picloud-sudo-"))
    try:
        folder.chmod(0o755)
        with workplace(folder) as place:
            owned_by(PERSON, folder)
            words = [*AS_PERSON, PYTHON, "-c", "import imager.cli.main"]
            if subprocess.run(words, env=environment_of(place), check=False).returncode != 0:
                pytest.skip("no Python that an ordinary user can run has what this needs")
            written = by_sudo(place, "write pi0.img --node pi0 --size 2GiB")
            assert written.code == 0, written.err
            yield place
    finally:
        shutil.rmtree(folder)


def owned_by(user: int, folder: Path) -> None:
    subprocess.run(["chown", "-R", f"{user}:{user}", folder], check=True)


def by_sudo(place: Workplace, line: str) -> Said:
    """What is said to who types ``sudo`` before ``line``."""
    return replace(place, environment=place.environment | BY_SUDO).run(*line.split())


def environment_of(place: Workplace) -> dict[str, str]:
    """For PYTHON, with the modules of the tests' own."""
    modules = (os.fspath(ROOT), sysconfig.get_path("purelib"))
    return place.environment | {"PYTHONPATH": os.pathsep.join(modules)}


def said(place: Workplace, who: list[str], *lines: str) -> list[tuple[int, str]]:
    """How each of ``lines`` ends for ``who``, and what they are told."""
    ended = run_each(who, lines, cwd=place.folder, env=environment_of(place), python=PYTHON)
    assert not [told for _, told in ended if "Traceback" in told]
    return ended


def test_what_root_made_is_the_person_s(made: Workplace) -> None:
    below = [path for top in (made.rack, made.cache) for path in (top, *top.rglob("*"))]
    assert len(below) > 30
    below.append(made.folder / "pi0.img")
    about = {str(path): path.lstat() for path in below}
    strange = {
        name for name, status in about.items() if (status.st_uid, status.st_gid) != (PERSON, PERSON)
    }
    assert not strange


def test_after_sudo_a_person_sees_and_uses_their_rack(made: Workplace) -> None:
    using = (
        "rack keys rotate pi0",
        "write pi1.img --node pi1 --size 2GiB --offline",
        "rack report",
    )
    for code, told in said(made, AS_PERSON, *LOOKING, *using):
        assert code == 0, told
    assert not list(made.cache.glob("work/*-*"))


@pytest.fixture
def left(made: Workplace) -> Iterator[Path]:
    """The rack as a version before this one left it after a sudo: its private folder is root's."""
    owned_by(0, made.rack / ".picloud")
    yield made.rack / ".picloud"
    owned_by(PERSON, made.rack)


def test_what_an_older_sudo_left_to_root_is_taken_back(made: Workplace, left: Path) -> None:
    lines = (*LOOKING, "rack keys rotate pi0", "write x.img --node pi0")
    advice = f"sudo chown -R {PERSON} {made.rack}"
    for line, (code, told) in zip(lines, said(made, AS_PERSON, *lines), strict=True):
        assert code == 41, f"{line}: {told}"
        assert str(left) in told
        assert advice in told
    subprocess.run(advice.removeprefix("sudo ").split(), check=True)
    for code, told in said(made, AS_PERSON, *lines[:-1]):
        assert code == 0, told


def test_files_of_root_that_can_be_read_are_used(made: Workplace) -> None:
    os.chown(made.rack / "rack.lock", 0, 0)
    os.chown(made.rack / ".picloud/keys/pi0/ssh/ssh_host_ed25519_key.pub", 0, 0)
    ((code, told),) = said(made, AS_PERSON, "rack show")
    assert code == 0, told
    owned_by(PERSON, made.rack)


@pytest.mark.parametrize(("owner", "mode"), [(STRANGER, 0o755), (0, 0o1777), (0, 0o777)])
@pytest.mark.parametrize("line", ["rack show", "rack plan", "write x.img --node pi0"])
def test_a_stranger_s_rack_above_is_not_taken(
    made: Workplace, tmp_path: Path, owner: int, mode: int, line: str
) -> None:
    shutil.copy(made.rack / "rack.toml", tmp_path)
    os.chown(tmp_path / "rack.toml", STRANGER, STRANGER)
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path, owner, owner)
    tmp_path.chmod(mode)
    environment = {key: value for key, value in made.environment.items() if key != "PICLOUD_RACK"}
    done = replace(made, folder=tmp_path / "mine", environment=environment).run(*line.split())
    assert done.code == 10, done.err
    assert f"{tmp_path}: " in done.err
    assert sorted(os.listdir(tmp_path)) == ["mine", "rack.toml"]


def test_a_person_s_folder_is_no_cache(made: Workplace, tmp_path: Path) -> None:
    (tmp_path / "work/poetry").mkdir(parents=True)
    (tmp_path / "work/poetry/poem").write_text("roses")
    (tmp_path / "work/poetry.lock").write_text("")
    (tmp_path / "work").chmod(0o755)
    done = by_sudo(made, f"write x.img --node pi2 --size 2GiB --cache {tmp_path}")
    assert done.code == 10
    assert f"{tmp_path}: holds work" in done.err
    assert sorted(os.listdir(tmp_path / "work")) == ["poetry", "poetry.lock"]
    assert not (made.folder / "x.img").exists()


def test_nothing_in_a_cache_is_swept_that_bears_another_name(
    made: Workplace, tmp_path: Path
) -> None:
    ours, others = "compose-0123456789ab", ("poetry", "compose-1", "Compose-0123456789ab")
    for name in (ours, *others):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / f"{name}.lock").write_text("")
    (tmp_path / "work").chmod(0o755)
    (tmp_path / "releases" / ("0" * 64)).mkdir(parents=True)
    owned_by(PERSON, tmp_path)
    done = by_sudo(made, f"write x.img --node pi0 --size 2GiB --cache {tmp_path}")
    assert done.code == 0, done.err
    left = {".guard", *others, *(f"{name}.lock" for name in others)}
    assert set(os.listdir(tmp_path / "work")) == left
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o755
    tag = (tmp_path / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


@pytest.mark.device
@pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities())
def test_a_member_of_the_disk_s_group_writes_a_card_without_sudo(
    made: Workplace, tmp_path: Path
) -> None:
    with loop_over(sized_file(tmp_path / "card.raw", 2 * GiB)) as loop:
        before = loop.node.stat()
        os.chown(loop.node, 0, DISK)
        loop.node.chmod(0o660)
        try:
            write = f"write {loop.node} --node pi3 --yes"
            ((code, told),) = said(made, AS_PERSON, write)
            assert code == 20
            assert "prepare" not in told
            assert f"{loop.node}: you may not write to this disk" in told
            assert "run the command with sudo, or join the group" in told
            *made_it, (_, devices) = said(made, AS_MEMBER, write, f"verify {loop.node}", "devices")
            for code, told in made_it:
                assert code == 0, told
            assert f"{loop.node}: " in devices
        finally:
            loop.node.chmod(before.st_mode & 0o7777)
            os.chown(loop.node, before.st_uid, before.st_gid)
