"""rack.toml is read whole: every fault at once, each with its line, key, value and remedy."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.base.boards import BOARDS, Board
from imager.base.errors import ConfigurationError
from imager.base.units import GiB, MiB
from imager.config.authorized_keys import key_fault
from imager.config.example import Choices, initial_rack_toml
from imager.config.fields import Table
from imager.config.load import load_rack
from imager.config.rack import Rack, ReleaseChoice
from imager.packages.wish import PackageWish
from imager.release.catalogue import RELEASES, spec_for

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7c5qie2nDinzOSUpVHmT6JpLdJVa/zmPka0wD+/wO7 you@laptop"
RACK = '[rack]\nnodes = "pi[0-3]"\n'
PRIVATE = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"


def rack_of(folder: Path, text: str) -> Rack:
    (folder / "rack.toml").write_text(text)
    return load_rack(folder)


def faults_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        rack_of(folder, text)
    assert caught.value.exit_code == 10
    return list(caught.value.details)


def test_the_file_rack_init_writes_is_a_good_rack(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, initial_rack_toml())
    assert [node.name for node in rack.nodes] == [f"pi{n}" for n in range(14)]
    assert (rack.name, rack.master.name, rack.master.is_node) == ("picloud", "salt", False)
    assert rack.release == ReleaseChoice("alarm-rpi-armv7")
    assert rack.swap_bytes == GiB
    assert {node.model for node in rack.nodes} == {"pi2"}
    assert {node.roles for node in rack.nodes} == {("salt-minion",)}
    assert all(node.address is None for node in rack.nodes)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_that_file_is_a_good_rack_for_every_board(tmp_path: Path, board: Board) -> None:
    rack = rack_of(tmp_path, initial_rack_toml(Choices(model=board.name)))
    packages = rack.nodes[0].packages
    spec = spec_for(rack.release.source, None, board.name, packages.names)
    assert board.name in spec.models
    assert packages.is_plain is board.boots(spec.name), "no packages where none are needed"


def test_a_board_without_the_kernel_it_needs_is_a_fault(tmp_path: Path) -> None:
    text = '[rack]\nnodes = "pi[0-1]"\nmodel = "pi4"\n[release]\nname = "alarm-rpi-aarch64"\n'
    text += '[nodes.pi0]\nmodel = "pi5"\n'
    (fault,) = faults_of(tmp_path, text)
    assert fault.startswith("rack.toml:5: release.name: alarm-rpi-aarch64 cannot boot pi5; its own")
    lines = re.search(r"(replace = .*) and (remove = .*)", fault)
    assert lines, "what to do can be copied from it"
    rack = rack_of(tmp_path, f"{text}[nodes.pi0.packages]\n{lines[1]}\n{lines[2]}\n")
    assert rack.nodes[0].packages.names == {"linux-rpi-16k"}
    (fault,) = faults_of(tmp_path, f"{text}[packages]\n{lines[1]}\n{lines[2]}\n")
    assert "alarm-rpi-aarch64 with linux-rpi-16k cannot boot pi4" in fault


def test_choices_become_keys_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "me.pub").write_text(KEY + "\n")
    chosen = Choices("pi[1-3]", "pi1", "pi4", "A[1-3]", "10.0.0.[11-13]", "me.pub")
    rack = rack_of(tmp_path, initial_rack_toml(chosen))
    assert [(node.slot, str(node.address), node.model) for node in rack.nodes] == [
        ("A1", "10.0.0.11/24", "pi4"),
        ("A2", "10.0.0.12/24", "pi4"),
        ("A3", "10.0.0.13/24", "pi4"),
    ]
    assert rack.master.is_node
    assert rack.release == ReleaseChoice("alarm-rpi-aarch64"), "the one that boots the board"
    assert rack.node("pi2").authorized_keys == (KEY,)


def every_key() -> str:
    """The file rack init writes, with every key that is commented out in use."""
    return re.sub(
        r"^# (?=[a-z_]+ = |\[(?:nodes|roles))", "", initial_rack_toml(), flags=re.MULTILINE
    )


def test_every_key_that_is_read_stands_in_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is the reference: a key that is missing there is one nobody finds."""
    read: set[str] = set()
    close = Table.close

    def closing(table: Table) -> None:
        read.update(re.sub(r"^nodes\.pi\d+", "nodes.pi7", table.key(name)) for name in table.known)
        close(table)

    monkeypatch.setattr(Table, "close", closing)
    rack_of(tmp_path, RACK + "[roles.salt-minion]\n")

    def shared(keys: Iterable[str]) -> set[str]:
        # A role and a node have the same keys for packages as the rack.
        return {re.sub(r"^(nodes|roles)\.[a-z0-9-]+\.packages", "packages", key) for key in keys}

    found = shared(key for key in read if "." in key)
    assert found - {"packages"} == shared(keys_of(tomllib.loads(every_key())))


def keys_of(table: dict[str, object], place: str = "") -> Iterator[str]:
    """The dotted path of every value; names of packages, which anybody chooses, are none."""
    for name, value in table.items():
        if isinstance(value, dict) and name != "replace":
            yield from keys_of(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def test_the_file_names_every_release_there_is() -> None:
    for name in RELEASES:
        assert f"{name} (" in initial_rack_toml(), (
            "with the boards it boots, in imager.config.example"
        )


def test_every_commented_key_of_that_file_exists(tmp_path: Path) -> None:
    """A key in it that load_rack does not know would be a lie."""
    text = (
        every_key()
        .replace("ssh-ed25519 AAAA… you@laptop", KEY)
        .replace("ssh-ed25519 AAAA… somebody@else", KEY)
    )
    lines = faults_of(tmp_path, text)
    assert not [line for line in lines if "no such key" in line]
    assert set(tomllib.loads(text)) == {
        "rack",
        "release",
        "network",
        "login",
        "salt",
        "swap",
        "packages",
        "roles",
        "nodes",
    }
    excluding = [line for line in lines if "exclude" in line]
    assert len(excluding) == 2, "dhcp and addresses, name and url"


def test_the_smallest_rack_is_a_list_of_nodes(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK)
    assert [node.name for node in rack.nodes] == ["pi0", "pi1", "pi2", "pi3"]
    assert rack.folder == tmp_path


def test_addresses_are_dealt_out_in_the_order_of_the_nodes(tmp_path: Path) -> None:
    rack = rack_of(
        tmp_path,
        '[rack]\nnodes = "pi[2-3],head"\nmaster = "head"\n'
        '[network]\naddresses = "10.0.0.[10-12]"\ngateway = "10.0.0.1"\ndns = ["10.0.0.1"]\n',
    )
    assert {node.name: node.address for node in rack.nodes} == {
        "pi2": IPv4Interface("10.0.0.10/24"),
        "pi3": IPv4Interface("10.0.0.11/24"),
        "head": IPv4Interface("10.0.0.12/24"),
    }
    assert rack.master.address == IPv4Address("10.0.0.12")
    assert rack.network.dns == (IPv4Address("10.0.0.1"),)


def test_a_node_s_own_table_overrides_the_rack(tmp_path: Path) -> None:
    rack = rack_of(
        tmp_path,
        RACK + f'[login]\nauthorized_keys = ["{KEY}"]\n'
        '[nodes.pi2]\naddress = "10.0.0.77"\nmodel = "pi3"\nroles = []\n'
        f"authorized_keys = ['from=\"10.0.0.*\" {KEY}']\n",
    )
    other, own = rack.node("pi1"), rack.node("pi2")
    assert (other.address, other.model, len(other.authorized_keys)) == (None, "pi2", 1)
    assert own.address == IPv4Interface("10.0.0.77/24")
    assert (own.model, own.roles, len(own.authorized_keys)) == ("pi3", (), 2)


def test_the_master_of_the_rack_has_both_roles(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    assert rack.master.is_node
    assert rack.node("pi0").roles == ("salt-minion", "salt-master")
    assert rack.node("pi1").roles == ("salt-minion",)


def test_a_master_elsewhere_can_be_an_address_and_have_its_key_pinned(tmp_path: Path) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "master.pub").write_bytes(pem.strip().replace(b"\n", b"\r\n"))
    rack = rack_of(
        tmp_path,
        '[rack]\nnodes = "pi0"\nmaster = "10.0.0.2"\n[salt]\nmaster_public_key = "master.pub"\n',
    )
    assert rack.master.address == IPv4Address("10.0.0.2")
    assert rack.master.public_key == pem.decode()


def test_keys_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "keys.pub").write_text(f"# two\n{KEY}\n\n{KEY}2\n")
    rack = rack_of(tmp_path, RACK + '[login]\nauthorized_keys_files = ["keys.pub"]\n')
    assert rack.node("pi0").authorized_keys == (KEY, f"{KEY}2")


def test_packages_lie_in_a_folder_beside_the_file(tmp_path: Path) -> None:
    text = RACK + '[salt]\nversion = "3008.3"\npackages = "packages"\n'
    assert faults_of(tmp_path, text) == [
        f'rack.toml:5: salt.packages: "packages": no such folder; the path is taken from {tmp_path}'
    ]
    (tmp_path / "packages").mkdir()
    assert rack_of(tmp_path, text).salt_packages == tmp_path / "packages"
    assert rack_of(tmp_path, RACK).salt_packages is None


@pytest.mark.parametrize(
    ("size", "size_bytes"), [("0", 0), ("none", 0), ("1MiB", MiB), ("64GiB", 64 * GiB)]
)
def test_swap_can_be_none_and_any_size_that_makes_sense(
    tmp_path: Path, size: str, size_bytes: int
) -> None:
    assert rack_of(tmp_path, RACK + f'[swap]\nsize = "{size}"\n').swap_bytes == size_bytes


@pytest.mark.parametrize("size", ["1B", "1KiB", "1048575", "65GiB", "5000TiB"])
def test_a_swap_file_that_cannot_be_is_refused(tmp_path: Path, size: str) -> None:
    assert faults_of(tmp_path, RACK + f'[swap]\nsize = "{size}"\n') == [
        f'rack.toml:4: swap.size: "{size}" is not from 1 MiB to 64 GiB, nor "0" for no swap file'
    ]


OLD_MASTER = RACK + 'master = "head"\n[salt]\nversion = "3008.3"\nmaster_version = '


@pytest.mark.parametrize("version", ["3006.11", "3005.4", "3004", "2019.2.8"])
def test_a_master_too_old_for_the_nodes_is_refused_for_that(tmp_path: Path, version: str) -> None:
    assert faults_of(tmp_path, f'{OLD_MASTER}"{version}"\n') == [
        'rack.toml:5: salt.version: "3008.3" cannot join head: nodes with 3008.3 want a session '
        f"key, which a master with {version} never sends; it needs 3006.12, 3007.4 or newer"
    ]


@pytest.mark.parametrize("version", ["3006", "newest"])
def test_what_is_no_version_of_a_master_is_refused(tmp_path: Path, version: str) -> None:
    assert faults_of(tmp_path, f'{OLD_MASTER}"{version}"\n') == [
        f'rack.toml:6: salt.master_version: "{version}" is not a version of Salt; write it like '
        '"3008.3"'
    ]


RACK_FAULTS = [
    ("", 'rack.toml: rack.nodes: is missing; name every node, like nodes = "pi[0-13]"'),
    (
        '[rack]\nnodes = "pi_7"\n',
        'rack.toml:2: rack.nodes: "pi_7" has an underscore, which host names cannot have '
        "(RFC 1123); try pi-7",
    ),
    (
        '[rack]\nnodes = "pi[0-3],pi2"\n',
        'rack.toml:2: rack.nodes: "pi[0-3],pi2" has pi2 in it twice',
    ),
    (
        "[rack]\nnodes = 14\n",
        'rack.toml:2: rack.nodes: 14 is not text; write it like "pi[0-13]"',
    ),
    (RACK + 'naem = "x"\n', "rack.toml:3: rack.naem: no such key; did you mean name?"),
    (
        RACK + "[racks]\n",
        "rack.toml:3: racks: no such key; did you mean rack?",
    ),
    (
        RACK + 'name = ""\n',
        'rack.toml:3: rack.name: is empty; write it like "picloud", or leave the key out',
    ),
    (
        RACK + 'model = "pi4b"\n',
        'rack.toml:3: rack.model: "pi4b" is not a board; did you mean pi4?',
    ),
    (
        RACK + 'model = "pi1"\n',
        'rack.toml:3: rack.model: "pi1" has an ARMv6 processor, for which there are no releases '
        "since 2022",
    ),
    (
        RACK + 'timezone = "../../etc/shadow"\n',
        'rack.toml:3: rack.timezone: "../../etc/shadow" is not a time zone; write it like '
        '"Europe/Brussels"',
    ),
    (
        RACK + 'master = "pi_0"\n',
        "rack.toml:3: rack.master: \"pi_0\" has the part 'pi_0', which is not a host name "
        "(RFC 1123); write a node (pi0, pi1, pi2, …) or another computer's name or address",
    ),
    (
        RACK + '[nodes.pi2]\naddress = "10.0.0.300"\n',
        'rack.toml:4: nodes.pi2.address: "10.0.0.300" is not an IPv4 address; write four numbers '
        "0-255, like 10.0.0.10",
    ),
    (
        RACK + '[nodes.pi9]\nmodel = "pi2"\n',
        "rack.toml:3: nodes.pi9: is not one of the nodes under [rack]; did you mean pi3?",
    ),
    (
        RACK + '[nodes.pi2]\nroles = ["salt-mnion"]\n',
        'rack.toml:4: nodes.pi2.roles: "salt-mnion" is not a role; did you mean salt-minion?',
    ),
    (
        RACK + '[nodes.pi2]\nroles = ["salt-master"]\n',
        'rack.toml:4: nodes.pi2.roles: only the node named by [rack] master can have "salt-master"',
    ),
    (
        '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n[nodes.pi0]\nroles = ["salt-minion"]\n',
        "rack.toml:5: nodes.pi0.roles: the node named by [rack] master needs \"salt-master\" among "
        "its roles",
    ),
    (
        RACK + '[release]\nname = "alarm-rpi-aarch64"\n',
        "rack.toml:4: release.name: alarm-rpi-aarch64 cannot boot pi2; the Pi 2's BCM2836 has no "
        '64-bit mode; use name = "alarm-rpi-armv7" under [release] for this board',
    ),
    (
        RACK + '[swap]\nsize = "lots"\n',
        "rack.toml:4: swap.size: 'lots' is not a size; write it like 8GiB, 512MiB or 32GB, or "
        '"0" for no swap file',
    ),
    (
        RACK + '[salt]\nhighstate = "always"\n',
        'rack.toml:4: salt.highstate: "always" is neither "once" nor "never"',
    ),
    (
        RACK + '[salt]\nversion = "newest"\n',
        'rack.toml:4: salt.version: "newest" is not a version of Salt; write it like "3008.3"',
    ),
    (
        RACK + '[salt]\npackages = "."\n',
        "rack.toml:4: salt.packages: needs version beside it: they are what that Salt needs",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), RACK_FAULTS, ids=[f for _, f in RACK_FAULTS])
def test_a_fault_names_line_key_value_and_remedy(tmp_path: Path, text: str, fault: str) -> None:
    assert faults_of(tmp_path, text) == [fault]


NETWORK_FAULTS = [
    (
        'addresses = "10.0.0.[10-12]"\n',
        "network.addresses: 3 addresses for 4 nodes; give one for each, in their order",
    ),
    (
        'addresses = "10.0.0.[1-4]"\ngateway = "10.0.0.1"\n',
        'network.addresses: "10.0.0.1" is the gateway\'s address',
    ),
    (
        'addresses = "10.0.1.[2-5]"\ngateway = "10.0.0.1"\n',
        'network.addresses: "10.0.1.2" is outside 10.0.0.0/24, the network of the gateway 10.0.0.1',
    ),
    (
        'addresses = "10.0.0.[252-255]"\n',
        'network.addresses: "10.0.0.255" is the broadcast address of 10.0.0.0/24',
    ),
    (
        'addresses = "10.0.0.[0-3]"\n',
        'network.addresses: "10.0.0.0" is the address of the network 10.0.0.0/24 itself',
    ),
    (
        'addresses = "10.0.0.[254-257]"\n',
        'network.addresses: "10.0.0.256" is not an IPv4 address; write four numbers 0-255, like '
        "10.0.0.10",
    ),
    (
        'dhcp = true\naddresses = "10.0.0.[2-5]"\n',
        "network.dhcp: true and addresses exclude each other; leave one of the two out",
    ),
    ("dhcp = false\n", 'network.dhcp: false needs the addresses: addresses = "10.0.0.[10-23]"'),
    ('dhcp = "yes"\n', 'network.dhcp: "yes" is not true or false'),
    ("prefix = 33\n", "network.prefix: 33 is not a whole number from 1 to 30"),
    ("prefix = true\n", "network.prefix: true is not a whole number from 1 to 30"),
    ('dns = ["8.8.8"]\n', 'network.dns: "8.8.8" is not an IPv4 address; write four numbers 0-255, '
     "like 10.0.0.10"),
    (
        'interface = "eth0\\nName=x"\n',
        'network.interface: "eth0\\nName=x" is not a list of interface names; write it like '
        '"en* eth* usb*" (systemd.network(5), [Match] Name=)',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), NETWORK_FAULTS, ids=[f for _, f in NETWORK_FAULTS])
def test_addresses_that_cannot_work_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    lines = faults_of(tmp_path, RACK + "[network]\n" + text)
    assert re.sub(r"rack.toml(:\d+)?: ", "", lines[0]) == fault


def test_two_nodes_with_one_address_are_both_named(tmp_path: Path) -> None:
    text = RACK + '[network]\naddresses = "10.0.0.[2-5]"\n[nodes.pi3]\naddress = "10.0.0.2"\n'
    assert faults_of(tmp_path, text) == [
        'rack.toml:6: nodes.pi3.address: "10.0.0.2" is given to both pi0 and pi3'
    ]


def test_a_master_given_by_the_address_of_a_node_is_told_its_name(tmp_path: Path) -> None:
    text = '[rack]\nnodes = "pi[0-1]"\nmaster = "10.0.0.2"\n[network]\naddresses = "10.0.0.[2-3]"\n'
    assert faults_of(tmp_path, text) == [
        'rack.toml:3: rack.master: "10.0.0.2" is the address of pi0; write master = "pi0"'
    ]


def test_a_master_that_is_a_node_by_another_spelling_or_by_its_address_is_told(
    tmp_path: Path,
) -> None:
    nodes = '[rack]\nnodes = "pi[0-1]"\n'
    for spelt in ("PI0", "pi0."):
        assert faults_of(tmp_path, f'{nodes}master = "{spelt}"\n') == [
            f'rack.toml:3: rack.master: "{spelt}" is a node; write master = "pi0"'
        ]
    addresses = '[network]\naddresses = "10.0.0.[2-3]"\n'
    text = f'{nodes}master = "salt.lab"\n{addresses}[salt]\nmaster_address = "10.0.0.3"\n'
    assert faults_of(tmp_path, text) == [
        "rack.toml:7: salt.master_address: 10.0.0.3 is the address of pi1, and the master is "
        'salt.lab; if they are one, write master = "pi1"'
    ]


def test_a_gateway_that_no_node_would_get_is_told(tmp_path: Path) -> None:
    """Name servers are added to those that DHCP names; a node of its own address has both."""
    text = RACK + '[network]\ngateway = "10.0.0.1"\ndns = ["10.0.0.1"]\n'
    (fault,) = faults_of(tmp_path, text)
    assert fault.startswith("rack.toml:4: network.gateway: counts only for a node with an address")
    rack_of(tmp_path, f'{text}[nodes.pi1]\naddress = "10.0.0.9"\n')
    for wrong in ('addresses = "10.0.0.300"\n', '[nodes.pi1]\naddress = "10.0.0.333"\n'):
        assert not any("gateway" in fault for fault in faults_of(tmp_path, text + wrong))


@pytest.mark.parametrize("interface", [" ", "!", "! "])
def test_interfaces_that_networkd_would_not_know(tmp_path: Path, interface: str) -> None:
    (fault,) = faults_of(tmp_path, RACK + f'[network]\ninterface = "{interface}"\n')
    assert "is not a list of interface names" in fault


def test_slots_are_dealt_out_in_the_order_of_the_nodes(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK + 'slots = "A[1-2],left-[9-10]"\n[nodes.pi2]\nslot = "top"\n')
    assert [node.slot for node in rack.nodes] == ["A1", "A2", "top", "left-10"]
    assert {node.slot for node in rack_of(tmp_path, RACK).nodes} == {None}


def test_one_node_alone_can_have_a_slot(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK + '[nodes.pi2]\nslot = "B1"\n')
    assert [node.slot for node in rack.nodes] == [None, None, "B1", None]


SLOT_FAULTS = [
    (
        'slots = "A[1-3]"\n',
        "rack.toml:3: rack.slots: 3 slots for 4 nodes; give one for each, in their order",
    ),
    (
        'slots = "A[1-3],2"\n',
        "rack.toml:3: rack.slots: \"A[1-3],2\" has '2', which is not a label; write a letter, then "
        "letters, digits and hyphens, like A1",
    ),
    ('slots = "A[1-3],A2"\n', 'rack.toml:3: rack.slots: "A[1-3],A2" has A2 in it twice'),
    (
        'slots = "@all"\n',
        'rack.toml:3: rack.slots: "@all" is not a list of names; write it like A[1-7],B[1-7]',
    ),
    ("slots = 4\n", 'rack.toml:3: rack.slots: 4 is not text; write it like "A[1-7],B[1-7]"'),
    (
        'slots = "A[1-4]"\n[nodes.pi3]\nslot = "A2"\n',
        'rack.toml:5: nodes.pi3.slot: "A2" is given to both pi1 and pi3',
    ),
    (
        'slots = "A[1-4]"\n[nodes.pi0]\nslot = "A2"\n',
        'rack.toml:3: rack.slots: "A2" is given to both pi0 and pi1',
    ),
    (
        '[nodes.pi0]\nslot = "a-very-long-label-1"\n',
        'rack.toml:4: nodes.pi0.slot: "a-very-long-label-1" is 19 characters long; a label has at '
        "most 16",
    ),
]


@pytest.mark.parametrize(("text", "fault"), SLOT_FAULTS, ids=[fault for _, fault in SLOT_FAULTS])
def test_labels_that_cannot_be_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    assert faults_of(tmp_path, RACK + text) == [fault]


LOGIN_FAULTS = [
    ("not a key", '"not a key" is not a public key; write it like "ssh-ed25519 AAAA… you@laptop"'),
    (
        KEY[:60],
        f'"{KEY[:56]}... is a damaged public key; copy the whole line of the .pub file again',
    ),
    ("ssh-dss AAAAB3NzaC1kc3MAAACB", '"ssh-dss AAAAB3NzaC1kc3MAAACB" is a DSA key, which sshd no '
     "longer takes; make a key with ssh-keygen -t ed25519"),
    (f"{KEY}\\nroot", f'"{KEY[:56]}... has a line break or a control character in it; give one key '
     "per entry"),
    (f"# {KEY}", f'"# {KEY[:54]}... is a comment to sshd; remove the # or the line'),
    (f"my laptop {KEY}", f'"my laptop {KEY[:46]}... is not a public key; what is before it sshd '
     'takes for options; write it like "ssh-ed25519 AAAA… you@laptop"'),
    (f"no-pty, {KEY}", f'"no-pty, {KEY[:48]}... is not a public key; what is before it sshd '
     'takes for options; write it like "ssh-ed25519 AAAA… you@laptop"'),
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        'from="10.0.0.*",no-pty',
        'no-pty,command="echo \\"a, b\\""',
        'ENVIRONMENT="A=1",environment="B=2"  ',
        "restrict",
    ],
)
def test_options_of_sshd_may_stand_before_a_key(options: str) -> None:
    assert key_fault(f"{options} {KEY} me@laptop") is None
    assert key_fault(f'command="{options} {KEY}"'.replace("\\", "")) is not None


@pytest.mark.parametrize(("key", "fault"), LOGIN_FAULTS, ids=[k[:12] for k, _ in LOGIN_FAULTS])
def test_what_is_no_public_key_is_refused(tmp_path: Path, key: str, fault: str) -> None:
    lines = faults_of(tmp_path, RACK + f'[login]\nauthorized_keys = ["{key}"]\n')
    assert lines == [f"rack.toml:4: login.authorized_keys: {fault}"]


def test_a_private_key_pasted_by_mistake_is_never_repeated(tmp_path: Path) -> None:
    text = '"""-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"""'
    (tmp_path / "id").write_text(tomllib.loads(f"k = {text}")["k"])
    lines = faults_of(
        tmp_path, RACK + f'[login]\nauthorized_keys = [{text}]\nauthorized_keys_files = ["id"]\n'
    )
    assert len(lines) == 2
    assert all("holds a private key" in line for line in lines)
    assert "c2VjcmV0" not in "".join(lines)


@pytest.mark.parametrize("key", ["authorized_keys_files", "master_public_key"])
@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("fifo", "is no regular file"),
        ("folder", "is no regular file"),
        ("/dev/zero", "is no regular file"),
        ("sparse", "is larger than 1048576 bytes"),
        ("binary", "is not a text file"),
        ("private", ""),
        ("a\\u0000b", "is not a text file"),
    ],
)
def test_a_stranger_s_rack_cannot_have_any_file_read_onto_a_card(
    tmp_path: Path, key: str, made: str, why: str
) -> None:
    """Read as root, a file that is named may be private: it is a public key, or it is not used
    and nothing of it is said."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    (tmp_path / "private").write_text("root:$6$c2VjcmV0:19000:0:99999:7:::\n")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    if key == "authorized_keys_files":
        text = RACK + f'[login]\n{key} = ["{made}"]\n'
    else:
        text = f'[rack]\nnodes = "pi0"\nmaster = "10.0.0.2"\n[salt]\n{key} = "{made}"\n'
    (line,) = faults_of(tmp_path, text)
    assert why in line
    assert "c2VjcmV0" not in line


@pytest.mark.parametrize("extra", ["root:$6$c2VjcmV0", PRIVATE])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_master_s_key_with_something_beside_it_is_refused(
    tmp_path: Path, extra: str, first: bool
) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    (tmp_path / "m.pub").write_text(f"{extra}\n{pem}" if first else f"{pem}{extra}\n")
    (line,) = faults_of(
        tmp_path,
        '[rack]\nnodes = "pi0"\nmaster = "10.0.0.2"\n[salt]\nmaster_public_key = "m.pub"\n',
    )
    assert '"m.pub" holds no RSA public key' in line
    assert "c2VjcmV0" not in line


def test_a_key_file_may_be_reached_by_a_link_as_home_folders_have_them(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(KEY)
    (tmp_path / "keys.pub").symlink_to("real")
    rack = rack_of(tmp_path, RACK + '[login]\nauthorized_keys_files = ["keys.pub"]\n')
    assert rack.node("pi0").authorized_keys == (KEY,)


@pytest.mark.parametrize(
    "text", ["x = " + "9" * 5000, "x = " + "[" * 20_000, "x = 2026-02-30"], ids=["9", "[", "date"]
)
def test_toml_that_python_chokes_on_is_a_fault(tmp_path: Path, text: str) -> None:
    (line,) = faults_of(tmp_path, text)
    assert line.startswith("rack.toml")
    assert "not TOML: " in line


def test_a_key_file_that_is_not_there_is_named_with_the_folder_it_is_taken_from(
    tmp_path: Path,
) -> None:
    lines = faults_of(tmp_path, RACK + '[login]\nauthorized_keys_files = ["no.pub"]\n')
    assert lines == [
        f'rack.toml:4: login.authorized_keys_files: "no.pub": No such file or directory; the path '
        f"is taken from {tmp_path}"
    ]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = faults_of(
        tmp_path,
        '[rack]\nname = "A"\nnodes = "pi_0,pi[1-2]"\nmodle = "pi2"\n[network]\nprefix = 99\n'
        '[login]\nauthorized_keys = [3, "x"]\n[swap]\nsize = "x"\n[nodes.pi1]\naddress = "x"\n'
        'roles = "salt-minion"\n',
    )
    keys = ["rack.name", "rack.nodes", "rack.modle", "network.prefix", "login.authorized_keys"]
    keys += ["login.authorized_keys", "swap.size", "nodes.pi1.address", "nodes.pi1.roles"]
    assert [line.split(": ")[1] for line in lines] == keys


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[rack\n", "rack.toml:1: not TOML: Expected ']'"),
        ('[rack]\nname = "a\n', "rack.toml:2: not TOML: Illegal character"),
        ("a = 1\na = 2\n", "rack.toml:2: not TOML: Cannot overwrite a value"),
    ],
)
def test_broken_toml_is_one_fault_with_its_line(tmp_path: Path, text: str, start: str) -> None:
    (line,) = faults_of(tmp_path, text)
    assert line.startswith(start)


def test_a_file_that_is_not_text_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "rack.toml").write_bytes(b"[rack]\nname = \xff\n")
    with pytest.raises(ConfigurationError, match=r"line 2 is not UTF-8 text \(byte 14 "):
        load_rack(tmp_path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file") as caught:
        load_rack(tmp_path)
    assert "rack init" in caught.value.hint


def test_a_node_that_is_not_in_the_rack_is_refused_with_what_to_add(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK)
    with pytest.raises(ConfigurationError) as caught:
        rack.node("pi99")
    assert caught.value.exit_code == 10
    assert "no node is called 'pi99'" in caught.value.what
    assert 'nodes = "pi[0-3],pi99"' in caught.value.hint


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("head", "known: pi0, pi1, pi2, pi3, pi4, pi5, pi6, pi7, pi8, pi9, pi10, pi11"),
        ("p11", "did you mean pi11?"),
    ],
)
def test_nodes_that_are_there_are_named_as_people_count(
    tmp_path: Path, name: str, said: str
) -> None:
    rack = rack_of(tmp_path, RACK.replace("pi[0-3]", "pi[0-11]"))
    with pytest.raises(ConfigurationError) as caught:
        rack.node(name)
    assert f"no node is called {name!r} ({said})" in caught.value.what


def test_of_many_nodes_only_the_one_that_may_be_meant_is_named(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK.replace("pi[0-3]", "pi[0-55]"))
    for name, said in (("pi77", "did you mean pi7?"), ("head", "56 are known")):
        with pytest.raises(ConfigurationError) as caught:
            rack.node(name)
        assert f"no node is called {name!r} ({said})" in caught.value.what


@pytest.mark.parametrize("name", ["pi[1-2]", "pi1,pi2", "", "PI1"])
def test_what_is_no_name_of_one_node_is_not_to_be_added(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rack_of(tmp_path, RACK).node(name)
    assert f"no node is called {name!r}" in caught.value.what
    assert caught.value.hint == "give the name of one node, such as pi0"


scalars = st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=12)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
KEYS = [*re.findall(r"^([a-z_]+) = ", every_key(), re.MULTILINE), "other"]
SECTIONS = "rack release network login swap salt nodes.pi1 nodes odd"
keys = st.sampled_from(sorted({*KEYS}))
sections = st.sampled_from(SECTIONS.split(" "))
documents = st.dictionaries(sections, st.dictionaries(keys, values, max_size=5), max_size=5)


def as_toml(document: dict[str, dict[str, object]]) -> str:
    def value(item: object) -> str:
        return json.dumps(item, ensure_ascii=False).replace("null", '""').replace("\x7f", "")

    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value(item)}\n" for key, item in table.items())
        for section, table in document.items()
    )


@given(documents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_document_is_a_rack_or_a_list_of_faults(
    tmp_path: Path, document: dict[str, dict[str, object]]
) -> None:
    (tmp_path / "rack.toml").write_text(as_toml(document))
    try:
        rack = load_rack(tmp_path)
    except ConfigurationError as error:
        assert error.details
        assert all("\n" not in line for line in error.details)
        return
    assert rack.nodes


PACKAGES = """[packages]
install = ["htop", "openssl>=3.6"]
remove = ["nano"]
enable = ["a.service"]
hold = ["linux-rpi"]
[roles.salt-minion.packages]
install = ["nano"]
replace = { linux-rpi = "linux-own" }
[nodes.pi2.packages]
install = ["vim"]
remove = ["htop"]
enable = ["b.timer", "a.service"]
"""


def test_a_node_has_the_packages_of_the_rack_of_its_roles_and_its_own(tmp_path: Path) -> None:
    rack = rack_of(tmp_path, RACK + PACKAGES)
    common = PackageWish(
        ("htop", "openssl>=3.6", "nano", "linux-own"), ("linux-rpi",), ("a.service",)
    )
    assert rack.node("pi0").packages == common
    assert rack.node("pi2").packages == PackageWish(
        ("openssl>=3.6", "nano", "linux-own", "vim"),
        ("linux-rpi", "htop"),
        ("a.service", "b.timer"),
    )
    assert rack.held_packages == {"linux-rpi"}
    assert rack_of(tmp_path, RACK).node("pi0").packages.is_plain


PACKAGES_FAULTS = [
    ('install = ["-rf"]\n', 'packages.install: "-rf" is not the name of a package; write the list '
     'like ["docker"]'),
    ('install = "docker"\n', 'packages.install: "docker" is not a list of texts; write it like '
     '["docker"]'),
    ('install = ["a", "a"]\n', "packages.install: names one twice"),
    ('install = ["a>=1"]\nremove = ["a"]\n', 'packages.install: "a" is to be removed, too; leave '
     "it out of one of them"),
    ('remove = ["a>1"]\n', 'packages.remove: "a>1" has a bound, which has no meaning here; write '
     'the list like ["nano"]'),
    ('replace = { a = "b c" }\n', 'packages.replace.a: "b c" is not the name of a package'),
    ('replace = { a = 7 }\n', 'packages.replace.a: 7 is not text; write it like linux-rpi = '
     '"linux-rpi-16k"'),
    ('enable = ["docker"]\n', 'packages.enable: "docker" is not the name of a unit; write the list '
     'like ["docker.service"]'),
    ('hold = ["/"]\n', 'packages.hold: "/" is not the name of a package; write the list like '
     '["linux-rpi"]'),
    ('canary = ["pi01"]\n', 'packages.canary: "pi01" is not a node; did you mean pi1?'),
    ('canary = ["pi2", "pi2"]\n', "packages.canary: names one twice"),
    ('check = "true"\n', 'packages.check: is run on canary nodes, and there is none; add canary = '
     '["pi3"]'),
    ('canary = ["pi2"]\ncheck = "a\\nb"\n', "packages.check: is not one line of 1 to 1000 "
     "printable characters"),
    ('instal = ["a"]\n', "packages.instal: no such key; did you mean install?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), PACKAGES_FAULTS, ids=[f for _, f in PACKAGES_FAULTS])
def test_packages_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    lines = faults_of(tmp_path, RACK + "[packages]\n" + text)
    assert [re.sub(r"rack.toml(:\d+)?: ", "", line) for line in lines] == [fault]


def test_a_canary_is_a_node_that_salt_can_ask(tmp_path: Path) -> None:
    text = RACK + '[packages]\ncanary = ["pi2"]\ncheck = "docker info"\n'
    rack = rack_of(tmp_path, text)
    assert (rack.canary, rack.canary_check) == (("pi2",), "docker info")
    (fault,) = faults_of(tmp_path, text + "[nodes.pi2]\nroles = []\n")
    assert "has not the role salt-minion" in fault


def test_only_the_rack_holds_packages_and_only_roles_there_are_have_some(tmp_path: Path) -> None:
    text = RACK + '[roles.salt-minon.packages]\n[nodes.pi2.packages]\nhold = ["a"]\n'
    assert faults_of(tmp_path, text) == [
        "rack.toml: roles.salt-minon: is not a role; did you mean salt-minion?",
        "rack.toml:5: nodes.pi2.packages.hold: no such key; known: enable, install, "
        "remove, replace",
    ]


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "x" * 300, "\\u0000"])
def test_what_can_be_no_folder_is_a_fault(tmp_path: Path, name: str) -> None:
    (line,) = faults_of(tmp_path, f'{RACK}[salt]\nversion = "3008.3"\npackages = "{name}"\n')
    assert "no such folder" in line


def test_a_number_of_many_digits_is_a_fault_in_a_short_line(tmp_path: Path) -> None:
    (line,) = faults_of(tmp_path, f"{RACK}[network]\nprefix = 0x{5000 * 'f'}\n")
    assert "a number of too many digits is not a whole number from 1 to 30" in line


def test_many_names_of_packages_are_refused(tmp_path: Path) -> None:
    words = ", ".join(f'"a{n}"' for n in range(501))
    pairs = "\n".join(f'a{n} = "b"' for n in range(501))
    text = f"{RACK}[packages]\nremove = [{words}]\n[packages.replace]\n{pairs}\n"
    assert faults_of(tmp_path, text) == [
        "rack.toml:4: packages.remove: has 501 names; at most 500 can be given",
        "rack.toml:5: packages.replace: has 501 names; at most 500 can be given",
    ]


def test_many_key_files_are_not_all_read(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(f"{KEY}\n" * 8000)
    few = f"{RACK}[login]\nauthorized_keys_files = {json.dumps(['k'] * 3)}\n"
    first, second = faults_of(tmp_path, few)
    assert "is larger than" in first
    assert "is larger than" in second
    many = f"{RACK}[login]\nauthorized_keys_files = {json.dumps(['gone'] * 101)}\n"
    assert "authorized_keys_files: names more than 100 files" in faults_of(tmp_path, many)[0]
