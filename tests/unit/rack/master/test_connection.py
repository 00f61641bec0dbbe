"""What a person says of the master becomes words of ssh, and none of them an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.errors import UsageError
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
    place = words.index("--")
    assert words[place + 1] == f"{user}@{host}"
    assert "sh" in words[place + 2 :]
