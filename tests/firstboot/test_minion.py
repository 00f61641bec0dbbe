"""What a minion's unit runs: Salt is imported while there is no network, and what it need not have
done before it first answers is done later."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.support.netns import LIVE_WIRE, network

ROLE = Path("overlays/role/salt-minion/root/usr/lib/picloud").resolve()
SALT = {
    "engines": "def start_engines(opts, which): print(which)\n",
    "minion": "import salt.engines\nclass Minion:\n    def tune_in(self): pass\n",
    "scripts": "import sys\ndef salt_minion(): print('started', sys.argv[1:])\n",
    "transport/tcp": "",
    "transport/zeromq": "",
    "fileclient": "print('fileclient ran', flush=True)\nthing = 7\n",
    "utils/http": "print('http ran', flush=True)\n",
    "utils/templates": "",
    "master": "",
}
"""As much of Salt as is needed: modules and what is in them."""


def minion(folder: Path, salt: Mapping[str, str], **instead: str) -> Path:
    """What the unit runs; its Salt is ``SALT`` with other modules for some. ``instead`` are values
    of what the script names in capital letters."""
    for name, text in {**SALT, **salt}.items():
        module = folder / "salt" / "salt" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text)
    text = (ROLE / "salt-minion").read_text()
    text = text.replace("/opt/picloud/salt", os.fspath(folder / "salt"))
    text = text.replace("/usr/lib/picloud/await-address", os.fspath(ROLE / "await-address"))
    for name, value in instead.items():
        before, named, after = text.partition(f"\n{name} = ")
        assert named
        text = f"{before}{named}{value}\n{after.partition(chr(10))[2]}"
    script = folder / "salt-minion"
    script.write_text(text)
    return script


def said(folder: Path, salt: Mapping[str, str], **instead: str) -> list[str]:
    """What that minion prints on a node that has its address."""
    script = minion(folder, salt, **instead)
    script.write_text(script.read_text().replace(os.fspath(ROLE / "await-address"), "true"))
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")
def test_a_minion_imports_salt_while_its_network_comes_up(tmp_path: Path) -> None:
    imported = {"minion": f"{SALT['minion']}print('imported', flush=True)\n"}
    words = (sys.executable, minion(tmp_path, imported), "--an-option")
    wire = LIVE_WIRE.replace("ip address add", ": not yet")
    with (
        network(wire) as entering,
        subprocess.Popen([*entering, *words], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
        with pytest.raises(subprocess.TimeoutExpired):  # it has no address yet
            process.wait(0.3)
        add = ("ip", "address", "add", "10.0.0.17/24", "dev", "eth0")
        subprocess.run([*entering, *add], check=True)
        assert process.stdout.read() == "started ['--an-option']\n"
    assert process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")
def test_a_salt_with_a_python_of_its_own_is_run_by_its_command(tmp_path: Path) -> None:
    script = minion(tmp_path, {"minion": "raise ImportError\n"})
    own = tmp_path / "bin" / "salt-minion"
    own.parent.mkdir()
    own.write_text('#!/bin/sh\necho "$0 $*"\n')
    own.chmod(0o755)
    with network(LIVE_WIRE) as entering:
        done = subprocess.run(
            [*entering, sys.executable, script, "--an-option"],
            env={"PATH": f"{own.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == f"{own} --an-option\n"


def test_a_salt_that_only_its_unit_knows_is_run_as_that_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    own = tmp_path / "its bin" / "salt-minion"
    own.parent.mkdir()
    own.write_text('#!/bin/sh\necho "$*"\n')
    own.chmod(0o755)
    unit = tmp_path / "salt-minion.service"
    words = f"-{own.parent.parent}/'its bin'/salt-minion \\\n    -c /etc/salt $OPTIONS"
    unit.write_text(f"[Service]\nExecStartPre=/bin/true\nExecStart = {words}\n")
    other = tmp_path / "other.service"
    other.write_bytes(b"# \xff\nExecStart=/bin/'false\n")
    units = repr(["/nowhere", os.fspath(other), os.fspath(unit)])
    salt = {"minion": "raise ImportError\n"}
    assert said(tmp_path, salt, UNITS=units, OWN_PYTHON="'/nowhere'") == ["-c /etc/salt"]


def test_a_salt_that_is_not_as_todays_starts_all_the_same(tmp_path: Path) -> None:
    salt = {"minion": "import salt.engines\nclass Minion: pass\n", "engines": ""}
    assert said(tmp_path, salt) == ["started []"]
    loopless = "import salt.minion\ndef salt_minion(): print(salt.minion.Minion().tune_in())\n"
    tunes = "import salt.engines\nclass Minion:\n    def tune_in(self): return 'tuned'\n"
    assert said(tmp_path, {"minion": tunes, "scripts": loopless}) == ["tuned"]
    engines = "import salt.engines\ndef salt_minion(): salt.engines.start_engines(7, 'them')\n"
    assert said(tmp_path, {"scripts": engines, "engines": SALT["engines"]}) == ["them"]


def test_what_only_orders_need_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    use = "import salt.fileclient, salt.utils.http\n"
    scripts = (
        f"{use}def salt_minion():\n"
        "    print('started', flush=True)\n"
        "    print(salt.fileclient.thing, salt.fileclient.thing)\n"
        "    print(hasattr(salt.fileclient, 'other'), salt.fileclient.__loader__.name)\n"
    )
    lines = said(tmp_path, {"minion": use + SALT["minion"], "scripts": scripts})
    assert lines == ["started", "fileclient ran", "7 7", "False salt.fileclient"]


def test_the_rest_is_imported_once_it_has_answered(tmp_path: Path) -> None:
    scripts = (
        "import asyncio, salt.minion\n"
        "def salt_minion():\n"
        "    minion = salt.minion.Minion()\n"
        "    minion.io_loop = asyncio.new_event_loop()\n"
        "    minion.tune_in()\n"
        "    print('answers', flush=True)\n"
        "    minion.io_loop.run_until_complete(asyncio.sleep(0.1))\n"
    )
    salt = {"minion": "import salt.fileclient\n" + SALT["minion"], "scripts": scripts}
    names = "('salt.fileclient', 'salt.utils.http')"
    lines = said(tmp_path, salt, LATER=names, LATER_S="-1")
    assert lines == ["answers", "fileclient ran", "http ran"]


def test_certificates_are_read_when_a_connection_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(authority(tmp_path)))
    scripts = (
        "import ssl, salt.minion\n"
        "def salt_minion():\n"
        "    mine = salt.minion.context\n"
        "    print(mine.cert_store_stats()['x509_ca'], mine.verify_mode.name)\n"
        "    mine.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='pi0')\n"
        "    print([name for name in mine.get_ca_certs()[0]['subject'][0]])\n"
        "    print(type(mine) is ssl.SSLContext)\n"
        "    print(ssl.create_default_context().cert_store_stats()['x509_ca'])\n"
    )
    made = "import ssl\ncontext = ssl.create_default_context()\n"
    lines = said(tmp_path, {"minion": made + SALT["minion"], "scripts": scripts})
    assert lines == ["0 CERT_REQUIRED", "[('commonName', 'authority')]", "True", "1"]


def authority(folder: Path) -> Path:
    """A file with the certificate of nobody in particular."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now, now + timedelta(days=1)
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    file = folder / "authority.pem"
    made = builder.sign(key, hashes.SHA256())
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture(scope="module")
def numbers() -> rsa.RSAPrivateNumbers:
    return rsa.generate_private_key(65537, 2048).private_numbers()


READ_KEYS = """
from cryptography.hazmat.primitives import serialization
def salt_minion():
    for name in FILES:
        pem = open(name, "rb").read()
        try:
            first, second = (serialization.load_pem_private_key(pem, None) for _ in range(2))
        except ValueError:
            print("bad")
        else:
            print("once" if first is second else "twice", first.key_size)
"""


def pem_of(numbers: rsa.RSAPrivateNumbers) -> bytes:
    """That key as a file of Salt's."""
    return numbers.private_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def test_the_node_s_key_is_read_once_and_any_other_as_salt_does(
    tmp_path: Path, numbers: rsa.RSAPrivateNumbers
) -> None:
    own, other = tmp_path / "minion.pem", tmp_path / "other.pem"
    own.write_bytes(pem_of(numbers))
    other.write_bytes(pem_of(rsa.generate_private_key(65537, 1024).private_numbers()))
    scripts = f"FILES = {[os.fspath(own), os.fspath(other)]}\n{READ_KEYS}"
    assert said(tmp_path, {"scripts": scripts}, OWN_KEY=repr(os.fspath(own))) == [
        "once 2048",
        "twice 1024",
    ]


@pytest.mark.parametrize("number", ["", "p", "d", "dmp1", "dmq1", "iqmp"])
def test_one_wrong_bit_in_any_number_of_a_key_is_seen(
    numbers: rsa.RSAPrivateNumbers, number: str
) -> None:
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp", "public_numbers")
    key = SimpleNamespace(**{name: getattr(numbers, name) for name in names})
    if number:
        setattr(key, number, getattr(key, number) ^ 1 << 100)
    is_whole = runpy.run_path(os.fspath(ROLE / "salt-minion"))["is_whole"]
    assert is_whole(key) is not bool(number)
    key.p, key.q = 1, numbers.public_numbers.n
    assert not is_whole(key)


def test_a_key_that_a_bad_card_changed_is_refused_as_by_salt(
    tmp_path: Path, numbers: rsa.RSAPrivateNumbers
) -> None:
    own = tmp_path / "minion.pem"
    begin, *lines, end = pem_of(numbers).splitlines()
    # One exponent in 256 has a byte less, and DER (X.690, 8.3) keeps no zeros before a number.
    secret = numbers.d.to_bytes((numbers.d.bit_length() + 7) // 8, "big")
    whole = b64decode(b"".join(lines))
    changed = whole.replace(secret, secret[:-1] + bytes([secret[-1] ^ 2]))
    assert changed != whole
    own.write_bytes(b"\n".join((begin, b64encode(changed), end, b"")))
    scripts = f"FILES = {[os.fspath(own)]}\n{READ_KEYS}"
    assert said(tmp_path, {"scripts": scripts}, OWN_KEY=repr(os.fspath(own))) == ["bad"]


def test_a_key_of_no_known_kind_is_left_to_salt(
    tmp_path: Path, numbers: rsa.RSAPrivateNumbers
) -> None:
    """One bit of its kind's number is another."""
    own = tmp_path / "minion.pem"
    whole = numbers.private_key().private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    rsa_kind = bytes.fromhex("2a864886f70d010101")
    assert whole.count(rsa_kind) == 1
    changed = b64encode(whole.replace(rsa_kind, rsa_kind[:-1] + b"\x41"))
    own.write_bytes(b"-----BEGIN PRIVATE KEY-----\n%b\n-----END PRIVATE KEY-----\n" % changed)
    assert said(tmp_path, {}, OWN_KEY=repr(os.fspath(own))) == ["started []"]


def test_engines_are_started_where_there_are_any(tmp_path: Path) -> None:
    scripts = (
        "import salt.minion\n"
        "def salt_minion():\n"
        "    salt.engines.start_engines({}, 'of none')\n"
        "    salt.engines.start_engines({'engines': []}, 'of none')\n"
        "    salt.engines.start_engines({'engines': [{'mine': {}}]}, 'of one')\n"
    )
    assert said(tmp_path, {"scripts": scripts}) == ["of one"]
