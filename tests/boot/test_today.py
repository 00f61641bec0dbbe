"""Today's stand-in: a base tarball's content, and a kernel, systemd and Python as new as any.

Nothing that Salt or Docker needs is in it. It comes from the release's own repositories, is on the
card, and the node joins with no network but its master, and runs a container. Between ``rack init``
and ``test.ping`` nothing is typed but which release is meant, and that pi7 has the role docker.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boot.pi7 import LOGIN_SECONDS, Pi7
from tests.support.bootrack import (
    add_kernel_word,
    boot_rack,
    first_boot_report,
    rack_as_init_writes_it,
)
from tests.support.headnode import HOST, head_node
from tests.support.qemu import LOGIN, Machine, booting, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=8),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]
DOCKER = """\
[nodes.pi7]
roles = ["salt-minion", "docker"]
[roles.docker.packages]
install = ["docker"]
"""
RUN = """\
set -eu
until systemctl is-active -q docker; do
    ! systemctl is-failed -q docker
    sleep 2
done
cd /root
mkdir -p image/bin
cp /usr/bin/busybox image/bin
tar cC image . | docker import - box >/dev/null
docker run --rm --memory 64m --hostname inside box /bin/busybox sh -c '
    /bin/busybox hostname
    /bin/busybox cat /sys/fs/cgroup/memory.max
    /bin/busybox ip -o -4 address show eth0
'
"""


@dataclass(frozen=True)
class Joined:
    """pi7, which runs, and how its first boot went."""

    pi7: Pi7
    machine: Machine
    times: str

    def __call__(self, command: str) -> str:
        """What a shell on the node prints, which must end with 0."""
        # Salt takes what begins with a name and "=" for an argument of that name.
        done = self.pi7.ask("cmd.run_all", f"export LC_ALL=C; {command}", "timeout=900")
        assert isinstance(done, dict), done
        assert done["retcode"] == 0, done
        said: str = done["stdout"]
        return said


@pytest.fixture(scope="module")
def joined(
    today: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Joined]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(today.python), prepend=os.pathsep)
        folder = tmp_path_factory.mktemp("today")
        with head_node(folder / "head", salt_programs) as head:
            rack = rack_as_init_writes_it(
                *(folder, boot_cache, today, DOCKER, "--nodes", "pi[0-13]", "--master", HOST)
            )
            pi7 = Pi7(rack, head, rack.card("pi7", size="4GiB"))
            rack.command("rack", "keys", "export", "--pki", head.pki)
            with pi7.joined(pi7.card) as (machine, times):
                yield Joined(pi7, machine, times)


def test_todays_release_boots_to_a_login(
    today: StandIn, boot_cache: Path, tmp_path: Path, tell: Tell
) -> None:
    rack = boot_rack(tmp_path, boot_cache, today, '[rack]\nnodes = "pi7"\nmodel = "pi2"\n')
    card = rack.card("pi7")
    add_kernel_word(card, "picloud.firstboot=skip")

    def boot() -> float:
        with booting(card) as machine:
            machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
            assert not machine.failed_units
            return machine.seconds_on

    tell(f"login after {unless_the_emulator_fails([card], boot):.0f} s")


def test_it_joins_with_packages_from_the_releases_repositories(joined: Joined, tell: Tell) -> None:
    tell(joined.times)
    assert not joined.machine.failed_units
    report = first_boot_report(joined.pi7.card)
    states = {step["state"] for step in report["steps"]}
    assert (report["state"], states) == ("complete", {"done"})
    assert joined.pi7.ask("grains.get", "pythonversion")[:2] == [3, 14]


def test_what_its_packages_left_to_do_is_done(joined: Joined) -> None:
    notes = {it["name"]: it["note"] for it in first_boot_report(joined.pi7.card)["steps"]}
    assert notes["40-keyring"] == "made, trusting: stand-in"
    done = re.fullmatch(r"([1-9]\d*) things done", notes["45-packages"])
    assert done, notes["45-packages"]
    folder = "/var/lib/picloud/packages"
    assert joined(f"wc -l <{folder}/queue; cat {folder}/done").split() == [done[1], done[1]]


def test_pacman_on_the_node_agrees_with_rack_lock(joined: Joined) -> None:
    """All that rack.lock pins is there in that version, and every package is whole."""
    lock: dict[str, Any] = tomllib.loads((joined.pi7.rack.folder / "rack.lock").read_text())
    installed = dict(line.split() for line in joined("pacman -Q").splitlines())
    pinned = {name: pin["version"] for name, pin in lock["pacman"].items()}
    assert {"docker", "python", "python-pyzmq"} <= pinned.keys()
    assert {name: installed.get(name) for name in pinned} == pinned
    assert "No database errors" in joined("pacman -Dk 2>&1")
    checked = joined(f"pacman -Qkk {' '.join(pinned)} 2>&1 || :")
    assert checked.count(" 0 altered files") == len(pinned), checked


def test_a_container_runs(joined: Joined) -> None:
    hostname, memory, address = joined(RUN).splitlines()
    assert (hostname, memory) == ("inside", str(64 << 20))
    assert " 172.17.0.2/" in address
