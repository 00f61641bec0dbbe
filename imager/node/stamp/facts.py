"""What a stamp says in words: which node, of which rack, made of what, when, and laid out how.

In: values, or the JSON of a stamp. Out: the other one. The JSON is canonical (keys sorted, no
spaces), so that the same facts are the same bytes, and every value is checked when it is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from imager.config.hostname import name_fault
from imager.disk.extents import Extent
from imager.disk.layout import Layout

MAX_CARD_BYTES = 1 << 41
"""What a master boot record can address: 2 TiB."""
_MAX_TEXT = 1000
_LAST_SECOND = 253_402_300_799  # of the year 9999, after which no calendar here goes on
_HEX = re.compile(r"[0-9a-f]*\Z")


class StampError(ValueError):
    """The bytes are no stamp that can be believed; the message says why."""


@dataclass(frozen=True, slots=True)
class StampFacts:
    """``imaged_at`` is in seconds since 1970, UTC. ``image_id`` names the bytes of the whole
    card without the stamp; ``boot_sums`` is the SHA-256 (hex) of picloud/SHA256SUMS, which has
    those of all other boot files."""

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
        }

    @classmethod
    def decode(cls, data: bytes) -> StampFacts:
        """The facts in ``data``; raises StampError that names the key which is wrong."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StampError(f"its facts are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise StampError("its facts are not an object")
        read = _Facts(value)
        size = read.integer("size_bytes", MAX_CARD_BYTES)
        return cls(
            rack=read.name("rack"),
            node=read.name("node"),
            model=read.text("model"),
            release_name=read.text("release"),
            release_sha256=read.digits("release_sha256", 64),
            golden_key=read.text("golden_key"),
            image_id=read.digits("image_id", 64),
            boot_sums=read.digits("boot_sums", 64),
            tool_version=read.text("tool_version"),
            imaged_at=read.integer("imaged_at", _LAST_SECOND),
            disk_id=int(read.digits("disk_id", 8), 16),
            layout=Layout(size, read.extent("boot", size), read.extent("root", size)),
        )


class _Facts:
    """A JSON object whose values are taken out with their type checked; others are passed over,
    so that a later program of this version may say more."""

    def __init__(self, values: dict[str, object]) -> None:
        self._values = values

    def text(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str) or not value or len(value) > _MAX_TEXT:
            raise StampError(f"{key} in its facts is no text")
        if not value.isprintable() or " " in value:
            raise StampError(f"{key} in its facts is not one word that can be printed")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if fault := name_fault(value):
            raise StampError(f"{key} in its facts {fault}")
        return value

    def digits(self, key: str, count: int) -> str:
        value = self.text(key)
        if len(value) != count or not _HEX.match(value):
            raise StampError(f"{key} in its facts is not {count} hex digits")
        return value

    def integer(self, key: str, most: int) -> int:
        return _integer(self._values.get(key), key, most)

    def extent(self, key: str, size_bytes: int) -> Extent:
        pair = self._values.get(key)
        if not isinstance(pair, list) or len(pair) != 2:
            raise StampError(f"{key} in its facts is not [offset, length]")
        extent = Extent(*(_integer(number, key, size_bytes) for number in pair))
        if extent.end > size_bytes:
            raise StampError(f"{key} in its facts ends past the card")
        return extent


def _integer(value: object, key: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise StampError(f"{key} in its facts is not a whole number up to {most}")
    return value
