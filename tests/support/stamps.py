"""Stamps for tests: facts, a small map, and a signature, without a rack.

``by_hand`` builds the bytes from docs/stamp.md alone and shares no code with the product.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imager.base.units import GiB, MiB
from imager.disk.extents import Extent
from imager.disk.layout import Layout
from imager.node.stamp.facts import StampFacts

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
LAYOUT = Layout(GiB, Extent(8 * MiB, 256 * MiB), Extent(264 * MiB, 760 * MiB))
FACTS = StampFacts(
    rack="attic",
    node="pi7",
    model="pi2",
    release_name="stand-in",
    release_sha256="ab" * 32,
    golden_key="cd" * 16,
    image_id="ef" * 32,
    boot_sums="01" * 32,
    tool_version="0.1.0",
    imaged_at=1_790_000_000,
    disk_id=0x1A2B3C4D,
    layout=LAYOUT,
)
DOCUMENT: Mapping[str, object] = {
    "boot": [8 * MiB, 256 * MiB],
    "boot_sums": "01" * 32,
    "disk_id": "1a2b3c4d",
    "golden_key": "cd" * 16,
    "image_id": "ef" * 32,
    "imaged_at": 1_790_000_000,
    "model": "pi2",
    "node": "pi7",
    "rack": "attic",
    "release": "stand-in",
    "release_sha256": "ab" * 32,
    "root": [264 * MiB, 760 * MiB],
    "size_bytes": GiB,
    "tool_version": "0.1.0",
}


def by_hand(
    document: Mapping[str, object] | bytes = DOCUMENT,
    ranges: Sequence[tuple[int, int]] = ((0, MiB), (8 * MiB + 4096, MiB)),
    digests: Sequence[bytes] = (b"\1" * 32, b"\2" * 32, b"\3" * 32),
    files: Sequence[tuple[int, bytes]] = ((12, b"12345678"), (400, b"abcdefgh")),
    *,
    version: int = 1,
    reserved: int = 0,
) -> bytes:
    """A stamp made of the table in docs/stamp.md, field by field."""
    facts = document
    if not isinstance(facts, bytes):
        facts = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    body = b"PICSTAMP"
    for number in (version, len(facts), len(ranges), len(digests), len(files), reserved):
        body += struct.pack("<I", number)
    body += facts
    for offset, length in ranges:
        body += struct.pack("<Q", offset) + struct.pack("<Q", length)
    body += b"".join(digests)
    for inode, digest in files:
        body += struct.pack("<I", inode) + digest
    body += PUBLIC
    return body + KEY.sign(body)
