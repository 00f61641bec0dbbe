"""What a master is told of stations: once, and never over what somebody else wrote there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.rack.master.connection import Door
from imager.stations.salt.install import (
    MASTER_FILE,
    is_prepared,
    master_settings,
    prepare_master,
)
from imager.stations.salt.on_minion import PILLAR
from imager.stations.salt.scripts import PILLAR_FOLDER, forgetting_old, handing, taking_back

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace")

ACCOUNTS = "root:x:0:0::/:/bin/sh\nsalt:x:450:450::/:/bin/sh\n"


class Master:
    """A computer whose /etc and /srv are folders: enough of one for ``sh`` to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.salt = folder, folder / "etc/salt"
        self.salt.mkdir(parents=True)
        (folder / "srv").mkdir()
        (folder / "etc/passwd").write_text(ACCOUNTS)
        mounting = f"mount --bind {folder}/etc /etc && mount --bind {folder}/srv /srv && exec sh -s"
        self.door = Door("it", ("unshare", "--mount", "sh", "-c", mounting), is_local=True)

    @property
    def told(self) -> Path:
        return self.salt / "master.d" / MASTER_FILE

    @property
    def pillar(self) -> Path:
        return self.folder / PILLAR_FOLDER.removeprefix("/")


@pytest.fixture
def master(tmp_path: Path) -> Master:
    return Master(tmp_path)


def test_a_master_is_told_once(master: Master) -> None:
    (master.salt / "master").write_text("user: salt\n#ext_pillar:\n#  - cmd_yaml: cat\n")
    assert not is_prepared(master.door)
    assert not master.pillar.exists(), "who looks changes nothing"
    with pytest.raises(ConfigurationError, match="was told of stations") as told:
        prepare_master(master.door)
    assert "systemctl restart salt-master" in told.value.hint
    assert master.told.read_text() == master_settings()
    assert master.pillar.stat().st_uid == 450, "it reads its pillars as the user that it runs as"
    assert master.pillar.stat().st_mode & 0o77 == 0
    before = master.told.stat().st_mtime_ns
    assert is_prepared(master.door)
    prepare_master(master.door)
    assert master.told.stat().st_mtime_ns == before


def test_pillars_of_its_own_are_left_alone_until_a_person_adds_ours(master: Master) -> None:
    own = master.salt / "master"
    own.write_text("ext_pillar:\n  - cmd_yaml: cat /etc/hosts\n")
    with pytest.raises(ConfigurationError, match="only you can add to") as told:
        prepare_master(master.door)
    assert not master.told.exists()
    line = told.value.hint.split(": ", 1)[1].rpartition(", and start")[0]
    own.write_text(f"{own.read_text()}  - {line}\n")
    prepare_master(master.door)
    assert not master.told.exists()


def test_a_master_that_cannot_be_told_says_so(master: Master) -> None:
    (master.salt / "master.d").write_text("no folder\n")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        prepare_master(master.door)
    master.salt.rename(master.folder / "etc/other")
    with pytest.raises(ConfigurationError, match="there is no /etc/salt"):
        is_prepared(master.door)


@pytest.fixture
def known(master: Master) -> Master:
    """A master that runs as another user, and was told of stations."""
    (master.salt / "master").write_text(f"user: salt\n{master_settings()}")
    prepare_master(master.door)
    return master


def test_what_is_handed_is_the_master_s_alone(known: Master) -> None:
    known.door.run(handing("desk1", "5e55", "delta", "sealed"))
    place = known.pillar / "hosts/desk1" / PILLAR / "5e55/delta"
    assert place.read_text() == "sealed\n"
    for path in (place, *place.parents[:5]):
        assert path.stat().st_uid == path.stat().st_gid == 450
        assert path.stat().st_mode & 0o77 == 0
    as_salt = "setpriv --reuid=450 --regid=450 --clear-groups"
    assert known.door.run(f"{as_salt} cat {PILLAR_FOLDER}/hosts/desk1/*/*/delta") == "sealed\n"
    known.door.run(taking_back("desk1", "5e55", "delta"))
    assert not place.exists()
    known.door.run(taking_back("desk1", "5e55"))
    assert not place.parent.exists()


@pytest.mark.parametrize("depth", range(5))
def test_the_master_s_user_leads_root_nowhere(known: Master, depth: int) -> None:
    """Whatever folder of the pillars becomes a link, nothing comes or goes where it leads."""
    place = known.pillar / "hosts/desk1" / PILLAR / "5e55/delta"
    known.door.run(handing("desk1", "5e55", "delta", "sealed"))
    link = (place, *place.parents)[depth]
    target = known.folder / "srv/roots"
    link.rename(target)
    os.symlink("/srv/roots", link)
    owned = (target, *target.rglob("*"))
    for path in owned:
        os.chown(path, 0, 0)
        os.utime(path, (0, 0))
    before = [(str(path), path.stat().st_mtime_ns) for path in owned]
    with pytest.raises(ConfigurationError):
        known.door.run(handing("desk1", "5e55", "delta", "other"))
    for script in (forgetting_old(), taking_back("desk1", "5e55", "delta")):
        known.door.run(f"{script}true\n")
    prepare_master(known.door)
    assert [(str(path), path.stat().st_mtime_ns) for path in owned] == before
    assert {path.stat().st_uid for path in owned} == {0}


def test_what_an_earlier_user_of_the_master_had_goes(known: Master) -> None:
    known.door.run(handing("desk1", "5e55", "delta", "sealed"))
    (known.salt / "master").write_text(f"user: other\n{master_settings()}")
    (known.folder / "etc/passwd").write_text(f"{ACCOUNTS}other:x:451:451::/:/bin/sh\n")
    prepare_master(known.door)
    assert [*(known.pillar / "hosts").iterdir()] == []
    assert {path.stat().st_uid for path in (known.pillar, known.pillar / "hosts")} == {451}
