"""A short digest of every file of a root filesystem, 12 bytes for each file.

In: a filesystem. Out: inode number -> the first 8 bytes of the SHA-256 of the content. They are
short so that all of them fit into a card's stamp. When a node has used the card, they show which
files are damaged. Eight bytes are enough to find damage; they are no protection against root of the
node, who can change both.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from imager.base.progress import Phase
from imager.base.units import GiB
from imager.disk.ext4.filesystem import Ext4

DIGEST_BYTES = 8
MAX_FILE_BYTES = 4 * GiB
"""A larger file has no digest: a file with holes can be of any size and take for ever to read."""
_ROW = struct.Struct(f"<I{DIGEST_BYTES}s")
ROW_BYTES = _ROW.size


@dataclass(frozen=True, slots=True)
class FileDigests:
    """Digests of regular files by inode number."""

    by_inode: Mapping[int, bytes] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Rows of a 32-bit inode number (little endian) and a digest, by ascending number."""
        return b"".join(_ROW.pack(*row) for row in sorted(self.by_inode.items()))

    @classmethod
    def unpack(cls, data: bytes) -> FileDigests:
        """The digests in ``data``; raises ValueError when the rows are cut or out of order."""
        if len(data) % _ROW.size:
            raise ValueError("the list of file digests is cut short")
        rows = dict(_ROW.iter_unpack(data))
        if [*rows] != sorted(rows) or len(rows) * _ROW.size != len(data):
            raise ValueError("the list of file digests is out of order")
        return cls(rows)

    def changed(self, present: set[int], written: Mapping[int, bytes]) -> FileDigests:
        """The digests after files were changed: only inode numbers in ``present`` are left, and
        those in ``written`` get the digest of that content."""
        kept = {number: digest for number, digest in self.by_inode.items() if number in present}
        return FileDigests(kept | {number: digest_of([data]) for number, data in written.items()})


def digest_of(pieces: Iterable[bytes]) -> bytes:
    """The digest of the content that ``pieces`` give one after another."""
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.digest()[:DIGEST_BYTES]


def digest_files(filesystem: Ext4, phase: Phase) -> FileDigests:
    """Digest every regular file of ``filesystem`` of at most MAX_FILE_BYTES, each a step of
    ``phase``."""
    return FileDigests(dict(_digests(filesystem, phase)))


def _digests(filesystem: Ext4, phase: Phase) -> Iterator[tuple[int, bytes]]:
    for inode in filesystem.files():
        if inode.raw.size_bytes <= MAX_FILE_BYTES:
            yield inode.number, digest_of(filesystem.content_in_pieces(inode))
        phase.advance(1)
