"""Where a release's packages come from, as its own pacman.conf tells.

In: a BaseSystem. Out: the architecture, the repositories in their order, and the mirrors to ask in
turn. pacman itself is never given that file: it names folders and users of the node. Mirrors that
the distribution lists and has commented out are asked last. Source: pacman.conf(5). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from imager.base.errors import ConfigurationError, MalformedRelease
from imager.packages.metadata import description_fields
from imager.packages.resolve.base_system import BaseSystem
from imager.release.lock import ARCHITECTURE

_SECTION = re.compile(r"\[([A-Za-z0-9@_+][A-Za-z0-9@._+-]{0,60})\]")
_SERVER = re.compile(r"https?://[A-Za-z0-9._~:/@%+$\[\]-]{1,500}")
_MOST_MIRRORS = 40


@dataclass(frozen=True, slots=True)
class Repository:
    """``servers`` are the folders, one for each mirror, that hold the database and the packages.
    Mirror n of one repository is not always mirror n of another."""

    name: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repositories:
    """What a release knows: its architecture (``armv7h``) and repositories, the first one first."""

    arch: str
    found: tuple[Repository, ...]

    def mirrors(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """For each mirror the name and folder of each repository; a repository with fewer mirrors
        is taken from its last one."""
        count = max(len(each.servers) for each in self.found)
        return tuple(
            tuple((each.name, each.servers[min(n, len(each.servers) - 1)]) for each in self.found)
            for n in range(count)
        )


def repositories_of(base: BaseSystem) -> Repositories:
    """The repositories of ``base``.

    Raises ConfigurationError for a release without pacman, MalformedRelease for one whose
    pacman.conf names no architecture or no repository with a server.
    """
    if not base.has_pacman:
        raise ConfigurationError(
            f"{base.release} has no pacman, so no packages can be added to it",
            hint="leave [packages] out of rack.toml, or choose a release of Arch Linux ARM",
        )
    sections = _sections(base)
    arch = _arch(sections, base)
    found = tuple(
        Repository(name, servers)
        for name, lines in sections.items()
        if name != "options" and (servers := _servers(lines, name, arch))
    )
    if not ARCHITECTURE.fullmatch(arch) or not found:
        missing = "no repository with a server" if found == () else "no architecture"
        raise MalformedRelease(
            f"/etc/pacman.conf of {base.release} names {missing}",
            hint="leave [packages] out of rack.toml, or choose another release",
        )
    return Repositories(arch, found)


def _arch(sections: dict[str, list[tuple[str, str]]], base: BaseSystem) -> str:
    """The first architecture it names; for ``auto``, that of the packages it has."""
    named = [value for key, value in sections.get("options", ()) if key == "Architecture"]
    first = next(iter(" ".join(named).split()), "auto")
    if first != "auto":
        return first
    own = (description_fields(text).get("ARCH", ["any"])[0] for text in base.local.values())
    return next((arch for arch in own if arch != "any"), "")


def _sections(base: BaseSystem) -> dict[str, list[tuple[str, str]]]:
    """The settings of each section. ``#Server`` stands for a server that is commented out."""
    found: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for line in base.settings["etc/pacman.conf"].splitlines():
        section = _SECTION.fullmatch(line.strip())
        if section:
            lines = found.setdefault(section[1], [])
        for key, value in _setting(line):
            if key == "Include":
                lines += _included(base, value)
            elif not key.startswith("#"):
                # What is commented out in this file itself are examples.
                lines.append((key, value))
    return found


def _included(base: BaseSystem, pattern: str) -> Iterator[tuple[str, str]]:
    for path, text in sorted(base.settings.items()):
        if fnmatch(f"/{path}", pattern) and path != "etc/pacman.conf":
            for line in text.splitlines():
                yield from ((key, value) for key, value in _setting(line) if key != "Include")


def _setting(line: str) -> Iterator[tuple[str, str]]:
    key, sign, value = line.partition("=")
    off = key.lstrip().startswith("#")
    words = key.lstrip("# \t").strip()
    if sign and (words in ("Server", "Include") or not off):
        yield ("#" if off else "") + words, value.strip()


def _servers(lines: list[tuple[str, str]], name: str, arch: str) -> tuple[str, ...]:
    ordered = [
        value.replace("$repo", name).replace("$arch", arch).rstrip("/")
        for wanted in ("Server", "#Server")
        for key, value in lines
        if key == wanted
    ]
    good = [server for server in ordered if _SERVER.fullmatch(server) and "$" not in server]
    return tuple(dict.fromkeys(good))[:_MOST_MIRRORS]
