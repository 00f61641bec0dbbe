"""A repository's database: what it offers, as one mirror tells it.

In: the file ``NAME.db`` as repo-add(8) makes it, from a stranger. Out: a PackageOffer for each name
in it. It is a hint only: what is used is what the pinned key signed. What it may cost has an end.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from types import MappingProxyType

from imager.base.units import MiB
from imager.packages.metadata import LARGEST_TEXT, description_fields
from imager.release.lock import ARCHITECTURE, PACKAGE_FILE, PACKAGE_NAME, PACKAGE_VERSION
from imager.release.tarball import UNREADABLE, Unpacked

LARGEST_UNPACKED = 96 * MiB
"""Twice what the distribution's largest repository has; it is held in memory."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"[0-9]{1,12}")
_OCTAL = re.compile(rb"[0-7]{1,11}")
_BLOCK = tarfile.BLOCKSIZE
_STEP = 8 * MiB


@dataclass(frozen=True, slots=True)
class PackageOffer:
    """A package that can be had. ``file`` is its name beside the database, ``url`` the file's
    address, empty for one that is in the archive. ``depends``, ``provides`` and ``conflicts`` have
    their bounds (``openssl>=3.6``). ``sha256`` and ``size_bytes`` are what the database says."""

    name: str
    version: str
    arch: str
    file: str
    sha256: str
    size_bytes: int
    depends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    url: str = ""

    @property
    def called(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def entry(self) -> str:
        """The name of its folder in pacman's databases."""
        return f"{self.name}-{self.version}"

    def description(self) -> str:
        """Its ``desc`` for a database of our own: all that resolving needs to know."""
        texts = {
            "FILENAME": (self.file,),
            "NAME": (self.name,),
            "VERSION": (self.version,),
            "CSIZE": (str(self.size_bytes),),
            "SHA256SUM": (self.sha256,),
            "ARCH": (self.arch,),
            "REPLACES": self.replaces,
            "DEPENDS": self.depends,
            "CONFLICTS": self.conflicts,
            "PROVIDES": self.provides,
        }
        return "".join(
            f"%{key}%\n" + "\n".join(values) + "\n\n" for key, values in texts.items() if values
        )


class Database:
    """What one repository offers. ``packed`` is the file as the mirror gave it; ``server`` the
    folder it came from, empty for a database of our own."""

    def __init__(self, name: str, server: str, packed: bytes) -> None:
        """Raises ValueError when it is no database, or one without end."""
        self.name = name
        self.server = server
        self.packed = packed
        self._texts: Mapping[str, bytes] = MappingProxyType(dict(_descriptions(packed)))

    def plain(self) -> bytes:
        """The file as pacman is to read it: what unpacks it may not be a stranger's choice."""
        return bytes(_unpack(self.packed))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._texts)

    def offer(self, name: str) -> PackageOffer | None:
        """The package called ``name``. Raises ValueError where what is said of it is not whole."""
        text = self._texts.get(name)
        return None if text is None else _offer(text, self.server)

    @cached_property
    def providers(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the packages that provide a name, in the order of the file."""
        found: dict[str, list[str]] = {}
        for name, text in self._texts.items():
            if b"%PROVIDES%" in text:
                for word in description_fields(text.decode(errors="replace")).get("PROVIDES", ()):
                    found.setdefault(_bare(word), []).append(name)
        return MappingProxyType({word: tuple(names) for word, names in found.items()})


def own_database(name: str, offers: Iterable[PackageOffer]) -> Database:
    """A database with ``offers``, whose files are not on any mirror."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for offer in offers:
            data = offer.description().encode()
            about = tarfile.TarInfo(f"{offer.entry}/desc")
            about.size = len(data)
            archive.addfile(about, BytesIO(data))
    return Database(name, "", file.getvalue())


def _bare(word: str) -> str:
    return word.partition("=")[0].partition(">")[0].partition("<")[0]


def _descriptions(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and description of each package. ``tarfile`` would take seconds for the 14,000 of a
    large repository."""
    data = _unpack(packed)
    if len(data) < _BLOCK:
        raise ValueError("it is too short for an archive")  # an empty one has two blocks of zeros
    at = 0
    while at + _BLOCK <= len(data):
        header = bytes(data[at : at + _BLOCK])
        at += _BLOCK
        if not header[0]:
            return
        digits = _OCTAL.fullmatch(header[124:136].strip(b" \0"))
        size = int(digits[0], 8) if digits else LARGEST_UNPACKED
        if size > LARGEST_TEXT or at + size > len(data):
            raise ValueError(f"an entry before its byte {at} cannot be read")
        if header[156:157] in (b"0", b"\0") and header[:100].rstrip(b"\0").endswith(b"/desc"):
            text = bytes(data[at : at + size])
            name = text.partition(b"%NAME%\n")[2].partition(b"\n")[0]
            yield name.decode(errors="replace"), text
        at += -(-size // _BLOCK) * _BLOCK


def _unpack(packed: bytes) -> bytearray:
    unpacked = Unpacked(BytesIO(packed), LARGEST_UNPACKED)
    pieces = bytearray()
    try:
        while piece := unpacked.read(_STEP):
            pieces += piece
    except UNREADABLE as error:
        raise ValueError(str(error) or "it ends early") from error
    return pieces


def _offer(text: bytes, server: str) -> PackageOffer:
    said = description_fields(text.decode(errors="replace"))

    def one(key: str, pattern: re.Pattern[str]) -> str:
        values = said.get(key, [])
        if len(values) != 1 or not pattern.fullmatch(values[0]):
            raise ValueError(f"its {key} is {values[0]!r}" if values else f"it tells no {key}")
        return values[0]

    file = one("FILENAME", PACKAGE_FILE)
    return PackageOffer(
        name=one("NAME", PACKAGE_NAME),
        version=one("VERSION", PACKAGE_VERSION),
        arch=one("ARCH", ARCHITECTURE),
        file=file,
        sha256=one("SHA256SUM", _SHA256),
        size_bytes=int(one("CSIZE", _SIZE)),
        depends=tuple(said.get("DEPENDS", ())),
        provides=tuple(said.get("PROVIDES", ())),
        conflicts=tuple(said.get("CONFLICTS", ())),
        replaces=tuple(said.get("REPLACES", ())),
        url=f"{server}/{file}" if server else "",
    )
