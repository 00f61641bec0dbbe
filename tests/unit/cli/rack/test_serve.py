"""``rack serve`` says where to look, shows the rack there, and ends when it is told to."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from imager.cli.main import run
from tests.support.racks import rack_in
from tests.support.served import ask, connected, serving, streaming


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n').folder


def test_ctrl_c_ends_it_at_once_also_with_pages_open(folder: Path) -> None:
    with serving(folder, "--json", "--listen", "127.0.0.1:0") as (process, first):
        told = json.loads(first)
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", told["url"])
        assert found is not None
        port = int(found[1])
        assert "pi3" in ask(port, "/").body
        with streaming(port), connected(port):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    result = json.loads(out.splitlines()[-1])
    assert (result["event"], result["exit_code"]) == ("result", 0)


def test_for_others_there_is_a_token_that_is_said_once(folder: Path) -> None:
    with serving(folder, "--listen", "0.0.0.0:0") as (process, first):
        found = re.fullmatch(r"http://[^/]+:(\d+)(/\?token=\S{43})\n", first)
        assert found is not None
        port, path = int(found[1]), found[2]
        assert process.stdout is not None
        assert process.stdout.readline() == "    shows the rack; Ctrl-C ends it\n"
        assert ask(port, "/").status == 403
        assert ask(port, path).status == 303
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out + err == ""


def test_an_address_of_nobody_is_refused_with_one_that_works(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["rack", "serve", "--rack", str(folder), "--listen", "192.0.2.1:80"]) == 2
    said = capsys.readouterr().err
    assert "--listen 192.0.2.1:80: Cannot assign requested address" in said
    found = re.search(r"for example (--listen \S+)", said)
    assert found is not None
    with serving(folder, *shlex.split(found[1])) as (_, first):
        assert first.startswith("http://127.0.0.1:")


def test_without_its_libraries_it_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("server", "guard", "connection"):
        monkeypatch.delitem(sys.modules, f"imager.rack.page.{name}", raising=False)
    for name in ("starlette", "uvicorn"):
        for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)
    import imager.rack.page as room

    for name in ("server", "guard"):
        monkeypatch.delattr(room, name, raising=False)
    assert run(["rack", "serve", "--rack", str(folder)]) == 40
    said = capsys.readouterr().err
    assert "rack serve needs starlette" in said
    assert "pip install 'picloud-image[web]'" in said
    assert "apt install python3-starlette python3-uvicorn" in said


def test_the_doctor_knows_that_it_is_optional(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import PackageNotFoundError

    from imager.doctor import programs

    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    assert programs.web_checkup().found.startswith("starlette ")
    monkeypatch.setattr(programs, "version", none)
    checkup = programs.web_checkup()
    assert (checkup.verdict, checkup.exit_code) == ("ok", 0)
    assert checkup.found == "starlette is not installed, and nothing else needs it"
