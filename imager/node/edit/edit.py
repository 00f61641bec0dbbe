"""Edits a working copy of a golden image and returns what changed.

In: the golden image's filesystems, the card's layout, and the content of one card. Out: the delta
and the block map of the card. The standard tools do the editing, in memory and without mounting;
at the end e2fsck checks the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.errors import ToolFailed
from imager.base.progress import Phase
from imager.base.run import run
from imager.disk import mbr
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.remembered import RememberedExt4
from imager.disk.extents import ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Reader
from imager.image.compose.block_map import block_map
from imager.image.compose.golden import GoldenImage
from imager.node.edit.ext4 import apply_edits, plan_edits, tool_times
from imager.node.edit.fat import put_files, remove_files, set_volume_id, written_files
from imager.node.edit.working_copy import WorkingPartition, part_of
from imager.node.files.identity_files import accounts_of, shared_secrets
from imager.node.files.templates import Renderer
from imager.node.files.tree import CardFile, CardTree
from imager.node.image import Delta, NodeReader, golden_open
from imager.node.keys.identity import CardNumbers


@dataclass(frozen=True, slots=True)
class Filesystems:
    """Both filesystems of an image; their addresses are bytes of the card."""

    boot: FatVolume
    root: Ext4

    @classmethod
    def open(cls, read: Reader, layout: Layout) -> Filesystems:
        """The filesystems of the image that ``read`` reads."""
        budget = Budget.of_our_image()
        boot = FatVolume.parse(read, layout.boot.offset, layout.boot.length, budget)
        return cls(boot, RememberedExt4.open(read, layout.root.offset, budget))


@dataclass(frozen=True, slots=True)
class OpenGolden:
    """A golden image whose filesystems have been read, and the process that renders templates, so
    that many nodes can be made with each only once. Threads may share it. Use it only inside the
    block of ``opened``."""

    image: GoldenImage
    reader: NodeReader
    filesystems: Filesystems
    renderer: Renderer


@contextmanager
def opened(golden: GoldenImage) -> Iterator[OpenGolden]:
    """Open ``golden`` to make nodes of it."""
    with golden_open(golden) as reader, Renderer() as renderer:
        files = Filesystems.open(reader.read, golden.layout)
        yield OpenGolden(golden, reader, files, renderer)


@dataclass(frozen=True, slots=True)
class CardContent:
    """What makes one card different from the golden image. All its files get the time ``time``.

    ``gone`` and ``gone_boot`` are paths of files on the root and the boot partition that it must
    not have; those that are not there do not matter.
    """

    files: CardTree
    numbers: CardNumbers
    time: int
    gone: tuple[str, ...] = ()
    gone_boot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edited:
    """One card: the changed bytes, the block map, and the content of every file written, by
    inode number. ``present`` are the numbers of all regular files."""

    delta: Delta
    extents: ExtentMap
    written: Mapping[int, bytes]
    present: set[int]


EDIT_STEPS = 5
"""In how many steps ``edit`` says how far it is."""


def edit(
    layout: Layout, old: Filesystems, content: CardContent, golden: Reader, phase: Phase
) -> Edited:
    """The card of ``layout`` with ``content``; ``phase`` advances by EDIT_STEPS."""
    files, numbers = content.files, content.numbers
    with (
        part_of(layout.boot, old.boot.metadata, golden) as boot,
        part_of(layout.root, old.root.metadata, golden) as root,
    ):
        phase.advance(1)
        remove_files(boot.work, old.boot, content.gone_boot)
        put_files(boot.work, old.boot, files.boot, content.time)
        set_volume_id(boot.work, numbers.volume_id)
        phase.advance(1)
        _edit_root(root, content, old.root, phase)
        new = Filesystems(
            FatVolume.parse(
                boot.read, layout.boot.offset, layout.boot.length, Budget.of_our_image()
            ),
            Ext4.open(root.read, layout.root.offset, Budget.of_our_image()),
        )
        delta = Delta(
            (
                (0, mbr.encode(layout, numbers.disk_id)),
                *boot.changes(_written_on_boot(files, new.boot), golden),
                *root.changes(_written_on_root(files, old.root, new.root), golden),
            )
        )
        phase.advance(1)
        return Edited(
            delta=delta,
            extents=block_map(layout, new.boot, new.root),
            written=dict(_contents(files, new.root)),
            present=new.root.file_numbers(),
        )


def _edit_root(root: WorkingPartition, content: CardContent, old: Ext4, phase: Phase) -> None:
    files, time = content.files, content.time
    # Else it depends on this computer's kernel whether new inode tables are zeroed here: hundreds
    # of MB on a large card. The node's kernel does it after the first mount.
    env = tool_times(time) | {"RESIZE2FS_FORCE_LAZY_ITABLE_INIT": "1"}
    blocks = root.where.length // old.block_size
    inherit = [root.work.descriptor]
    if old.mounted:
        # tune2fs changes the UUID only of a filesystem that was checked since it was mounted.
        run(["e2fsck", "-f", "-p", root.work.path], ok=(0, 1), env=env, inherit=inherit)
    run(["resize2fs", "-f", root.work.path, str(blocks)], env=env, inherit=inherit)
    phase.advance(1)
    gone = (*shared_secrets(old), *content.gone)
    writes = plan_edits(old, files, gone, accounts_of(old, files), time)
    apply_edits(writes, root.work, time)
    run(["tune2fs", "-U", content.numbers.root_uuid, root.work.path], env=env, inherit=inherit)
    # Names, links, sizes, bitmaps and checksums are all metadata, so the copy can be checked.
    run(["e2fsck", "-fn", root.work.path], env=env, inherit=inherit)
    phase.advance(1)


def _contents(files: CardTree, root: Ext4) -> Iterator[tuple[int, bytes]]:
    for entry in files.root:
        inode = root.lookup(entry.path, follow=False) if isinstance(entry, CardFile) else None
        if inode is not None and isinstance(entry, CardFile):
            yield inode.number, entry.content


def _written_on_boot(files: CardTree, boot: FatVolume) -> ExtentMap:
    return boot.metadata | written_files(boot, files.boot)


def _written_on_root(files: CardTree, old: Ext4, root: Ext4) -> ExtentMap:
    """All metadata, and the content of the files that were written. Raises ToolFailed when a tool
    moved the content of another file: the working copy does not have that content."""
    found = (root.lookup(e.path, follow=False) for e in files.root if isinstance(e, CardFile))
    content = ExtentMap(extent for inode in found if inode for extent in inode.extents)
    moved = root.used - root.metadata - content - old.used
    if moved:
        raise ToolFailed(
            f"growing the root filesystem moved file contents to byte {next(iter(moved)).offset}",
            hint="please report this with the size of the card and the release",
        )
    return root.metadata | content
