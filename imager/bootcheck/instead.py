"""Something that is no card: what it is instead, and what to do with it.

In: a way to read it, and its size. Out: a sentence about it and one of advice, or None where
nothing tells what it is. It is asked where there is no partition table, or none that begins with a
boot partition.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.units import MiB
from imager.disk.manifest import Reader
from imager.disk.signature import Form, Recognised, signature_at

_UNPACK = {
    "xz": "xz -dk FILE",
    "lzma": "xz -dk FILE",
    "gzip": "gzip -dk FILE",
    "bzip2": "bzip2 -dk FILE",
    "zstd": "zstd -d FILE",
    "lz4": "lz4 -d FILE",
    "lzip": "lzip -dk FILE",
    "lzop": "lzop -d FILE",
    "compress": "gzip -dk FILE",
    "zip": "unzip FILE",
    "7z": "7z x FILE",
    "rar": "unrar x FILE",
    "tar": "tar -xf FILE",
}
_DISC = "ISO 9660"
_WRITE = "'picloud-image write' makes a card of it."


@dataclass(frozen=True, slots=True)
class Instead:
    """``what`` it is, and ``mend``: what to do, None where nothing special helps. ``is_disc``:
    made to be a disc for PCs, which has a partition table all the same."""

    what: str
    mend: str | None = None
    is_disc: bool = False


def no_card(read: Reader, size_bytes: int) -> Instead | None:
    """What it is that holds no partition table of a card."""
    found = signature_at(read, 0, size_bytes)
    if found is None:
        return None
    return Instead(_what(found, size_bytes), _mend(found), is_disc=found.kind == _DISC)


def _what(found: Recognised, size_bytes: int) -> str:
    if found.form is Form.NOTHING:
        where = "it" if size_bytes <= MiB else "its first MiB"
        return "it is empty" if not size_bytes else f"{where} holds {found.kind}"
    if found.form is Form.PACKED:
        return f"this is a packed file ({found.kind}), not yet an image"
    if found.form is Form.IMAGE:
        return f"this is a disk image in the form {found.kind}, not one byte for byte"
    if found.form is Form.TEXT:
        return f"this is a {'text file' if found.kind == 'text' else found.kind}, no image"
    if found.form in (Form.FILESYSTEM, Form.CONTAINER):
        return f"this is {found.kind} alone, without the partition table around it"
    if found.form is Form.SWAP:
        return "this is swap space, no image"
    return f"this is a {found.kind}, no image"


def _mend(found: Recognised) -> str:
    if found.form is Form.PACKED:
        how = _UNPACK.get(found.kind, "its own program")
        return f"Unpack it first ({how}), then inspect the image that comes out."
    if found.form is Form.IMAGE:
        android = found.kind.startswith("Android")
        tool = "simg2img FILE" if android else "qemu-img convert -O raw FILE"
        return f"Make a plain image of it first ({tool} card.img), then inspect that."
    if found.kind == _DISC:
        return "It is a disc for PCs: take an image that is made for the Raspberry Pi."
    if found.kind == "web page":
        return "The download went wrong: fetch the image again and compare its checksum."
    if found.kind.startswith("FAT"):
        return (
            "Give the whole card (/dev/sdb, not /dev/sdb1) or the whole image. A whole card "
            "without a table starts some boards only, and is not checked from here."
        )
    if found.form in (Form.FILESYSTEM, Form.CONTAINER, Form.SWAP):
        return (
            "Give the whole card (/dev/sdb, not /dev/sdb1) or the whole image; if this is the "
            f"whole card, no Pi starts from it: {_WRITE}"
        )
    if found.form is Form.NOTHING:
        return f"If it was a download, fetch it again; if it is a blank card, {_WRITE}"
    return "Give the card or the image itself."
