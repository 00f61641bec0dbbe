"""A block map: which blocks of a disk image count, and the digest of each range of them.

In: the text of a ``.bmap`` file, as bmaptool writes it. Out: a Bmap; and such a text from one. The
form is version 2.0 of bmaptool's (its BmapCreate.py describes it). A stranger's file may ask for
nothing but its own length: there is no DOCTYPE, so no entity, and its size is bounded.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from xml.parsers import expat

from imager.base.units import MiB
from imager.disk.extents import Extent

MAX_BMAP_BYTES = 32 * MiB
"""A longer block map is not read. That of a full disk of 256 GiB takes 8 MiB."""
_MOST_RANGES = 500_000
"""More of them, shorter ones without checksums, would take more than 300 MiB of memory."""
_LENGTHS = {"sha1": 20, "sha256": 32, "sha512": 64}
_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
_MOST_BYTES = 1 << 60
_FIELDS = ("ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount", "ChecksumType")
_OWN_SUM = "BmapFileChecksum"


class BmapError(ValueError):
    """This is no block map that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class BmapRange:
    """A range of the image in bytes; ``digest`` is of these bytes, None where the map has none."""

    extent: Extent
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Bmap:
    """The ranges that count of an image of ``size_bytes``, by ascending place; neighbours may
    touch. All but the last end at multiples of ``block_bytes``. ``algorithm`` is that of the
    digests, as ``hashlib`` calls it."""

    size_bytes: int
    ranges: tuple[BmapRange, ...]
    block_bytes: int = 4096
    algorithm: str = "sha256"

    @property
    def mapped_bytes(self) -> int:
        """How many bytes count."""
        return sum(one.extent.length for one in self.ranges)


def encode_bmap(bmap: Bmap) -> bytes:
    """The text of the file for ``bmap``, its own checksum included."""
    block = bmap.block_bytes
    mapped = sum(_blocks(one.extent, block) for one in bmap.ranges)
    zeros = "0" * (2 * _LENGTHS[bmap.algorithm])
    lines = [
        '<?xml version="1.0" ?>',
        "<!-- What counts in a disk image; bmaptool can write it. -->",
        '<bmap version="2.0">',
        f"    <ImageSize> {bmap.size_bytes} </ImageSize>",
        f"    <BlockSize> {block} </BlockSize>",
        f"    <BlocksCount> {-(-bmap.size_bytes // block)} </BlocksCount>",
        f"    <MappedBlocksCount> {mapped} </MappedBlocksCount>",
        f"    <ChecksumType> {bmap.algorithm} </ChecksumType>",
        f"    <{_OWN_SUM}> {zeros} </{_OWN_SUM}>",
        "    <BlockMap>",
        *(_line(one, block) for one in bmap.ranges),
        "    </BlockMap>",
        "</bmap>",
        "",
    ]
    text = "\n".join(lines)
    own = hashlib.new(bmap.algorithm, text.encode()).hexdigest()
    return text.replace(zeros, own, 1).encode()


def _blocks(extent: Extent, block_bytes: int) -> int:
    return -(-extent.length // block_bytes)


def _line(one: BmapRange, block_bytes: int) -> str:
    first = one.extent.offset // block_bytes
    last = first + _blocks(one.extent, block_bytes) - 1
    digest = f' chksum="{one.digest.hex()}"' if one.digest is not None else ""
    return f"        <Range{digest}> {first if first == last else f'{first}-{last}'} </Range>"


def parse_bmap(text: bytes) -> Bmap:
    """The map in ``text``; raises BmapError for anything but a whole and sound one."""
    if len(text) > MAX_BMAP_BYTES:
        raise BmapError(f"it is longer than {MAX_BMAP_BYTES} bytes")
    # Each element has two of the one, each attribute one of the other.
    if text.count(b"<") > 2 * _MOST_RANGES or text.count(b"=") > _MOST_RANGES:
        raise BmapError(f"it names more than {_MOST_RANGES} ranges")
    found = _Elements(text)
    size, block, count, mapped = (found.number(name) for name in _FIELDS[:4])
    algorithm = found.field("ChecksumType")
    if algorithm not in _LENGTHS:
        raise BmapError(f"its checksums are {algorithm[:20]!r}, not one of {', '.join(_LENGTHS)}")
    if not 512 <= block <= MiB or block & (block - 1):
        raise BmapError(f"it counts in blocks of {block} bytes")
    if not 0 < size <= _MOST_BYTES or count != -(-size // block):
        raise BmapError(f"{count} blocks of {block} bytes are not an image of {size} bytes")
    _check_own(text, found.field(_OWN_SUM), algorithm)
    ranges = tuple(_ranges(found.ranges, size, block, algorithm))
    if sum(_blocks(one.extent, block) for one in ranges) != mapped:
        raise BmapError(f"its ranges are not the {mapped} blocks that it claims")
    return Bmap(size, ranges, block, algorithm)


def _check_own(text: bytes, stored: str, algorithm: str) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{2 * _LENGTHS[algorithm]}}}", stored):
        raise BmapError("it has no checksum of its own")
    blanked = text.replace(stored.encode(), b"0" * len(stored), 1)
    if hashlib.new(algorithm, blanked).hexdigest() != stored:
        raise BmapError("it does not fit its own checksum")


def _ranges(
    told: list[tuple[str, str | None]], size_bytes: int, block: int, algorithm: str
) -> list[BmapRange]:
    found: list[BmapRange] = []
    end = 0
    for text, digest in told:
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            raise BmapError(f"{text.strip()[:40]!r} is no range of blocks")
        low, last = int(match[1]) * block, int(match[2] or match[1])
        high = min((last + 1) * block, size_bytes)
        if not end <= low < high or last * block >= size_bytes:
            raise BmapError(f"its range {text.strip()} is out of order or behind the image's end")
        found.append(BmapRange(Extent(low, high - low), _digest(digest, algorithm)))
        end = high
    return found


def _digest(text: str | None, algorithm: str) -> bytes | None:
    if text is None:
        return None
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _LENGTHS[algorithm]:
        raise BmapError(f"a checksum is {text[:20]!r}")
    return digest


class _Elements:
    """The elements of the file that say something: each once, but ``Range``."""

    def __init__(self, text: bytes) -> None:
        self.ranges: list[tuple[str, str | None]] = []
        self._fields: dict[str, str] = {}
        self._open: list[str] = []
        self._text: list[str] = []
        self._digest: str | None = None
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise BmapError(f"it is not XML: {error}") from error

    def _doctype(self, *_: object) -> None:
        raise BmapError("it has a DOCTYPE, which no block map has")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parents = {"Range": ["bmap", "BlockMap"], "bmap": []}.get(name, ["bmap"])
        if self._open != parents:
            raise BmapError(f"{name[:40]!r} is not where it belongs")
        version = attributes.get("version", "")
        if name == "bmap" and version != "1.4" and not re.fullmatch(r"2\.\d{1,3}", version):
            raise BmapError(f"its version is {version[:10]!r}, not 2.0")
        self._open.append(name)
        self._text.clear()
        self._digest = attributes.get("chksum")

    def _end(self, name: str) -> None:
        self._open.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        if name == "Range":
            self.ranges.append((text, self._digest))
        elif self._fields.setdefault(name, text) != text:
            raise BmapError(f"it says {name[:40]!r} twice")

    def field(self, name: str) -> str:
        """What the file says as ``name``."""
        if name not in self._fields:
            raise BmapError(f"it does not say its {name}")
        return self._fields[name]

    def number(self, name: str) -> int:
        """The same where it must be a number."""
        text = self.field(name)
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise BmapError(f"its {name} is {text[:20]!r}")
        return int(text)
