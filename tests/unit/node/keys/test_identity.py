"""Identities are made once, whole or not at all, and private from birth."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder
from imager.config.example import Choices
from imager.config.folder import init_rack
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.node.keys import store as keystore
from imager.node.keys.fingerprints import Fingerprints, fingerprints_of
from imager.node.keys.identity import (
    Identity,
    MasterTrust,
    has_identity,
    identity_at_hand,
    identity_of,
    known_hosts_at_hand,
    ssh_keys_at_hand,
)
from imager.node.keys.salt import fingerprint, salt_pair
from imager.node.keys.store import KeyFile, KeyFolder, folders_of, store_locked


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rack of two nodes with every key made: RSA keys cost more than all else here."""
    folder = tmp_path_factory.mktemp("identity") / "rack"
    mask = os.umask(0)
    try:
        init_rack(folder, Choices(nodes="pi[0-1]", master="pi0"))
        rack = load_rack(folder)
        for node in rack.nodes:
            identity_of(rack, node)
    finally:
        os.umask(mask)
    return folder


@pytest.fixture
def rack(made: Path, tmp_path: Path) -> Rack:
    """A copy of that rack a test may damage."""
    shutil.copytree(made, tmp_path / "rack")
    return load_rack(tmp_path / "rack")


def identity(rack: Rack, name: str = "pi1") -> Identity:
    return identity_of(rack, rack.node(name))


def files_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def test_a_node_keeps_its_identity(rack: Rack) -> None:
    assert identity(rack) == identity(rack)


NUMBERS = {"machine_id": "0" * 31 + "1", "disk_id": 1, "volume_id": 0xFFFFFFFF}


def kept_numbers(rack: Rack, **changed: object) -> Identity:
    """pi1's identity, with other numbers in its file."""
    path = folders_of(rack.keys, "pi1").card.path / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return identity(rack)


def test_numbers_at_the_edge_of_what_may_be(rack: Rack) -> None:
    found = kept_numbers(rack, **NUMBERS).numbers
    assert {name: getattr(found, name) for name in NUMBERS} == NUMBERS
    assert kept_numbers(rack, disk_id=0xFFFFFFFF, volume_id=1).numbers.volume_id == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("machine_id", "0" * 32),  # systemd takes it for none at all
        ("machine_id", "1" * 31),
        ("disk_id", 0),
        ("disk_id", 1 << 32),
        ("volume_id", 0),
        ("volume_id", 1 << 32),
        ("root_uuid", "7"),
    ],
)
def test_numbers_that_no_disk_can_have_are_damage(rack: Rack, name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        kept_numbers(rack, **{name: value})


def test_a_known_hosts_line_has_no_comment(rack: Rack) -> None:
    for key in identity(rack).ssh:
        assert len(key.public.split()) == 3
        assert len(key.line.split()) == 2
        assert key.public.decode().startswith(f"{key.line} ")


def test_the_store_keeps_a_node_in_the_folders_it_hands_out(rack: Rack) -> None:
    own, other = folders_of(rack.keys, "pi0"), folders_of(rack.keys, "pi1")
    kept = {path.parent for path in files_in(rack.keys.path) if path.name != ".lock"}
    folders = {own.card, own.ssh, own.salt, own.master, other.card, other.ssh, other.salt}
    assert kept == {folder.path for folder in folders}
    assert all(folder.is_there for folder in folders)
    assert not other.master.is_there, "only the master has a master's key"
    assert own.card.path / "identity.json" == rack.keys.path / "pi0/card/identity.json"


@pytest.mark.parametrize(
    ("node", "gone", "still"),
    [
        ("pi1", "pi1/card", False),
        ("pi1", "pi1/ssh", False),
        ("pi1", "pi1/salt", False),
        ("pi1", "pi0/master", False),
        ("pi1", "pi0/salt", True),
        ("pi0", "pi1/salt", False),  # its master's card has every node's key
        ("pi0", "pi1/ssh", True),
    ],
)
def test_whether_all_of_an_identity_is_made(rack: Rack, node: str, gone: str, still: bool) -> None:
    assert has_identity(rack, rack.node(node))
    shutil.rmtree(rack.keys.path / gone)
    assert has_identity(rack, rack.node(node)) is still


def test_a_master_that_is_no_node_is_no_part_of_an_identity(rack: Rack) -> None:
    public = (rack.keys.path / "pi0/master/master.pub").read_bytes()
    (rack.folder / "master.pub").write_bytes(public)
    shutil.rmtree(rack.keys.path / "pi0")
    text = '[rack]\nnodes = "pi1"\nmaster = "salt"\n'
    known = '[salt]\nmaster_public_key = "master.pub"\n'
    for toml, key in ((text, None), (text + known, public)):
        (rack.folder / "rack.toml").write_text(toml)
        changed = load_rack(rack.folder)
        assert has_identity(changed, changed.node("pi1"))
        assert identity(changed).master == MasterTrust(key)


def test_keys_at_hand_are_those_that_are_made_and_no_others(rack: Rack) -> None:
    made = identity(rack)
    shutil.rmtree(rack.keys.path / "pi0/ssh")
    assert ssh_keys_at_hand(rack, rack.nodes) == {"pi0": (), "pi1": made.ssh}
    lines = tuple(key.line for key in made.ssh)
    assert known_hosts_at_hand(rack, rack.nodes) == {"pi0": (), "pi1": lines}
    assert not (rack.keys.path / "pi0/ssh").exists()


def test_a_known_hosts_file_needs_no_private_key(rack: Rack) -> None:
    lines = known_hosts_at_hand(rack, rack.nodes)
    for path in rack.keys.path.glob("*/ssh/*_key"):
        path.unlink()
    assert known_hosts_at_hand(rack, rack.nodes) == lines
    (rack.keys.path / "pi1/ssh/ssh_host_rsa_key.pub").write_text("ssh-rsa AAAA root@pi1")
    with pytest.raises(ConfigurationError, match=r"pi1/ssh/ssh_host_rsa_key\.pub: is not an"):
        known_hosts_at_hand(rack, rack.nodes)


def test_an_identity_that_is_made_is_only_looked_at(rack: Rack) -> None:
    """A rack can be shown and planned by who may not write there."""
    made = identity(rack)
    (rack.keys.path / ".lock").unlink()
    rack.keys.path.chmod(0o755)
    assert identity(rack) == made
    assert not (rack.keys.path / ".lock").exists()
    assert rack.keys.path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 AA*AA root@pi1"])
def test_fingerprints_for_people_are_of_what_is_there(rack: Rack, line: str) -> None:
    found, made = fingerprints_of(rack, "pi1"), identity(rack)
    assert found == Fingerprints(made.ssh[0].fingerprint, fingerprint(made.minion.public))
    (rack.keys.path / "pi1/ssh/ssh_host_ed25519_key.pub").write_text(line)
    (rack.keys.path / "pi1/salt/minion.pub").unlink()
    assert fingerprints_of(rack, "pi1") == Fingerprints("", "")


def test_two_nodes_differ_in_everything(rack: Rack) -> None:
    one, other = identity(rack, "pi0"), identity(rack, "pi1")
    assert one.numbers.machine_id != other.numbers.machine_id
    assert one.numbers.disk_id != other.numbers.disk_id
    assert one.numbers.volume_id != other.numbers.volume_id
    assert one.numbers.root_uuid != other.numbers.root_uuid
    assert one.minion.private != other.minion.private
    assert not {key.private for key in one.ssh} & {key.private for key in other.ssh}


def test_numbers_are_what_the_formats_ask_for(rack: Rack) -> None:
    numbers = identity(rack).numbers
    assert uuid.UUID(numbers.machine_id).version == 4
    assert uuid.UUID(numbers.root_uuid).version == 4
    assert 0 < numbers.disk_id < 1 << 32
    assert 0 < numbers.volume_id < 1 << 32


def test_private_files_are_private_whatever_the_umask(made: Path) -> None:
    """The fixture ran under umask 0."""
    for path in files_in(made / ".picloud"):
        private = b"PRIVATE KEY" in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if private else 0o644) or path.name in (
            ".lock",
            ".gitignore",
        )
    for folder in (made / ".picloud", made / ".picloud/keys", made / ".picloud/keys/pi1/ssh"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sum(b"PRIVATE KEY" in path.read_bytes() for path in files_in(made)) == 2 * 4 + 1


def test_git_is_told_to_leave_the_state_alone(made: Path) -> None:
    assert (made / ".picloud/.gitignore").read_text().splitlines()[-1] == "*"


def test_no_value_that_could_be_printed_shows_a_private_key(rack: Rack) -> None:
    shown = f"{identity(rack, 'pi0')!r}"
    for path in files_in(rack.keys.path):
        if b"PRIVATE KEY" in path.read_bytes():
            assert path.read_text().splitlines()[3] not in shown
    assert repr(KeyFile(b"secret", private=True)) == "KeyFile(6 bytes, private=True)"


def test_salt_keys_are_as_salt_writes_them(rack: Rack) -> None:
    pair = identity(rack).minion
    assert pair.private.startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert pair.public.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    for pem in (pair.private, pair.public):
        assert pem.endswith(b"-----\n")
        assert b"\r" not in pem
        assert not pem.endswith(b"\n\n")


def test_openssl_agrees_that_the_salt_pair_is_one(rack: Rack) -> None:
    folder = rack.keys.path / "pi1/salt"
    derived = subprocess.run(
        ["openssl", "rsa", "-in", folder / "minion.pem", "-pubout"],
        capture_output=True,
        check=True,
    )
    assert derived.stdout == (folder / "minion.pub").read_bytes()
    text = subprocess.run(
        ["openssl", "rsa", "-in", folder / "minion.pem", "-text", "-noout"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert "(2048 bit" in text
    assert "publicExponent: 65537" in text


def test_ssh_keygen_agrees_on_every_host_key(rack: Rack, tmp_path: Path) -> None:
    for key in identity(rack).ssh:
        private = tmp_path / key.name
        private.touch(0o600)
        private.write_bytes(key.private)
        said = subprocess.run(
            ["ssh-keygen", "-y", "-f", private], capture_output=True, check=True
        ).stdout
        assert said.split()[:2] == key.public.split()[:2]
        assert key.public.endswith(b" root@pi1\n")
    names = [key.name for key in identity(rack).ssh]
    assert names == ["ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key"]


FINGER_KEY = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAabc
defg
-----END PUBLIC KEY-----"""


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_the_fingerprint_is_over_the_lines_between_begin_and_end(end: str) -> None:
    """Salt's pem_finger of a path: body lines with their line ends, blank lines left out."""
    body = b"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAabc\ndefg\n"
    digest = hashlib.sha256(body).digest()
    assert fingerprint((FINGER_KEY + end).encode()) == digest.hex(":")
    assert fingerprint((FINGER_KEY + end).replace("\n", "\r\n").encode()) == digest.hex(":")


@given(st.binary(max_size=300))
def test_whatever_lies_in_a_master_s_folder_has_a_fingerprint(data: bytes) -> None:
    assert len(fingerprint(data)) == 95
    assert fingerprint(data + b"\r\n") == fingerprint(data)


def test_the_fingerprint_as_a_shell_would_compute_it(rack: Rack) -> None:
    public = rack.keys.path / "pi0/master/master.pub"
    lines = public.read_text().splitlines()[1:-1]
    assert base64.b64decode("".join(lines)), "the body is all there is between the two lines"
    script = "sed '1d;$d' \"$1\" | sha256sum | cut -c1-64"
    said = subprocess.run(
        ["sh", "-c", script, "sh", public], capture_output=True, check=True, text=True
    )
    assert fingerprint(public.read_bytes()).replace(":", "") == said.stdout.strip()


def test_nodes_know_their_master_and_the_master_knows_all_nodes(rack: Rack) -> None:
    master, node = identity(rack, "pi0"), identity(rack, "pi1")
    assert node.master.public == master.master.public is not None
    assert node.master.pair is None
    assert node.master.accepted == ()
    assert master.master.pair is not None
    assert dict(master.master.accepted) == {"pi0": master.minion.public, "pi1": node.minion.public}


DAMAGE = [
    ("pi1/salt/minion.pub", None, "No such file"),
    ("pi1/salt/minion.pem", b"", "is empty"),
    ("pi1/salt/minion.pem", b"rubbish", "is not a PEM private key"),
    ("pi1/ssh/ssh_host_rsa_key", b"rubbish", "is not an OpenSSH private key"),
    ("pi1/ssh/ssh_host_rsa_key.pub", b"ssh-rsa AAAA x\n", "does not belong to ssh_host_rsa_key"),
    ("pi1/card/identity.json", b"{}", "created: is missing"),
    ("pi1/card/identity.json", b"\xff", "not JSON"),
]


@pytest.mark.parametrize(("name", "content", "why"), DAMAGE)
def test_a_damaged_store_is_named_and_never_patched(
    rack: Rack, name: str, content: bytes | None, why: str
) -> None:
    path = rack.keys.path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=why) as caught:
        identity(rack)
    assert str(path) in caught.value.what
    assert str(path.parent) in caught.value.hint
    assert (path.read_bytes() if path.exists() else None) == content


def test_halves_of_two_pairs_are_told_apart(rack: Rack) -> None:
    (rack.keys.path / "pi1/salt/minion.pub").write_bytes(identity(rack, "pi0").minion.public)
    with pytest.raises(ConfigurationError, match=r"does not belong to minion\.pem"):
        identity(rack)


@pytest.mark.parametrize("line", [1, 4, 9, 20])
@pytest.mark.parametrize("name", ["salt/minion.pem", "ssh/ssh_host_rsa_key"])
def test_one_wrong_letter_anywhere_in_a_private_key_is_found(
    rack: Rack, name: str, line: int
) -> None:
    path = rack.keys.path / "pi1" / name
    lines = path.read_text().splitlines()
    lines[line] = lines[line][:9] + ("A" if lines[line][9] != "A" else "B") + lines[line][10:]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigurationError) as caught:
        identity(rack)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("first", [True, False])
def test_a_private_key_of_a_prime_that_is_1_is_damaged(rack: Rack, first: bool) -> None:
    path = rack.keys.path / "pi1/salt/minion.pem"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    own = key.private_numbers()
    n, e = own.public_numbers.n, own.public_numbers.e
    p, q = (1, n) if first else (n, 1)
    path.write_bytes(_pem(0, n, e, own.d, p, q, own.dmp1, own.dmq1, own.iqmp))
    with pytest.raises(ConfigurationError, match="numbers do not fit together") as caught:
        identity(rack)
    assert str(path) in caught.value.what


def _pem(*numbers: int) -> bytes:
    """A private RSA key of these numbers, which no program would make (RFC 8017, A.1.2)."""
    body = b"".join(_der(2, each.to_bytes(each.bit_length() // 8 + 1, "big")) for each in numbers)
    text = base64.encodebytes(_der(0x30, body))
    kind = b"RSA PRIVATE KEY-----\n"
    return b"-----BEGIN " + kind + text + b"-----END " + kind


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    long = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, *([length] if length < 128 else [128 + len(long), *long])]) + content


def test_a_store_reached_through_a_symlink_in_place_of_a_key_is_refused(
    rack: Rack, tmp_path: Path
) -> None:
    path = rack.keys.path / "pi1/salt/minion.pem"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        identity(rack)


def test_keys_are_made_where_git_does_not_look(rack: Rack) -> None:
    shutil.rmtree(rack.state.path)
    identity(rack)
    assert (rack.state.path / ".gitignore").read_text().endswith("\n*\n")
    assert stat.S_IMODE(rack.state.path.stat().st_mode) == 0o700


def test_a_new_node_gets_no_numbers_while_those_of_another_cannot_be_read(rack: Rack) -> None:
    damaged = rack.keys.path / "pi1/card/identity.json"
    damaged.write_text("{}")
    shutil.rmtree(rack.keys.path / "pi0/card")
    with pytest.raises(ConfigurationError, match="is missing") as caught:
        identity(rack, "pi0")
    assert str(damaged) in caught.value.what
    assert not (rack.keys.path / "pi0/card").exists()


def test_disk_ids_do_not_repeat_within_a_rack(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = identity(rack, "pi0").numbers.disk_id
    shutil.rmtree(rack.keys.path / "pi1/card")
    offered = iter([0, taken, 0xFFFFFFFF, 7, 8])
    monkeypatch.setattr("secrets.randbits", lambda bits: next(offered))
    assert identity(rack).numbers.disk_id == 7


def test_what_a_killed_run_left_is_mended_before_anything_else(rack: Rack) -> None:
    before, home = identity(rack).minion, rack.keys.path / "pi1"
    (home / "salt").rename(home / "salt.old")
    (home / ".new-salt-12345678").mkdir()
    shutil.copytree(home / "ssh", home / "ssh.old")
    with store_locked(rack.keys):
        assert sorted(path.name for path in home.iterdir()) == ["card", "salt", "ssh", "ssh.old"]
    assert identity(rack).minion == before


def test_whoever_only_looks_mends_nothing(rack: Rack) -> None:
    before, home = identity(rack), rack.keys.path / "pi1"
    (home / "salt").rename(home / "salt.old")
    (home / ".new-salt-12345678").mkdir()
    assert identity_at_hand(rack, rack.node("pi1")) == before
    assert sorted(path.name for path in home.iterdir()) == [
        *(".new-salt-12345678", "card", "salt.old", "ssh")
    ]
    shutil.rmtree(home / "card")
    assert identity_at_hand(rack, rack.node("pi1")) is None


def test_a_folder_that_cannot_be_filled_is_not_there(tmp_path: Path) -> None:
    keys = TrustedFolder(tmp_path / "keys")
    files = {"good": KeyFile(b"1", private=True), "no/name": KeyFile(b"2", private=True)}
    with store_locked(keys), pytest.raises(ValueError, match="no/name"):
        KeyFolder(keys / "pi7" / "salt").kept(("good",), lambda: files)
    assert [*(tmp_path / "keys/pi7").iterdir()] == []


def test_two_runs_at_once_get_the_same_identity(tmp_path: Path) -> None:
    calls: list[str] = []
    found: list[dict[str, bytes]] = []

    def make() -> dict[str, KeyFile]:
        calls.append("made")
        return {"key": KeyFile(os.urandom(8), private=True)}

    def run() -> None:
        with store_locked(TrustedFolder(tmp_path / "keys")):
            found.append(
                KeyFolder(TrustedFolder(tmp_path) / "keys" / "pi7" / "salt").kept(("key",), make)
            )

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["made"]
    assert all(one == found[0] for one in found)


KILLED = """
import os, signal, sys
from pathlib import Path
from imager.base.trusted_folder import TrustedFolder
from imager.node.keys import store as keystore
from imager.node.keys.salt import salt_pair
real = TrustedFolder.write
def half(*words, **rest):
    real(*words, **rest)
    os.kill(os.getpid(), signal.SIGKILL)
TrustedFolder.write = half
keys = TrustedFolder(Path(sys.argv[1]))
with keystore.store_locked(keys):
    salt_pair(keystore.folders_of(keys, "pi7").salt, "minion")
"""


def test_a_run_killed_between_the_two_halves_leaves_no_pair(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    root = Path(keystore.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", KILLED, keys], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(keys.rglob("minion.pem")), "the kill came after the first half was written"
    assert not (keys / "pi7/salt").exists()
    with store_locked(TrustedFolder(keys)):
        assert not list(keys.rglob("minion.pem")), "what was half made is swept away"
        pair = salt_pair(folders_of(TrustedFolder(keys), "pi7").salt, "minion")
        assert pair == salt_pair(folders_of(TrustedFolder(keys), "pi7").salt, "minion")
