"""What a card says of itself: which node it is, how far it came, which Salt it has.

In: a way to read a card. Out: the JSON of picloud/node.json (written with the image), the report of
picloud/firstboot.json (written by the node), and the version of Salt on the root filesystem; what
is absent is left out. These are only the card's own words: the boot check says if it is sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imager.base.json_fields import JsonFault, read_object
from imager.bootcheck.own_files import FIRSTBOOT_PATH, NODE_PATH
from imager.card.inspect.firstboot import FirstBoot, parse_firstboot
from imager.card.inspect.salt import salt_on
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import Reader
from imager.disk.mbr import parse

_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CardNotes:
    """The two files; text in place of the second says why it cannot be read. ``salt`` is empty
    where no Salt was found."""

    node: Mapping[str, object] | None = None
    firstboot: FirstBoot | str | None = None
    salt: str = ""


def read_notes(read: Reader, size_bytes: int) -> CardNotes:
    """The notes on the card of ``size_bytes`` behind ``read``; raises only what ``read`` raises."""
    try:
        table = parse(read(0, 512))
        first, second = table.partition(1), table.partition(2)
        if first is None:
            return CardNotes()
        boot = first.extent
        volume = FatVolume.parse(read, boot.offset, min(boot.length, size_bytes - boot.offset))
    except ValueError:
        return CardNotes()
    salt = salt_on(read, second.extent.offset) if second is not None else ""
    return CardNotes(_node(volume), _firstboot(volume), salt)


def _node(volume: FatVolume) -> Mapping[str, object] | None:
    try:
        return read_object(_content(volume, NODE_PATH) or b"").values
    except JsonFault:
        return None


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
