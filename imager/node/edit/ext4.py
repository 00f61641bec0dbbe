"""Writes a node's files into an ext4 filesystem without mounting it, through debugfs(8).

In: a working copy of the root filesystem and the entries to write into it. Out: the same file,
changed. debugfs exits with 0 even after errors, so its output is checked here, and the caller lets
e2fsck check the result.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from imager.base.errors import ConfigurationError, ToolFailed
from imager.base.run import run
from imager.disk.ext4.filesystem import Ext4
from imager.node.edit.memory_file import MemoryFile, scratch
from imager.node.files.accounts import Accounts
from imager.node.files.tree import ROOT_OWNER, CardEntry, CardFolder, CardLink, CardTree

_FILES_AT_ONCE = 200
"""How many files one run of debugfs gets: each is an open file descriptor of this program."""


@dataclass(frozen=True, slots=True)
class Write:
    """debugfs commands for one path. Where there is ``content``, the file ``name`` with it is
    written after the commands ``before`` and before the commands ``after``."""

    before: tuple[str, ...]
    name: str = ""
    content: bytes | None = field(default=None, repr=False)
    after: tuple[str, ...] = ()


def plan_edits(
    image: Ext4, tree: CardTree, remove: Iterable[str], accounts: Accounts, time: int
) -> tuple[Write, ...]:
    """The commands that write ``tree`` into ``image`` after removing the files ``remove``.

    Every file written gets ``time`` (seconds since 1970) as all of its times. Missing folders are
    made. Symbolic links in a path are followed as on the running node. Raises ConfigurationError,
    with one line for each entry that cannot be written, and ValueError for a file that cannot be
    removed because of its name.
    """
    return _Planner(image, accounts, time).plan(tree.root, remove)


def apply_edits(writes: Sequence[Write], work: MemoryFile, time: int) -> None:
    """Carry ``writes`` out on the filesystem in ``work``. Raises ToolFailed when debugfs
    complains about anything."""
    for start in range(0, len(writes), _FILES_AT_ONCE):
        _run_debugfs(writes[start : start + _FILES_AT_ONCE], work, time)


def _run_debugfs(writes: Sequence[Write], work: MemoryFile, time: int) -> None:
    with ExitStack() as files:
        lines: list[str] = []
        inherit = [work.descriptor]
        for write in writes:
            lines += write.before
            if write.content is not None:
                source = files.enter_context(scratch(content=write.content))
                inherit.append(source.descriptor)
                lines.append(f"write {source.path} {quote(write.name)}")
            lines += write.after
        text = "".join(f"{line}\n" for line in lines).encode()
        script = files.enter_context(scratch(content=text))
        words = ["debugfs", "-w", "-f", script.path, work.path]
        done = run(words, env=tool_times(time), inherit=[*inherit, script.descriptor])
    # Its first line is its name and version; every other one is a complaint (com_err(3)).
    complaints = done.stderr.decode(errors="replace").splitlines()[1:]
    if complaints:
        raise ToolFailed(
            f"debugfs could not write a file of the node: {complaints[0].strip()}",
            hint="please report this with the release and the overlays used",
            details=complaints[:20],
        )


def tool_times(time: int) -> dict[str, str]:
    """An environment in which e2fsprogs and mtools take ``time`` as the present time. The first
    variable is for e2fsprogs before 1.47.1, the second for later ones and for mtools."""
    return {"E2FSPROGS_FAKE_TIME": str(time), "SOURCE_DATE_EPOCH": str(time)}


class _Planner:
    """Goes through the entries in the order of their paths, folders before what is in them."""

    def __init__(self, image: Ext4, accounts: Accounts, time: int) -> None:
        self._image = image
        self._accounts = accounts
        self._time = time
        self._made: set[str] = set()
        self._written: dict[str, str] = {}
        self._faults: list[str] = []

    def plan(self, entries: Sequence[CardEntry], remove: Iterable[str]) -> tuple[Write, ...]:
        writes: list[Write] = []
        for path in sorted(set(remove) - {entry.path for entry in entries}):
            found = self._image.lookup(path, follow=False)
            if found is not None and not found.is_dir:
                folder, name = self._split(path)
                try:
                    writes.append(Write((_cd(folder), f"rm {_existing(name)}")))
                except ValueError as error:
                    raise ValueError(f"{path} {error}") from error
        # Folders first, so that a link such as lib -> usr/lib has its target when it is followed.
        for entry in sorted(entries, key=lambda entry: not isinstance(entry, CardFolder)):
            try:
                writes += self._write(entry)
            except ValueError as error:
                self._faults.append(f"{entry.source}: {entry.path}: {error}")
        if self._faults:
            raise ConfigurationError(
                "some files of the node cannot be put on its card",
                hint="change the overlays named here",
                details=self._faults,
            )
        return tuple(writes)

    def _write(self, entry: CardEntry) -> Iterator[Write]:
        folder, name = self._split(entry.path)
        path = f"{folder.rstrip('/')}/{name}"
        if isinstance(entry, CardFolder):
            yield from self._folder(path, entry)
            return
        yield from self._parents(folder)
        if path in self._written:
            raise ValueError(f"is the same file on this release as {self._written[path]}")
        self._written[path] = entry.path
        found = self._image.lookup(path, follow=False)
        if found is not None and found.is_dir:
            raise ValueError("is a folder in the release")
        removed = [f"rm {_existing(name)}"] if found is not None else []
        if isinstance(entry, CardLink):
            made = [f"symlink {quote(name)} {quote(entry.target)}", *self._times(name)]
            yield Write((_cd(folder), *removed, *made, *self._owned(name, (0, 0))))
            return
        owned = self._owned(name, self._accounts.owner(entry.owner))
        mode = f"sif {_existing(name)} mode 0{stat.S_IFREG | entry.mode:o}"
        after = (mode, *owned, *self._times(name))
        yield Write((_cd(folder), *removed), name, entry.content, after)

    def _folder(self, path: str, entry: CardFolder) -> Iterator[Write]:
        real = self._image.resolve(path)
        found = self._image.lookup(real)
        if found is not None and not found.is_dir:
            raise ValueError("is a file in the release")
        yield from self._parents(real)
        commands = []
        if entry.mode is not None:
            commands.append(f"sif {_existing(real)} mode 0{stat.S_IFDIR | entry.mode:o}")
        if entry.owner is not None:
            commands += self._owned(real, self._accounts.owner(entry.owner))
        if commands:
            yield Write(tuple(commands))

    def _parents(self, folder: str) -> Iterator[Write]:
        """Make ``folder`` (without links) and those above it where they are missing."""
        path = ""
        for part in folder.strip("/").split("/") if folder != "/" else ():
            above, path = path or "/", f"{path}/{part}"
            if path in self._made:
                continue
            self._made.add(path)
            found = self._image.lookup(path, follow=False)
            if found is not None and not found.is_dir:
                raise ValueError(f"{path} is a file in the release")
            if found is None:
                owned = self._owned(part, self._accounts.owner(ROOT_OWNER))
                mode = f"sif {_existing(part)} mode 0{stat.S_IFDIR | 0o755:o}"
                made = (f"mkdir {quote(part)}", mode, *owned, *self._times(part))
                yield Write((_cd(above), *made))

    def _split(self, path: str) -> tuple[str, str]:
        folder, _, name = path.rpartition("/")
        return self._image.resolve(folder or "/"), name

    def _owned(self, name: str, owner: tuple[int, int]) -> list[str]:
        uid, gid = owner
        return [f"sif {_existing(name)} uid {uid}", f"sif {_existing(name)} gid {gid}"]

    def _times(self, name: str) -> list[str]:
        fields = ("atime", "mtime", "ctime", "crtime")
        return [f"sif {_existing(name)} {field} @{self._time}" for field in fields]


def quote(text: str) -> str:
    """``text`` as one word of a debugfs command (ss(3): in double quotes, which are doubled).

    Raises ValueError for what no command line can carry.
    """
    if any(ord(letter) < 0x20 or letter == "\x7f" for letter in text):
        raise ValueError("has a control character in its name")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("has a name that is not UTF-8")
    return '"' + text.replace('"', '""') + '"'


def _existing(name: str) -> str:
    """A file by its path or by its name in the current folder. debugfs takes a bare ``<12>`` for
    the inode 12 where it looks a file up, though not where it makes one."""
    return quote(name if name.startswith("/") else f"./{name}")


def _cd(folder: str) -> str:
    return f"cd {quote(folder)}"
