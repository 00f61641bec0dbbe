"""Racks, golden images and finished cards for tests of the node stage.

In: the hand-made release of ``tests.support.release``. Out: a golden image, racks around it, and a
node's card as a sparse file, readable by the tools a person would use.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.progress import Phase, Quiet
from imager.base.run import search_path
from imager.base.units import MiB
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Reader
from imager.image.compose.golden import GoldenImage
from imager.node.image import NodeImage

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7c5qie2nDinzOSUpVHmT6JpLdJVa/zmPka0wD+/wO7 you@laptop"


@dataclass
class Heard(Quiet):
    """A Progress that remembers what it was told."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    counted: dict[str, list[int]] = field(default_factory=dict)

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        counted = self.counted[name] = [count, 0]

        class Counted:
            def advance(self, done: int) -> None:
                counted[1] += done

        yield Counted()

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


def rack_in(folder: Path, text: str) -> Rack:
    """The rack ``text`` in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rack.toml").write_text(text)
    return load_rack(folder)


def tool(*words: str | os.PathLike[str], ok: Sequence[int] = (0,)) -> str:
    """Run a host tool and return what it printed on both streams."""
    env = {"PATH": search_path(), "LC_ALL": "C.UTF-8", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(words, capture_output=True, env=env, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode in ok, f"{words}: {done.returncode}\n{said}"
    return said


@dataclass(frozen=True)
class Card:
    """A node's image written into a sparse file, as the card engine would write it."""

    path: Path
    layout: Layout
    root: Ext4
    boot: FatVolume

    @property
    def root_device(self) -> str:
        """What e2fsprogs call the root filesystem in the file."""
        return f"{self.path}?offset={self.layout.root.offset}"

    def debugfs(self, request: str) -> str:
        """What debugfs says to ``request``."""
        return tool("debugfs", "-R", request, self.root_device)

    def text(self, path: str) -> str:
        """The content of a file of the root filesystem."""
        return self.root.read_file(path).decode()

    def owner_and_mode(self, path: str) -> tuple[int, int, int]:
        """(uid, gid, permission bits) of what lies at ``path`` itself, as debugfs prints them."""
        words = self.debugfs(f'stat "{path}"').split()
        mode = int(words[words.index("Mode:") + 1], 8)
        uid = int(words[words.index("User:") + 1])
        return uid, int(words[words.index("Group:") + 1]), mode


@contextmanager
def written(image: NodeImage, path: Path, *, junk: bytes = b"") -> Iterator[Card]:
    """Write ``image`` to ``path``; ``junk`` is what the card held before, at every MiB."""
    with image.open() as reader, path.open("w+b") as file:
        file.truncate(image.layout.size_bytes)
        for offset in range(0, image.layout.size_bytes, MiB) if junk else ():
            os.pwrite(file.fileno(), junk, offset)
        for extent in image.manifest.extents.split(MiB):
            os.pwrite(file.fileno(), reader.read(extent.offset, extent.length), extent.offset)

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        boot = image.layout.boot
        yield Card(
            path,
            image.layout,
            Ext4.open(read, image.layout.root.offset),
            FatVolume.parse(read, boot.offset, boot.length),
        )


def check_filesystems(card: Card, scratch: Path) -> None:
    """e2fsck and fsck.vfat find nothing."""
    tool("e2fsck", "-fn", card.root_device)
    boot = card.layout.boot
    with card.path.open("rb") as file, scratch.open("wb") as copy:
        copy.truncate(boot.length)
        for extent in card.boot.used:
            data = os.pread(file.fileno(), extent.length, extent.offset)
            os.pwrite(copy.fileno(), data, extent.offset - boot.offset)
    said = tool("fsck.vfat", "-n", "-v", scratch)
    assert "differ" not in said, said


def junk_reader(golden: GoldenImage, extents: ExtentMap, read: Reader) -> Reader:
    """Reads like ``read`` inside ``extents`` and gives 0xA5 outside: a card that was used."""

    def reading(offset: int, length: int) -> bytes:
        data = bytearray(b"\xa5" * length)
        for part in extents.within(offset, length):
            start = part.offset - offset
            data[start : start + part.length] = read(part.offset, part.length)
        return bytes(data)

    return reading
