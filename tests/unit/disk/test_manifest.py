"""A manifest: one digest for each MiB in use, and only what changed is read again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from imager.base.json_fields import JsonObject
from imager.base.units import MiB
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Chunk, Manifest, build_manifest, chunks_of

SIZE = 4 * MiB
EXTENTS = ExtentMap([Extent(4096, 4096), Extent(MiB - 512, 1024), Extent(3 * MiB, MiB)])
CHUNKS = [
    Chunk(0, (Extent(4096, 4096), Extent(MiB - 512, 512))),
    Chunk(MiB, (Extent(MiB, 512),)),
    Chunk(3 * MiB, (Extent(3 * MiB, MiB),)),
]


class Disk:
    """Bytes that say where they are, and what was read of them."""

    def __init__(self) -> None:
        self.data = bytearray(b"".join(b"%016x" % at for at in range(0, SIZE, 16)))
        self.asked: list[Extent] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append(Extent(offset, length))
        return bytes(self.data[offset : offset + length])


def built(disk: Disk) -> Manifest:
    return build_manifest(SIZE, EXTENTS, disk.read)


def test_a_chunk_is_what_of_one_mib_is_in_use() -> None:
    assert list(chunks_of(EXTENTS)) == CHUNKS
    disk = Disk()
    found = built(disk)
    digests = [
        hashlib.sha256(b"".join(disk.data[e.offset : e.end] for e in chunk.extents)).digest()
        for chunk in CHUNKS
    ]
    assert list(found.chunks()) == list(zip(CHUNKS, digests, strict=True))
    assert (found.size_bytes, found.extents) == (SIZE, EXTENTS)


def test_only_what_changed_or_is_new_is_read_again() -> None:
    disk = Disk()
    base = built(disk)
    disk.asked.clear()
    disk.data[3 * MiB + 5] ^= 1
    changed = ExtentMap([Extent(3 * MiB + 5, 1)])
    found = build_manifest(SIZE, EXTENTS, disk.read, base=base, changed=changed)
    assert disk.asked == [Extent(3 * MiB, MiB)]
    assert found == built(disk) != base
    disk.asked.clear()
    more = EXTENTS | ExtentMap([Extent(2 * MiB, 512), Extent(0, 512)])
    assert build_manifest(SIZE, more, disk.read, base=found).extents == more
    read = [Extent(0, 512), Extent(4096, 4096), Extent(MiB - 512, 512), Extent(2 * MiB, 512)]
    assert disk.asked == read


def test_what_is_written_is_what_is_read() -> None:
    found = built(Disk())
    text = json.dumps(found.to_json())
    assert Manifest.from_json(JsonObject(json.loads(text))) == found
    assert json.loads(text)["extents"][0] == [4096, 4096]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chunk_bytes": 2 * MiB}, f"chunk_bytes: is {2 * MiB}, not {MiB}"),
        ({"size_bytes": SIZE - 1}, f"end at byte {SIZE}, past the size {SIZE - 1}"),
        ({"sha256": ["00" * 32] * 2}, "as many digests as there are chunks"),
        ({"sha256": ["00" * 32] * 4}, "as many digests as there are chunks"),
        ({"sha256": ["00" * 32] * 2 + ["00" * 31]}, "not 32 bytes"),
        ({"sha256": ["00" * 32] * 2 + ["0"]}, "malformed"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Manifest.from_json(JsonObject({**built(Disk()).to_json(), **changes}))


def test_a_range_of_8_eib_with_three_digests_is_refused_without_counting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(extents: ExtentMap) -> list[Chunk]:
        raise AssertionError("it began to count eight million million chunks")

    huge = {"size_bytes": 2**63 - 1, "extents": [[0, 2**63 - 1]]}
    read = JsonObject({**built(Disk()).to_json(), **huge})
    monkeypatch.setattr("imager.disk.manifest.chunks_of", count)
    with pytest.raises(ValueError, match="as many digests as there are chunks"):
        Manifest.from_json(read)
