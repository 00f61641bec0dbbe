"""The root filesystem, made from plain files; owners, modes and devices are set afterwards.

In: a staged release and a place in the image file. Out: an ext4 filesystem there. ``mke2fs -d``
copies names and content; one ``debugfs`` run sets owners, modes, times, attributes and devices by
inode number, so the result is the same for root and for any other user. Two versions of e2fsprogs
differ in bytes that do not matter: 1.47.0 and 1.47.2 were seen to count lifetime writes differently
and to mark unused block groups as set up or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from imager.base.errors import ToolFailed
from imager.base.progress import Phase, followed
from imager.base.run import run
from imager.base.units import KiB
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent
from imager.disk.layout import BYTES_PER_INODE
from imager.disk.manifest import Reader
from imager.image.compose.ids import FilesystemIds
from imager.image.compose.staging import Staged
from imager.image.unpack.members import DEVICES, EntryKind, TreeEntry, refuse
from imager.image.unpack.tree import Tree

LABEL = "picloud-root"
JOURNAL_MIB = 16
"""Every byte of the journal is written to every card, zeros too: an older journal that is left
there would be replayed. It holds only metadata, and a transaction can have a quarter of it: 4 MiB
in the five seconds between two commits, more than an SD card can take. mke2fs gives 16 MiB to a
filesystem below 1 GiB and 64 MiB from 2 GiB on, with disks in mind."""
_LOST_AND_FOUND = "lost+found"
_COMMANDS_PER_RUN = 3000
"""debugfs repeats every command on its output; with so many its output stays at a few MB."""

# Every feature by name: the host's mke2fs.conf and the defaults of its e2fsprogs do not matter.
# No orphan_file: kernels before 5.15 refuse to mount it, and resize2fs mishandled it (release
# notes of e2fsprogs 1.47.1 and 1.47.2). metadata_csum_seed lets a node change its UUID cheaply.
FEATURES = (
    "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,metadata_csum,"
    "metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
)
_CONFIG = """\
[defaults]
    base_features = {features}
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = {bytes_per_inode}
[fs_types]
    ext4 = {{
    }}
"""
_TYPE_BITS = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.FOLDER: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_MKNOD_LETTERS = {EntryKind.CHARACTER: "c", EntryKind.BLOCK: "b", EntryKind.FIFO: "p"}


def root_steps(staged: Staged) -> int:
    """How many steps ``make_root`` takes: each file is copied, and then gets its owner and mode."""
    return 2 * len(staged.root.entries)


def make_root(
    image: Path, where: Extent, staged: Staged, identity: FilesystemIds, phase: Phase
) -> None:
    """Fill the range ``where`` of the file ``image`` with the root filesystem, and advance
    ``phase`` by ``root_steps``.

    Uses the folder of ``image`` for its own files. Raises MalformedRelease for a device whose name
    ``debugfs`` cannot be told, HostStorage when the disk is full.
    """
    folder = image.parent
    # e2fsprogs take "?" in a path for the start of options, and the path of the cache may have one.
    # So they are run in the working folder with a bare name.
    device = f"{image.name}?offset={where.offset}"
    environment = _environment(folder, staged.made_at)
    count, size, before = len(staged.root.entries), staged.root.size_bytes(), _held_bytes(image)
    # mke2fs does not say how far it is; how the image grows says it.
    with followed(phase, lambda: min(count, count * (_held_bytes(image) - before) // size)):
        run(_mke2fs_words(image.name, where, staged, identity), cwd=folder, env=environment)
    with image.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        for commands in (
            _device_commands(read, where.offset, staged.root),
            _inode_commands(read, where.offset, staged, folder),
        ):
            while batch := list(islice(commands, _COMMANDS_PER_RUN)):
                _debugfs(device, batch, folder, environment)
                phase.advance(len(batch))


def _held_bytes(image: Path) -> int:
    return image.stat().st_blocks * 512


def check_root(image: Path, where: Extent, made_at: int) -> None:
    """Raise ToolFailed if ``e2fsck -fn`` finds anything to repair."""
    run(
        ["e2fsck", "-fn", f"{image.name}?offset={where.offset}"],
        cwd=image.parent,
        env={"E2FSPROGS_FAKE_TIME": str(made_at)},
    )


def _environment(folder: Path, made_at: int) -> dict[str, str]:
    config = folder / "mke2fs.conf"
    config.write_text(_CONFIG.format(features=FEATURES, bytes_per_inode=BYTES_PER_INODE))
    return {
        "MKE2FS_CONFIG": str(config),
        "E2FSPROGS_FAKE_TIME": str(made_at),  # e2fsprogs before 1.47.1
        "SOURCE_DATE_EPOCH": str(made_at),
    }


def _mke2fs_words(
    name: str, where: Extent, staged: Staged, identity: FilesystemIds
) -> list[str | os.PathLike[str]]:
    extended = {
        "offset": str(where.offset),
        "hash_seed": str(identity.hash_seed),
        # Unused inode tables are neither written nor flagged as zeroed: the node's kernel zeroes
        # them in the background, so what an old card holds there is never read.
        "lazy_itable_init": "1",
        "lazy_journal_init": "0",
    }
    options = ",".join([*(f"{key}={value}" for key, value in extended.items())])
    return [
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1"),
        *("-O", f"none,{FEATURES}", "-J", f"size={JOURNAL_MIB}", "-L", LABEL),
        *("-U", str(identity.root_uuid)),
        # nodiscard: after a discard on a file, mke2fs takes the inode tables for zeroed.
        *("-E", f"{options},nodiscard,no_copy_xattrs,root_owner=0:0"),
        *("-d", staged.root_folder, name, f"{where.length // KiB}k"),
    ]


def _debugfs(device: str, commands: list[bytes], folder: Path, env: dict[str, str]) -> None:
    """Run ``commands``. debugfs ends with status 0 even after errors, so its output is checked."""
    script = folder / "debugfs.script"
    script.write_bytes(b"\n".join(commands) + b"\n")
    done = run(["debugfs", "-w", "-f", script.name, device], cwd=folder, env=env)
    script.unlink()
    said = done.stderr.decode(errors="replace").splitlines()
    complaints = [line for line in said if line and not line.startswith("debugfs ")]
    if complaints:
        raise ToolFailed(
            f"debugfs: {complaints[0]}",
            hint="please report this, with the name of the release",
            details=complaints[:20],
        )


def _device_commands(read: Reader, offset: int, tree: Tree) -> Iterator[bytes]:
    """mknod for every device and pipe, each in its own directory, sorted by path."""
    filesystem: Ext4 | None = None
    for path, entry in tree.files():
        if entry.kind not in DEVICES:
            continue
        if "\n" in path or "\r" in path:
            raise refuse(path, f"is a {entry.kind} with a line break in its path")
        filesystem = filesystem or Ext4.open(read, offset, Budget.of_our_image())
        parent, _, name = path.rpartition("/")
        folder = filesystem.lookup(parent)
        if folder is None:
            raise ToolFailed(f"mke2fs left out {parent!r}", hint="please report this")
        yield b"cd <%d>" % folder.number
        quoted = b'"' + name.encode("utf-8", "surrogateescape").replace(b'"', b'""') + b'"'
        numbers = b" %d %d" % entry.device if entry.kind is not EntryKind.FIFO else b""
        yield b"mknod %s %s%s" % (quoted, _MKNOD_LETTERS[entry.kind].encode(), numbers)


def _inode_commands(read: Reader, offset: int, staged: Staged, folder: Path) -> Iterator[bytes]:
    """Commands that set everything of an inode but its content, once for each inode."""
    entries = staged.root.entries
    seen: set[int] = set()
    found = 0
    for path, number in Ext4.open(read, offset, Budget.of_our_image()).numbers():
        name = path[1:]
        if name == _LOST_AND_FOUND and name not in entries:
            made = TreeEntry(EntryKind.FOLDER, 0o700, 0, 0, staged.made_at * 1_000_000_000)
            yield from _set_inode(number, made)
            continue
        entry = entries.get(name)
        if entry is None:
            raise ToolFailed(f"mke2fs made {path!r} of nothing", hint="please report this")
        found += 1
        if number in seen:
            continue
        seen.add(number)
        for index, (attribute, value) in enumerate(entry.xattrs):
            file = folder / f"xattr-{number}-{index}"
            file.write_bytes(value)
            yield f'ea_set -f {file.name} <{number}> "{attribute}"'.encode()
        yield from _set_inode(number, entry)
    if found != len(entries):
        raise ToolFailed(
            f"{len(entries) - found} of {len(entries)} files did not reach the filesystem",
            hint="please report this, with the name of the release",
        )


def _set_inode(number: int, entry: TreeEntry) -> Iterator[bytes]:
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    low = seconds & 0xFFFFFFFF
    # The upper bits of the time: how many times 2^32 must be added to the signed lower half.
    epoch = (seconds - (low - (1 << 32) if low >= 1 << 31 else low)) >> 32
    extra = nanoseconds << 2 | epoch & 3
    yield (
        (
            f"sif <{number}> mode 0{_TYPE_BITS[entry.kind] | entry.mode:o}\n"
            f"sif <{number}> uid {entry.uid}\n"
            f"sif <{number}> gid {entry.gid}\n"
            + "".join(
                f"sif <{number}> {time} @{low}\nsif <{number}> {time}_extra {extra}\n"
                for time in ("atime", "ctime", "mtime", "crtime")
            )
        )
        .rstrip()
        .encode()
    )
