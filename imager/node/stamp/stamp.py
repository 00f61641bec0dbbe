"""The stamp: a card's own proof of what was written to it, in its first MiB.

In: what is known of a node's image, and the rack's key; or the bytes found on a card. Out: the
bytes, or a Stamp whose signature is right. Pure. ``docs/stamp.md`` describes every byte, so that
other programs can read it too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from imager.base.units import KiB, MiB, format_size
from imager.bootcheck.sums import MAX_SUMS_BYTES, SUMS_PATH, parse_sums
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.manifest import Chunk, Manifest, has_chunks
from imager.disk.mbr import MAX_DISK_BYTES
from imager.image.compose.file_digests import ROW_BYTES, FileDigests
from imager.node.stamp.facts import StampError, StampFacts

STAMP_AREA = Extent(4 * KiB, MiB - 4 * KiB)
"""Room for the stamp: the first MiB of a card, behind the 4 KiB of the partition table."""
MAGIC = b"PICSTAMP"
VERSION = 1
_HEADER = struct.Struct("<8s6I")
_EXTENT = struct.Struct("<QQ")
_DIGEST_BYTES = 32
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


class NoStamp(StampError):
    """There is nothing where a stamp would be."""


class StampTooLarge(ValueError):
    """A card's map does not fit into the room for the stamp."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a card says of itself, with a right signature.

    ``manifest`` covers the whole card; the stamp's own ``length`` bytes count as zeros in the
    digest of the first chunk. ``files`` is empty when there was no room for it. ``public_key`` is
    the key that signed; the stamp cannot prove whose key it is.
    """

    facts: StampFacts
    manifest: Manifest
    files: FileDigests
    public_key: bytes
    length: int

    @property
    def kind(self) -> str:
        """What to call a record of this kind."""
        return "stamp"

    @property
    def node(self) -> str:
        """The node the card was written for."""
        return self.facts.node

    @property
    def layout(self) -> Layout:
        """Where the card's partitions were put."""
        return self.facts.layout

    @property
    def golden_key(self) -> str:
        """The key of the card's golden image."""
        return self.facts.golden_key

    @property
    def image_id(self) -> str:
        """The name of all bytes that were written, without the stamp."""
        return self.facts.image_id

    @property
    def tool_version(self) -> str:
        """The version of this program that wrote the card."""
        return self.facts.tool_version

    @property
    def imaged_at(self) -> int:
        """When the card's image was made, in seconds since 1970, UTC."""
        return self.facts.imaged_at

    @property
    def stamp(self) -> Stamp:
        """Itself."""
        return self

    @property
    def extent(self) -> Extent:
        """Where the stamp lies on the card."""
        return Extent(STAMP_AREA.offset, self.length)

    def boot_digests(self, volume: FatVolume) -> Mapping[str, str]:
        """Path -> SHA-256 (hex) of every boot file on ``volume``, as far as the stamp vouches for
        the list of them, which is a boot file itself."""
        own = {SUMS_PATH: self.facts.boot_sums}
        try:
            listed = volume.read_file(SUMS_PATH, limit_bytes=MAX_SUMS_BYTES)
            if hashlib.sha256(listed).hexdigest() != self.facts.boot_sums:
                return own
            return parse_sums(listed) | own
        except (FileNotFoundError, IsADirectoryError, ValueError):
            return own

    def without_itself(self, chunk: Chunk, data: memoryview) -> None:
        """Zero what is the stamp's own in ``data``, the card's bytes from the start of
        ``chunk``, so that the digest of the rest can be compared."""
        if chunk.offset == FIRST_MIB.offset:
            data[self.extent.offset : self.extent.end] = bytes(self.length)


def encode_stamp(
    facts: StampFacts,
    manifest: Manifest,
    files: FileDigests,
    public_key: bytes,
    sign: Callable[[bytes], bytes],
) -> bytes:
    """The bytes of a stamp. ``manifest`` is that of the card with zeros in the stamp's place.

    The list of files is left out when there is no room for it; raises StampTooLarge when there is
    none even for the map.
    """
    packed = files.pack()
    body = _body(facts, manifest, packed)
    if _size(body) > STAMP_AREA.length and packed:
        body = _body(facts, manifest, b"")
    if _size(body) > STAMP_AREA.length:
        raise StampTooLarge(
            f"the map of this card takes {format_size(_size(body))} "
            f"({len(manifest.digests)} chunks, {len(manifest.extents)} ranges) and the first MiB "
            f"has room for {format_size(STAMP_AREA.length)}"
        )
    signed = body + public_key
    return signed + sign(signed)


def _size(body: bytes) -> int:
    return len(body) + _KEY_BYTES + _SIGNATURE_BYTES


def _body(facts: StampFacts, manifest: Manifest, files: bytes) -> bytes:
    text = facts.encode()
    extents = [_EXTENT.pack(extent.offset, extent.length) for extent in manifest.extents]
    counts = (len(text), len(extents), len(manifest.digests), len(files) // ROW_BYTES)
    header = _HEADER.pack(MAGIC, VERSION, *counts, 0)
    return b"".join((header, text, *extents, *manifest.digests, files))


def parse_stamp(area: bytes) -> Stamp:
    """The stamp at the start of ``area``, the bytes of STAMP_AREA.

    Raises NoStamp when there is none, and StampError that says what is wrong with it. A wrong
    signature is an error too: then nothing in the stamp is proven.
    """
    if not any(area[: len(MAGIC)]):
        raise NoStamp("the card carries no stamp")
    if len(area) < _HEADER.size or not area.startswith(MAGIC):
        raise StampError(f"byte {STAMP_AREA.offset} does not begin a stamp")
    _, version, facts, extents, chunks, files, reserved = _HEADER.unpack_from(area)
    if version != VERSION:
        raise StampError(f"it is of version {version}, and this program reads version {VERSION}")
    lengths = (facts, extents * _EXTENT.size, chunks * _DIGEST_BYTES, files * ROW_BYTES)
    signed_bytes = _HEADER.size + sum(lengths) + _KEY_BYTES
    length = signed_bytes + _SIGNATURE_BYTES
    if reserved or length > min(len(area), STAMP_AREA.length):
        raise StampError("its lengths cannot be")
    parts = _Parts(area, _HEADER.size)
    text, ranges, digests, rows = (parts.take(size) for size in lengths)
    key, signature = parts.take(_KEY_BYTES), parts.take(_SIGNATURE_BYTES)
    _check_signature(key, signature, area[:signed_bytes])
    found = StampFacts.decode(text)
    try:
        listed = FileDigests.unpack(rows)
    except ValueError as error:
        raise StampError(str(error)) from error
    return Stamp(found, _manifest(found, ranges, digests), listed, key, length)


class _Parts:
    """Bytes handed out piece after piece."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position

    def take(self, length: int) -> bytes:
        start, self._position = self._position, self._position + length
        return self._data[start : self._position]


def _check_signature(key: bytes, signature: bytes, signed: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise StampError("its signature does not fit: it was damaged or altered") from error


def _manifest(facts: StampFacts, ranges: bytes, digests: bytes) -> Manifest:
    """The manifest. Signed values can still be impossible, and reading them must not take more
    time or memory than the stamp is large."""
    size_bytes = min(facts.layout.size_bytes, MAX_DISK_BYTES)
    extents: list[Extent] = []
    pairs: Any = _EXTENT.iter_unpack(ranges)
    for offset, length in pairs:
        if not length or offset < (extents[-1].end + 1 if extents else 0):
            raise StampError("the ranges of its map are not in order")
        extents.append(Extent(offset, length))
        if extents[-1].end > size_bytes:
            raise StampError(f"its map ends past byte {size_bytes}, the size of the card")
    covered = ExtentMap(extents)
    count = len(digests) // _DIGEST_BYTES
    if not has_chunks(covered, count):
        raise StampError("its map has not as many chunks as digests")
    hashes = (digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))
    return Manifest(facts.layout.size_bytes, covered, tuple(hashes))
