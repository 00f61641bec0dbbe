"""A small card with everything a real one has: partition table, FAT32, ext4 with a journal.

In: a folder. Out: a NodeImage of 96 MiB of which some 14 MiB are written, so that a whole card
takes a fraction of a second, and one Position for each kind of thing a fault can hit.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import WouldNotBoot
from imager.base.units import KiB, MiB
from imager.bootcheck.check import check_boot
from imager.card.make.order import Check
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.manifest import Reader, build_manifest
from imager.disk.mbr import encode
from imager.image.compose.block_map import block_map
from imager.image.compose.golden import GoldenImage
from imager.node.image import Delta, NodeImage
from tests.support.bootdisk import reading
from tests.support.bootfiles import minimal_boot_files, zimage
from tests.support.fatdisk import make_fat, tool

SIZE = 96 * MiB
LAYOUT = Layout(SIZE, Extent(8 * MiB, 34 * MiB), Extent(48 * MiB, 48 * MiB))
DISK_ID = 0x7E57CA2D
KERNEL = "kernel7.img"
LIBRARY = "/usr/lib/libsalt.so"
_BLOCKS_PER_GROUP = 2048
"""8 MiB groups: the backup superblocks lie all over the card, also in its last eighth."""


@dataclass(frozen=True, slots=True)
class Position:
    """A 4 KiB block to hit and the words by which a person must be told of it."""

    name: str
    extent: Extent
    words: str


def small_card(folder: Path, *, seed: int = 1, node: str = "pi7") -> NodeImage:
    """The image, its golden file in ``folder``; another ``seed`` gives other content."""
    path = folder / "golden.raw"
    noise = random.Random(seed)
    kernel = zimage(size=4 * MiB)[:64] + noise.randbytes(4 * MiB - 64)
    files = {**minimal_boot_files("pi2"), KERNEL: kernel}
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.write(encode(LAYOUT, DISK_ID + seed))
    make_fat(
        path, files, size_kib=LAYOUT.boot.length // KiB, offset_bytes=LAYOUT.boot.offset
    )  # fmt: skip
    _make_root(path, folder / "tree", node, noise.randbytes(3 * MiB))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with reading(path) as read:
        boot = FatVolume.parse(read, LAYOUT.boot.offset, LAYOUT.boot.length)
        extents = block_map(LAYOUT, boot, Ext4.open(read, LAYOUT.root.offset))
        manifest = build_manifest(SIZE, extents, read)
    golden = GoldenImage(
        path=path,
        key=f"{seed:064x}",
        release_name="hand-made-small-card",
        release_sha256="0" * 64,
        models=("pi2",),
        layout=LAYOUT,
        manifest=manifest,
        boot_files=sums,
    )
    return NodeImage(golden, node, "1" * 64, LAYOUT, Delta(()), manifest, sums)


def _make_root(image: Path, tree: Path, node: str, library: bytes) -> None:
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text(f"{node}\n")
    (tree / "usr/lib").mkdir(parents=True)
    (tree / LIBRARY.lstrip("/")).write_bytes(library)
    (tree / "sbin").mkdir()
    (tree / "sbin/init").write_bytes(b"\x7fELF look-alike")
    (tree / "sbin/init").chmod(0o755)
    (tree / "etc/services").write_bytes(b"ssh 22/tcp\n" * 5000)
    tool(
        "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-g", str(_BLOCKS_PER_GROUP),
        "-O", "^orphan_file,metadata_csum", "-J", "size=4", "-L", "root", "-d", tree,
        "-E", f"offset={LAYOUT.root.offset},lazy_itable_init=1,nodiscard", "-F", image,
        f"{LAYOUT.root.length // KiB}k",
    )  # fmt: skip


def boot_check(image: NodeImage) -> Check:
    """The check the command line makes of a finished card."""

    def check(read: Reader, size_bytes: int) -> None:
        report = check_boot(read, size_bytes, model="pi2", expected=image.boot_files)
        if not report.bootable:
            raise WouldNotBoot("this card would not boot", hint=report.errors[0].what)

    return check


def positions(image: NodeImage) -> tuple[Position, ...]:
    """What a fault can hit, in the order of the card."""
    with image.open() as reader:
        read = reader.read
        boot = FatVolume.parse(read, LAYOUT.boot.offset, LAYOUT.boot.length)
        root = Ext4.open(read, LAYOUT.root.offset)
        kernel, library = boot.find(KERNEL), root.lookup(LIBRARY)
        assert kernel is not None
        assert library is not None
        table = ExtentMap([Extent(LAYOUT.boot.offset + 32 * 512, 64 * KiB)])
        found = (
            ("first MiB", ExtentMap([Extent(0, 4 * KiB)]), "partition table (first MiB)"),
            ("FAT", table, "boot partition (p1): FAT tables or folders"),
            ("kernel file", _inside(kernel.extents), f"boot partition (p1): /boot/{KERNEL}"),
            ("ext4 metadata", root.metadata - root.journal, "filesystem structures"),
            ("file data", _inside(library.extents), f"root partition (p2): {LIBRARY}"),
            ("journal", root.journal, "root partition (p2): journal"),
        )
        at = [Position(name, _fullest(where, read), words) for name, where, words in found]
    last = Extent(SIZE - MiB // 2, 4 * KiB)
    return (*at, Position("last MiB", last, "root partition (p2)"))


def _inside(extents: tuple[Extent, ...]) -> ExtentMap:
    """The second half of a file, so that its neighbours are its own."""
    whole = ExtentMap(extents)
    first = next(iter(whole))
    middle = first.offset + first.length // 2
    return whole - ExtentMap([Extent(0, middle)])


def _fullest(where: ExtentMap, read: Reader) -> Extent:
    """The block with the fewest zeros, so that a lost one differs from a blank one."""
    blocks = [block for block in _blocks(where) if block.length == 4 * KiB][:512]
    return max(
        blocks, key=lambda block: (4 * KiB - read(block.offset, 4 * KiB).count(0), -block.offset)
    )


def _blocks(where: ExtentMap) -> Iterator[Extent]:
    return where.aligned(4 * KiB).split(4 * KiB)


def is_whole(store: Path, image: NodeImage) -> bool:
    """Whether ``store`` holds every byte of the block map."""
    with image.open() as reader, store.open("rb") as file:
        for extent in image.manifest.extents.split(4 * MiB):
            file.seek(extent.offset)
            if file.read(extent.length) != reader.read(extent.offset, extent.length):
                return False
    return True


def first_mib(store: Path) -> bytes:
    """The card's first MiB as it really is."""
    with store.open("rb") as file:
        return file.read(FIRST_MIB.length)
