"""A card with every past at once, and a node that loses power while it uses the new content.

In: an image. Out: a file like a card with a past, what wipefs sees on one, and crashed root
filesystems that e2fsck has to mend.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.progress import Quiet
from imager.base.units import KiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.disk.ext4.filesystem import Ext4
from imager.node.image import NodeImage
from tests.fault.leftovers import on_disk, on_volume
from tests.support.bootdisk import reading
from tests.support.fatdisk import tool
from tests.support.faultcard import fault_card
from tests.support.loop import Loop, attach, call, loop_over, mounted, sized_file
from tests.support.smallcard import LAYOUT, LIBRARY, SIZE, boot_check

OURS = {
    "disk": [("dos", 510)],
    "boot": [("vfat", 0), ("vfat", 82), ("vfat", 510)],
    "root": [("ext4", 1080)],
}
"""All that wipefs may see on a card of ours, with byte offsets."""

STRANGER = b"a stranger's file, replayed from his journal\n"


def card_with_a_past(folder: Path, image: NodeImage) -> Path:
    """A card that was everything before, its old ext4 with the UUID of ``image``'s."""
    store = sized_file(folder / "card.raw", SIZE, b"\xa5" * 4096)
    old_root(store, uuid_of(image), folder)
    lay(store)
    return store


def uuid_of(image: NodeImage) -> str:
    with image.open() as reader:
        return str(Ext4.open(reader.read, LAYOUT.root.offset).uuid)


def old_root(store: Path, uuid: str, folder: Path) -> None:
    """Put at p2 an ext4 with our UUID whose journal holds a stranger's transactions."""
    old = sized_file(folder / "old.ext4", LAYOUT.root.length)
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-J", "size=4", "-U", uuid, "-F", old)
    with loop_over(old) as loop:
        where = folder / "old"
        with mounted(loop.node, where, "-o", "data=journal"):
            for number in range(200):
                (where / f"stranger-{number}").write_bytes(STRANGER * 100)
            os.sync()
            (where / "late").write_bytes(STRANGER)
            call("sync", "-f", str(where))
            dirty = folder / "dirty.ext4"
            call("cp", "--sparse=never", str(old), str(dirty))
    assert needs_recovery(dirty, 0), "the stranger's journal is clean: this proves nothing"
    with store.open("r+b") as file, dirty.open("rb") as content:
        file.seek(LAYOUT.root.offset)
        shutil.copyfileobj(content, file)


def needs_recovery(path: Path, offset: int) -> bool:
    with reading(path) as read:
        return bool(Ext4.open(read, offset).needs_recovery)


def lay(store: Path) -> None:
    """Every other signature, on the disk and on both partitions."""
    with store.open("r+b") as file:
        for offset, data in (
            *on_disk(SIZE),
            *on_volume(LAYOUT.boot),
            *on_volume(LAYOUT.root, with_start=False),
        ):
            file.seek(offset)
            file.write(data)
    assert store.stat().st_size == SIZE


@contextmanager
def partition(loop: Loop, offset: int, length: int) -> Iterator[Path]:
    """A loop device over one partition, whether or not this kernel reads partition tables."""
    words = ["--read-only", f"--offset={offset}", f"--sizelimit={length}"]
    node = attach(*words, str(loop.backing))
    try:
        yield node
    finally:
        call("losetup", "--detach", str(node))


def signatures(node: Path) -> list[tuple[str, int]]:
    """What wipefs sees, with byte offsets."""
    words = ["wipefs", "--no-act", "--json", str(node)]
    said = subprocess.run(words, capture_output=True, check=True).stdout.decode(errors="replace")
    found = json.loads(said)["signatures"] if said else []
    return sorted((each["type"], int(each["offset"], 0)) for each in found)


def everything(loop: Loop) -> dict[str, list[tuple[str, int]]]:
    found = {"disk": signatures(loop.node)}
    for name, extent in (("boot", LAYOUT.boot), ("root", LAYOUT.root)):
        with partition(loop, extent.offset, extent.length) as node:
            found[name] = signatures(node)
    return found


def write(loop: Loop, image: NodeImage, receipts: Path) -> None:
    make_card(
        CardOrder(image, accept(target_at(loop.node), SIZE), receipts, check=boot_check(image)),
        Quiet(),
    )


def copy_root(store: Path, to: Path) -> None:
    """The root partition as it is on the medium."""
    with store.open("rb") as file:
        file.seek(LAYOUT.root.offset)
        to.write_bytes(file.read(LAYOUT.root.length))


def require_mended(crashed: Path, library: bytes, number: int) -> None:
    done = subprocess.run(
        ["e2fsck", "-fy", str(crashed)], capture_output=True, text=True, check=False
    )
    assert done.returncode <= 1, f"crash {number}: {done.stdout}{done.stderr}"
    with reading(crashed) as read:
        root = Ext4.open(read, 0)
        assert root.read_file(LIBRARY) == library, f"crash {number}: an untouched file changed"
        assert root.read_file("/etc/hostname") == b"pi7\n"
        strangers = [path for path, _ in root.walk() if "stranger" in path or "late" in path]
        assert not strangers, f"crash {number}: a stranger's journal was replayed"


@contextmanager
def root_in_use(loop: Loop, where: Path) -> Iterator[None]:
    """Mount the card's root and keep writing to it for as long as the block lasts."""
    extent = LAYOUT.root
    words = [f"--offset={extent.offset}", f"--sizelimit={extent.length}"]
    node = attach(*words, str(loop.backing))
    stop = threading.Event()
    try:
        with mounted(node, where):
            load = threading.Thread(target=keep_writing, args=(where, stop))
            load.start()
            try:
                yield
            finally:
                stop.set()
                load.join()
    finally:
        call("losetup", "--detach", str(node))


def keep_writing(where: Path, stop: threading.Event) -> None:
    """What a node does: logs grow, files come and go, some of it is synced."""
    chance = random.Random(4)
    number = 0
    while not stop.is_set():
        number += 1
        folder = where / f"var-{number % 7}"
        folder.mkdir(exist_ok=True)
        file = folder / f"log-{number % 40}"
        file.write_bytes(chance.randbytes(chance.randrange(1, 64 * KiB)))
        if chance.random() < 0.3:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if chance.random() < 0.3:
            file.unlink()
        time.sleep(0.002)


def crashes(past: Path, image: NodeImage, folder: Path, count: int) -> int:
    """Write ``image`` over ``past`` and crash the node that uses it ``count`` times; how many of
    the crashes left a journal to replay."""
    with image.open() as reader:
        library = Ext4.open(reader.read, LAYOUT.root.offset).read_file(LIBRARY)
    chance = random.Random(3)
    dirty = 0
    with fault_card(folder / "real", SIZE) as real:
        shutil.copyfile(past, real.store)
        write(real.loop, image, folder / "receipts")
        seen = everything(real.loop)
        assert seen == OURS, f"wipefs sees {seen}"
        with root_in_use(real.loop, folder / "mnt"):
            for number in range(count):
                time.sleep(chance.uniform(0.02, 0.3))
                crashed = folder / "crashed.ext4"
                with real.held_still():
                    copy_root(real.store, crashed)
                dirty += needs_recovery(crashed, 0)
                require_mended(crashed, library, number)
    return dirty
