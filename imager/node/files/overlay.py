"""Overlays: what goes on the card, as folders shaped like the card.

In: folders with ``boot/``, ``root/`` and ``overlay.toml``, in the order in which they apply.
Out: one CardTree. First come ``base``, ``model/<model>`` and ``role/<role>`` of the built-in
overlays, then the same of the rack, last the rack's ``node/<name>``. For each path the last wins.

overlay.toml, every table optional::

    enable = ["sshd.service"]                       # units to enable where the card has them
    kernel_words = ["cgroup_enable=memory"]         # added to the kernel's command line
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

from imager.base.below import Below
from imager.base.errors import ConfigurationError
from imager.base.json_fields import shown
from imager.config.fields import Table, nearest, parse_document
from imager.config.rack import STATE, Node
from imager.disk.fat.names import name_fault
from imager.node.files.cmdline import word_fault
from imager.node.files.overlay_files import (
    LARGEST_CONFIG,
    OverlayRoom,
    OverlaysTooLarge,
    Source,
    said,
    walk,
)
from imager.node.files.templates import SUFFIX, TemplateFault, TemplateOverLimit, Templates
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
_PRIVATE = (STATE, ".git")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
_LARGEST_ID = (1 << 32) - 2
_MODE = re.compile(r"0?[0-7]{3,4}\Z")
_OWNER = re.compile(r"[a-z0-9_][a-z0-9_.-]*(:[a-z0-9_][a-z0-9_.-]*)?\Z")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+\.(service|socket|timer|target|path|mount)\Z")


@dataclass(frozen=True, slots=True)
class _Attributes:
    """One line of [files]."""

    pattern: str
    mode: int | None
    owner: str | None


def load_overlays(built_in: Path, own: Path, node: Node, templates: Templates) -> CardTree:
    """The merged overlays of ``node``: those of ``built_in``, then those of ``own``.

    Raises ConfigurationError with one line for each fault of every overlay.
    """
    names = ("base", f"model/{node.model}", *(f"role/{role}" for role in node.roles))
    room = OverlayRoom()
    faults: list[str] = []
    trees = []
    try:
        faults += _strangers(own)
        for overlays, name in (
            *((built_in, name) for name in names),
            *((own, name) for name in (*names, f"node/{node.name}")),
        ):
            # What came with this program is trusted as its code is, and may have second names:
            # some installers link files out of their cache.
            beside = Below(overlays.parent, judged=overlays == own)
            if not _is_folder(beside / overlays.name / name):
                continue
            reading = _Reading(beside / overlays.name / name, beside, templates, room)
            trees.append(reading.tree(faults))
    except OSError as error:
        faults.append(said(error, own))
    except (TemplateOverLimit, OverlaysTooLarge) as error:
        faults.append(str(error))
    if faults:
        raise ConfigurationError(
            f"overlays: {len(faults)} fault{'s' if len(faults) > 1 else ''}",
            hint="mend the files named here; overlays/README.md says what an overlay may hold",
            # A name of any bytes must not stop the line that tells of it from being printed.
            details=(fault.encode(errors="backslashreplace").decode() for fault in faults),
        )
    return merge(*trees)


def _is_folder(at: Below) -> bool:
    """Whether there is one; OSError for anything else in its place: it is not left out unsaid."""
    if at.status() is None:
        return False
    at.names()
    return True


def _strangers(own: Path) -> Iterator[str]:
    """A fault for each folder that no node uses: its files would be missing on every card."""
    known = ("base", "model", "node", "role")
    overlays = Below(own.parent) / own.name
    for name in overlays.names() if _is_folder(overlays) else ():
        status = (overlays / name).status()
        if name in (BOOT, ROOT):
            yield f"{own / name}: belongs below {own / 'base'}"
        elif status and stat.S_ISDIR(status.st_mode) and name not in known:
            yield f"{own / name}: no such overlay; {nearest(name, known)}"


class _Reading:
    """Reads one overlay folder; ``beside`` is where its [include] paths are taken from."""

    def __init__(
        self, folder: Below, beside: Below, templates: Templates, room: OverlayRoom
    ) -> None:
        self._folder = folder
        self._beside = beside
        self._templates = templates
        self._room = room
        self._attributes: list[_Attributes] = []
        self._faults: list[str] = []

    def tree(self, faults: list[str]) -> CardTree:
        """The overlay's own CardTree; what is wrong with it is added to ``faults``, also when
        OSError, TemplateOverLimit or OverlaysTooLarge end the reading."""
        self._faults = faults
        for name in self._folder.names():
            if name not in (BOOT, ROOT, CONFIG) and not name.startswith("README"):
                self._fault((self._folder / name).path, f"is not {BOOT}/, {ROOT}/ or {CONFIG}")
        config = self._folder / CONFIG
        top, found = parse_document(str(config.path), self._config_text(config))
        self._attributes = list(_read_attributes(top.table("files")))
        sources = [*_below(self._folder), *self._included(top.table("include"))]
        root, boot = self._entries(sources)
        root += self._links(top.table("links"))
        enable, words = _read_enable(top), _read_kernel_words(top)
        top.close()
        self._find_twins((*root, *boot))
        self._faults += found.lines
        return CardTree(tuple(root), tuple(boot), enable, words)

    def _config_text(self, config: Below) -> str:
        if config.status() is None:
            return ""
        try:
            return config.read(LARGEST_CONFIG)[0].decode()
        except OSError as error:
            self._faults.append(said(error, config.path))
        except UnicodeDecodeError:
            self._fault(config.path, "is not UTF-8 text")
        return ""

    def _entries(self, sources: Iterable[Source]) -> tuple[list[CardEntry], list[CardFile]]:
        root: list[CardEntry] = []
        boot: list[CardFile] = []
        for source in sources:
            self._room.count(source)
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

    def _entry(self, source: Source) -> CardEntry | None:
        if not source.is_utf8:
            self._fault(source.path, "has a name that is not UTF-8")
            return None
        if stat.S_ISLNK(source.mode):
            return CardLink(_on_card(source.place), source.at.target(), str(source.path))
        if stat.S_ISDIR(source.mode):
            mode, owner = self._mode_and_owner(source.place)
            return CardFolder(_on_card(source.place), mode, owner, str(source.path))
        if not stat.S_ISREG(source.mode):
            self._fault(source.path, "is neither file, folder nor symbolic link")
            return None
        place = source.place.removesuffix(SUFFIX)
        content = self._content(source)
        mode, owner = self._mode_and_owner(place)
        if mode is None:
            mode = 0o755 if source.mode & 0o111 else 0o644
        return CardFile(_on_card(place), content, mode, owner or ROOT_OWNER, str(source.path))

    def _content(self, source: Source) -> bytes:
        path = source.path
        try:
            content = self._room.read(source)
            if path.name.endswith(SUFFIX):
                content = self._templates.render(path, content.decode()).encode()
        except OSError as error:
            self._faults.append(said(error, path))
            return b""
        except TemplateFault as error:
            self._faults.append(str(error))
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
                self._faults.append(f"{file.source}: the name {fault}, which FAT cannot hold")
        return file

    def _included(self, table: Table) -> Iterator[Source]:
        for place in table.names():
            name = table.string(place, example='"firstboot/steps"')
            if name is None or not _is_place(table, place):
                continue
            parts = PurePosixPath(name).parts
            if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
                table.fault(place, f"{shown(name)} leads out of {self._beside.path}")
            elif parts[0] in _PRIVATE:
                table.fault(place, f"{shown(name)} is private to this rack and goes on no card")
            else:
                yield from self._include(table, place, self._beside / "/".join(parts))
        table.close()

    def _include(self, table: Table, place: str, at: Below) -> Iterator[Source]:
        try:
            status = at.status()
        except OSError as error:
            table.fault(place, said(error, at.path))
            return
        if status is None:
            table.fault(place, f"{at.path} does not exist")
        elif not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            table.fault(place, f"{at.path} is neither file nor folder; links are not followed here")
        else:
            yield Source(place, at, status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                yield from walk(at, place)

    def _links(self, table: Table) -> list[CardEntry]:
        links: list[CardEntry] = []
        for place in table.names():
            target = table.string(place, example='"/usr/lib/systemd/system/x.service"')
            if target is None or not _is_place(table, place):
                continue
            if place.startswith(f"{BOOT}/"):
                table.fault(place, "is on the boot partition, and FAT has no symbolic links")
                continue
            if "\0" in target or len(target.encode()) > _LONGEST_PATH:
                table.fault(place, f"{shown(target)} is nothing a symbolic link can point to")
                continue
            links.append(CardLink(_on_card(place), target, str((self._folder / CONFIG).path)))
        return links

    def _find_twins(self, entries: Iterable[CardEntry]) -> None:
        seen: dict[str, str] = {}
        for entry in entries:
            if isinstance(entry, CardFolder):
                continue
            if entry.path in seen:
                self._faults.append(f"{seen[entry.path]} and {entry.source} are for one path")
            seen[entry.path] = entry.source

    def _fault(self, path: Path, message: str) -> None:
        self._faults.append(f"{path}: {message}")


def _below(folder: Below) -> Iterator[Source]:
    for part in (BOOT, ROOT):
        if (folder / part).status() is not None:
            yield from walk(folder / part, part)


def _on_card(place: str) -> str:
    part, _, path = place.partition("/")
    return path if part == BOOT else f"/{path}"


def _is_place(table: Table, place: str) -> bool:
    parts = place.split("/")
    good = len(parts) > 1 and parts[0] in (BOOT, ROOT) and not {"", ".", ".."} & set(parts)
    good = good and "\0" not in place and len(place.encode()) <= _LONGEST_PATH
    good = good and all(len(part.encode()) <= _LONGEST_NAME for part in parts)
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
        if owner is not None and not _is_owner(owner):
            line.fault("owner", f'{shown(owner)} is not user:group; write it like "root:root"')
            owner = None
        yield _Attributes(pattern, None if mode is None else int(mode, 8), owner)


def _is_owner(text: str) -> bool:
    numbers = [word for word in text.split(":") if word.isdigit()]
    in_range = all(len(word) <= 10 and int(word) <= _LARGEST_ID for word in numbers)
    return bool(_OWNER.match(text)) and in_range


def _read_enable(top: Table) -> tuple[str, ...]:
    units = top.strings("enable", example='["sshd.service"]') or ()
    for unit in units:
        if not _UNIT.match(unit):
            top.fault("enable", f'{shown(unit)} is not a unit; write it like "sshd.service"')
    return units


def _read_kernel_words(top: Table) -> tuple[str, ...]:
    words = top.strings("kernel_words", example='["cgroup_enable=memory"]') or ()
    for word in words:
        fault = word_fault(word)
        if fault is not None:
            top.fault("kernel_words", f'{shown(word)} {fault}; write it like "quiet"')
    return words
