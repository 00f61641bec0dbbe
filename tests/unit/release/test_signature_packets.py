"""A file of signatures is taken apart by the lengths in it, and by nothing else."""

from __future__ import annotations

import base64

import pytest

from imager.release.signature_packets import signature_packets
from tests.support.signing import make_key, sign_detached

OLD, NEW = 0x88, 0xC2


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (bytes([NEW, 0]), 0),
        (bytes([NEW, 191]), 191),
        (bytes([NEW, 192, 0]), 192),
        (bytes([NEW, 223, 255]), 8383),
        (bytes([NEW, 255, 0, 1, 0, 2]), 65538),
        (bytes([OLD, 255]), 255),
        (bytes([OLD | 1, 1, 2]), 258),
        (bytes([OLD | 2, 0, 1, 0, 2]), 65538),
    ],
)
def test_every_way_to_say_a_length(header: bytes, length: int) -> None:
    whole = header + b"\x88" * length
    assert signature_packets(whole) == (whole,)
    assert signature_packets(whole * 3) == (whole,) * 3
    for cut in (whole[:-1], header[:1]):
        with pytest.raises(ValueError, match="cut short"):
            signature_packets(cut)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing"),
        (b"hello", "no packet"),
        (b"-----BEGIN PGP SIGNATURE-----\n\nwgA=\n", "armour without an end"),
        (bytes([NEW, 192]), "a packet in parts"),
        (bytes([NEW, 1, 0, 0x7F, 0]), "no packet"),
        (bytes([0xC8, 1, 0]), "a packet of kind 8"),
        (bytes([0xA3, 0]), "a packet of kind 8"),
        (bytes([NEW, 1, 0, 0xCA, 0]), "a packet of kind 10"),
        (bytes([NEW, 224, 0]), "a packet in parts"),
        (bytes([NEW, 254, 0]), "a packet in parts"),
        (bytes([OLD | 3, 0]), "a packet without a length"),
    ],
)
def test_what_holds_anything_else(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        signature_packets(data)


def test_of_very_many_the_first_are_given() -> None:
    """Each one may mean another reading of all that was signed."""
    assert len(signature_packets(bytes([NEW, 0]) * 15)) == 15
    assert len(signature_packets(bytes([NEW, 0]) * 100_000)) == 16


def test_armour() -> None:
    key = make_key()
    armoured = sign_detached(key, b"x", armor=True)
    (one,) = signature_packets(armoured)
    lines = armoured.splitlines()
    text = base64.b64encode(one)
    for other in (
        b"\r\n".join(lines),
        b"\xef\xbb\xbftext\n" + armoured + b"more\n" + armoured,
        b"\n".join([lines[0], b"Version: GnuPG v2", b"Comment: a: b", b"", text, lines[-1]]),
        b"\n".join([lines[0], b"", text[:40], text[40:], b"=AAAA", lines[-1]]),
    ):
        assert signature_packets(other) == (one,)
    for other in (
        b"\n".join(lines[:-1]),
        b"\n".join(lines[1:]),
        b"\n".join([lines[0], b"", text[:-1] + b"!", lines[-1]]),
        b"\n".join([lines[0], b"", lines[-1]]),
    ):
        with pytest.raises(ValueError, match=r".*"):
            signature_packets(other)
