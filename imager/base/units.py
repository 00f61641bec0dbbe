"""Sizes as text and as numbers of bytes. Inside this program every size is in bytes.

In: ``8GiB``, ``500 MB``, ``4096``. Out: a whole number of bytes, and back to text.

One rule for all that is shown. What was measured (how large a card is, how much was moved, how
fast) is in kB, MB, GB and MB/s, as on the package of the card, and as dd and Raspberry Pi Imager
say it. What somebody chose (``--size``, the size of a transfer, a limit of ours) is shown as it was
chosen: ``4 GiB`` stays 4 GiB, and ``32GB`` 32 GB.
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
_MEASURED = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_CHOSEN = ((1024 * GiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB"))
_HARDLY = 0.05
"""Seconds that would be shown as none."""
_SIZE = re.compile(r"\s*+(\d++(?:\.\d++)?)\s*+([A-Za-z]*+)\s*+\Z")


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
    """A size that was measured, in decimal units, at most one decimal: ``31.9 GB``, ``445.6 MB``,
    ``4.1 kB``."""
    for factor, unit in _MEASURED:
        if size_bytes >= factor - factor // 20_000:  # what would be rounded to 1000 of the next
            return f"{_short(size_bytes / factor)} {unit}"
    return f"{size_bytes} B"


def format_chosen(size_bytes: int) -> str:
    """A size that somebody chose, as it was said: ``4 GiB``, ``1.5 MiB``, ``32 GB``. It is written
    in the unit, binary or decimal, that says it exactly with the smallest number."""
    exact = [
        (size_bytes / factor, unit)
        for factor, unit in (*_CHOSEN, *_MEASURED)
        if size_bytes >= factor and size_bytes * 10 % factor == 0
    ]
    number, unit = min(exact, default=(size_bytes, "B"))
    return f"{_short(number)} {unit}"


def format_rate(bytes_per_second: float) -> str:
    """A transfer rate, in MB/s unless it is less than 0.1 of them: ``20.7 MB/s``, ``35 kB/s``."""
    if bytes_per_second >= 0.95 * 10**5:
        return f"{bytes_per_second / 1e6:.1f} MB/s"
    if bytes_per_second >= 1000:
        return f"{bytes_per_second / 1e3:.0f} kB/s"
    return f"{bytes_per_second:.0f} B/s"


def format_transfer(size_bytes: int, seconds: float) -> str:
    """What was moved in which time: ``612 MB in 31.0 s, 19.7 MB/s``. What took hardly any time has
    no rate, for it would be one of caches and clocks."""
    if seconds < _HARDLY:
        return f"{format_size(size_bytes)} in {format_seconds(seconds)}"
    rate = format_rate(size_bytes / seconds)
    return f"{format_size(size_bytes)} in {format_seconds(seconds)}, {rate}"


def format_seconds(seconds: float) -> str:
    """``31.0 s``, or that it was less than the shortest time shown."""
    return "less than 0.1 s" if seconds < _HARDLY else f"{seconds:.1f} s"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def align_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step


def align_down(value: int, step: int) -> int:
    """The largest multiple of ``step`` that is not above ``value``."""
    return value // step * step


def clock(seconds: float | None) -> str:
    """``0:34``, ``1:02:05``; a dash when it is not known."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
