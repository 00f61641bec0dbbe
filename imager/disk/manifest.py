"""What an image holds, so that a copy of it can be checked: byte ranges and their SHA-256.

In: the ranges of an image that matter, and a way to read it. Out: a Manifest. With it a disk can be
compared with the image when the image itself is no longer there. A disk is divided into stretches
of 1 MiB; a chunk is the part of one stretch that lies in the ranges, and each chunk has a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from imager.base.json_fields import JsonObject
from imager.base.units import MiB, align_down
from imager.disk.extents import Extent, ExtentMap

CHUNK_BYTES = MiB

Reader = Callable[[int, int], bytes]
"""``read(offset, length)`` gives exactly ``length`` bytes of a disk from byte ``offset``."""


class NotAtHand(Exception):
    """A way to read cannot give these bytes now, or not any more: it reads a stream."""


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


def has_chunks(extents: ExtentMap, count: int) -> bool:
    """Whether ``extents``, perhaps a stranger's, have so many chunks. Counting them takes as many
    steps as there are, and one of 8 EiB takes days: the sum of their bytes is looked at before."""
    if extents.total_bytes > count * CHUNK_BYTES:
        return False
    return count == sum(1 for _ in chunks_of(extents))


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

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the manifest itself: a name for all the bytes it speaks of."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        """The manifest as JSON values: ranges as ``[offset, length]``, digests as hex."""
        return {
            "chunk_bytes": CHUNK_BYTES,
            "size_bytes": self.size_bytes,
            "extents": [[extent.offset, extent.length] for extent in self.extents],
            "sha256": [digest.hex() for digest in self.digests],
        }

    @classmethod
    def from_json(cls, read: JsonObject) -> Manifest:
        """The manifest in ``read``; raises ValueError that names what is wrong with it."""
        chunk_bytes, size = read.integer("chunk_bytes"), read.integer("size_bytes")
        if chunk_bytes != CHUNK_BYTES:
            raise read.fault("chunk_bytes", f"is {chunk_bytes}, not {CHUNK_BYTES}")
        extents = ExtentMap(Extent(*pair) for pair in read.pairs("extents"))
        texts = read.texts("sha256")
        try:
            digests = tuple(bytes.fromhex(text) for text in texts)
        except ValueError as error:
            raise read.fault("sha256", f"is malformed: {error}") from error
        if extents.end > size:
            raise read.fault("extents", f"end at byte {extents.end}, past the size {size}")
        if not has_chunks(extents, len(digests)):
            raise read.fault("sha256", "has not as many digests as there are chunks")
        if any(len(digest) != hashlib.sha256().digest_size for digest in digests):
            raise read.fault("sha256", "has a digest that is not 32 bytes")
        return cls(size, extents, digests)


def build_manifest(
    size_bytes: int,
    extents: ExtentMap,
    read: Reader,
    *,
    base: Manifest | None = None,
    changed: ExtentMap | None = None,
) -> Manifest:
    """The manifest of the image behind ``read``, whose used bytes are ``extents``.

    Where ``base`` is given, a chunk of it that ``changed`` does not touch and whose ranges are the
    same keeps its digest, so that only what a node changed is read."""
    known = {chunk: digest for chunk, digest in base.chunks()} if base else {}
    dirty = changed or ExtentMap()
    digests: list[bytes] = []
    for chunk in chunks_of(extents):
        digest = known.get(chunk)
        if digest is None or next(dirty.within(chunk.offset, CHUNK_BYTES), None) is not None:
            digest = digest_chunk(chunk, read)
        digests.append(digest)
    return Manifest(size_bytes, extents, tuple(digests))
