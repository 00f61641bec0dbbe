"""What our own small files on a card's boot partition say of it: which node, how far it came.

In: a way to read a card. Out: the JSON of picloud/node.json (written with the image) and the report
of picloud/firstboot.json (written by the node), or None for what is absent: a card is judged by the
boot check, and these are only what it says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imager.card.firstboot import FirstBoot, parse_firstboot
from imager.image.fat import FatVolume
from imager.image.manifest import Reader
from imager.image.mbr import parse
from imager.image.own_files import FIRSTBOOT_PATH, NODE_PATH, json_object

_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CardNotes:
    """The two files; text in place of the second says why it cannot be read."""

    node: Mapping[str, object] | None = None
    firstboot: FirstBoot | str | None = None


def read_notes(read: Reader, size_bytes: int) -> CardNotes:
    """The notes on the card of ``size_bytes`` behind ``read``; raises only what ``read`` does."""
    try:
        first = parse(read(0, 512)).partition(1)
        if first is None:
            return CardNotes()
        boot = first.extent
        volume = FatVolume.parse(read, boot.offset, min(boot.length, size_bytes - boot.offset))
    except ValueError:
        return CardNotes()
    node = _content(volume, NODE_PATH)
    return CardNotes(json_object(node) if node else None, _firstboot(volume))


def _firstboot(volume: FatVolume) -> FirstBoot | str | None:
    try:
        data = _content(volume, FIRSTBOOT_PATH)
        return None if data is None else parse_firstboot(data)
    except ValueError as error:
        return str(error)


def _content(volume: FatVolume, path: str) -> bytes | None:
    entry = volume.find(path)
    if entry is None or entry.is_dir:
        return None
    return volume.read_file(path) if entry.size_bytes <= _MAX_BYTES else b""
