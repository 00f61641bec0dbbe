"""Python modules that Salt imports and that must be in the release: are they there?

In: the names of a release's files, and the metadata of a Salt source release. Out: the modules that
are missing, each with the name of its package in the release's distribution. Pure.

Salt's metadata asks for more modules, and newer ones, than a minion and a master import. (3008.3
was seen to run on the packages of Debian 12, most of them older than it asks for.) So this list
counts, as far as the metadata names what is in it. Which versions are safe is left to the
distribution.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

from imager.image.unpack.members import EntryKind, TreeEntry

_EXTENSION = re.compile(r"\.(?:cpython-3(\d+)[^./]*|abi3t?(?:-[^./]+)?)\.so\Z")
"""One for every later Python is called abi3; Debian's Python 3.14 names the platform as well."""
_STDLIB = re.compile(r"usr/lib/python3\.(\d+)/os\.py\Z")
_LINKED = re.compile(r"(?:/usr/bin/)?python3\.(\d+)\Z")
_BOUND = re.compile(r"(>=|<=|!=|~=|==|>|<)\s*3\.(\d{1,3})")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOLDS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "!=": operator.ne,
    "==": operator.eq,
    "~=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Need:
    """A module that Salt imports: ``project`` is its name on PyPI, then follow the names of its
    packages. A ``compiled`` one needs an extension module for the release's own Python."""

    module: str
    project: str
    debian: str
    arch: str
    compiled: bool = False


NEEDS = (
    Need("cryptography", "cryptography", "python3-cryptography", "python-cryptography", True),
    Need("distro", "distro", "python3-distro", "python-distro"),
    Need("jinja2", "jinja2", "python3-jinja2", "python-jinja"),
    Need("msgpack", "msgpack", "python3-msgpack", "python-msgpack"),
    Need("packaging", "packaging", "python3-packaging", "python-packaging"),
    Need("psutil", "psutil", "python3-psutil", "python-psutil", True),
    Need("requests", "requests", "python3-requests", "python-requests"),
    Need("tornado", "tornado", "python3-tornado", "python-tornado"),
    # A 3008 master runs without it, but then each lookup of an answer takes half a minute.
    Need("xxhash", "xxhash", "python3-xxhash", "python-xxhash", True),
    Need("yaml", "pyyaml", "python3-yaml", "python-yaml"),
    Need("zmq", "pyzmq", "python3-zmq", "python-pyzmq", True),
)
_PYTHON = Need("python3", "", "python3", "python")
_LIBCRYPTO = Need("libcrypto", "", "libssl3", "openssl")
ARCH_PACKAGES = tuple(need.arch for need in (_PYTHON, *NEEDS, _LIBCRYPTO))
"""What a release of Arch Linux ARM must have for Salt, by the names of packages."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A module that is missing in the release, and why."""

    need: Need
    why: str

    def line(self, distribution: str | None) -> str:
        """One line for a person; ``distribution`` is "debian", "arch" or None for neither."""
        named = {"debian": self.need.debian, "arch": self.need.arch}
        both = f"{self.need.arch} on Arch, {self.need.debian} on Debian"
        return f"{self.need.module}: {self.why}; package {named.get(distribution or '', both)}"


def absent_needs(
    entries: Mapping[str, TreeEntry], requires: str, requires_python: str | None
) -> tuple[Absent, ...]:
    """The modules of NEEDS that ``requires`` names and the release lacks.

    ``entries`` are the release's root files, ``requires`` is a requires.txt of setuptools,
    ``requires_python`` the Requires-Python of Salt's metadata.
    """
    asked = _asked(requires)
    minor = python_minor(entries)
    if minor is None:
        without = [Absent(need, "no such module") for need in asked]
        return (Absent(_PYTHON, "no Python 3"), *without)
    fault = python_fault(minor, requires_python)
    files = _importable(entries, minor)
    found = [Absent(_PYTHON, fault)] if fault else []
    found += [absent for need in asked if (absent := _looked_for(need, files, minor))]
    if not any(name.rpartition("/")[2].startswith("libcrypto.so") for name in entries):
        found.append(Absent(_LIBCRYPTO, "no libcrypto.so"))
    return tuple(found)


def python_minor(entries: Mapping[str, TreeEntry]) -> int | None:
    """The release's Python 3: 11 for one whose /usr/bin/python3 is Python 3.11."""
    installed = {int(found[1]) for name in entries if (found := _STDLIB.match(name))}
    link = entries.get("usr/bin/python3")
    if link is None or not installed:
        return None
    named = _LINKED.match(link.target) if link.kind is EntryKind.SYMLINK else None
    if named and int(named[1]) in installed:
        return int(named[1])
    return installed.pop() if len(installed) == 1 else None


def python_fault(minor: int, requires_python: str | None) -> str | None:
    """Why Python 3.``minor`` does not meet ``requires_python``, such as ``>=3.8``."""
    bounds = _BOUND.findall(requires_python or "")
    if all(_HOLDS[sign](minor, int(bound)) for sign, bound in bounds):
        return None
    return f"the release has Python 3.{minor}, and this Salt wants {requires_python}"


def distribution_of(os_release: str) -> str | None:
    """The family of distributions that os-release(5) names: "debian", "arch", or None."""
    words: set[str] = set()
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key in ("ID", "ID_LIKE"):
            words.update(value.strip("\"'").split())
    if words & {"debian", "ubuntu", "raspbian"}:
        return "debian"
    return "arch" if words & {"arch", "archarm"} else None


def _asked(requires: str) -> list[Need]:
    projects = {
        found[0].lower()
        for line in requires.splitlines()
        if not line.startswith("[") and (found := _PROJECT.match(line))
    }
    return [need for need in NEEDS if need.project in projects]


def _importable(entries: Mapping[str, TreeEntry], minor: int) -> frozenset[str]:
    """Every file that the release's Python can import, relative to a folder of its path."""
    folders = (
        f"usr/lib/python3.{minor}/site-packages/",
        "usr/lib/python3/dist-packages/",
        f"usr/local/lib/python3.{minor}/dist-packages/",
        f"usr/local/lib/python3.{minor}/site-packages/",
    )
    return frozenset(
        name.removeprefix(folder)
        for name, entry in entries.items()
        for folder in folders
        if name.startswith(folder) and entry.kind in (EntryKind.FILE, EntryKind.SYMLINK)
    )


def _looked_for(need: Need, files: frozenset[str], minor: int) -> Absent | None:
    if f"{need.module}/__init__.py" not in files and f"{need.module}.py" not in files:
        return Absent(need, "no such module")
    if not need.compiled:
        return None
    tags = sorted(
        found[1] or ""
        for name in files
        if name.startswith(f"{need.module}/") and (found := _EXTENSION.search(name))
    )
    if not tags:
        return Absent(need, "its compiled part is missing")
    if "" not in tags and str(minor) not in tags:
        return Absent(need, f"it is compiled for Python 3.{tags[-1]}, not for 3.{minor}")
    return None
