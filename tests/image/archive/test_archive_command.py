"""``archive`` as a person meets it: out of one computer, into another, and what is in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.image.archive.conftest import Exported
from tests.support.workplace import Workplace

pytestmark = pytest.mark.image


@pytest.fixture
def elsewhere(exported: Exported, tmp_path: Path) -> Workplace:
    """Another computer: the rack as it is in git, but for rack.lock; nothing fetched, no key."""
    shutil.copytree(
        exported.place.rack, tmp_path / "rack", ignore=shutil.ignore_patterns("rack.lock")
    )
    environment = {
        name: value.replace(str(exported.place.folder), str(tmp_path))
        for name, value in exported.place.environment.items()
        if name != "PICLOUD_SIGNING_KEY"
    }
    return replace(exported.place, folder=tmp_path, environment=environment)


@pytest.mark.long(minutes=1)
def test_an_empty_computer_makes_the_same_image(exported: Exported, elsewhere: Workplace) -> None:
    looked = elsewhere.json("archive", "import", exported.file, "--offline", "--dry-run")
    assert looked.code == 0, looked.err
    assert not elsewhere.cache.exists()
    assert not (elsewhere.rack / "rack.lock").exists()
    nobody = elsewhere.run("archive", "import", exported.file, "--offline")
    assert nobody.code == 2
    assert "say --yes" in nobody.err
    assert not (elsewhere.rack / "rack.lock").exists()

    said = elsewhere.json("archive", "import", exported.file, "--offline", "--yes")
    assert said.code == 0, said.err
    assert said.result["taken"] == looked.result["taken"]
    ours, theirs = ((p.rack / "rack.lock").read_bytes() for p in (exported.place, elsewhere))
    assert ours == theirs
    composed = elsewhere.json("compose", "--offline")
    assert composed.code == 0, composed.err
    assert composed.result["key"] == exported.golden_key
    assert Path(composed.result["image"]).read_bytes() == exported.golden.read_bytes()

    again = elsewhere.json("archive", "import", exported.file, "--offline")
    assert again.code == 0, again.err
    assert (again.result["taken"], again.result["differences"]) == ([], [])
    back = elsewhere.json("archive", "export", "back.tar", "--offline")
    assert back.code == 0, back.err
    assert (elsewhere.folder / "back.tar").read_bytes() == exported.file.read_bytes()
    assert back.result["sha256"] == hashlib.sha256(exported.file.read_bytes()).hexdigest()


def test_common_programs_read_it(exported: Exported, tmp_path: Path) -> None:
    subprocess.run(["tar", "xf", exported.file], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)
    with tarfile.open(exported.file) as tar:
        assert {(m.uid, m.gid, m.mtime, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
        names = tar.getnames()
    assert names[:2] == ["SHA256SUMS", "rack.lock"]
    assert names[2] == f"keys/{exported.key.fingerprint}.asc"


def test_an_existing_file_is_replaced_only_when_told(exported: Exported, tmp_path: Path) -> None:
    place, file = exported.place, tmp_path / "rack.tar"
    file.write_bytes(b"mine")
    refused = place.run("archive", "export", file)
    assert refused.code == 20
    assert "say --replace" in refused.err
    assert file.read_bytes() == b"mine"
    assert place.run("archive", "export", file, "--replace", "--dry-run").code == 0
    assert file.read_bytes() == b"mine"
    assert place.run("archive", "export", file, "--replace").code == 0
    assert file.read_bytes() == exported.file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["rack.tar"]


def test_what_is_missing_or_altered_is_named_and_nothing_written(
    exported: Exported, tmp_path: Path
) -> None:
    place = exported.place
    (salt,) = place.cache.glob("packages/*/salt-*")
    data = salt.read_bytes()
    folder = salt.parent
    aside = folder.rename(tmp_path / "aside")
    try:
        missing = place.run("archive", "export", tmp_path / "x.tar", "--offline")
        assert missing.code == 11
        assert "salt 3008.3, which" in missing.err
    finally:
        aside.rename(folder)
    for code, spoilt in ((12, data[:-1]), (12, data[:-1] + bytes([data[-1] ^ 1]))):
        salt.chmod(0o644)
        salt.write_bytes(spoilt)
        try:
            altered = place.run("archive", "export", tmp_path / "x.tar", "--offline")
        finally:
            salt.write_bytes(data)
        assert altered.code == code, altered.err
        assert "salt" in altered.err
    signature = next(iter(place.cache.glob("packages/*/python-*.sig")))
    kept = signature.read_bytes()
    signature.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        unsigned = place.run("archive", "export", tmp_path / "x.tar", "--offline")
    finally:
        signature.write_bytes(kept)
    assert unsigned.code == 12, unsigned.err
    assert not list(tmp_path.iterdir())


def test_a_rack_that_wants_what_is_not_locked_is_not_exported(
    exported: Exported, tmp_path: Path
) -> None:
    toml = exported.place.rack / "rack.toml"
    kept = toml.read_text()
    toml.write_text(kept.replace("\n[packages]\n", '\n[packages]\ninstall = ["htop"]\n'))
    try:
        said = exported.place.run("archive", "export", tmp_path / "x.tar", "--offline")
    finally:
        toml.write_text(kept)
    assert said.code == 11, said.err
    assert "does not say yet which packages" in said.err


def test_the_list_says_what_is_there_and_who_pins_it(
    exported: Exported, elsewhere: Workplace
) -> None:
    place = exported.place
    listed = place.json("archive", "list", elsewhere.rack).result
    assert {entry["kind"] for entry in listed["entries"]} == {"release", "pacman", "pypi"}
    assert all(entry["racks"] == [str(place.rack)] for entry in listed["entries"])
    assert all(entry["size_bytes"] and entry["fetched_at"] for entry in listed["entries"])
    assert listed["racks"] == [
        {"rack": str(place.rack), "missing": []},
        {"rack": str(elsewhere.rack), "missing": []},
    ]
    shutil.copy(place.rack / "rack.lock", elsewhere.rack)
    there = elsewhere.json("archive", "list").result
    assert there["entries"] == []
    assert len(there["racks"][0]["missing"]) == len(listed["entries"])
    assert not elsewhere.cache.exists()
    shown = place.run("archive", "list")
    assert any(line.startswith("pypi     salt") for line in shown.out.splitlines()), shown.out


def test_a_rack_with_another_lock_keeps_it_and_is_told(
    exported: Exported, elsewhere: Workplace
) -> None:
    """What only a hash proves is not taken where rack.lock pins another one."""
    lock = elsewhere.rack / "rack.lock"
    text = (exported.place.rack / "rack.lock").read_text()
    sha256 = next(path.parent.name for path in exported.place.cache.glob("packages/*/salt-*"))
    lock.write_text(text.replace(sha256, "0" * 64))
    before = lock.read_bytes()
    said = elsewhere.json("archive", "import", exported.file, "--offline")
    assert said.code == 0, said.err
    assert [entry["name"] for entry in said.result["left"]] == ["salt"]
    assert len(said.result["differences"]) == 1
    assert "package salt: 3008.3 (000000000000…) here" in said.result["differences"][0]
    assert lock.read_bytes() == before
    assert not list(elsewhere.cache.glob("packages/*/salt-*"))
    assert json.loads(said.out.splitlines()[-1])["lock"] is None


def test_a_key_that_the_rack_does_not_name_is_no_key(
    exported: Exported, elsewhere: Workplace
) -> None:
    """A stranger's file, right in itself, on a computer that never heard of its key."""
    toml = elsewhere.rack / "rack.toml"
    toml.write_text(toml.read_text().replace(exported.key.fingerprint, "A" * 40))
    said = elsewhere.run("archive", "import", exported.file, "--offline", "--yes")
    assert said.code == 12
    assert (
        f"signed by the key {exported.key.fingerprint}, which this rack does not name" in said.err
    )
    assert not elsewhere.cache.exists()
    assert not (elsewhere.rack / "rack.lock").exists()
