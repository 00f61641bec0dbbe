"""A packed image is there when its program ended well, and not else."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from imager.base.errors import HostStorage, ToolFailed
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.save import pack as module
from imager.card.save.pack import pack

CONTENT = b"content\n" * 1000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    return path


def test_it_takes_the_place_of_what_a_killed_run_has_left(image: Path, tmp_path: Path) -> None:
    target, old = tmp_path / "packed", tmp_path / "old"
    old.write_text("mine")
    target.symlink_to(old)
    with image.open("rb") as file:
        file.read()
        sha256, phase = pack(file.fileno(), len(CONTENT), "gz", target, Quiet())
    assert gzip.decompress(target.read_bytes()) == CONTENT
    assert sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert target.stat().st_mode & 0o777 == 0o600
    assert (phase.name, phase.size_bytes) == ("pack", len(CONTENT))
    assert old.read_text() == "mine"


def test_what_comes_in_between_is_not_written_to(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts it there after what was there is gone."""
    target = tmp_path / "packed"
    target.write_text("theirs")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with image.open("rb") as file, pytest.raises(HostStorage):
        pack(file.fileno(), len(CONTENT), "gz", target, Quiet())
    assert target.read_text() == "theirs"


def test_a_program_that_fails_leaves_nothing(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "packer", lambda *_: ("sh", "-c", "cat; echo no >&2; exit 3"))
    before = sorted(os.listdir(tmp_path))
    with image.open("rb") as file, pytest.raises(ToolFailed, match="no"):
        pack(file.fileno(), MiB, "gz", tmp_path / "packed", Quiet())
    assert sorted(os.listdir(tmp_path)) == before
