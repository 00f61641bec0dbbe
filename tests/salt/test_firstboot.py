"""First boot takes a node to the real Salt master, or says why the two do not come together."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.image.compose.compose import compose
from imager.node.keys.salt import salt_pair
from imager.node.keys.store import KeyFolder
from tests.support.fakenode import FakeNode
from tests.support.release import build_release
from tests.support.salt import Box, SaltPrograms
from tests.support.saltrack import RunningRack, rack_of, running

pytestmark = [
    pytest.mark.salt,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

STEP = "80-await-master"
JOIN_SECONDS = 120
"""On an idle machine it takes ten."""
NO_SPLAY = "random_startup_delay: 0\nacceptance_wait_time: 3\nacceptance_wait_time_max: 3\n"


class Pair:
    """A master, pi0, that can be switched on and off, and pi1, a node in its first boot."""

    def __init__(self, folder: Path, rack: RunningRack, programs: SaltPrograms) -> None:
        self._folder, self._rack, self._programs = folder, rack, programs
        self.pki = rack.etc("pi0") / "salt/pki/master"
        self.states = folder / "states"

    @contextmanager
    def master(self) -> Iterator[Box]:
        """Switch pi0 on; it runs nothing but the master."""
        self._rack.switch_on("pi0", daemons=["salt-master"])
        try:
            yield self._rack["pi0"]
        finally:
            self._rack.switch_off("pi0")

    def node(self, *, highstate: str = "never") -> FakeNode:
        """pi1, switched on: its runner, steps and minion run as on that computer."""
        self._rack.switch_on("pi1", daemons=[])
        node = FakeNode(self._folder / "node", NODE="pi1", HIGHSTATE=highstate)
        node.entering = self._rack["pi1"].entering
        node.real_tool("ip", "getent", "bash", "timeout")
        node.wait_s = JOIN_SECONDS
        pid = node.root.parent / "minion.pid"
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        node.minion_does(
            f"[ -e {pid} ] || {{\n"
            f"{path} /usr/bin/setsid {self._programs('salt-minion')} >/dev/null 2>&1 &\n"
            f"echo $! >{pid}; }}",
            f'kill -9 -"$(cat {pid})"; rm {pid}',
        )
        node.fake_tool("salt-call", f'{path} exec {self._programs("salt-call")} "$@"\n')
        for real in ("proc/net", "var/log/salt"):
            (node.root / real).parent.mkdir(parents=True, exist_ok=True)
            (node.root / real).symlink_to(f"/{real}")
        return node

    def minion_log(self) -> bytes:
        """What pi1's minion wrote to its log."""
        return (self._folder / "pi1/log/salt/minion").read_bytes()


@pytest.fixture
def pair(tmp_path: Path, salt_programs: SaltPrograms) -> Iterator[Pair]:
    golden = compose(build_release(tmp_path), Cache(tmp_path / "cache"), Quiet())
    with running(tmp_path, rack_of(tmp_path / "rack", 2), golden, salt_programs) as rack:
        for name in ("pi0", "pi1"):
            rack.image(name)
        (rack.etc("pi1") / "salt/minion.d/zz-test.conf").write_text(NO_SPLAY)
        (tmp_path / "states").mkdir()
        (rack.etc("pi0") / "salt/master.d/zz-test.conf").write_text(
            f"file_roots:\n  base:\n    - {tmp_path}/states\n"
        )
        yield Pair(tmp_path, rack, salt_programs)


def test_a_node_joins_and_is_put_in_order_once(pair: Pair, tmp_path: Path) -> None:
    (pair.states / "top.sls").write_text("base:\n  pi1:\n    - motd\n")
    (pair.states / "motd.sls").write_text(
        f"echo a secret of the pillar | tee {tmp_path}/motd:\n  cmd.run\n"
    )
    with pair.master() as master:
        node = pair.node(highstate="once")
        boot = node.boot()
        assert boot.status == 0, boot.output + master.log("salt-master")
        assert node.note("60-reach-master") == "pi0 (10.77.0.10) answers on ports 4505 and 4506"
        assert node.note(STEP) == "joined pi0"
        assert node.note("90-highstate") == "applied: 1 states"
        assert (tmp_path / "motd").read_text() == "a secret of the pillar\n"
        assert "secret" not in node.read("boot/picloud/firstboot.log")
        output = tmp_path / "pi1/log/salt/firstboot-highstate"
        assert "secret" in output.read_text()
        assert output.stat().st_mode & 0o777 == 0o600
        assert master.wait_until_answering({"pi1"}, seconds=JOIN_SECONDS) >= 0


@pytest.mark.long(minutes=1)
def test_a_highstate_that_fails_is_said_and_tried_again(pair: Pair) -> None:
    with pair.master():
        node = pair.node(highstate="once")
        assert node.boot().status == 1
        assert node.note(STEP) == "joined pi0"
        assert (
            node.note("90-highstate") == "state.apply failed: pi0 describes no states for this node"
        )
        (pair.states / "top.sls").write_text("base:\n  pi1:\n    - bad\n")
        (pair.states / "bad.sls").write_text("/bin/false:\n  cmd.run\n")
        assert node.run().status == 1
        assert node.note("90-highstate") == "state.apply failed: 1 states"
        (pair.states / "bad.sls").write_text("/bin/true:\n  cmd.run\n")
        assert node.run().status == 0


@pytest.mark.long(minutes=1)
def test_a_master_that_is_absent_at_first_is_joined_when_it_comes(pair: Pair) -> None:
    node = pair.node()
    node.wait_s = 3
    for _ in range(2):
        assert node.run().status == 1
        assert node.note("60-reach-master") == "pi0 (10.77.0.10) does not answer on port 4506"
    node.wait_s = JOIN_SECONDS
    with pair.master():
        boot = node.run()
        assert boot.status == 0, boot.output
    assert node.note(STEP) == "joined pi0"


@pytest.mark.long(minutes=1)
def test_a_master_with_another_key_is_refused_and_left_in_peace(pair: Pair, tmp_path: Path) -> None:
    right = {name: (pair.pki / name).read_bytes() for name in ("pi0.pem", "pi0.pub")}
    other = salt_pair(KeyFolder(TrustedFolder(tmp_path) / "other"), "master")
    (pair.pki / "pi0.pem").write_bytes(other.private)
    (pair.pki / "pi0.pub").write_bytes(other.public)
    node = pair.node()
    with pair.master() as master:
        boot = node.boot()
        assert boot.status == 1
        assert node.note(STEP).startswith("pi0 has another key than this card was made for")
        assert "find out which computer answers" in node.hint(STEP)
        assert "another key" in node.read("boot/picloud/firstboot.log")
        assert "systemctl stop --no-block salt-minion.service" in boot.calls
        assert [call for call in boot.calls if "--on-active=30 " in call], "asked again later"
        asked = pair.minion_log()
        time.sleep(8)
        assert pair.minion_log() == asked, "nobody asks in the meantime"
        again = node.run()
        assert node.note(STEP).startswith("pi0 has another key than this card was made for")
        assert [call for call in again.calls if "--on-active=60 " in call]
        assert master.answering({"pi1"}) == set()
    for name, key in right.items():
        (pair.pki / name).write_bytes(key)
    with pair.master():
        boot = node.run()
        assert boot.status == 0, boot.output
        assert node.note(STEP) == "joined pi0"


@pytest.mark.long(minutes=1)
def test_a_key_that_nobody_accepted_is_waited_for(pair: Pair) -> None:
    (pair.pki / "minions/pi1").unlink()
    with pair.master() as master:
        node = pair.node()
        node.wait_s = 30
        assert node.boot().status == 1
        assert node.note(STEP) == "pi0 knows this node's key but nobody has accepted it yet"
        assert node.hint(STEP) == "on pi0 run: salt-key -a pi1"
        master.run("salt-key", "--yes", "-a", "pi1")
        node.wait_s = JOIN_SECONDS
        assert node.run().status == 0


@pytest.mark.long(minutes=1)
def test_a_key_that_the_master_denies_is_said(pair: Pair, tmp_path: Path) -> None:
    (pair.pki / "minions/pi1").write_bytes(
        salt_pair(KeyFolder(TrustedFolder(tmp_path) / "other"), "minion").public
    )
    with pair.master():
        node = pair.node()
        node.wait_s = 30
        assert node.boot().status == 1
        assert node.note(STEP) == "pi0 refuses this node's key"
        assert "salt-key -d pi1" in node.hint(STEP)
