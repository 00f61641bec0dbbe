"""pacman's local database in a release: which package brought which file.

In: a staged release, and packages that are added to it or taken out. Out: the entries of the
database as libalpm writes them, so that ``pacman -Q``, ``-Qkk`` and ``-Dk`` on a node find what
they expect. Only the date of installation is not that of a clock: the same inputs give the same
bytes. Source: ``lib/libalpm/be_local.c`` of pacman 6.0.2 and 7.0 (``_alpm_local_db_write``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from imager.image.packages.archive import Metadata, MetadataFile
from imager.image.unpack.stager import Stager
from imager.packages.metadata import (
    PacmanPackage,
    description_fields,
    parse_description,
    pkginfo_fields,
)

FOLDER = "var/lib/pacman/local"
_DESCRIPTION = re.compile(rf"({FOLDER}/[^/]+)/desc\Z")
_ONE = (
    ("%NAME%", "pkgname"),
    ("%VERSION%", "pkgver"),
    ("%BASE%", "pkgbase"),
    ("%DESC%", "pkgdesc"),
    ("%URL%", "url"),
    ("%ARCH%", "arch"),
    ("%BUILDDATE%", "builddate"),
)
_MANY = (("%GROUPS%", "group"), ("%LICENSE%", "license"))
_RELATED = (
    ("%REPLACES%", "replaces"),
    ("%DEPENDS%", "depend"),
    ("%OPTDEPENDS%", "optdepend"),
    ("%CONFLICTS%", "conflict"),
    ("%PROVIDES%", "provides"),
    ("%XDATA%", "xdata"),
)
_OTHERS = {".INSTALL": "install", ".MTREE": "mtree", ".CHANGELOG": "changelog"}


@dataclass(frozen=True, slots=True)
class Installed:
    """A package as the database has it.

    ``files`` are paths below the root, those of folders with a slash at the end; ``backup`` are
    the files that a person may change, with the MD5 of each as it was packed; ``script`` is the
    text of its functions for installing and removing.
    """

    package: PacmanPackage
    files: frozenset[str] = frozenset()
    backup: Mapping[str, str | None] = field(default_factory=dict)
    is_dependency: bool = False
    script: str = ""

    @property
    def name(self) -> str:
        return self.package.name

    @property
    def place(self) -> str:
        """Its folder in the database."""
        return _place(self.package)


def _place(package: PacmanPackage) -> str:
    return f"{FOLDER}/{package.name}-{package.version}"


def installed_packages(stager: Stager) -> Iterator[PacmanPackage]:
    """The packages in the release. An entry that cannot be read, or that says that it is another
    one, is left out: pacman itself reports it better."""
    return (package for _, package, _ in _described(stager))


def installed_files(stager: Stager) -> Iterator[Installed]:
    """The packages in the release with all that the database knows of each."""
    for place, package, facts in _described(stager):
        files = description_fields(stager.text_of_root(f"{place}/files"))
        yield Installed(
            package,
            frozenset(files.get("FILES", ())),
            dict(_split(line) for line in files.get("BACKUP", ())),
            list(facts.get("REASON", ())) == ["1"],
            stager.text_of_root(f"{place}/install"),
        )


def _described(
    stager: Stager,
) -> Iterator[tuple[str, PacmanPackage, Mapping[str, Sequence[str]]]]:
    for path in list(stager.root.entries):
        found = _DESCRIPTION.match(path)
        if found:
            text = stager.text_of_root(path)
            try:
                package, facts = parse_description(text), description_fields(text)
            except ValueError:
                continue
            # A path is made of both, and the release may be a stranger's.
            if found[1] == _place(package):
                yield found[1], package, facts


def _split(line: str) -> tuple[str, str]:
    name, _, digest = line.partition("\t")
    return name, digest


def forget(stager: Stager, installed: Installed) -> None:
    """Take the package out of the database."""
    for path in sorted((stager.root_folder / installed.place).rglob("*"), reverse=True):
        stager.remove(str(path.relative_to(stager.root_folder)))
    stager.remove(installed.place)


def enter(stager: Stager, installed: Installed, metadata: Metadata, when: int) -> None:
    """Enter a package that was added at ``when``, in seconds since 1970."""
    when_ns = when * 1_000_000_000
    files = {
        "desc": MetadataFile(_desc(installed, metadata.pkginfo, when), when_ns),
        "files": MetadataFile(_files(installed), when_ns),
        **{_OTHERS[name]: file for name, file in metadata.others.items()},
    }
    for name, file in files.items():
        place = f"{installed.place}/{name}"
        stager.put(place, file.data, mode=0o644, mtime_ns=file.mtime_ns)


def _desc(installed: Installed, pkginfo: str, when: int) -> bytes:
    facts = pkginfo_fields(pkginfo)
    paragraphs = [(key, facts[name][:1]) for key, name in _ONE if name in facts]
    paragraphs.append(("%INSTALLDATE%", [str(when)]))
    for key, name in (("%PACKAGER%", "packager"), ("%SIZE%", "size")):
        if facts.get(name, ["0"])[0] != "0":
            paragraphs.append((key, facts[name][:1]))
    if installed.is_dependency:
        paragraphs.append(("%REASON%", ["1"]))
    paragraphs += [(key, facts[name]) for key, name in _MANY if name in facts]
    # Each was proven by its signature, and pacman says so of those that it has proven itself.
    paragraphs.append(("%VALIDATION%", ["pgp"]))
    paragraphs += [(key, facts[name]) for key, name in _RELATED if name in facts]
    return _text(paragraphs)


def _files(installed: Installed) -> bytes:
    files = sorted(installed.files, key=lambda name: name.encode("utf-8", "surrogateescape"))
    # What a backup line says that has no file is what printf(3) makes of none.
    backup = [f"{name}\t{digest or '(null)'}" for name, digest in installed.backup.items()]
    return _text((key, lines) for key, lines in (("%FILES%", files), ("%BACKUP%", backup)) if lines)


def _text(paragraphs: Iterable[tuple[str, Sequence[str]]]) -> bytes:
    text = "".join(
        f"{key}\n" + "".join(f"{line}\n" for line in lines) + "\n" for key, lines in paragraphs
    )
    return text.encode("utf-8", "surrogateescape")
