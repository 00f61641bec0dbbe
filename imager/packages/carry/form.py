"""The form of a file that carries an archive: a plain tar that has one way to be written.

::

    SHA256SUMS                      the hash of every file that follows, as sha256sum(1) writes it
    rack.lock                       what it all is
    keys/<FINGERPRINT>.asc          the public keys that signed it
    packages/<sha256>/…             record, signature, content, as they lie in a cache
    releases/<sha256>/…

In: names and sizes. Out: the bytes of the headers, and the text of SHA256SUMS. Owners, modes and
times are always the same, so a header follows from name and size alone. Who reads such a file need
not understand tar: each header is compared with the only one there can be. So no link, no hole, no
path that climbs out and no second file of a name can be in it. Pure.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping

from imager.base.units import KiB, MiB

SUMS = "SHA256SUMS"
LOCK = "rack.lock"
BLOCK_BYTES = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK_BYTES)
MOST_MEMBERS = 20_000
LARGEST_SUMS = 8 * MiB
LARGEST_LOCK = 4 * MiB
LARGEST_SMALL = 64 * KiB
"""A record, a signature."""
LARGEST_KEY = MiB
"""As much as a fetch takes. A packager's key with the signatures of others on it has 105 KiB."""
_SIZE = slice(124, 136)
"""Where the last block of a header has the size (ustar, POSIX.1-1988)."""
_OCTAL = re.compile(rb"[0-7]{11}\0\Z")
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>[!-~]{1,400})\Z")


def key_member(fingerprint: str) -> str:
    """The name of the file with the key ``fingerprint``."""
    return f"keys/{fingerprint}.asc"


def header(name: str, size_bytes: int) -> bytes:
    """What comes before the content of the file ``name``: 512 bytes, more for a long name."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.PAX_FORMAT)


def size_in(head: bytes) -> int:
    """The size in a header, in bytes. Raises ValueError where none is."""
    field = head[-BLOCK_BYTES:][_SIZE]
    if not _OCTAL.match(field):
        raise ValueError("no size")
    return int(field[:11], 8)


def padding(size_bytes: int) -> bytes:
    """The zeros that follow a content of that size."""
    return bytes(-size_bytes % BLOCK_BYTES)


def encode_sums(sums: Mapping[str, str]) -> bytes:
    """The text of SHA256SUMS for the hashes of files by name, in their order."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()).encode()


def parse_sums(data: bytes) -> dict[str, str]:
    """The inverse of ``encode_sums``. Raises ValueError that says what is wrong."""
    lines = data.decode("ascii", errors="replace").split("\n")
    if lines.pop() != "" or not lines:
        raise ValueError(f"{SUMS} does not end with its last line")
    if len(lines) > MOST_MEMBERS:
        raise ValueError(f"{SUMS} names {len(lines)} files")
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"{SUMS}: line {number} is no hash and name")
        if found["name"] in sums:
            raise ValueError(f"{SUMS} names {found['name']} twice")
        sums[found["name"]] = found["sha256"]
    return sums
