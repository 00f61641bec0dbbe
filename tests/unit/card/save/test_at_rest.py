"""What may be read: nothing that somebody writes to, under whatever name, and nothing twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused, UsageError
from imager.card.host.image_file import ImageFile
from imager.card.save.at_rest import at_rest, require_different
from tests.support.sysfs import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """A computer on which loop0 shows ``card.img``, and loop1 another file."""
    host = FakeHost(tmp_path / "host")
    for name, file in (("loop0", "card.img"), ("loop1", "other.img")):
        (tmp_path / file).write_bytes(bytes(4096))
        host.disk(name, f"7:{name[-1]}", loop__backing_file=str(tmp_path / file))
    return host


def test_an_image_that_a_loop_device_shows_is_asked_for_in_its_name(
    host: FakeHost, tmp_path: Path
) -> None:
    card, link = tmp_path / "card.img", tmp_path / "link.img"
    link.symlink_to(card)
    host.mount("7:1", "/mnt/other")
    assert at_rest(card, host.kernel).node == str(card)
    host.mount("7:0", "/mnt/first")
    host.mount("7:0", "/mnt/second")
    for path in (card, link):
        with pytest.raises(TargetRefused, match=r"changes while .*/mnt/first") as caught:
            at_rest(path, host.kernel)
        assert "unmount it first" in str(caught.value.hint)
        (more,) = caught.value.details
        assert more.endswith("/mnt/second")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a device")
def test_swap_on_it_is_named_with_what_ends_it(host: FakeHost, tmp_path: Path) -> None:
    host.add(f"{host.root}/dev/loop0 partition 1 0 -2", "proc/swaps")
    (host.root / "dev/loop0").unlink()
    os.mknod(host.root / "dev/loop0", 0o600 | 0o060000, os.makedev(7, 0))
    with pytest.raises(TargetRefused, match="changes while it is read") as caught:
        at_rest(tmp_path / "card.img", host.kernel)
    assert caught.value.hint == f"stop using it first: swapoff {host.root}/dev/loop0"


def test_what_is_not_there_cannot_be_read(host: FakeHost, tmp_path: Path) -> None:
    with pytest.raises(TargetRefused, match=r"there is no file .*none\.img"):
        at_rest(tmp_path / "none.img", host.kernel)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a device")
def test_a_reader_without_a_card_has_nothing_to_read(host: FakeHost) -> None:
    host.disk("sdb", "8:16", gib=0)
    (host.root / "dev/sdb").unlink()
    os.mknod(host.root / "dev/sdb", 0o600 | 0o060000, os.makedev(8, 16))
    with pytest.raises(TargetRefused, match=r"no card|no medium"):
        at_rest(host.root / "dev/sdb", host.kernel)


def test_no_card_is_named_twice(host: FakeHost, tmp_path: Path) -> None:
    card, other, second = (tmp_path / name for name in ("card.img", "other.img", "second.img"))
    for name in (card, second, other):
        name.touch()
    same = tmp_path / "same.img"
    same.hardlink_to(card)
    require_different(card, [image(second), image(other)], host.kernel)
    for target in (card, same, host.root / "dev/loop0"):
        with pytest.raises(UsageError, match=f"{target} is the source {card}"):
            require_different(card, [image(second), image(target)], host.kernel)
    with pytest.raises(UsageError, match=f"dev/loop1 is the target {other} too"):
        require_different(card, [image(other), image(host.root / "dev/loop1")], host.kernel)


def image(path: Path) -> ImageFile:
    return ImageFile(path, exists=True, size_bytes=4096, folder_writable=True)
