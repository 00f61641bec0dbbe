"""Whose key a real Salt master uses after the rack's was put into its folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.config.rack import Rack
from imager.node.keys.export import MasterFileState, export, plan_export
from imager.node.keys.identity import SaltKeys, salt_keys
from imager.node.keys.salt import clean
from tests.support.racks import rack_in
from tests.support.salt import SaltPrograms

pytestmark = pytest.mark.salt

START = """
import sys
from salt.config import master_config
from salt.crypt import MasterKeys
options = master_config(None)
options.update(pki_dir=sys.argv[1], id="head_master", user=None)
print(MasterKeys(options).get_pub_str())
"""
"""What a master does with its key when it is started."""


def started(programs: SaltPrograms, pki: Path) -> bytes:
    """The public key of the master of this folder, once it was started."""
    done = subprocess.run([programs("python"), "-c", START, pki], capture_output=True, check=True)
    return clean(done.stdout)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')


@pytest.fixture
def keys(rack: Rack) -> SaltKeys:
    return salt_keys(rack, Quiet())


def test_a_master_that_ran_takes_the_rack_s_key_when_it_is_put_there(
    rack: Rack,
    keys: SaltKeys,
    salt_programs: SaltPrograms,
    tmp_path: Path,
) -> None:
    pki = tmp_path / "pki"
    pki.mkdir()
    assert keys.master is not None
    assert started(salt_programs, pki) != keys.master.public
    assert (pki / "master.pem").is_symlink(), "this Salt keeps it under a name of its own"
    places = plan_export(rack, keys, pki, own_key=True)
    assert [place.found for place in places[-2:]] == [MasterFileState.OTHER, MasterFileState.OTHER]
    export(pki, places)
    for _ in range(2):
        assert started(salt_programs, pki) == keys.master.public
    there = plan_export(rack, keys, pki, own_key=True)
    assert {place.found for place in there} == {MasterFileState.SAME}, (
        "it is the rack's, under that name"
    )


def test_a_copied_folder_of_a_master_that_ran_is_that_master_s(
    rack: Rack,
    keys: SaltKeys,
    salt_programs: SaltPrograms,
    tmp_path: Path,
) -> None:
    """Its links name the folder it was copied from, which is not touched."""
    pki, copy = tmp_path / "pki", tmp_path / "copy"
    pki.mkdir()
    own = started(salt_programs, pki)
    subprocess.run(["cp", "-a", pki, copy], check=True)
    export(copy, plan_export(rack, keys, copy, own_key=True))
    assert started(salt_programs, pki) == own
    assert keys.master is not None
    assert started(salt_programs, copy) == keys.master.public
