"""An overlay: what goes on the card, as a folder shaped like the card.

In: a folder with ``boot/``, ``root/`` and ``overlay.toml``. Out: for each node a CardTree; the
folder is read once, and its templates are rendered for every node.

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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import translate
from itertools import chain
from pathlib import Path, PurePosixPath

from imager.base.below import Below
from imager.base.json_fields import shown
from imager.config.fields import Table, parse_document
from imager.config.rack import STATE
from imager.disk.fat.names import name_fault, same_on_fat
from imager.node.files.cmdline import word_fault
from imager.node.files.overlay_files import (
    LARGEST_CONFIG,
    OverlayRoom,
    Source,
    is_folder,
    said,
    walk,
)
from imager.node.files.templates import SUFFIX, TemplateFault, Templates
from imager.node.files.tree import (
    ROOT_OWNER,
    CardEntry,
    CardFile,
    CardFolder,
    CardLink,
    CardTree,
)

CONFIG = "overlay.toml"
BOOT, ROOT = "boot", "root"
_PRIVATE = (STATE, ".git")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
_MOST_ATTRIBUTES = 200
"""Each file of the overlay is held against each line of [files]."""
_LONGEST_PATTERN = 1000
"""fnmatch takes the square of the brackets that are open in one."""
_LARGEST_ID = (1 << 32) - 2
_MODE = re.compile(r"0?[0-7]{3,4}\Z")
_OWNER = re.compile(r"[a-z0-9_][a-z0-9_.-]*(:[a-z0-9_][a-z0-9_.-]*)?\Z")
_KEY = "holds a private key; keys are made and kept in .picloud, never here"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+\.(service|socket|timer|target|path|mount)\Z")


@dataclass(frozen=True, slots=True)
class _Attributes:
    """One line of [files]."""

    pattern: re.Pattern[str]
    mode: int | None
    owner: str | None


class _Template(CardFile):
    """A file whose content is still to be rendered."""

    __slots__ = ()


class OverlayFolder:
    """The overlay in ``folder``, which need not be there. What is read is counted in ``room``."""

    def __init__(self, folder: Below, room: OverlayRoom) -> None:
        self._folder = folder
        self._beside = Below(folder.root, judged=folder.judged)
        """Where its [include] paths are taken from."""
        self._room = room
        self._attributes: list[_Attributes] = []
        self._found: list[CardEntry | str] = []
        """Entries and faults, in the order in which they were met."""
        self._enable: tuple[str, ...] = ()
        self._words: tuple[str, ...] = ()
        self.took = OverlayRoom(0, 0)
        """How much of the room it took."""

    def read(self) -> None:
        """Read the folder, once. Raises OSError and OverlaysTooLarge; ``tree`` has then what was
        read before."""
        if not is_folder(self._folder):
            return
        before = replace(self._room)
        for name in self._folder.names():
            if name not in (BOOT, ROOT, CONFIG) and not name.startswith("README"):
                self._fault((self._folder / name).path, f"is not {BOOT}/, {ROOT}/ or {CONFIG}")
        config = self._folder / CONFIG
        top, found = parse_document(str(config.path), self._config_text(config))
        self._attributes = list(_read_attributes(top, top.table("files")))
        # One by one: who brings too many is found out before all of them were looked at.
        for source in chain(_below(self._folder), self._included(top.table("include"))):
            self._room.count(source)
            self._entry(source)
        self._links(top.table("links"))
        self._enable, self._words = _read_enable(top), _read_kernel_words(top)
        top.close()
        self._find_twins()
        self._found += found.lines
        self.took = OverlayRoom(
            before.size_bytes - self._room.size_bytes, before.entries - self._room.entries
        )

    def tree(self, templates: Templates, faults: list[str]) -> CardTree:
        """The CardTree of the node whose ``templates`` these are. What is wrong is added to
        ``faults``; raises TemplateOverLimit."""
        root: list[CardEntry] = []
        boot: list[CardFile] = []
        for found in self._found:
            if isinstance(found, str):
                faults.append(found)
                continue
            entry = _rendered(found, templates, faults) if isinstance(found, _Template) else found
            if isinstance(entry, CardFile) and not entry.path.startswith("/"):
                boot.append(entry)
            else:
                root.append(entry)
        return CardTree(tuple(root), tuple(boot), self._enable, self._words)

    def _config_text(self, config: Below) -> str:
        if config.status() is None:
            return ""
        try:
            return config.read(LARGEST_CONFIG)[0].decode()
        except OSError as error:
            self._found.append(said(error, config.path))
        except UnicodeDecodeError:
            self._fault(config.path, "is not UTF-8 text")
        return ""

    def _entry(self, source: Source) -> None:
        path = source.path
        on_boot = source.place.startswith(f"{BOOT}/")
        if not source.is_utf8:
            self._fault(path, "has a name that is not UTF-8")
        elif stat.S_ISLNK(source.mode):
            link = CardLink(_on_card(source.place), source.at.target(), str(path))
            if on_boot:
                self._fault(path, "is a symbolic link, which FAT cannot hold")
            else:
                self._found.append(link)
        elif stat.S_ISDIR(source.mode):
            mode, owner = self._mode_and_owner(source.place)
            if not on_boot:
                self._found.append(CardFolder(_on_card(source.place), mode, owner, str(path)))
        elif stat.S_ISREG(source.mode):
            file = self._file(source)
            self._found.append(file)
            if on_boot:
                self._check_for_fat(file)
        else:
            self._fault(path, "is neither file, folder nor symbolic link")

    def _file(self, source: Source) -> CardFile:
        is_template = source.path.name.endswith(SUFFIX)
        content = self._content(source, is_template)
        place = source.place.removesuffix(SUFFIX)
        mode, owner = self._mode_and_owner(place)
        if mode is None:
            mode = 0o755 if source.mode & 0o111 else 0o644
        kind = _Template if is_template else CardFile
        return kind(_on_card(place), content, mode, owner or ROOT_OWNER, str(source.path))

    def _content(self, source: Source, is_template: bool) -> bytes:
        try:
            content = self._room.read(source)
            if is_template:
                content.decode()
        except OSError as error:
            self._found.append(said(error, source.path))
            return b""
        except UnicodeDecodeError:
            self._fault(source.path, "is a template but not UTF-8 text")
            return b""
        if not is_template and _holds_key(content):
            self._fault(source.path, _KEY)
        return content

    def _mode_and_owner(self, place: str) -> tuple[int | None, str | None]:
        mode, owner = None, None
        for line in self._attributes:
            if line.pattern.match(place):
                mode = mode if line.mode is None else line.mode
                owner = line.owner or owner
        return mode, owner

    def _check_for_fat(self, file: CardFile) -> None:
        for name in PurePosixPath(file.path).parts:
            fault = name_fault(name)
            if fault:
                self._found.append(f"{file.source}: the name {fault}, which FAT cannot hold")

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

    def _links(self, table: Table) -> None:
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
            source = str((self._folder / CONFIG).path)
            self._found.append(CardLink(_on_card(place), target, source))

    def _find_twins(self) -> None:
        seen: dict[str, CardFile | CardLink] = {}
        entries = [found for found in self._found if isinstance(found, CardFile | CardLink)]
        for entry in sorted(entries, key=lambda entry: not entry.path.startswith("/")):
            on_boot = not entry.path.startswith("/")
            key = same_on_fat(entry.path) if on_boot else entry.path
            twin = seen.setdefault(key, entry)
            if twin is not entry:
                alike = "for one path" if twin.path == entry.path else "one name on FAT"
                self._found.append(f"{twin.source} and {entry.source} are {alike}")

    def _fault(self, path: Path, message: str) -> None:
        self._found.append(f"{path}: {message}")


def _rendered(template: CardFile, templates: Templates, faults: list[str]) -> CardFile:
    text, path = template.content.decode(), Path(template.source)
    try:
        content = templates.render(path, text).encode()
    except TemplateFault as error:
        faults.append(str(error))
        content = b""
    if _holds_key(content):
        faults.append(f"{path}: {_KEY}")
    return CardFile(template.path, content, template.mode, template.owner, template.source)


def _holds_key(content: bytes) -> bool:
    return b"PRIVATE KEY-----" in content


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


def _read_attributes(top: Table, table: Table) -> Iterator[_Attributes]:
    lines = list(table.tables())
    if len(lines) > _MOST_ATTRIBUTES:
        top.fault("files", f"has {len(lines)} lines; at most {_MOST_ATTRIBUTES} can be given")
    for pattern, line in lines[:_MOST_ATTRIBUTES]:
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
        if len(pattern) > _LONGEST_PATTERN:
            table.fault(pattern, f"is longer than {_LONGEST_PATTERN} letters")
            continue
        matching = re.compile(translate(pattern))
        yield _Attributes(matching, None if mode is None else int(mode, 8), owner)


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
