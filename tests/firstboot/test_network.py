"""The way to the master on real networks: what is missing is named, and what to do about it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fakenode import FakeNode
from tests.support.netns import LIVE_WIRE, network

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")

STEP = "60-reach-master"
HOSTS = "127.0.0.1 localhost\n10.0.0.17 pi0"
ADDRESSES = ("fd00::17", "10.0.0.17")
DEAD_DNS = "nameserver 10.0.0.53\noptions timeout:1 attempts:1"
NO_DNS = "# none"
DOCKERS_OWN = (
    "ip link set lo up; ip link add docker0 type bridge; ip link set docker0 up; "
    "ip address add 172.17.0.1/16 dev docker0"
)
"""A network, and no way out of the node."""
LISTEN = """
import socket, sys, time
sockets = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    node = FakeNode(tmp_path)
    node.real_tool("ip", "getent", "bash", "timeout")
    return node


@contextmanager
def listening(entering: tuple[str, ...], *ports: int) -> Iterator[None]:
    """Somebody answers on these ports of the network."""
    process = subprocess.Popen(
        [*entering, sys.executable, "-c", LISTEN, *map(str, ports)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def test_a_master_on_both_ports_is_reached(node: FakeNode) -> None:
    with network(LIVE_WIRE, hosts=HOSTS) as node.entering, listening(node.entering, 4505, 4506):
        boot = node.boot()
    assert boot.status == 0, boot.output
    assert node.note(STEP) == "pi0 (10.0.0.17) answers on ports 4505 and 4506"


def test_one_address_of_the_master_is_enough(node: FakeNode) -> None:
    """A salt-master of ours listens on IPv4, and IPv6 addresses come first (getaddrinfo(3))."""
    hosts = f"fd00::17 pi0\n{HOSTS}"
    script = f"{LIVE_WIRE}ip address add fd00::17/64 dev eth0 nodad\n"
    with network(script, hosts=hosts) as node.entering:
        assert node.boot().status == 1
        each = (f"pi0 ({address}) does not answer on port 4506" for address in ADDRESSES)
        assert node.note(STEP) == ", ".join(each)
        with listening(node.entering, 4505, 4506):
            boot = node.run()
    assert boot.status == 0, boot.output
    assert node.note(STEP) == "pi0 (10.0.0.17) answers on ports 4505 and 4506"


def test_python_asks_where_there_is_no_bash(node: FakeNode) -> None:
    node.fake_tool("python3", f'exec {sys.executable} "$@"\n')
    with network(LIVE_WIRE, hosts=HOSTS) as node.entering:
        node.remove_tool("bash")
        with listening(node.entering, 4505, 4506):
            assert node.boot().status == 0
        node.forget(STEP)
        assert node.boot().status == 1
    assert node.note(STEP) == "pi0 (10.0.0.17) does not answer on port 4506"


@pytest.mark.parametrize(
    ("script", "files", "ports", "said", "to_do"),
    [
        ("ip link set lo up", {"hosts": HOSTS}, (), "no address: ", "DHCP server"),
        (DOCKERS_OWN, {"hosts": HOSTS}, (), "no address: ", "DHCP server"),
        (
            LIVE_WIRE,
            {"hosts": "127.0.0.1 localhost", "resolv_conf": DEAD_DNS},
            (),
            "the name pi0 is not known to this network",
            "[salt] master_address",
        ),
        (
            LIVE_WIRE,
            {"hosts": "127.0.0.1 localhost", "resolv_conf": NO_DNS},
            (),
            "the name pi0 is not known to this network",
            "[salt] master_address",
        ),
        (
            LIVE_WIRE,
            {"hosts": HOSTS},
            (),
            "pi0 (10.0.0.17) does not answer on port 4506",
            "switch the master on",
        ),
        (
            LIVE_WIRE,
            {"hosts": HOSTS},
            (4506,),
            "pi0 (10.0.0.17) does not answer on port 4505",
            "switch the master on",
        ),
        (
            LIVE_WIRE,
            {"hosts": "10.0.0.99 pi0"},
            (),
            "pi0 (10.0.0.99) does not answer on port 4506",
            "switch the master on",
        ),
    ],
    ids=[
        "no DHCP",
        "no DHCP, and Docker",
        "dead DNS",
        "no DNS",
        "nobody listens",
        "one port",
        "nobody there",
    ],
)
def test_what_is_missing_is_named(
    node: FakeNode,
    script: str,
    files: dict[str, str],
    ports: tuple[int, ...],
    said: str,
    to_do: str,
) -> None:
    node.minion_does(":")
    with network(script, **files) as node.entering, listening(node.entering, *ports):
        boot = node.boot()
    assert boot.status == 1
    assert node.note(STEP).startswith(said)
    assert to_do in node.hint(STEP)
    assert node.note("80-await-master") == "pi0 was not reached"
    assert (node.report["state"], node.report["step"]) == ("failed", STEP)
    assert node.report["note"] == node.note(STEP)
    assert "70-start-minion.done" in node.state, "the minion goes on trying by itself"


def test_a_master_that_comes_late_is_waited_for(node: FakeNode) -> None:
    node.wait_s = 60
    done = threading.Event()
    with network(LIVE_WIRE, hosts=HOSTS) as node.entering:

        def come_late() -> None:
            time.sleep(4)
            with listening(node.entering, 4505, 4506):
                done.wait(120)

        late = threading.Thread(target=come_late)
        late.start()
        try:
            boot = node.boot()
        finally:
            done.set()
            late.join()
    assert boot.status == 0, boot.output


def test_a_node_that_never_gets_a_network_ends_its_first_boot_soon(node: FakeNode) -> None:
    node.minion_does(":")
    began = time.monotonic()
    with network("ip link set lo up") as node.entering:
        assert node.boot().status == 1
    assert time.monotonic() - began < 120
    assert {step["state"] for step in node.report["steps"][:5]} == {"done"}


def test_a_name_server_that_is_slow_to_fail_does_not_stretch_the_wait(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.fake_tool("getent", 'echo "$2" >>"$PICLOUD_ROOT/asked"; sleep 8; exit 2\n')
    node.wait_s = 9
    assert node.boot().status == 1
    assert node.note("60-reach-master") == "the name pi0 is not known to this network"
    assert node.read("asked").split() == ["pi0", "pi0"], "asked at 0 and 11 s, and it is over"


AWAIT_ADDRESS = Path("overlays/role/salt-minion/root/usr/lib/picloud/await-address").resolve()


@pytest.mark.parametrize("script", ["ip link set lo up", DOCKERS_OWN])
def test_a_minion_that_gets_no_address_starts_all_the_same(script: str) -> None:
    with network(script) as entering:
        began = time.monotonic()
        subprocess.run([*entering, AWAIT_ADDRESS, "1"], check=True)
        assert time.monotonic() - began > 1


@pytest.mark.parametrize("address", ["10.0.0.17/24", "fd00::17/64"])
def test_a_minion_waits_for_an_address_of_either_kind(address: str) -> None:
    wire = LIVE_WIRE.replace("ip address add", ": not yet")
    with (
        network(wire) as entering,
        subprocess.Popen([*entering, AWAIT_ADDRESS, "600"]) as waiting,
    ):
        time.sleep(0.5)
        assert waiting.poll() is None, "eth0 has only what every interface has by itself"
        add = ("ip", "address", "add", address, "dev", "eth0")
        subprocess.run([*entering, *add], check=True)
        assert waiting.wait(timeout=60) == 0
