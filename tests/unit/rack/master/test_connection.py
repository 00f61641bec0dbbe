"""What a person says of the master becomes words of ssh, and none of them an option."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, UsageError
from imager.node.keys.identity import identity_of, known_hosts_at_hand
from imager.rack.master.connection import Way, door_to_master
from tests.support.racks import rack_in

TEXT = '[rack]\nnodes = "pi[0-1]"\nmaster = "head"\n[salt]\nmaster_address = "10.0.0.1"\n'


@pytest.mark.parametrize(
    "way",
    [
        Way(user="-oProxyCommand=touch /tmp/x", local=False),
        Way(user="-l", local=False),
        Way(user="a b", local=False),
        Way(user="", local=False),
        Way(user="$(id)", local=False),
        Way(host="-oProxyCommand=touch /tmp/x", local=False),
        Way(host="a b", local=False),
        Way(host="x;y", local=False),
    ],
)
def test_no_name_is_an_option_of_ssh(tmp_path: Path, way: Way) -> None:
    with pytest.raises(UsageError):
        door_to_master(rack_in(tmp_path, TEXT), way)


@pytest.mark.parametrize("user", ["root", "alarm", "j.doe", "svc-salt", "machine$"])
@pytest.mark.parametrize("host", ["head", "10.0.0.10", "fd00::1%eth0", "head.lab.example"])
def test_names_are_the_last_words_before_the_shell(tmp_path: Path, user: str, host: str) -> None:
    words = door_to_master(rack_in(tmp_path, TEXT), Way(user=user, host=host, local=False)).words
    assert "-oStrictHostKeyChecking=yes" in words
    assert "-oUpdateHostKeys=no" in words, "a person's own known_hosts is theirs"
    place = words.index("--")
    assert words[place + 1] == f"{user}@{host}"
    assert "sh" in words[place + 2 :]


def test_ssh_knows_a_node_by_the_keys_that_the_rack_made_for_it(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    with pytest.raises(ConfigurationError, match="pi0 has no host key yet"):
        door_to_master(rack, Way(local=False))
    identity_of(rack, rack.node("pi0"))
    before = sorted(rack.folder.rglob("*"))
    words = door_to_master(rack, Way(local=False)).words
    assert sorted(rack.folder.rglob("*")) == before
    (path,) = (word.partition("=")[2] for word in words if "UserKnownHostsFile" in word)
    known = known_hosts_at_hand(rack, [rack.node("pi0")])["pi0"]
    read = subprocess.run(["cat", path], capture_output=True, text=True, check=True).stdout
    assert sorted(read.splitlines()) == sorted(f"pi0 {key}" for key in known)
