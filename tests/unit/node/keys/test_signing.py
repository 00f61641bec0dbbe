"""The rack's signing key: made once, private from birth, the same for two runs at once."""

from __future__ import annotations

import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from imager.base.errors import ConfigurationError
from imager.config.rack import Rack
from imager.node.keys.signing import fingerprint, known_public_key, rack_key
from tests.support.racks import rack_in

TOML = '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n'


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", TOML)


def test_the_key_is_made_once_and_kept(rack: Rack) -> None:
    assert rack_key(rack).public == rack_key(rack).public == known_public_key(rack.folder)


def test_two_runs_at_once_get_the_same_key(rack: Rack) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = {key.public for key in pool.map(lambda _: rack_key(rack), range(8))}
    assert len(keys) == 1


def test_only_the_owner_can_read_it(rack: Rack) -> None:
    rack_key(rack)
    private = rack.keys.path / "_rack/stamp/stamp"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    for folder in private.parents[:4]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 or folder == rack.folder


def test_what_it_signs_its_public_key_verifies(rack: Rack) -> None:
    key = rack_key(rack)
    Ed25519PublicKey.from_public_bytes(key.public).verify(key.sign(b"card"), b"card")


def test_another_rack_has_another_key(rack: Rack, tmp_path: Path) -> None:
    other = rack_in(tmp_path / "other", TOML)
    assert rack_key(rack).public != rack_key(other).public


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_fingerprint_is_that_of_ssh_keygen(rack: Rack) -> None:
    key = rack_key(rack)
    words = ["ssh-keygen", "-lf", str(rack.keys.path / "_rack/stamp/stamp.pub")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert fingerprint(key.public) in said


def test_nothing_shows_the_private_key(rack: Rack) -> None:
    assert repr(rack_key(rack)) == f"RackKey({fingerprint(rack_key(rack).public)})"


@pytest.mark.parametrize("name", ["stamp", "stamp.pub"])
@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_damaged_file_is_named(rack: Rack, name: str, content: bytes) -> None:
    rack_key(rack)
    path = rack.keys.path / "_rack/stamp" / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=str(path)):
        rack_key(rack)


def test_a_key_of_another_kind_is_damage(rack: Rack) -> None:
    rack_key(rack)
    key = ec.generate_private_key(ec.SECP256R1())
    path = rack.keys.path / "_rack/stamp"
    (path / "stamp").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    with pytest.raises(ConfigurationError, match="stamp: is not an Ed25519 key"):
        rack_key(rack)
    (path / "stamp.pub").write_bytes(
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    )
    assert known_public_key(rack.folder) is None


def test_halves_of_two_pairs_are_refused(rack: Rack, tmp_path: Path) -> None:
    other = rack_in(tmp_path / "other", TOML)
    rack_key(rack), rack_key(other)
    shutil.copy(other.keys.path / "_rack/stamp/stamp.pub", rack.keys.path / "_rack/stamp/stamp.pub")
    with pytest.raises(ConfigurationError, match="does not belong"):
        rack_key(rack)


def test_looking_for_a_key_makes_nothing(tmp_path: Path) -> None:
    assert known_public_key(tmp_path) is None
    assert [*tmp_path.iterdir()] == []
