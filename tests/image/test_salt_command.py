"""Salt on the card as a person meets it: fetch, plan, write, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.units import GiB
from imager.disk.ext4.filesystem import Ext4
from imager.disk.mbr import parse
from tests.support.mirror import Manners
from tests.support.pacman import arch_tree, python_package
from tests.support.pypi import VERSION, Index, index, tree_with_python
from tests.support.workplace import SALT, Workplace, workplace

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def pypi() -> Iterator[Index]:
    with index() as offered:
        yield offered


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pypi: Index) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workplace")
    with workplace(folder, tree=tree_with_python(), pypi=pypi) as found:
        yield found


def with_salt(place: Workplace, tmp_path: Path, lines: str) -> Path:
    """A rack like the workplace's with other lines instead of [salt] version."""
    toml = (place.rack / "rack.toml").read_text()
    assert SALT in toml
    rack = tmp_path / "rack"
    rack.mkdir()
    (rack / "rack.toml").write_text(toml.replace(SALT, f"\n{lines}"))
    return rack


def test_the_way_of_a_new_rack(place: Workplace, pypi: Index, tmp_path: Path) -> None:
    image = tmp_path / "pi7.img"
    planned = place.run("write", image, "--node", "pi7", "--size", "2GiB", "--dry-run")
    assert planned.code == 0, planned.err
    assert f"salt      {VERSION}, to be fetched from PyPI" in planned.err

    fetched = place.json("fetch")
    assert fetched.code == 0, fetched.err
    names = [(package["name"], package["version"]) for package in fetched.result["packages"]]
    assert names == [("salt", VERSION), ("looseversion", "1.3.0")]
    assert '[package."salt"]' in (place.rack / "rack.lock").read_text()

    pypi.mirror.log.clear()
    plan = place.json("write", image, "--node", "pi7", "--size", "2GiB", "--dry-run", "--offline")
    (salt,) = (event for event in plan.events if event["event"] == "plan")
    sha256 = fetched.result["packages"][0]["sha256"]
    assert (salt["salt"], salt["salt_sha256"], salt["salt_archived"]) == (VERSION, sha256, True)
    written = place.json("write", image, "--node", "pi7", "--size", "2GiB", "--yes", "--offline")
    assert written.code == 0, written.err
    assert pypi.mirror.log == [], "--offline asks nobody"

    root = root_of(image)
    wants = "/etc/systemd/system/multi-user.target.wants/salt-minion.service"
    unit = "/usr/local/lib/systemd/system/salt-minion.service"
    assert root.resolve(wants) == unit, "the minion is enabled"
    drop_in = root.read_file("/etc/systemd/system/salt-minion.service.d/picloud.conf")
    assert b"Restart=on-failure" in drop_in
    assert b"TimeoutStartSec=600" in drop_in, "it is not killed while it starts slowly"
    assert root.lookup("/opt/picloud/salt/salt/scripts.py") is not None


def root_of(image: Path) -> Ext4:
    descriptor = os.open(image, os.O_RDONLY)
    assert os.fstat(descriptor).st_size == 2 * GiB
    second = parse(os.pread(descriptor, 512, 0)).partitions[1]
    return Ext4.open(
        lambda offset, length: os.pread(descriptor, length, offset), second.start_lba * 512
    )


def test_fetch_says_what_salt_it_has(place: Workplace) -> None:
    said = place.run("fetch", "--update")
    assert said.code == 0, said.err
    assert re.search(rf"salt {VERSION}: .* from PyPI, sha256 ", said.out)
    assert f"salt: {VERSION} (" in said.err
    assert "is still what PyPI has" in said.err
    again = place.run("fetch")
    assert re.search(rf"salt {VERSION}: .* from the archive, sha256 ", again.out)


def test_offline_before_the_first_fetch(place: Workplace, tmp_path: Path) -> None:
    assert place.run("fetch").code == 0
    fetched = tmp_path / "cache"
    fetched.mkdir()
    shutil.copytree(place.cache / "releases", fetched / "releases")
    said = place.run("compose", "--offline", "--cache", fetched)
    assert said.code == 11
    assert "salt 3008.3 with sha256" in said.err
    assert f"→ run picloud-image --cache {fetched} fetch once without --offline" in said.err


def test_a_plan_for_an_offline_rack_ends_as_the_work_would(
    place: Workplace, tmp_path: Path
) -> None:
    assert place.run("fetch").code == 0
    rack = with_salt(place, tmp_path, 'version = "3008.99"\n')
    shutil.copy(place.rack / "rack.lock", rack)
    write = ("write", tmp_path / "pi7.img", "--node", "pi7", "--size", "2GiB")
    flash = ("rack", "flash", "pi7", "--images", tmp_path, "--size", "2GiB")
    plan = ("rack", "plan", *flash[2:])
    for words in (write, (*write, "--dry-run"), flash, (*flash, "--dry-run"), plan):
        said = place.run(*words, "--offline", "--rack", rack)
        assert said.code == 11, words
        assert f"salt 3008.99 is not in {place.cache}/packages" in said.err
        hint = f"→ run picloud-image --rack {rack} fetch once without --offline"
        assert hint in said.err
    unpinned = place.run(*write, "--dry-run", "--offline", "--cache", tmp_path / "cache")
    assert unpinned.code == 11
    assert f"is not in {tmp_path}/cache/releases" in unpinned.err
    assert not (tmp_path / "cache").exists()
    before = (rack / "rack.lock").read_bytes()
    assert place.run(*write, "--dry-run", "--rack", rack).code == 0, "with a network it is fetched"
    assert (rack / "rack.lock").read_bytes() == before


def test_ctrl_c_while_pip_fetches(place: Workplace, pypi: Index, tmp_path: Path) -> None:
    path, cache = f"/files/salt-{VERSION}.tar.gz", tmp_path / "cache"
    pypi.mirror.misbehave(path, Manners(seconds_per_kib=30))
    pypi.mirror.log.clear()
    try:
        run = subprocess.Popen(
            place.command("fetch", "--cache", cache),
            cwd=tmp_path,
            env=place.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not pypi.mirror.asked(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)[1]
    finally:
        pypi.mirror.misbehave(path, Manners())
    assert run.returncode == 130, said
    assert "→ run the same command again" in said
    assert not list((cache / "work").glob("pip-*")), "nothing is left of pip's folders"
    assert not list((cache / "packages").glob("*/*"))


def test_a_rack_without_a_version_gets_no_salt(place: Workplace, tmp_path: Path) -> None:
    rack = with_salt(place, tmp_path, "")
    said = place.run("fetch", "--rack", rack)
    assert said.code == 0, said.err
    assert "no Salt: rack.toml names no version under [salt]" in said.out
    planned = place.run(
        *("write", tmp_path / "a.img", "--node", "pi7", "--size", "2GiB", "--dry-run"),
        *("--rack", rack),
    )
    assert "salt      the release's own, if it has one" in planned.err


def test_a_version_pypi_does_not_have(place: Workplace, tmp_path: Path) -> None:
    rack = with_salt(place, tmp_path, 'version = "3008.99"\n')
    said = place.run("fetch", "--rack", rack)
    assert said.code == 10
    assert "PyPI has no salt==3008.99" in said.err
    assert "→ write one of them as version under [salt] in rack.toml" in said.err


def test_versions_that_cannot_talk_are_refused_before_anything(
    place: Workplace, pypi: Index, tmp_path: Path
) -> None:
    toml = 'version = "3007.3"\nmaster_version = "3008.3"\n'
    rack = with_salt(place, tmp_path, toml)
    text = (rack / "rack.toml").read_text()
    (rack / "rack.toml").write_text(text.replace('master = "pi0"', 'master = "salt.example.org"'))
    pypi.mirror.log.clear()
    said = place.run("write", tmp_path / "a.img", "--node", "pi7", "--rack", rack)
    assert said.code == 10
    assert '"3007.3" cannot join salt.example.org' in said.err
    assert "minimum_auth_version 3" in said.err
    assert pypi.mirror.log == []
    assert not (tmp_path / "a.img").exists()


def test_a_node_as_the_master_needs_no_version_of_its_own(place: Workplace, tmp_path: Path) -> None:
    rack = with_salt(place, tmp_path, f'{SALT.strip()}\nmaster_version = "3008.3"\n')
    said = place.run("rack", "show", "--rack", rack)
    assert said.code == 10
    assert "salt.master_version: pi0 is a node and gets the version of the others" in said.err


def test_packages_bring_what_the_release_lacks(pypi: Index, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    with workplace(tmp_path, tree=arch_tree(), pypi=pypi) as place:
        rack = with_salt(place, beside, f'{SALT.strip()}\npackages = "packages"\n')
        image = tmp_path / "pi7.img"
        words = ("write", image, "--node", "pi7", "--size", "2GiB", "--rack", rack)
        assert "salt.packages" in place.run(*words, "--dry-run").err
        (rack / "packages").mkdir()
        said = place.run(*words, "--dry-run")
        assert (said.code, "holds no pacman package" in said.err) == (10, True)

        package = python_package(rack / "packages")
        said = place.run(*words, "--dry-run")
        assert said.code == 0, said.err
        assert "to be fetched from PyPI, what it needs in packages" in said.err
        said = place.run(*words, "--yes")
        assert said.code == 0, said.err
        laid_down = root_of(image).read_file(f"/usr/lib/picloud/packages/{package.name}")
        assert laid_down == package.read_bytes()


def test_a_release_without_python_says_which_packages(pypi: Index, tmp_path: Path) -> None:
    with workplace(tmp_path, pypi=pypi) as bare:
        said = bare.run("write", tmp_path / "a.img", "--node", "pi7", "--size", "2GiB", "--yes")
        assert said.code == 10
        assert "lacks what Salt 3008.3 needs: python3, cryptography" in said.err
        assert "    python3: no Python 3; package python\n" in said.err
        assert "    zmq: no such module; package python-pyzmq\n" in said.err
        assert "→ put the packages into a folder and name it as packages under [salt]" in said.err
        assert not (tmp_path / "a.img").exists()
