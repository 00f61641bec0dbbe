"""Sizes as text and as numbers of bytes. Inside this program every size is in bytes.

In: ``8GiB``, ``500 MB``, ``4096``. Out: a whole number of bytes, and back to text.
"""

from __future__ import annotations

import re

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

SECTOR_BYTES = 512
"""Addresses in an image count sectors of 512 bytes. A card has no others (SD physical layer: SDHC
and SDXC have a fixed block length of 512), even where a card reader reports larger ones."""

_FACTORS = {
    "": 1,
    "B": 1,
    "K": KiB,
    "KIB": KiB,
    "M": MiB,
    "MIB": MiB,
    "G": GiB,
    "GIB": GiB,
    "T": 1024 * GiB,
    "TIB": 1024 * GiB,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")


def parse_size(text: str) -> int:
    """Bytes in ``text``: a number with an optional unit (KiB MiB GiB TiB, K M G T, KB MB GB TB).

    Raises ValueError with a message that can be shown to a person.
    """
    match = _SIZE.match(text)
    factor = _FACTORS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write it like 8GiB, 512MiB or 32GB")
    number = match[1]
    size = int(number) * factor if number.isdigit() else round(float(number) * factor)
    if size <= 0:
        raise ValueError(f"{text!r} is not a size above zero")
    return size


def format_size(size_bytes: int) -> str:
    """``size_bytes`` in binary units, at most one decimal: ``4 GiB``, ``29.7 GiB``, ``312 KiB``."""
    for factor, unit in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes} B"


def format_rate(bytes_per_second: float) -> str:
    """A transfer rate in decimal MB/s, the unit printed on cards."""
    return f"{bytes_per_second / 1e6:.1f} MB/s"


def align_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step


def align_down(value: int, step: int) -> int:
    """The largest multiple of ``step`` that is not above ``value``."""
    return value // step * step
