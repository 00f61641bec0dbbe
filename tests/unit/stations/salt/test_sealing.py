"""A secret is read by the station it was sealed to, and by nobody else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from imager.stations.salt.sealing import NotSealed, own_key, public_of, seal, unseal

SECRET = b"a private key" * 100


def test_only_the_owner_of_the_key_opens_it() -> None:
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = seal(public_of(own), SECRET)
    assert unseal(own, sealed) == SECRET
    assert SECRET[:13] not in sealed
    assert seal(public_of(own), SECRET) != sealed, "each time with another key"
    with pytest.raises(NotSealed):
        unseal(other, sealed)


@pytest.mark.parametrize("at", [0, 40, -1])
def test_what_was_altered_or_cut_is_not_opened(at: int) -> None:
    own = X25519PrivateKey.generate()
    sealed = bytearray(seal(public_of(own), SECRET))
    sealed[at] ^= 1
    for damaged in (bytes(sealed), bytes(sealed[:40]), b""):
        with pytest.raises(NotSealed):
            unseal(own, damaged)


def test_no_key_that_makes_every_secret_the_same_is_sealed_to() -> None:
    for public in (bytes(32), b"short"):
        with pytest.raises(ValueError, match=r".*"):
            seal(public, SECRET)


def test_a_station_keeps_its_key_for_itself(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = own_key(folder)
    assert public_of(own_key(folder)) == public_of(first)
    assert [path.name for path in folder.iterdir()] == ["station.key"]
    assert stat.S_IMODE((folder / "station.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
