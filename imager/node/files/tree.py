"""What a node's card gets besides the golden image: files, links and folders by path.

In: entries from overlays and from the node's identity. Out: one CardTree without contradictions.
Pure; later entries win over earlier ones of the same path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imager.base.errors import ConfigurationError
from imager.disk.fat.names import same_on_fat

ROOT_OWNER = "root:root"


@dataclass(frozen=True, slots=True)
class CardFile:
    """A regular file. ``path`` is absolute on the root filesystem (``/etc/hostname``) or
    relative on the boot partition (``cmdline.txt``). ``owner`` is ``user:group``, names of the
    release's own passwd and group or numbers. ``source`` says where it comes from."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: str = ROOT_OWNER
    source: str = "picloud-image"


@dataclass(frozen=True, slots=True)
class CardLink:
    """A symbolic link on the root filesystem."""

    path: str
    target: str
    source: str = "picloud-image"


@dataclass(frozen=True, slots=True)
class CardFolder:
    """A folder on the root filesystem. Where mode or owner is None an existing folder keeps its
    own; a new one gets 0755 and root:root."""

    path: str
    mode: int | None = None
    owner: str | None = None
    source: str = "picloud-image"


CardEntry = CardFile | CardLink | CardFolder


@dataclass(frozen=True, slots=True)
class CardTree:
    """Entries by path, sorted, of both partitions, the units to enable where they exist, and words
    for the kernel's command line."""

    root: tuple[CardEntry, ...] = ()
    boot: tuple[CardFile, ...] = ()
    enable: tuple[str, ...] = ()
    kernel_words: tuple[str, ...] = ()

    def root_file(self, path: str) -> CardFile | None:
        """The file at ``path`` of the root filesystem, if the tree has one."""
        return next((e for e in self.root if e.path == path and isinstance(e, CardFile)), None)


def merge(*trees: CardTree) -> CardTree:
    """All trees in one; for each path the last one wins.

    Raises ConfigurationError, one line for each, where something is to be both a file and a
    folder with files in it.
    """
    root: dict[str, CardEntry] = {}
    boot: dict[str, CardFile] = {}
    for tree in trees:
        _lay_over(root, tree.root)
        boot |= {same_on_fat(file.path): file for file in tree.boot}
    conflicts = [*_conflicts(root), *_conflicts(boot)]
    if conflicts:
        raise ConfigurationError(
            "the overlays contradict each other",
            hint="remove or rename one of each pair",
            details=conflicts,
        )
    return CardTree(
        tuple(root[path] for path in sorted(root)),
        tuple(boot[path] for path in sorted(boot)),
        tuple(dict.fromkeys(unit for tree in trees for unit in tree.enable)),
        tuple(dict.fromkeys(word for tree in trees for word in tree.kernel_words)),
    )


def _lay_over(root: dict[str, CardEntry], entries: Iterable[CardEntry]) -> None:
    for entry in entries:
        below = root.get(entry.path)
        # A later tree may give a folder's mode, or only have files in the folder. In the second
        # case the mode from an earlier tree stays.
        if isinstance(entry, CardFolder) and isinstance(below, CardFolder):
            entry = CardFolder(
                entry.path,
                below.mode if entry.mode is None else entry.mode,
                entry.owner or below.owner,
                entry.source,
            )
        root[entry.path] = entry


def _conflicts(by_path: Mapping[str, CardEntry]) -> Iterable[str]:
    for path, entry in sorted(by_path.items()):
        above = path.rpartition("/")[0]
        while above:
            over = by_path.get(above)
            if over is not None and not isinstance(over, CardFolder):
                yield f"{over.source} is no folder, but {entry.source} lies below it"
            above = above.rpartition("/")[0]
