"""Read Debian's packages: what a .deb file says of itself, what is in it, what Arch would call it.

In: .deb files, and the table ``names`` beside this file. Out: ``Deb``. ``dpkg-deb`` unpacks them.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_RELATION = re.compile(r"([a-z0-9.+-]+)(?::\w+)?(?:\s*\(([<>=]+)\s*([^)]+)\))?")


def version_of(debian: str) -> tuple[str, str]:
    """``1:1.3.dfsg+really1.3.2-4`` is ("1.3.2", "4"): epochs are each distribution's own."""
    upstream, dash, revision = debian.rpartition("-")
    upstream = (upstream if dash else debian).rpartition(":")[2].rpartition("+really")[2]
    upstream = re.sub(r"[.+~](dfsg|ds|nmu|git)[\d.]*|~\Z", "", upstream)
    upstream = re.sub(r"[~-]", ".", upstream)
    number = re.match(r"\d+", revision if dash else "")
    return upstream, number[0] if number else "1"


@dataclass(frozen=True, slots=True)
class Deb:
    """A .deb file: its control file by key, and the names of its configuration files."""

    path: Path
    control: Mapping[str, str]
    conffiles: frozenset[str]

    @property
    def name(self) -> str:
        return self.control["Package"]

    @property
    def source(self) -> str:
        return self.control.get("Source", self.name).split()[0]

    @property
    def version(self) -> str:
        """Of its source package, which a package built anew keeps."""
        named = re.search(r"\((.+)\)", self.control.get("Source", ""))
        return named[1] if named else self.control["Version"]

    def relations(self, *fields: str) -> Iterator[list[tuple[str, str, str]]]:
        """For each relation its alternatives: a name, and a sign and a version or ""."""
        for clause in ", ".join(self.control[it] for it in fields if it in self.control).split(","):
            if clause.strip():
                found = (_RELATION.match(word.strip()) for word in clause.split("|"))
                yield [(it[1], it[2] or "", it[3] or "") for it in found if it]


def read(path: Path) -> Deb:
    """What the .deb file says of itself."""
    texts: dict[str, str] = {}
    with archive("--ctrl-tarfile", path) as tar:
        for member in tar:
            if member.name in ("./control", "./conffiles") and (file := tar.extractfile(member)):
                texts[member.name] = file.read().decode()
    fields = re.findall(r"^([\w-]+):[ \t]*(.*)", texts["./control"], re.MULTILINE)
    conffiles = texts.get("./conffiles", "").split("\n")
    return Deb(path, dict(fields), frozenset(in_usr(it.lstrip("/")) for it in conffiles if it))


def names_in(table: str) -> Callable[[Deb], str]:
    """What gives a .deb file's name in Arch, by the lines of the file ``names``."""
    lines = [line.split() for line in table.splitlines() if line and line[0] != "#"]

    def name_of(deb: Deb) -> str:
        for pattern, arch in lines:
            for debian in (deb.name, deb.source):
                if fnmatchcase(debian, pattern):
                    return arch.replace("*", debian.removeprefix(pattern.rstrip("*")))
        return deb.source

    return name_of


@contextmanager
def archive(part: str, path: Path) -> Iterator[tarfile.TarFile]:
    """A part of a .deb file, as dpkg-deb(1) calls it, to be read from its beginning on."""
    with subprocess.Popen(["dpkg-deb", part, path], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield tar
        assert process.stdout is not None
        process.stdout.read()  # what stands behind the archive's end
    if process.returncode:
        raise SystemExit(f"{path} cannot be read")


def members_of(deb: Deb) -> list[str]:
    """All that it unpacks, relative to the root."""
    with archive("--fsys-tarfile", deb.path) as tar:
        names = [in_usr(info.name.removeprefix("./").rstrip("/")) for info in tar]
    return [name for name in names if name not in ("", ".")]


def in_usr(name: str) -> str:
    """``bin/mount`` where it is in a release whose /bin, /sbin and /lib are links: below /usr."""
    return re.sub(r"\A(bin|sbin|lib)/", r"usr/\1/", name)
