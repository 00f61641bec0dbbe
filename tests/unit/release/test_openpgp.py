"""Only the pinned key's own, strong, detached signature over every byte is good enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysequoia import Cert, Sig
from pysequoia.packet import PacketPile, Tag

from imager.base.errors import NotAuthentic
from imager.base.units import KiB, MiB
from imager.release.openpgp import (
    fingerprints_in,
    merged,
    parse_certificate,
    parse_signatures,
    verify_detached,
)
from tests.support.signing import (
    GnuPG,
    SigningKey,
    gnupg,
    make_key,
    sign_detached,
    sign_file_detached,
)

DATA = b"release\n" * 40_000
KEY = make_key()
OTHER = make_key("other")


def certificate(key: SigningKey) -> Cert:
    found = parse_certificate(key.certificate, key.fingerprint)
    assert found is not None
    return found


def check(tmp_path: Path, data: bytes, signature: bytes, cert: Cert) -> None:
    file = tmp_path / "release.tar.gz"
    file.write_bytes(data)
    verify_detached(file, parse_signatures(signature, cert, "x.sig"), cert)


@pytest.mark.parametrize("armor", [False, True])
def test_the_pinned_keys_signature_is_accepted(tmp_path: Path, armor: bool) -> None:
    check(tmp_path, DATA, sign_detached(KEY, DATA, armor=armor), certificate(KEY))


@pytest.mark.parametrize("place", [0, len(DATA) // 2, len(DATA) - 1])
def test_one_altered_bit_is_refused(tmp_path: Path, place: int) -> None:
    altered = bytearray(DATA)
    altered[place] ^= 1
    with pytest.raises(NotAuthentic, match="is not what the key") as caught:
        check(tmp_path, bytes(altered), sign_detached(KEY, DATA), certificate(KEY))
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"\0", b""])
def test_a_byte_more_or_less_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(NotAuthentic):
        check(tmp_path, data, sign_detached(KEY, DATA), certificate(KEY))


def test_another_keys_signature_is_refused_by_name(tmp_path: Path) -> None:
    subkeys = {packet.fingerprint for packet in PacketPile.from_bytes(bytes(certificate(OTHER)))}
    with pytest.raises(NotAuthentic, match="not by the pinned one") as caught:
        check(tmp_path, DATA, sign_detached(OTHER, DATA), certificate(KEY))
    assert any(each and each.upper() in caught.value.what for each in subkeys)
    assert KEY.fingerprint in caught.value.hint


def test_the_pinned_keys_signature_counts_beside_a_strangers(tmp_path: Path) -> None:
    both = sign_detached(OTHER, DATA) + sign_detached(KEY, DATA)
    check(tmp_path, DATA, both, certificate(KEY))


def test_a_signature_that_only_claims_the_pinned_key_is_refused(tmp_path: Path) -> None:
    forged = bytearray(sign_detached(KEY, DATA))
    forged[-1] ^= 1
    with pytest.raises(NotAuthentic):
        check(tmp_path, DATA, bytes(forged), certificate(KEY))


@pytest.mark.parametrize("junk", [b"", b"<html>please sign in</html>", KEY.certificate])
def test_what_is_no_signature_is_named_so(junk: bytes) -> None:
    with pytest.raises(NotAuthentic, match="not an OpenPGP signature"):
        parse_signatures(junk, certificate(KEY), "x.sig")


ISSUER, ISSUER_FINGERPRINT = 16, 33
"""Types of the subpackets that name the key (RFC 9580, sections 5.2.3.12 and 5.2.3.35)."""


def without(left_out: tuple[int, ...], data: bytes) -> bytes:
    """The signature ``data``, a short one of version 4, without subpackets of these types."""
    tag, head, hashed = data[:1], data[2:6], data[8 : 8 + data[7]]
    kept, at = b"", 0
    while at < len(hashed):
        end = at + 1 + hashed[at]
        kept += b"" if hashed[at + 1] & 0x7F in left_out else hashed[at:end]
        at = end
    body = head + len(kept).to_bytes(2, "big") + kept + data[8 + len(hashed) :]
    return tag + bytes([len(body)]) + body


@pytest.mark.parametrize(
    "left_out", [(ISSUER,), (ISSUER_FINGERPRINT,), (ISSUER, ISSUER_FINGERPRINT)]
)
def test_who_may_have_signed_is_seen_before_the_download(left_out: tuple[int, ...]) -> None:
    """By the fingerprint, else by the key id; a signature that names nobody is tried."""
    own, strange = (without(left_out, sign_detached(key, DATA)) for key in (KEY, OTHER))
    assert len(parse_signatures(own, certificate(KEY), "x.sig")) == 1
    if len(left_out) == 2:
        assert len(parse_signatures(strange, certificate(KEY), "x.sig")) == 1
        return
    with pytest.raises(NotAuthentic, match="not by the pinned one"):
        parse_signatures(strange, certificate(KEY), "x.sig")


def test_a_fingerprint_counts_more_than_a_key_id() -> None:
    """Two keys can be made to have one key id."""
    strange = sign_detached(OTHER, DATA)
    at = strange.index(bytes([9, ISSUER])) + 2
    own_id = Sig.from_bytes(sign_detached(KEY, DATA)).issuer_key_id
    assert own_id is not None
    forged = strange[:at] + bytes.fromhex(own_id) + strange[at + 8 :]
    assert Sig.from_bytes(forged).issuer_key_id == own_id
    with pytest.raises(NotAuthentic, match="not by the pinned one"):
        parse_signatures(forged, certificate(KEY), "x.sig")


def test_a_signature_of_an_unknown_kind_is_not_over_bytes() -> None:
    signature = sign_detached(KEY, DATA)
    unknown = signature[:3] + b"\x77" + signature[4:]
    with pytest.raises(NotAuthentic, match="over something else than a file's bytes"):
        parse_signatures(unknown, certificate(KEY), "x.sig")


def test_a_revoked_keys_signature_is_refused(tmp_path: Path) -> None:
    fresh = make_key("to be revoked")
    cert = certificate(fresh)
    revocation = bytes(cert.revoke(fresh.secret.certifier()))
    revoked = parse_certificate(bytes(cert) + revocation, fresh.fingerprint)
    assert revoked is not None
    with pytest.raises(NotAuthentic, match="is revoked"):
        check(tmp_path, DATA, sign_detached(fresh, DATA), revoked)
    whole = merged([cert, revoked])
    assert whole is not None
    assert whole.is_revoked, "one source that knows of the revocation is enough"


def test_a_certificate_is_found_in_a_keyring_by_its_primary_key() -> None:
    ring = bytes(certificate(OTHER)) + bytes(certificate(KEY))
    found = parse_certificate(ring, KEY.fingerprint)
    assert found is not None
    assert found.fingerprint.upper() == KEY.fingerprint
    assert parse_certificate(ring, "0" * 40) is None
    assert set(fingerprints_in(ring)) == {KEY.fingerprint, OTHER.fingerprint}


def test_a_subkeys_fingerprint_pins_nothing() -> None:
    packets = PacketPile.from_bytes(bytes(certificate(KEY)))
    subkeys = [packet.fingerprint for packet in packets if packet.tag == Tag.PublicSubkey]
    assert subkeys
    for fingerprint in subkeys:
        assert fingerprint is not None
        assert parse_certificate(KEY.certificate, fingerprint.upper()) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_keys_or_none(data: bytes) -> None:
    assert parse_certificate(data, KEY.fingerprint) is None
    assert isinstance(fingerprints_in(data), tuple)


@given(st.binary(max_size=400))
def test_any_bytes_are_signatures_or_refused(data: bytes) -> None:
    with pytest.raises(NotAuthentic):
        parse_signatures(data, certificate(KEY), "x.sig")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_signature_never_breaks_the_parser(place: int, value: int) -> None:
    damaged = bytearray(SIGNATURE)
    damaged[place % len(damaged)] = value
    try:
        parse_signatures(bytes(damaged), certificate(KEY), "x.sig")
    except NotAuthentic as error:
        assert "\n" not in error.what


SIGNATURE = sign_detached(KEY, DATA)


_PEAK = """
import sys
from pathlib import Path
from pysequoia import Cert
from imager.release.openpgp import parse_signatures, verify_detached
tarball, signature, key = map(Path, sys.argv[1:])
cert = Cert.from_bytes(key.read_bytes())
verify_detached(tarball, parse_signatures(signature.read_bytes(), cert, "x.sig"), cert)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def test_a_large_file_is_verified_in_little_memory(tmp_path: Path) -> None:
    tarball, signature, key = (tmp_path / name for name in ("x.tar.gz", "x.sig", "key.asc"))
    with tarball.open("wb") as file:
        file.truncate(200 * MiB)
    sign_file_detached(KEY, tarball, signature)
    key.write_bytes(KEY.certificate)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, tarball, signature, key],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) * KiB < 100 * MiB


@pytest.fixture(scope="module")
def gpg() -> Iterator[GnuPG]:
    if shutil.which("gpg") is None and "CI" not in os.environ:
        pytest.skip("gpg is not installed")
    with gnupg() as home:
        home("--quick-gen-key", "gpg <g@localhost>", "rsa2048", "sign", "never")
        yield home


def gpg_certificate(gpg: GnuPG) -> Cert:
    data = gpg("--export")
    found = parse_certificate(data, fingerprints_in(data)[0])
    assert found is not None
    return found


def test_gnupgs_signature_by_a_primary_key_is_accepted(tmp_path: Path, gpg: GnuPG) -> None:
    """The way the distribution signs: an RSA primary key that signs data itself."""
    for words in (["--detach-sign"], ["--armor", "--detach-sign"]):
        check(tmp_path, DATA, gpg(*words, stdin=DATA), gpg_certificate(gpg))


@pytest.mark.parametrize("weak", ["SHA1", "MD5", "RIPEMD160"])
def test_a_weak_hash_is_refused_by_name(tmp_path: Path, gpg: GnuPG, weak: str) -> None:
    signature = gpg("--digest-algo", weak, "--detach-sign", stdin=DATA)
    with pytest.raises(NotAuthentic, match=f"hash {weak[:6]}".replace("RIPEMD", "RipeMD")):
        check(tmp_path, DATA, signature, gpg_certificate(gpg))


def test_a_signature_over_text_is_refused(tmp_path: Path, gpg: GnuPG) -> None:
    """It would hold for other bytes too: line endings are not covered."""
    signature = gpg("--textmode", "--detach-sign", stdin=DATA)
    with pytest.raises(NotAuthentic, match="over something else than a file's bytes"):
        check(tmp_path, DATA.replace(b"\n", b"\r\n"), signature, gpg_certificate(gpg))


def test_a_signed_message_is_no_detached_signature(gpg: GnuPG) -> None:
    with pytest.raises(NotAuthentic):
        parse_signatures(gpg("--sign", stdin=DATA), gpg_certificate(gpg), "x.sig")


def test_a_key_expired_since_still_proves_what_it_signed_alive(tmp_path: Path) -> None:
    if shutil.which("gpg") is None and "CI" not in os.environ:
        pytest.skip("gpg is not installed")
    with gnupg() as home:
        home(
            "--faked-system-time", "20200101T000000",
            "--quick-gen-key", "old <o@localhost>", "rsa2048", "sign", "1y",
        )  # fmt: skip
        alive = home("--faked-system-time", "20200601T000000", "--detach-sign", stdin=DATA)
        check(tmp_path, DATA, alive, gpg_certificate(home))


def test_a_key_without_user_ids_is_made_whole_by_another_copy(tmp_path: Path, gpg: GnuPG) -> None:
    """keys.openpgp.org strips them, and an old-style key says only there that it may sign."""
    whole = gpg_certificate(gpg)
    bare = Cert.from_packets([next(iter(PacketPile.from_bytes(bytes(whole))))])
    signature = gpg("--detach-sign", stdin=DATA)
    with pytest.raises(NotAuthentic):
        check(tmp_path, DATA, signature, bare)
    together = merged([bare, whole])
    assert together is not None
    check(tmp_path, DATA, signature, together)
