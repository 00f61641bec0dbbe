"""What a card says of itself: which node it is, how far it came, which Salt it has.

In: a card that was read. Out: the JSON of picloud/node.json (written with the image), the report of
picloud/firstboot.json (written by the node), and the version of Salt on the root filesystem; what
is absent is left out. These are only the card's own words: the boot check says if it is sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imager.base.json_fields import JsonFault, read_object
from imager.bootcheck.own_files import FIRSTBOOT_PATH, NODE_PATH
from imager.bootcheck.partitions import Card
from imager.card.inspect.firstboot import FirstBoot, parse_firstboot
from imager.card.inspect.salt import salt_on
from imager.disk.budget import MAX_TEXT_BYTES
from imager.disk.fat.volume import FatVolume


@dataclass(frozen=True, slots=True)
class CardNotes:
    """The two files; text in place of the second says why it cannot be read. ``salt`` is empty
    where no Salt was found."""

    node: Mapping[str, object] | None = None
    firstboot: FirstBoot | str | None = None
    salt: str = ""


def read_notes(card: Card) -> CardNotes:
    """The notes on ``card``; raises only what its ``read`` raises."""
    if card.fat is None:
        return CardNotes()
    root = card.roots.presumed
    salt = salt_on(card.read, root.part.extent.offset, card.budget) if root is not None else ""
    return CardNotes(_node(card.fat), _firstboot(card.fat), salt)


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
    return volume.read_file(path) if entry.size_bytes <= MAX_TEXT_BYTES else b""
