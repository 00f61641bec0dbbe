"""Overlays: what goes on the card, as folders shaped like the card.

In: folders with ``boot/``, ``root/`` and ``overlay.toml``, in the order in which they apply.
Out: one CardTree. First come ``base``, ``model/<model>`` and ``role/<role>`` of the built-in
overlays, then the same of the rack, last the rack's ``node/<name>``. For each path the last wins.

overlay.toml, every table optional::

    enable = ["sshd.service"]                       # units to enable where the card has them
    [files]                                         # a path or glob (* matches / too), last wins
    "root/etc/secret.d/*" = { mode = "0600", owner = "root:root" }
    [links]                                         # symbolic links, which git and zip may lose
    "root/etc/localtime" = "../usr/share/zoneinfo/UTC"
    [include]                                       # files kept elsewhere beside overlays/
    "root/usr/lib/picloud/firstboot" = "firstboot/steps"
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from imager.base.errors import ConfigurationError
from imager.base.json_fields import shown
from imager.config.fields import Table, nearest, parse_document
from imager.config.rack import Node
from imager.disk.fat.names import name_fault
from imager.node.files.templates import SUFFIX, TemplateFault, Templates
from imager.node.files.tree import (
    ROOT_OWNER,
    CardEntry,
    CardFile,
    CardFolder,
    CardLink,
    CardTree,
    merge,
)

CONFIG = "overlay.toml"
BOOT, ROOT = "boot", "root"
_KEPT_FOR_GIT = ".gitkeep"
_MODE = re.compile(r"0?[0-7]{3,4}\Z")
_OWNER = re.compile(r"[a-z0-9_][a-z0-9_.-]*(:[a-z0-9_][a-z0-9_.-]*)?\Z")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+\.(service|socket|timer|target|path|mount)\Z")


@dataclass(frozen=True, slots=True)
class _Attributes:
    """One line of [files]."""

    pattern: str
    mode: int | None
    owner: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of an overlay and its place on the card (``root/etc/hosts``)."""

    place: str
    path: Path


def load_overlays(built_in: Path, own: Path, node: Node, templates: Templates) -> CardTree:
    """The merged overlays of ``node``: those of ``built_in``, then those of ``own``.

    Raises ConfigurationError with one line for each fault of every overlay.
    """
    faults: list[str] = list(_strangers(own))
    trees = []
    for overlays, name in (*_names(built_in, node), *_names(own, node), (own, f"node/{node.name}")):
        if (overlays / name).is_dir():
            reading = _Reading(overlays / name, overlays.parent, templates)
            trees.append(reading.tree())
            faults += reading.faults
    if faults:
        raise ConfigurationError(
            f"overlays: {len(faults)} fault{'s' if len(faults) > 1 else ''}",
            hint="mend the files named here; overlays/README.md says what an overlay may hold",
            details=faults,
        )
    return merge(*trees)


def _names(overlays: Path, node: Node) -> list[tuple[Path, str]]:
    names = ("base", f"model/{node.model}", *(f"role/{role}" for role in node.roles))
    return [(overlays, name) for name in names]


def _strangers(own: Path) -> Iterator[str]:
    """A fault for each folder that no node uses: its files would be missing on every card."""
    known = ("base", "model", "node", "role")
    for path in sorted(own.glob("*")):
        if path.name in (BOOT, ROOT):
            yield f"{path}: belongs below {own / 'base'}"
        elif path.is_dir() and path.name not in known:
            yield f"{path}: no such overlay; {nearest(path.name, known)}"


class _Reading:
    """Reads one overlay folder; ``beside`` is where its [include] paths are taken from."""

    def __init__(self, folder: Path, beside: Path, templates: Templates) -> None:
        self._folder = folder
        self._beside = beside
        self._templates = templates
        self._attributes: list[_Attributes] = []
        self.faults: list[str] = []

    def tree(self) -> CardTree:
        """The overlay's own CardTree; what could not be read is in ``faults``."""
        for path in sorted(self._folder.iterdir()):
            if path.name not in (BOOT, ROOT, CONFIG) and not path.name.startswith("README"):
                self._fault(path, f"is not {BOOT}/, {ROOT}/ or {CONFIG}")
        config = self._folder / CONFIG
        text = config.read_text() if config.is_file() else ""
        top, faults = parse_document(str(config), text)
        self._attributes = list(_read_attributes(top.table("files")))
        sources = [*_below(self._folder), *self._included(top.table("include"))]
        root, boot = self._entries(sources)
        root += self._links(top.table("links"))
        enable = _read_enable(top)
        top.close()
        self._find_twins((*root, *boot))
        self.faults += faults.lines
        return CardTree(tuple(root), tuple(boot), enable)

    def _entries(self, sources: Iterable[_Source]) -> tuple[list[CardEntry], list[CardFile]]:
        root: list[CardEntry] = []
        boot: list[CardFile] = []
        for source in sources:
            entry = self._entry(source)
            if entry is None:
                continue
            if source.place.startswith(f"{ROOT}/"):
                root.append(entry)
            elif isinstance(entry, CardFile):
                boot.append(self._on_fat(entry))
            elif isinstance(entry, CardLink):
                self._fault(source.path, "is a symbolic link, which FAT cannot hold")
        return root, boot

    def _entry(self, source: _Source) -> CardEntry | None:
        status = source.path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return CardLink(_on_card(source.place), str(source.path.readlink()), str(source.path))
        if stat.S_ISDIR(status.st_mode):
            mode, owner = self._mode_and_owner(source.place)
            return CardFolder(_on_card(source.place), mode, owner, str(source.path))
        if not stat.S_ISREG(status.st_mode):
            self._fault(source.path, "is neither file, folder nor symbolic link")
            return None
        place = source.place.removesuffix(SUFFIX)
        content = self._content(source.path)
        mode, owner = self._mode_and_owner(place)
        if mode is None:
            mode = 0o755 if status.st_mode & 0o111 else 0o644
        return CardFile(_on_card(place), content, mode, owner or ROOT_OWNER, str(source.path))

    def _content(self, path: Path) -> bytes:
        try:
            content = path.read_bytes()
            if path.name.endswith(SUFFIX):
                content = self._templates.render(path, content.decode()).encode()
        except OSError as error:
            self._fault(path, error.strerror or "cannot be read")
            return b""
        except TemplateFault as error:
            self.faults.append(str(error))
            return b""
        except UnicodeDecodeError:
            self._fault(path, "is a template but not UTF-8 text")
            return b""
        if b"PRIVATE KEY-----" in content:
            self._fault(path, "holds a private key; keys are made and kept in .picloud, never here")
        return content

    def _mode_and_owner(self, place: str) -> tuple[int | None, str | None]:
        mode, owner = None, None
        for line in self._attributes:
            if fnmatchcase(place, line.pattern):
                mode = mode if line.mode is None else line.mode
                owner = line.owner or owner
        return mode, owner

    def _on_fat(self, file: CardFile) -> CardFile:
        for name in PurePosixPath(file.path).parts:
            fault = name_fault(name)
            if fault:
                self.faults.append(f"{file.source}: the name {fault}, which FAT cannot hold")
        return file

    def _included(self, table: Table) -> Iterator[_Source]:
        for place in table.names():
            name = table.string(place, example='"firstboot/steps"')
            if name is None or not _is_place(table, place):
                continue
            path = self._beside / name
            if not PurePosixPath(name).parts or ".." in PurePosixPath(name).parts:
                table.fault(place, f"{shown(name)} leads out of {self._beside}")
            elif path.is_dir():
                yield _Source(place, path)
                yield from _walk(path, place)
            elif path.is_file():
                yield _Source(place, path)
            else:
                table.fault(place, f"{path} does not exist")
        table.close()

    def _links(self, table: Table) -> list[CardEntry]:
        links: list[CardEntry] = []
        for place in table.names():
            target = table.string(place, example='"/usr/lib/systemd/system/x.service"')
            if target is None or not _is_place(table, place):
                continue
            if place.startswith(f"{BOOT}/"):
                table.fault(place, "is on the boot partition, and FAT has no symbolic links")
                continue
            links.append(CardLink(_on_card(place), target, str(self._folder / CONFIG)))
        return links

    def _find_twins(self, entries: Iterable[CardEntry]) -> None:
        seen: dict[str, str] = {}
        for entry in entries:
            if isinstance(entry, CardFolder):
                continue
            if entry.path in seen:
                self.faults.append(f"{seen[entry.path]} and {entry.source} are for one path")
            seen[entry.path] = entry.source

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(f"{path}: {message}")


def _below(folder: Path) -> Iterator[_Source]:
    for part in (BOOT, ROOT):
        yield from _walk(folder / part, part)


def _walk(folder: Path, place: str) -> Iterator[_Source]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name == _KEPT_FOR_GIT:
            continue
        yield _Source(f"{place}/{path.name}", path)
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, f"{place}/{path.name}")


def _on_card(place: str) -> str:
    part, _, path = place.partition("/")
    return path if part == BOOT else f"/{path}"


def _is_place(table: Table, place: str) -> bool:
    parts = place.split("/")
    good = len(parts) > 1 and parts[0] in (BOOT, ROOT) and not {"", ".", ".."} & set(parts)
    if not good:
        table.fault(place, 'is no place on the card; write it like "root/etc/motd"')
    return good


def _read_attributes(table: Table) -> Iterator[_Attributes]:
    for pattern, line in table.tables():
        mode = line.string("mode", example='"0644"')
        owner = line.string("owner", example='"root:root"')
        line.close()
        if not pattern.startswith((f"{BOOT}/", f"{ROOT}/")):
            table.fault(pattern, 'is no path on the card; begin it with "root/" or "boot/"')
        if mode is not None and not _MODE.match(mode):
            line.fault("mode", f'{shown(mode)} is not an octal mode; write it like "0644"')
            mode = None
        if owner is not None and not _OWNER.match(owner):
            line.fault("owner", f'{shown(owner)} is not user:group; write it like "root:root"')
            owner = None
        yield _Attributes(pattern, None if mode is None else int(mode, 8), owner)


def _read_enable(top: Table) -> tuple[str, ...]:
    units = top.strings("enable", example='["sshd.service"]') or ()
    for unit in units:
        if not _UNIT.match(unit):
            top.fault("enable", f'{shown(unit)} is not a unit; write it like "sshd.service"')
    return units
