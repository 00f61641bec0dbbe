"""What an image holds, so that a copy of it can be checked: byte ranges and their SHA-256.

In: the ranges of an image that matter, and a way to read it. Out: a Manifest. With it a disk can be
compared with the image when the image itself is no longer there. A disk is divided into stretches
of 1 MiB; a chunk is the part of one stretch that lies in the ranges, and each chunk has a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from imager.base.units import MiB, align_down
from imager.disk.extents import Extent, ExtentMap

CHUNK_BYTES = MiB

Reader = Callable[[int, int], bytes]
"""``read(offset, length)`` gives exactly ``length`` bytes of a disk from byte ``offset``."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The ranges that lie inside the stretch of 1 MiB that begins at byte ``offset``."""

    offset: int
    extents: tuple[Extent, ...]


def chunks_of(extents: ExtentMap) -> Iterator[Chunk]:
    """The chunks of ``extents``, by ascending offset."""
    parts = extents.split(CHUNK_BYTES)
    for offset, group in groupby(parts, key=lambda part: align_down(part.offset, CHUNK_BYTES)):
        yield Chunk(offset, tuple(group))


def digest_chunk(chunk: Chunk, read: Reader) -> bytes:
    """SHA-256 of the bytes in the chunk's ranges, in order. Raises whatever ``read`` raises."""
    sha256 = hashlib.sha256()
    for extent in chunk.extents:
        sha256.update(read(extent.offset, extent.length))
    return sha256.digest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The byte ranges of a disk of ``size_bytes`` that count, and the SHA-256 of each chunk.

    ``digests`` has one digest of 32 bytes for each chunk, in the order of ``chunks_of``.
    """

    size_bytes: int
    extents: ExtentMap
    digests: tuple[bytes, ...]

    def chunks(self) -> Iterator[tuple[Chunk, bytes]]:
        """Each chunk with its digest."""
        return zip(chunks_of(self.extents), self.digests, strict=True)

    def to_json(self) -> dict[str, object]:
        """The manifest as JSON values: ranges as ``[offset, length]``, digests as hex."""
        return {
            "chunk_bytes": CHUNK_BYTES,
            "size_bytes": self.size_bytes,
            "extents": [[extent.offset, extent.length] for extent in self.extents],
            "sha256": [digest.hex() for digest in self.digests],
        }

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """The manifest in ``value``; raises ValueError that names what is wrong with it."""
        if not isinstance(value, dict):
            raise ValueError("a manifest is an object")
        if value.get("chunk_bytes") != CHUNK_BYTES:
            raise ValueError(f"chunk_bytes is {value.get('chunk_bytes')!r}, not {CHUNK_BYTES}")
        size = value.get("size_bytes")
        pairs, hexes = value.get("extents"), value.get("sha256")
        if not (isinstance(size, int) and isinstance(pairs, list) and isinstance(hexes, list)):
            raise ValueError("size_bytes, extents or sha256 is missing")
        try:
            extents = ExtentMap(Extent(int(offset), int(length)) for offset, length in pairs)
            digests = tuple(bytes.fromhex(text) for text in hexes)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extents or sha256 is malformed: {error}") from error
        if extents.end > size:
            raise ValueError(f"an extent ends at byte {extents.end}, past the size {size}")
        if len(digests) != sum(1 for _ in chunks_of(extents)):
            raise ValueError("there are not as many digests as chunks")
        if any(len(digest) != hashlib.sha256().digest_size for digest in digests):
            raise ValueError("a digest is not 32 bytes")
        return cls(size, extents, digests)


def build_manifest(
    size_bytes: int,
    extents: ExtentMap,
    read: Reader,
    *,
    base: Manifest | None = None,
    changed: ExtentMap | None = None,
) -> Manifest:
    """The manifest of an image of ``size_bytes`` that ``read`` reads. Raises what ``read`` raises.

    Where the image is a changed copy of another one, give that one's manifest as ``base`` and the
    ranges that differ as ``changed``: only chunks that differ are then read.
    """
    known = {chunk: digest for chunk, digest in base.chunks()} if base else {}
    dirty = changed or ExtentMap()
    digests: list[bytes] = []
    for chunk in chunks_of(extents):
        digest = known.get(chunk)
        if digest is None or next(dirty.within(chunk.offset, CHUNK_BYTES), None) is not None:
            digest = digest_chunk(chunk, read)
        digests.append(digest)
    return Manifest(size_bytes, extents, tuple(digests))
