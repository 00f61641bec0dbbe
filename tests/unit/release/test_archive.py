"""An archived release is there whole or not at all, and what is damaged is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.progress import Quiet
from imager.release import archive, content_store
from imager.release.archive import (
    Archive,
    ArchivedTarball,
    DamagedEntry,
    TarballRecord,
    encode_record,
    parse_record,
    prove,
    verified,
)
from tests.support.syncing import fsyncs

DATA = b"tarball" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
KEY, OTHER = "AB" * 20, "CD" * 20


def record(fetched_at: str = "2026-11-02T10:00:00+00:00", data: bytes = DATA) -> TarballRecord:
    return TarballRecord(
        name="stand-in",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        fingerprint=KEY,
        url="http://geo/x.tar.gz",
        source_url="http://mirror/x.tar.gz",
        fetched_at=fetched_at,
        last_modified=None,
        etag='"v1"',
    )


def publish(
    cache: Cache, tmp_path: Path, known: TarballRecord, data: bytes = DATA
) -> ArchivedTarball:
    tarball = tmp_path / "partial"
    tarball.write_bytes(data)
    return Archive(cache).publish(tarball, b"signature", known)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_published_release_is_found_with_all_that_is_known(cache: Cache, tmp_path: Path) -> None:
    entry = publish(cache, tmp_path, record())
    assert entry.folder == cache.releases / SHA256
    assert Archive(cache).find(SHA256) == entry
    assert entry.tarball.read_bytes() == DATA
    assert entry.tarball.stat().st_mode & 0o777 == 0o444
    assert entry.signature.read_bytes() == b"signature"
    assert not (tmp_path / "partial").exists()
    assert [path.name for path in cache.releases.iterdir()] == [SHA256]


@pytest.mark.parametrize("signer", [KEY, OTHER])
def test_of_two_runs_at_once_each_has_its_entry(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: str
) -> None:
    """A fetch and an ``archive import``, which wait for each other's locks nowhere."""
    really = content_store.placed
    theirs = tmp_path / "theirs"
    theirs.mkdir()

    @contextmanager
    def placed(cache: Cache, folder: Path) -> Iterator[Path]:
        with really(cache, folder) as staged:
            yield staged
            monkeypatch.undo()
            publish(cache, theirs, replace(record(), fingerprint=signer))

    monkeypatch.setattr(archive, "placed", placed)
    entry = publish(cache, tmp_path, record())
    assert entry == Archive(cache).find(SHA256, KEY)
    assert Archive(cache).find(SHA256, signer) is not None
    assert entry.tarball.read_bytes() == DATA
    assert [path.name for path in cache.releases.iterdir()] == [SHA256]


def test_the_names_of_an_entry_are_durable_before_it_is_one(cache: Cache, tmp_path: Path) -> None:
    with fsyncs() as done:
        entry = publish(cache, tmp_path, record())
    paths = [sync.path for sync in done]
    assert paths[-1] == cache.releases
    assert paths[-2].is_relative_to(cache.work), "its folder, under the name it had until then"
    files = {sync.path.name.strip(".").split(".tmp")[0] for sync in done[:-2]}
    assert any(entry.signature.name in name for name in files), files


def test_an_unknown_hash_is_not_found(cache: Cache) -> None:
    assert Archive(cache).find(SHA256) is None
    assert Archive(cache).of_name("stand-in", KEY) == ()


def test_publishing_twice_keeps_the_first(cache: Cache, tmp_path: Path) -> None:
    first = publish(cache, tmp_path, record())
    again = publish(cache, tmp_path, record("2027-01-01T00:00:00+00:00"))
    assert again == first


def test_the_same_bytes_by_two_keys_are_kept_with_both_signatures(
    cache: Cache, tmp_path: Path
) -> None:
    first, archive = publish(cache, tmp_path, record()), Archive(cache)
    assert archive.find(SHA256, OTHER) is None
    tarball = tmp_path / "partial"
    tarball.write_bytes(DATA)
    other = replace(record(), fingerprint=OTHER)
    second = archive.publish(tarball, b"another", other)
    assert archive.find(SHA256) == archive.find(SHA256, KEY) == first
    assert archive.find(SHA256, OTHER) == second
    assert (second.record, second.tarball) == (other, first.tarball)
    assert [entry.signature.read_bytes() for entry in (first, second)] == [b"signature", b"another"]
    for key, entry in ((KEY, first), (OTHER, second)):
        assert archive.of_name("stand-in", key) == (entry,)
        assert archive.publish(tarball, b"again", replace(record(), fingerprint=key)) == entry
    second.signature.unlink()
    assert archive.find(SHA256, KEY) == first
    with pytest.raises(DamagedEntry, match=rf"{OTHER}\.sig is damaged: the file is gone"):
        archive.find(SHA256, OTHER)


def test_the_newest_of_a_name_comes_first_and_only_of_that_key(
    cache: Cache, tmp_path: Path
) -> None:
    publish(cache, tmp_path, record("2026-12-01T00:00:00+00:00", b"new"), b"new")
    publish(cache, tmp_path, record())
    found = Archive(cache).of_name("stand-in", KEY)
    assert [entry.tarball.read_bytes() for entry in found] == [b"new", DATA]
    assert Archive(cache).of_name("stand-in", "CD" * 20) == ()
    assert Archive(cache).of_name("other", KEY) == ()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("release.tar.gz", DATA[:-1], "6999 bytes instead of 7000"),
        ("release.tar.gz", DATA + b"!", "7001 bytes instead of 7000"),
        ("release.tar.gz", None, "the file is gone"),
        ("release.tar.gz.sig", None, "the file is gone"),
        ("release.json", None, "the file is gone"),
        ("release.json", b'{"name": "stand-in"', "release.json is damaged"),
        ("release.json", b"[1]", "not a JSON object"),
    ],
)
def test_a_damaged_entry_is_named_with_its_file(
    cache: Cache, tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    entry = publish(cache, tmp_path, record())
    path = entry.folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedEntry, match=why) as caught:
        Archive(cache).find(SHA256)
    assert str(path) in caught.value.what
    assert caught.value.exit_code == 12
    assert Archive(cache).of_name("stand-in", KEY) == (), "a search passes it by"


def test_a_record_of_another_release_is_damage(cache: Cache, tmp_path: Path) -> None:
    entry = publish(cache, tmp_path, record())
    text = json.loads((entry.folder / "release.json").read_text())
    (entry.folder / "release.json").write_text(json.dumps(text | {"sha256": "0" * 64}))
    with pytest.raises(DamagedEntry, match="it speaks of 000000000000"):
        Archive(cache).find(SHA256)


def test_publishing_over_a_damaged_entry_keeps_both(cache: Cache, tmp_path: Path) -> None:
    for number in (1, 2):
        entry = publish(cache, tmp_path, record())
        entry.tarball.unlink()
        assert publish(cache, tmp_path, record()).tarball.read_bytes() == DATA
        assert (cache.releases / f"{SHA256}.damaged-{number}").is_dir()


def test_prove_reads_every_byte(cache: Cache, tmp_path: Path) -> None:
    release = verified(publish(cache, tmp_path, record()), "stand-in", ("pi2",))
    prove(release, cache, Quiet())
    release.tarball.chmod(0o644)
    release.tarball.write_bytes(DATA[:-1] + b"!")
    assert Archive(cache).find(SHA256) is not None, "the cheap check cannot see it"
    with pytest.raises(NotAuthentic, match="was altered since") as caught:
        prove(release, cache, Quiet())
    assert str(release.tarball) in caught.value.what
    assert Archive(cache).find(SHA256) is None, "so the next fetch brings it anew"


def test_a_record_is_text_with_a_line_for_each_field() -> None:
    lines = encode_record(record()).decode().split("\n")
    assert lines[:2] == ["{", '  "name": "stand-in",']
    assert lines[-2:] == ["}", ""]
    assert len(lines) == len(TarballRecord.__slots__) + 3


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="replace")))
def test_any_bytes_are_a_record_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        parse_record(data)


values = st.none() | st.integers() | st.text(max_size=5) | st.booleans() | st.lists(st.none())


@given(st.dictionaries(st.sampled_from(list(TarballRecord.__slots__)), values))
def test_any_fields_are_a_record_or_a_value_error(fields: dict[str, object]) -> None:
    with suppress(ValueError):
        found = parse_record(json.dumps(fields).encode())
        assert isinstance(found.size_bytes, int)
        assert isinstance(found.name, str)
