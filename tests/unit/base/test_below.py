"""What lies below a folder is reached without following links, and read within a limit."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from imager.base.below import Below, read_named


@pytest.fixture
def below(tmp_path: Path) -> Below:
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_bytes(b"content")
    (folder / "link").symlink_to("a")
    (tmp_path / "outside").write_bytes(b"outside")
    return Below(folder)


def test_a_file_is_read_with_its_status(below: Below) -> None:
    content, status = (below / "a/b/file").read(7)
    assert content == b"content"
    assert status.st_size == 7
    assert (below / "a").names() == ["b"]
    assert (below / "a" / "b").path == below.root / "a/b"


@pytest.mark.parametrize("name", ["link", "link/b", "link/b/file", "a/b/link"])
def test_a_link_on_the_way_or_at_its_end_is_not_followed(below: Below, name: str) -> None:
    (below.root / "a/b/link").symlink_to("../../../outside")
    with pytest.raises(OSError, match="is a symbolic link") as caught:
        (below / name).read(100)
    assert str(caught.value.filename).startswith(str(below.root))


def test_a_link_is_seen_as_one(below: Below) -> None:
    status = (below / "link").status()
    assert status is not None
    assert stat.S_ISLNK(status.st_mode)
    assert (below / "link").target() == "a"
    with pytest.raises(OSError, match="is a symbolic link"):
        (below / "link").names()


def test_what_is_not_there_has_no_status(below: Below) -> None:
    assert (below / "no").status() is None
    assert (below / "no/way").status() is None
    assert below.status() is not None


def test_a_folder_that_is_itself_reached_by_a_link_is_used(below: Below) -> None:
    assert Below(below.root / "link").names() == ["b"]


def test_a_limit_is_kept(below: Below) -> None:
    with pytest.raises(OSError, match="is larger than 6 bytes"):
        (below / "a/b/file").read(6)


def test_a_second_name_is_refused_where_one_is_asked_for(below: Below) -> None:
    os.link(below.root / "a/b/file", below.root / "twin")
    with pytest.raises(OSError, match="has 2 names"):
        (below / "twin").read(100)
    assert Below(below.root, ("twin",), judged=False).read(100)[0] == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_a_stranger_s_on_the_way_is_not_gone_through(below: Below) -> None:
    os.chown(below.root / "a", 65534, 65534)
    file = below / "a/b/file"
    for look in (lambda: file.read(7), file.status, (below / "a").names):
        with pytest.raises(OSError, match="belongs to nobody; if you trust it: chown") as caught:
            look()
        assert caught.value.filename == str(below.root / "a")
    assert Below(below.root, ("a", "b", "file"), judged=False).read(7)[0] == b"content"


def test_what_is_no_file_is_not_read(below: Below) -> None:
    os.mkfifo(below.root / "fifo")
    for name in ("fifo", "a"):
        with pytest.raises(OSError, match="is no regular file"):
            (below / name).read(100)
        with pytest.raises(OSError, match="is no regular file"):
            read_named(below.root / name, 100)


def test_what_takes_its_place_after_it_was_looked_at_is_refused_too(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.base.below.require_plain", lambda *_, **__: None)
    (below.root / "late").symlink_to("a/b/file")
    os.mkfifo(below.root / "fifo")
    os.link(below.root / "a/b/file", below.root / "twin")
    before = sorted(os.listdir("/proc/self/fd"))
    for name, why in (("late", "symbolic link"), ("fifo", "no regular"), ("twin", "2 names")):
        with pytest.raises(OSError, match=why):
            (below / name).read(7)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_refusal_leaves_no_descriptor_open(below: Below) -> None:
    os.link(below.root / "a/b/file", below.root / "twin")
    os.mkfifo(below.root / "fifo")
    (below.root / "open").mkdir()
    (below.root / "open").chmod(0o777)
    before = sorted(os.listdir("/proc/self/fd"))
    for name in ("twin", "fifo", "link", "link/b", "open/x", "a/b/file/x", "no", "a/b/file"):
        with suppress(OSError):
            (below / name).read(3)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_named_file_may_be_a_link(below: Below) -> None:
    assert read_named(below.root / "link/b/file", 7) == b"content"
    with pytest.raises(OSError, match="is larger than 6 bytes"):
        read_named(below.root / "link/b/file", 6)


def test_what_takes_the_place_of_a_named_file_is_refused_too(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(below.root / "fifo")
    about = (below.root / "a/b/file").stat()
    before = sorted(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="is no regular file"):
        patch.setattr(Path, "stat", lambda _: about)
        read_named(below.root / "fifo", 100)
    assert sorted(os.listdir("/proc/self/fd")) == before
