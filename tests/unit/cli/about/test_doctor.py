"""``doctor``: what is not well is named with what to do, and the exit code says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imager.cli.main import run
from imager.config.example import Choices
from imager.config.folder import init_rack
from imager.config.load import load_rack
from imager.node.keys.identity import identity_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rack in which one node has its keys."""
    folder = tmp_path_factory.mktemp("doctor") / "rack"
    init_rack(folder, Choices(nodes="pi[0-2]", master="pi0"))
    rack = load_rack(folder)
    identity_of(rack, rack.node("pi1"))
    return folder


def asked(
    capsys: pytest.CaptureFixture[str], rack: Path, cache: Path
) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and every checkup by area and name."""
    words = ["doctor", "--offline", "--rack", str(rack), "--cache", str(cache), "--json"]
    code = run(words)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["exit_code"] == code
    return code, {f"{one['area']}: {one['name']}": one for one in result["checkups"]}


def test_a_sound_computer_is_fit(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = asked(capsys, made, tmp_path / "cache")
    assert code == 0
    assert found["rack: keys"]["found"] == "1 of 3 nodes has its keys, and all are whole"
    assert found["programs: mcopy"]["verdict"] == "ok"
    assert not (tmp_path / "cache").exists()


def test_what_there_is_is_counted_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init_rack(tmp_path / "rack", Choices(nodes="pi0", master="pi0"))
    cache = tmp_path / "cache"
    for entry in (f"golden/{'5' * 32}", f"packages/{'a' * 64}", f"packages/{'b' * 64}"):
        (cache / entry).mkdir(parents=True)
        (cache / f"{entry}.lock").touch()
    _, found = asked(capsys, tmp_path / "rack", cache)
    assert found["cache: archive"]["found"] == "no releases, 2 packages, 1 golden image"
    assert found["rack: rack.toml"]["found"] == "picloud: 1 node, pi0"
    assert found["rack: ledger"]["found"] == "no card was written yet"
    assert found["rack: keys"]["found"].startswith("none made yet: a node gets its keys when")


def test_a_missing_program_is_the_exit_code_and_stops_work_before_anything_is_fetched(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.base.run._SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    code, found = asked(capsys, made, tmp_path / "cache")
    assert code == 40
    assert found["programs: mcopy"]["verdict"] == "missing"
    monkeypatch.chdir(tmp_path)
    where = ["--rack", str(made), "--cache", str(tmp_path / "cache"), "--offline"]
    for line in ("fetch", "compose", "write a.img --node pi1", "rack flash pi1 --images ."):
        # With the programs there, each ends with 11: nothing is archived.
        assert run([*line.split(), *where]) == 40, line
        assert "apt install dosfstools e2fsprogs mtools" in capsys.readouterr().err


def test_what_is_wrong_with_cache_and_rack_is_said_all_at_once(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/letters").mkdir()
    key = made / ".picloud/keys/pi1/ssh/ssh_host_ed25519_key"
    kept, ledger = key.read_bytes(), made / ".picloud/ledger.jsonl"
    key.write_bytes(b"")
    (made / "rack.lock").write_text("x")
    ledger.write_text("{}\n")
    try:
        code, found = asked(capsys, made, tmp_path / "cache")
    finally:
        key.write_bytes(kept)
        (made / "rack.lock").unlink()
        ledger.unlink()
    assert code == 10
    assert "is no cache of picloud-image" in found["cache: folder"]["found"]
    assert found["rack: keys of pi1"]["found"] == f"{key}: is empty"
    assert "rack: keys" not in found
    assert found["rack: rack.lock"]["verdict"] == "wrong"
    assert found["rack: ledger"]["verdict"] == "warning"


def test_a_rack_that_does_not_load_is_named_with_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rack.toml").write_text(
        '[rack]\nnodes = "pi0"\nmaster = "pi0"\nmodel = "pi9 of the year after next"\n'
    )
    code, found = asked(capsys, tmp_path, tmp_path / "cache")
    assert code == 10
    assert any("pi9" in line for line in found["rack: rack.toml"]["details"])
    assert run(["doctor", "--offline", "--rack", str(tmp_path)]) == 10
    said = capsys.readouterr().out
    assert "pi9" in said
    assert "1 to mend before cards can be made" in said
    (fault,) = [line for line in found["rack: rack.toml"]["details"] if "pi9" in line]
    assert len(fault) > 80
    assert fault in said, "lines are whole where nobody looks at a terminal"
