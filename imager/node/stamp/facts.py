"""What a stamp says in words: which node, of which rack, made of what, when, and laid out how.

In: values, or the JSON of a stamp. Out: the other one. The JSON is canonical (keys sorted, no
spaces), so that the same facts are the same bytes, and every value is checked when it is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.timestamps import timestamp
from imager.base.units import SECTOR_BYTES
from imager.config.hostname import name_fault
from imager.disk.extents import Extent
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.mbr import MAX_DISK_BYTES

_MAX_TEXT = 1000
_LAST_SECOND = 253_402_300_799  # of the year 9999, after which no calendar here goes on
_HEX = re.compile(r"[0-9a-f]*\Z")


class StampError(ValueError):
    """The bytes are no valid stamp; the message says why."""


@dataclass(frozen=True, slots=True)
class StampFacts:
    """``imaged_at`` is in seconds since 1970, UTC. ``image_id`` names the bytes of the whole
    card without the stamp; ``boot_sums`` is the SHA-256 (hex) of picloud/SHA256SUMS, which has
    those of all other boot files. ``root_uuid`` is None in a stamp of before it was noted."""

    rack: str
    node: str
    model: str
    release_name: str
    release_sha256: str
    golden_key: str
    image_id: str
    boot_sums: str
    tool_version: str
    imaged_at: int
    disk_id: int
    layout: Layout
    root_uuid: str | None = None

    @property
    def day(self) -> str:
        """The day on which the card was made, such as 2026-11-29, in UTC."""
        return timestamp(self.imaged_at)[:10]

    def encode(self) -> bytes:
        """The JSON of the stamp."""
        return json.dumps(
            self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    def to_json(self) -> dict[str, object]:
        """The object that ``encode`` writes."""
        layout = self.layout
        return {
            "rack": self.rack,
            "node": self.node,
            "model": self.model,
            "release": self.release_name,
            "release_sha256": self.release_sha256,
            "golden_key": self.golden_key,
            "image_id": self.image_id,
            "boot_sums": self.boot_sums,
            "tool_version": self.tool_version,
            "imaged_at": self.imaged_at,
            "disk_id": f"{self.disk_id:08x}",
            "size_bytes": layout.size_bytes,
            "boot": [layout.boot.offset, layout.boot.length],
            "root": [layout.root.offset, layout.root.length],
            **({} if self.root_uuid is None else {"root_uuid": self.root_uuid}),
        }

    @classmethod
    def decode(cls, data: bytes) -> StampFacts:
        """The facts in ``data``; raises StampError that names the key which is wrong."""
        try:
            return _facts(read_object(data))
        except JsonFault as error:
            raise StampError(f"its facts cannot be believed: {error}") from error


def _facts(read: JsonObject) -> StampFacts:
    size = read.integer("size_bytes", high=MAX_DISK_BYTES)
    return StampFacts(
        rack=_name(read, "rack"),
        node=_name(read, "node"),
        model=_text(read, "model"),
        release_name=_text(read, "release"),
        release_sha256=_digits(read, "release_sha256", 64),
        golden_key=_text(read, "golden_key"),
        image_id=_digits(read, "image_id", 64),
        boot_sums=_digits(read, "boot_sums", 64),
        tool_version=_text(read, "tool_version"),
        imaged_at=read.integer("imaged_at", high=_LAST_SECOND),
        disk_id=int(_digits(read, "disk_id", 8), 16),
        layout=Layout(size, _extent(read, "boot", size), _extent(read, "root", size)),
        root_uuid=_text(read, "root_uuid") if "root_uuid" in read.values else None,
    )


def _text(read: JsonObject, key: str) -> str:
    value = read.text(key)
    if not 0 < len(value) <= _MAX_TEXT:
        raise read.fault(key, f"has {len(value)} characters, not 1 to {_MAX_TEXT}")
    if not value.isprintable() or " " in value:
        raise read.fault(key, "is not one word that can be printed")
    return value


def _name(read: JsonObject, key: str) -> str:
    value = _text(read, key)
    if fault := name_fault(value):
        raise read.fault(key, fault)
    return value


def _digits(read: JsonObject, key: str, count: int) -> str:
    value = read.text(key)
    if len(value) != count or not _HEX.match(value):
        raise read.fault(key, f"is not {count} hex digits")
    return value


def _extent(read: JsonObject, key: str, size_bytes: int) -> Extent:
    """A partition that a table can hold: the table that was written is made of it again."""
    extent = Extent(*read.pair(key, size_bytes))
    if extent.offset < FIRST_MIB.end or not extent.length:
        raise read.fault(key, "is no partition behind the first MiB")
    if extent.offset % SECTOR_BYTES or extent.length % SECTOR_BYTES:
        raise read.fault(key, f"is not whole sectors of {SECTOR_BYTES} bytes")
    if extent.end > size_bytes:
        raise read.fault(key, "ends past the card")
    return extent
