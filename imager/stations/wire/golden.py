"""A golden image in pieces, so that a fetch that was cut short goes on where it was.

In: a golden image, on the head; pieces and the digest that the head named, on a station. Out: a
folder of small files; or the image in the station's cache, each chunk of it proven. Nothing secret
is in a golden image: what is a node's own is in its delta.

``golden.json`` is the description as in a cache. Piece 0000, 0001, … is zlib of the bytes of
``PIECE_CHUNKS`` chunks of the manifest each, one range after the other.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import host_storage, require_free
from imager.base.errors import HostStorage, NotAuthentic
from imager.base.progress import Progress
from imager.disk.manifest import CHUNK_BYTES, Chunk
from imager.image.compose.cache import (
    DESCRIPTION,
    IMAGE,
    LIMIT_BYTES,
    UnusableEntry,
    add,
    decode_golden,
    encode_golden,
    load,
)
from imager.image.compose.golden import GoldenImage
from imager.stations.wire.order import GoldenWanted

PIECE_CHUNKS = 8
_PIECE_BYTES = PIECE_CHUNKS * CHUNK_BYTES
Bring = Callable[[str], Path]
"""Fetches the file of this name from the head; it is the caller's. Raises FileNotFoundError, with
the reason, where that cannot be done."""


def wanted_golden(golden: GoldenImage) -> GoldenWanted:
    """How ``golden`` is named to a station."""
    return GoldenWanted(golden.key, golden.manifest.digest, golden.release_sha256)


def published_name(wanted: GoldenWanted) -> str:
    """What the folder of its pieces is called where stations fetch from; two images of one key
    that differ are in two folders."""
    return f"golden-{wanted.key}-{wanted.digest[:16]}"


def lay_out_pieces(golden: GoldenImage, folder: Path) -> None:
    """Write ``golden`` into ``folder`` in pieces; raises HostStorage."""
    with host_storage(folder), golden.open() as file:
        (folder / DESCRIPTION).write_bytes(encode_golden(golden))
        for name, chunks in _pieces(golden):
            packer = zlib.compressobj(1)
            with (folder / name).open("wb") as piece:
                for chunk, _ in chunks:
                    for extent in chunk.extents:
                        buffer = bytearray(extent.length)
                        file.read_into(extent.offset, memoryview(buffer))
                        piece.write(packer.compress(buffer))
                piece.write(packer.flush())


def golden_at_hand(wanted: GoldenWanted, cache: Cache) -> GoldenImage | None:
    """The image in the cache, if it is the very one that is wanted."""
    try:
        golden = load(wanted.release_sha256, cache, wanted.key)
    except UnusableEntry:
        return None
    return golden if golden and golden.manifest.digest == wanted.digest else None


def take_golden(
    wanted: GoldenWanted, cache: Cache, bring: Bring, progress: Progress
) -> GoldenImage:
    """The image that is wanted: from the cache, else fetched into it.

    Raises NotAuthentic for a piece that is not the head's, HostStorage for a full disk, or where a
    piece cannot be fetched; what was fetched before stays with who brings it.
    """
    with cache.made("golden", 0o700).locked(f"{wanted.key}.lock"):
        found = golden_at_hand(wanted, cache)
        if found is not None:
            return found
        with cache.work_folder("golden") as work, host_storage(work):
            description = _brought(bring, DESCRIPTION, LIMIT_BYTES)
            try:
                golden = decode_golden(description, work / IMAGE)
            except (ValueError, KeyError) as error:
                raise _not_the_heads(wanted, f"its description: {error}") from None
            named = wanted_golden(golden)
            if named != wanted:
                raise _not_the_heads(wanted, "it describes another one")
            require_free(
                work,
                golden.manifest.extents.total_bytes,
                "the golden image takes",
                "free some space on that station; no card was touched",
            )
            with progress.phase(
                "fetch golden image", golden.manifest.extents.total_bytes
            ) as counter:
                for size in _written(golden, bring):
                    counter.advance(size)
            return add(replace(golden, again=None), cache)


def _written(golden: GoldenImage, bring: Bring) -> Iterator[int]:
    """Write the image piece by piece; gives how many bytes each had."""
    with golden.path.open("wb") as image, closing(_brought_ahead(golden, bring)) as pieces:
        image.truncate(golden.layout.size_bytes)
        for name, chunks, packed in pieces:
            size = sum(extent.length for chunk, _ in chunks for extent in chunk.extents)
            unpacker = zlib.decompressobj()
            try:
                data = unpacker.decompress(packed, size + 1)
            except zlib.error:
                data = b""
            if len(data) != size:
                raise _not_the_heads(wanted_golden(golden), f"piece {name}")
            position = 0
            for chunk, digest in chunks:
                sha256 = hashlib.sha256()
                for extent in chunk.extents:
                    part = memoryview(data)[position : position + extent.length]
                    sha256.update(part)
                    os.pwrite(image.fileno(), part, extent.offset)
                    position += extent.length
                if sha256.digest() != digest:
                    raise _not_the_heads(
                        wanted_golden(golden), f"byte {chunk.offset}, in piece {name}"
                    )
            yield size


def _pieces(golden: GoldenImage) -> Iterator[tuple[str, tuple[tuple[Chunk, bytes], ...]]]:
    chunks, number = golden.manifest.chunks(), 0
    while piece := tuple(islice(chunks, PIECE_CHUNKS)):
        yield f"{number:04}", piece
        number += 1


def _brought_ahead(
    golden: GoldenImage, bring: Bring
) -> Generator[tuple[str, tuple[tuple[Chunk, bytes], ...], bytes], None, None]:
    """Each piece with its chunks and packed bytes; while it is proven and written, the next one is
    on its way."""
    fetcher = ThreadPoolExecutor(1, thread_name_prefix="fetch")
    try:
        coming: deque[tuple[str, tuple[tuple[Chunk, bytes], ...], Future[bytes]]] = deque()
        for name, chunks in _pieces(golden):
            coming.append((name, chunks, fetcher.submit(_brought, bring, name, 2 * _PIECE_BYTES)))
            if len(coming) > 1:
                first, its, fetched = coming.popleft()
                yield first, its, fetched.result()
        for last, its, fetched in coming:
            yield last, its, fetched.result()
    finally:
        # Who stops in between waits for the piece that is on its way, and for no other.
        fetcher.shutdown(cancel_futures=True)


def _brought(bring: Bring, name: str, limit: int) -> bytes:
    try:
        path = bring(name)
    except FileNotFoundError as error:
        raise HostStorage(
            f"the golden image's {name} could not be fetched: {error}",
            hint="run the same command again: what was fetched is kept",
        ) from None
    with path.open("rb") as file:
        data = file.read(limit)
    path.unlink()
    return data


def _not_the_heads(wanted: GoldenWanted, what: str) -> NotAuthentic:
    return NotAuthentic(
        f"golden image {wanted.key} came otherwise than the head has it: {what}",
        hint="run the same command again; if it happens again, somebody alters what Salt carries",
    )
