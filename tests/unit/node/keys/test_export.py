"""Exporting keys to a master: everything is looked at first, and nobody's key is overwritten."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from imager.base.below import Below
from imager.base.errors import ConfigurationError, HostStorage, TargetRefused, UsageError
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.config.rack import Rack
from imager.node.keys.export import MasterFileState, export, plan_export, require_no_conflict
from imager.node.keys.identity import SaltKeys, salt_keys, salt_keys_at_hand
from imager.node.keys.salt import SaltPair, fingerprint, salt_pair
from imager.node.keys.store import KeyFolder
from tests.support.racks import rack_in


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    text = '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n'
    return rack_in(tmp_path_factory.mktemp("export") / "rack", text)


@pytest.fixture(scope="module")
def keys(rack: Rack) -> SaltKeys:
    return salt_keys(rack, Quiet())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> SaltPair:
    """A pair of somebody else's."""
    return salt_pair(KeyFolder(TrustedFolder(tmp_path_factory.mktemp("other")) / "salt"), "other")


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    return tmp_path / "pki"


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content of everything in ``folder``."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def test_a_fresh_folder_is_what_a_master_keeps(rack: Rack, keys: SaltKeys, pki: Path) -> None:
    pki = pki / "in/folders/that/are/not/there"
    mask, held = os.umask(0), os.listdir("/proc/self/fd")
    try:
        export(pki, plan_export(rack, keys, pki))
    finally:
        os.umask(mask)
    assert os.listdir("/proc/self/fd") == held, "a rack has thousands of keys"
    assert tree(pki) == {
        "minions": (0o700, None),
        **{f"minions/{name}": (0o644, public) for name, public in keys.minions.items()},
    }
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_with_sudo_a_new_folder_is_the_person_s(
    rack: Rack, keys: SaltKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 1235)
    export(home / "pki/new", plan_export(rack, keys, home / "pki/new"))
    for path in home.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235), path


def test_the_master_s_own_pair_comes_when_asked(rack: Rack, keys: SaltKeys, pki: Path) -> None:
    places = plan_export(rack, keys, pki, own_key=True)
    export(pki, places)
    pair = keys.master
    assert pair is not None
    assert tree(pki)["master.pem"] == (0o400, pair.private)
    assert tree(pki)["master.pub"] == (0o644, pair.public)
    assert pair.private.decode().splitlines()[3] not in repr(places)


def test_a_second_export_finds_all_there_and_writes_nothing(
    rack: Rack, keys: SaltKeys, pki: Path
) -> None:
    export(pki, plan_export(rack, keys, pki, own_key=True))
    times = {path: path.stat().st_mtime_ns for path in pki.rglob("*")}
    places = plan_export(rack, keys, pki, own_key=True)
    assert {place.found for place in places} == {MasterFileState.SAME}
    (pki / "master.pub").rename(pki / "elsewhere")
    *_, private, public = plan_export(rack, keys, pki, own_key=True)
    assert (private.found, public.found) == (MasterFileState.SAME, MasterFileState.NOTHING)
    (pki / "elsewhere").rename(pki / "master.pub")
    export(pki, places)
    assert {path: path.stat().st_mtime_ns for path in pki.rglob("*")} == times


def test_a_key_in_other_clothes_is_the_same_key(rack: Rack, keys: SaltKeys, pki: Path) -> None:
    """A master of 3008 stores keys without the last line end, others with one."""
    export(pki, plan_export(rack, keys, pki))
    path = pki / "minions/pi1"
    for text in (path.read_bytes().strip(), path.read_bytes().replace(b"\n", b"\r\n")):
        path.write_bytes(text)
        assert plan_export(rack, keys, pki)[1].found is MasterFileState.SAME


def test_another_key_is_refused_and_replaced_only_on_request(
    rack: Rack, keys: SaltKeys, other: SaltPair, pki: Path
) -> None:
    export(pki, plan_export(rack, keys, pki))
    (pki / "minions/pi1").write_bytes(other.public)
    (pki / "minions/pi0").unlink()
    before = tree(pki)
    places = plan_export(rack, keys, pki)
    with pytest.raises(TargetRefused) as caught:
        require_no_conflict(pki, places)
    assert caught.value.exit_code == 20
    own = f"; pi1's is {fingerprint(keys.minions['pi1'] or b'')}"
    other_one = f"another key, {fingerprint(other.public)}{own}"
    assert caught.value.details == (f"{pki}/minions/pi1: {other_one}",)
    assert tree(pki) == before
    export(pki, places)
    assert (pki / "minions/pi1").read_bytes() == keys.minions["pi1"]


def test_a_file_larger_than_a_key_is_not_read(rack: Rack, keys: SaltKeys, pki: Path) -> None:
    export(pki, plan_export(rack, keys, pki))
    path = pki / "minions/pi1"
    for size, found in ((1 << 16, MasterFileState.SAME), (65_537, MasterFileState.OTHER)):
        path.write_bytes(path.read_bytes().ljust(size))
        assert plan_export(rack, keys, pki)[1].found is found


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * (1 << 17)])
def test_what_is_no_key_is_another_key(
    rack: Rack, keys: SaltKeys, pki: Path, content: bytes
) -> None:
    (pki / "minions").mkdir(parents=True)
    (pki / "minions/pi1").write_bytes(content)
    assert plan_export(rack, keys, pki)[1].found is MasterFileState.OTHER


def test_a_key_that_may_not_be_read_is_not_taken_for_another(
    rack: Rack, keys: SaltKeys, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ordinary user; root may read everything."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    export(pki, plan_export(rack, keys, pki))
    monkeypatch.setattr(Below, "read", refused)
    with pytest.raises(HostStorage, match="Permission denied"):
        plan_export(rack, keys, pki)


def test_a_symbolic_link_in_the_way_is_replaced_not_followed(
    rack: Rack, keys: SaltKeys, pki: Path, tmp_path: Path
) -> None:
    (pki / "minions").mkdir(parents=True)
    (pki / "minions/pi1").symlink_to(tmp_path / "victim")
    places = plan_export(rack, keys, pki)
    assert places[1].found is MasterFileState.OTHER
    export(pki, places)
    assert not (tmp_path / "victim").exists()
    assert not (pki / "minions/pi1").is_symlink()


@pytest.mark.parametrize("state", ["minions", "minions_pre", "minions_denied", "minions_rejected"])
@pytest.mark.parametrize("when", ["before", "after it was looked at"])
def test_a_link_in_the_place_of_a_folder_leads_nowhere(
    rack: Rack, keys: SaltKeys, pki: Path, tmp_path: Path, state: str, when: str
) -> None:
    """The folder may be another user's: root must not remove or write files where it leads."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "pi1").write_text("not a key")
    if when == "before":
        pki.mkdir()
        (pki / "master.pub").touch()
        (pki / state).symlink_to(victim)
        with pytest.raises(UsageError, match=f"{state} in it is a link"):
            plan_export(rack, keys, pki)
    else:
        (pki / state).mkdir(parents=True)
        (pki / "master.pub").touch()
        (pki / state / "pi1").write_text("waits")
        places = plan_export(rack, keys, pki)
        (pki / state).rename(pki / "away")
        (pki / state).symlink_to(victim)
        with pytest.raises(HostStorage):
            export(pki, places)
    assert tree(victim) == {"pi1": (0o644, b"not a key")}


def test_a_key_that_waits_or_was_denied_goes_because_a_master_looks_there_first(
    rack: Rack, keys: SaltKeys, pki: Path
) -> None:
    for state in ("minions_pre", "minions_denied"):
        (pki / state).mkdir(parents=True)
        for name in ("pi1", "stranger"):
            (pki / state / name).write_bytes(b"another key")
    places = plan_export(rack, keys, pki)
    require_no_conflict(pki, places)
    export(pki, places)
    assert sorted(path for path in tree(pki) if path.startswith("minions_")) == [
        "minions_denied",
        "minions_denied/stranger",
        "minions_pre",
        "minions_pre/stranger",
    ]


def test_a_node_somebody_rejected_is_not_accepted_behind_their_back(
    rack: Rack, keys: SaltKeys, pki: Path
) -> None:
    export(pki, plan_export(rack, keys, pki))
    (pki / "minions_rejected").mkdir()
    shutil.move(pki / "minions/pi1", pki / "minions_rejected/pi1")
    places = plan_export(rack, keys, pki)
    with pytest.raises(TargetRefused) as caught:
        require_no_conflict(pki, places)
    assert "told the master to reject pi1" in caught.value.details[0]
    export(pki, places)
    assert not (pki / "minions_rejected/pi1").exists()
    assert (pki / "minions/pi1").exists()


def test_another_master_s_pair_is_replaced_as_a_whole(
    rack: Rack, keys: SaltKeys, other: SaltPair, pki: Path
) -> None:
    pki.mkdir()
    (pki / "master.pem").write_bytes(other.private)
    (pki / "master.pub").write_bytes(other.public)
    places = plan_export(rack, keys, pki, own_key=True)
    with pytest.raises(TargetRefused) as caught:
        require_no_conflict(pki, places)
    assert [line.partition(":")[0] for line in caught.value.details] == [
        f"{pki}/master.pem",
        f"{pki}/master.pub",
    ]
    export(pki, places)
    assert {place.found for place in plan_export(rack, keys, pki, own_key=True)} == {
        MasterFileState.SAME
    }
    (pki / "master.pub").unlink()
    assert [p.conflict for p in plan_export(rack, keys, pki, own_key=True)] == [None] * 4
    (pki / "master.pem").write_bytes(other.private)
    *_, private, public = plan_export(rack, keys, pki, own_key=True)
    assert (private.stale, private.conflict is None, public.conflict) == ((), False, None)


def test_a_master_of_salt_3008_keeps_its_key_under_its_own_name(
    rack: Rack, keys: SaltKeys, other: SaltPair, pki: Path
) -> None:
    pki.mkdir()
    (pki / "desk.pem").write_bytes(other.private)
    (pki / "master.pem").symlink_to("/etc/salt/pki/master/desk.pem")
    found = plan_export(rack, keys, pki, own_key=True)[-2:]
    assert [place.path for place in found] == [pki / "desk.pem", pki / "desk.pub"]
    (pki / "desk.pem").unlink()
    found = plan_export(rack, keys, pki, own_key=True)[-2:]
    assert [place.path for place in found] == [pki / "master.pem", pki / "master.pub"]


def test_a_link_that_salt_did_not_make_is_another_key(
    rack: Rack, keys: SaltKeys, other: SaltPair, pki: Path, tmp_path: Path
) -> None:
    pki.mkdir()
    (tmp_path / "key.pem").write_bytes(other.private)
    (pki / "master.pem").symlink_to(tmp_path / "key.pem")
    private, _ = plan_export(rack, keys, pki, own_key=True)[-2:]
    assert (private.path, private.found) == (pki / "master.pem", MasterFileState.OTHER)


def test_a_master_elsewhere_has_a_key_of_its_own(tmp_path: Path, pki: Path) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi1"\nmaster = "salt"\n')
    keys = salt_keys(rack, Quiet())
    with pytest.raises(ConfigurationError, match="does not have the key of its master salt"):
        plan_export(rack, keys, pki, own_key=True)
    export(pki, plan_export(rack, keys, pki))
    assert (pki / "minions/pi1").exists()


def test_a_folder_that_is_no_master_s_is_refused(
    rack: Rack, keys: SaltKeys, pki: Path, tmp_path: Path
) -> None:
    (pki / "master/minions").mkdir(parents=True)
    (pki / "minion").mkdir()
    with pytest.raises(UsageError, match="it is the folder master in it"):
        plan_export(rack, keys, pki)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").touch()
    with pytest.raises(UsageError, match="other things than a Salt master's keys"):
        plan_export(rack, keys, tmp_path / "home")
    with pytest.raises(UsageError, match="is no folder"):
        plan_export(rack, keys, tmp_path / "home/letter.txt")
    (tmp_path / "empty").mkdir()
    assert plan_export(rack, keys, tmp_path / "empty")


def test_a_folder_that_cannot_be_written_is_named(
    rack: Rack, keys: SaltKeys, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostStorage) as caught:
        export(tmp_path / "file/pki", plan_export(rack, keys, tmp_path / "file/pki"))
    assert str(tmp_path / "file") in caught.value.what


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_root_gives_the_keys_to_whom_the_folder_belongs(
    rack: Rack, keys: SaltKeys, pki: Path
) -> None:
    """Salt's own packages run the master as the user salt."""
    pki.mkdir()
    os.chown(pki, 963, 964)
    export(pki, plan_export(rack, keys, pki, own_key=True))
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in pki.rglob("*")}
    assert owners == {(963, 964)}


def test_nothing_of_the_store_but_salt_s_keys_is_needed_or_made(tmp_path: Path, pki: Path) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    damaged = rack.keys.path / "pi1/ssh"
    damaged.mkdir(parents=True)
    export(pki, plan_export(rack, salt_keys(rack, Quiet()), pki, own_key=True))
    assert not list(damaged.iterdir())
    made = {str(path.relative_to(rack.keys.path)) for path in rack.keys.path.glob("*/*")}
    assert made == {"pi0/master", "pi0/salt", "pi1/salt", "pi1/ssh"}


def test_a_key_that_is_not_made_yet_is_planned_and_not_exported(tmp_path: Path, pki: Path) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    places = plan_export(rack, salt_keys_at_hand(rack), pki, own_key=True)
    assert {(place.content, place.found) for place in places} == {(None, MasterFileState.NOTHING)}
    with pytest.raises(ValueError, match="minions/pi0: this key is not made yet"):
        export(pki, places)
    assert not list(pki.iterdir())
    assert not rack.keys.exists()
