"""``rack report --out``: where the page goes, and what it does not replace."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from imager.card.receipt.receipt import ReceiptResult
from imager.cli.main import run
from tests.support.rackhistory import rack_with_history, receipt_of
from tests.support.racks import rack_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device")


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rack_in(tmp_path_factory.mktemp("rack"), '[rack]\nnodes = "pi[0-1]"\n').folder


def report(rack: Path, out: Path | str) -> int:
    return run(["--rack", str(rack), "rack", "report", "--out", str(out)])


def null_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@pytest.mark.parametrize(
    "plant",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nothing there"),
        pytest.param(null_device, marks=as_root),
    ],
)
def test_what_is_no_file_is_not_replaced(
    rack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    plant: Callable[[Path], object],
) -> None:
    path = tmp_path / "rack.html"
    plant(path)
    before = path.lstat()
    assert report(rack, path) == 20
    assert f"{path} is no file" in capsys.readouterr().err
    assert path.lstat() == before
    assert os.listdir(tmp_path) == ["rack.html"]


def test_a_hint_that_names_another_place_works(
    rack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(rack, "-") == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    for name in ("rack.html", "rack.html", "new/folders/rack.html"):
        assert report(rack, tmp_path / name) == 0
    assert report(rack, tmp_path) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("below", ["", "/rack.html"])
def test_a_name_that_is_too_long_is_told(
    rack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    assert report(rack, f"{tmp_path}/{'n' * 300}{below}") == 41
    assert "File name too long" in capsys.readouterr().err


def test_half_a_character_is_shown_as_its_escape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which JSON can name: in a receipt of a station, or in what came with a stranger's rack."""
    rack = rack_with_history(tmp_path, 7)
    its = receipt_of("pi0", 50, result=ReceiptResult.FAILED, failure="half\ud800").to_json()
    (rack.receipts.path / "20991123T060504.123Z-pi0.json").write_text(json.dumps(its))
    for out in (tmp_path / "rack.html", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        assert report(rack.folder, out) == 0
    assert run(["--rack", str(rack.folder), "rack", "report"]) == 0
    assert report(rack.folder, "-") == 0
    pages = [rack.folder / "report.html", tmp_path / "rack.html", tmp_path / "folder/report.html"]
    for page in (*(path.read_text() for path in pages), capsys.readouterr().out):
        assert r"half\ud800" in page


@as_root
def test_with_sudo_the_page_and_its_folders_are_the_person_s(
    rack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    os.chown(tmp_path, 1234, 1235)
    assert report(rack, tmp_path / "new/folders/rack.html") == 0
    for path in tmp_path.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235), path
