"""Saving a real block device: in use or not, by root, for a folder of somebody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.run import run as run_tool
from imager.base.units import KiB, MiB
from imager.cli.main import run
from imager.disk.bmap import parse_bmap
from tests.support.loop import Loop, loop_over, missing_abilities, mounted, sized_file

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

SIZE = 12 * MiB
PERSON = 1234


@pytest.fixture(params=[512, 4096])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loop]:
    """A whole disk that is one ext4, with each sector size."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content\n" * 1000)
    backing = sized_file(tmp_path / "card.raw", SIZE)
    tree = tmp_path / "tree"
    run_tool(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, backing, f"{SIZE // KiB}k"])
    with loop_over(backing, sector_bytes=request.param) as made:
        yield made


def test_a_card_that_may_change_is_refused_and_one_mounted_for_reading_is_not(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "saved.img"
    with mounted(loop.node, tmp_path / "mnt"):
        assert run(["read", str(loop.node), str(image)]) == 20
    said = capsys.readouterr().err
    assert f"{loop.node} is mounted on {tmp_path}/mnt" in said and "unmount it" in said
    assert not image.exists()
    before = loop.backing.read_bytes()
    with mounted(loop.node, tmp_path / "mnt", "-o", "ro"):
        assert run(["read", str(loop.node), str(image)]) == 0
    assert loop.backing.read_bytes() == before
    bmap = parse_bmap(Path(f"{image}.bmap").read_bytes())
    saved = image.read_bytes()
    for one in bmap.ranges:
        assert (
            saved[one.extent.offset : one.extent.end] == before[one.extent.offset : one.extent.end]
        )
    assert run_tool(["debugfs", "-R", "cat file", image]).stdout == b"content\n" * 1000


def test_what_root_saves_belongs_to_whom_the_folder_belongs(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, PERSON, PERSON)
    monkeypatch.setenv("SUDO_UID", str(PERSON))
    assert run(["read", str(loop.node), str(folder / "saved.img.gz")]) == 0
    made = [path.stat() for path in folder.iterdir()]
    assert len(made) == 2
    assert {(one.st_uid, one.st_gid, one.st_mode & 0o777) for one in made} == {
        (PERSON, PERSON, 0o600)
    }


def test_what_somebody_else_put_there_is_not_written_to(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / ".saved.img.partial"
    partial.touch()
    os.chown(partial, PERSON, PERSON)
    assert run(["read", str(loop.node), str(tmp_path / "saved.img")]) == 20
    assert f"{partial} belongs to" in capsys.readouterr().err
    assert partial.stat().st_size == 0
    partial.unlink()
    other = tmp_path / "other"
    other.touch()
    partial.hardlink_to(other)
    assert run(["read", str(loop.node), str(tmp_path / "saved.img")]) == 20
    assert other.stat().st_size == 0


def test_a_map_that_is_a_link_to_what_only_root_may_read_is_not_followed(
    loop: Loop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    image, secret = folder / "saved.img", tmp_path / "secret"
    image.touch()
    secret.write_text("only root may read this\n")
    (folder / "saved.img.map").symlink_to(secret)
    for path in (folder, image):
        os.chown(path, PERSON, PERSON)
    before = sorted(folder.iterdir())
    for sudo_uid, why in (("", "saved.img belongs to"), (str(PERSON), "saved.img.map is a link")):
        monkeypatch.setenv("SUDO_UID", sudo_uid)
        assert run(["read", str(loop.node), str(image)]) == 20
        said = capsys.readouterr().err
        assert why in said
        assert f"rm {image} {image}.map" in said
        assert sorted(folder.iterdir()) == before


def test_a_pipe_in_the_place_of_a_map_is_not_waited_for(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / ".saved.img.partial.map")
    assert run(["read", str(loop.node), str(tmp_path / "saved.img")]) == 20
    assert ".saved.img.partial.map is no file of its own" in capsys.readouterr().err


def test_an_image_is_not_written_to_a_loop_device_that_shows_it(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other name"
    other.hardlink_to(loop.backing)
    before = loop.backing.read_bytes()
    for name in (loop.backing, other, loop.node):
        words = ["write", str(loop.node), "--image", str(name), "--yes", "--allow-fixed-disk"]
        assert run(words) == 2
        assert "nothing can be copied onto itself" in capsys.readouterr().err
    assert loop.backing.read_bytes() == before


def test_a_partition_is_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backing = sized_file(tmp_path / "card.raw", SIZE)
    run_tool(["sfdisk", "--quiet", backing], stdin=b"label: dos\nstart=2048, type=83\n")
    with loop_over(backing) as loop:
        (partition, *_) = loop.partition_nodes()
        assert run(["read", str(partition), str(tmp_path / "saved.img")]) == 20
        assert f"give the whole disk: {loop.node}" in capsys.readouterr().err
