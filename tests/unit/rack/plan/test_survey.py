"""Where the image files of many nodes are made: in a judged folder, through no link in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, TargetRefused
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.target import Limits
from imager.config.rack import Rack
from imager.rack.plan.candidates import Candidate
from imager.rack.plan.slots import Slots
from imager.rack.plan.survey import files_for
from tests.support.racks import rack_in


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_in(tmp_path_factory.mktemp("rack"), '[rack]\nnodes = "pi[6-7]"\n')


def files_in(folder: TrustedFolder, rack: Rack) -> list[Candidate]:
    return files_for(rack.nodes, folder, rack, Slots({}), Limits())


def test_each_node_has_a_file_there(rack: Rack, tmp_path: Path) -> None:
    """A file that is there is replaced, so that a second name of it keeps what it has."""
    (tmp_path / "pi7.img").write_bytes(b"x")
    (tmp_path / "before.img").hardlink_to(tmp_path / "pi7.img")
    found = [each.target.node for each in files_in(TrustedFolder(tmp_path), rack)]
    assert found == [str(tmp_path / f"{node.name}.img") for node in rack.nodes]


def _out(path: Path) -> None:
    (path.parent.parent / "outside").mkdir()
    path.symlink_to("../outside/new.img")


def _to_a_disk(path: Path) -> None:
    path.symlink_to("/dev/loop0")


@pytest.mark.parametrize("plant", [_out, _to_a_disk, os.mkfifo, Path.mkdir])
def test_what_is_there_and_is_no_file_is_refused(
    rack: Rack, tmp_path: Path, plant: Callable[[Path], object]
) -> None:
    (tmp_path / "cards").mkdir()
    path = tmp_path / "cards/pi7.img"
    plant(path)
    with pytest.raises(ConfigurationError, match=r"/cards/pi7\.img: is ") as caught:
        files_in(TrustedFolder(tmp_path / "cards"), rack)
    assert "or remove it" in caught.value.hint


def test_a_folder_that_is_not_there_is_said(rack: Rack, tmp_path: Path) -> None:
    with pytest.raises(TargetRefused, match="there is no folder"):
        files_in(TrustedFolder(tmp_path) / "none", rack)
