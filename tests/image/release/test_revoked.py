"""A key that its owner revoked, as the command line meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.signing import make_key, revoked
from tests.support.workplace import TARBALL, workplace

pytestmark = pytest.mark.image


def test_a_key_that_is_named_is_asked_about_what_is_archived(tmp_path: Path) -> None:
    """And what it says is kept: an older copy of it does not help any more."""
    key = make_key()
    (tmp_path / "revoked.asc").write_bytes(revoked(key))
    with workplace(tmp_path, key=key) as place:
        assert place.run("fetch").code == 0
        before = (place.rack / "rack.lock").read_bytes()
        for words in (["--signing-key", "revoked.asc"], []):
            said = place.run("fetch", *words)
            assert said.code == 12, said.err
            assert f"the key {key.fingerprint} is revoked" in said.err
            assert "altered" not in said.err
        assert (place.rack / "rack.lock").read_bytes() == before
        (kept,) = (path.name for path in place.cache.glob("releases/*"))
        assert kept in before.decode(), "what is archived is what it was"
        fresh = place.run("fetch", "--update", "--cache", "another", "--signing-key", "revoked.asc")
        assert fresh.code == 12
        assert f"{TARBALL} cannot be proven: the key {key.fingerprint} is revoked" in fresh.err
