"""The GPU firmware: bootcode.bin, start*.elf and the fixup*.dat that belongs to it.

In: the bytes of the files. Out: what is wrong with each, and whether start and fixup are a pair.
Pure. The firmware's source is secret. What a fixup file is was found by comparing the 24 pairs of
three releases (2021, 2022, 2024): a list of the places in start.elf that hold an address. First in
the list are the entry point and both addresses of each program header, which tells how many
headers the start.elf that belongs to it has; at each further place start.elf must have an address
inside the firmware.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from imager.disk.budget import Budget

_VIDEOCORE = 137
_ADDRESS_BITS = 0x3FFFFFFF  # the two upper bits of a VideoCore address choose how it is cached
_FLOOR = 0xFFFFF  # the firmware also points to the start of the MiB it is loaded into
_BUILD = re.compile(rb"VC_BUILD_ID_VERSION: ([0-9a-f]{7,40})")
_BOOTCODE_MIN = 4096
BOOTCODE_MAX = 128 * 1024
"""The boot ROM loads it into a cache of this size."""
_FIXUP_MAX = 256 * 1024  # the largest of those releases has 10 KiB
# Its maker: "if there is no cmdline.txt, start.elf does fill in a usable one"
# (raspberrypi/linux issue 119). It is one text, to a zero byte.
_ROOT, _HALF_LINE = b"root=/dev/", 500
_CMDLINE = re.compile(
    rb"(?<![ -~])[ -~]{0,%d}?(?<![!-~])%s[ -~]{1,%d}+(?=\0)" % (_HALF_LINE, _ROOT, _HALF_LINE)
)
_BOARD_WORDS = tuple(
    re.compile(rb"(?s)(%s(?<![!-Z\\^-~]..)[0-5][0-9w+s]{0,3})(?![!-Z\\^-~])" % begin)
    for begin in (b"pi", b"cm")
)
"""Two, because what begins with certain letters is looked for ten times as fast."""
_LIST_GAP = 64
"""In the list of filters of those releases at most 40 bytes stand between two names of boards."""
_MOST_LOOKS = 2000
_BYTES_A_STEP = 64
_ENTRY_AT, _HEADERS_AT, _HEADER_BYTES = 24, 52, 32


@dataclass(frozen=True, slots=True)
class _Elf:
    headers: tuple[tuple[int, ...], ...]

    def span(self) -> tuple[int, int]:
        """The lowest and highest address the firmware occupies."""
        places = [(header[2] & _ADDRESS_BITS, header[5]) for header in self.headers]
        low = min(address for address, _ in places) & ~_FLOOR
        return low, max(address + size for address, size in places)


def _parse_elf(data: bytes) -> _Elf | str:
    """The program headers, or what is wrong with the file."""
    if data[:4] != b"\x7fELF":
        return f"it begins with {data[:4].hex(' ')}, not with the mark of an ELF program"
    if len(data) < _HEADERS_AT:
        return f"it ends after {len(data)} bytes"
    machine, header_at, sections_at = struct.unpack_from("<18xH8xII", data)
    header_size, headers, section_size, sections = struct.unpack_from("<42xHHHH", data)
    if data[4:6] != b"\x01\x01" or machine != _VIDEOCORE:
        return f"it is a program for another processor (ELF machine {machine})"
    if header_at != _HEADERS_AT or header_size != _HEADER_BYTES or headers == 0:
        return "its ELF header is damaged"
    ends = [header_at + headers * header_size, sections_at + sections * section_size]
    table: tuple[tuple[int, ...], ...] = ()
    if ends[0] <= len(data):
        table = tuple(
            struct.unpack_from("<8I", data, header_at + n * header_size) for n in range(headers)
        )
        ends.extend(header[1] + header[4] for header in table)
    if max(ends) > len(data):
        return f"it is cut off: {len(data)} bytes of {max(ends)}"
    return _Elf(table)


def start_fault(data: bytes) -> str | None:
    """What is wrong with a start*.elf; None when it is a whole VideoCore program."""
    parsed = _parse_elf(data)
    return parsed if isinstance(parsed, str) else None


def build_id(data: bytes) -> str | None:
    """The commit a start*.elf was built from."""
    match = _BUILD.search(data)
    return match[1].decode() if match else None


def known_filters(data: bytes, names: Collection[str], budget: Budget) -> frozenset[str] | None:
    """Which of ``names``, sections of config.txt, a start*.elf or bootcode.bin knows: of boards
    those in its list of them, of others those that stand in it as words of their own. None where
    there is no such list in it. Raises OverBudget."""
    budget.step(len(data) // _BYTES_A_STEP)
    boards = max((run & set(names) for run in _runs(data)), key=len)
    if not boards:
        return None
    others = (name for name in names if not name.startswith(("pi", "cm")))
    return boards.union(name for name in others if _has_word(data, name.encode()))


def _runs(data: bytes) -> Iterator[frozenset[str]]:
    """The names of boards that stand close together, as in the list of filters: a single one may
    stand anywhere and mean anything."""
    found = sorted(
        (match.start(), match.end(), match[1].decode())
        for words in _BOARD_WORDS
        for match in islice(words.finditer(data), _MOST_LOOKS)
    )
    run, end = set[str](), 0
    for start, stop, name in found:
        if start - end > _LIST_GAP:
            yield frozenset(run)
            run = set()
        run.add(name)
        end = stop
    yield frozenset(run)


def _has_word(data: bytes, word: bytes) -> bool:
    at = data.find(word)
    for _ in range(_MOST_LOOKS):
        around = data[max(at - 1, 0) : at] + data[at + len(word) : at + len(word) + 1]
        if at < 0 or not any(0x21 <= byte <= 0x7E for byte in around):
            break
        at = data.find(word, at + 1)
    return at >= 0


def built_in_cmdline(data: bytes) -> bytes | None:
    """The command line that a start*.elf hands to the kernel where the card has no cmdline.txt;
    None where none is in it."""
    at = data.find(_ROOT)
    for _ in range(_MOST_LOOKS):
        if at < 0:
            break
        # Looked for in the whole file, this form takes a second for each 20 MiB.
        found = _CMDLINE.search(data, max(0, at - _HALF_LINE), at + len(_ROOT) + _HALF_LINE + 1)
        if found:
            return found[0]
        at = data.find(_ROOT, at + 1)
    return None


def is_cut_down(data: bytes) -> bool:
    """Whether a start*.elf is the small one without codecs, cameras and 3D."""
    return b"VC_BUILD_ID_VARIANT: start_cd" in data


def bootcode_fault(data: bytes) -> str | None:
    """What is wrong with a bootcode.bin. It must fit where the ROM loads it, and must contain the
    name of the file it loads next."""
    if data.count(0) == len(data):
        return "it holds only zeros"
    if len(data) < _BOOTCODE_MIN:
        return f"it is cut off: {len(data)} bytes, and no bootcode.bin is below {_BOOTCODE_MIN}"
    if len(data) > BOOTCODE_MAX:
        return f"it is {len(data)} bytes long; the boot ROM loads at most {BOOTCODE_MAX}"
    if b"start" not in data and b"START" not in data:
        return "nowhere in it stands the name of start.elf, which it must load"
    return None


def fixup_fault(data: bytes) -> str | None:
    """What is wrong with a fixup*.dat taken by itself."""
    return "it holds only zeros" if data.count(0) == len(data) else None


def _places(fixup: bytes) -> Iterator[int]:
    """Offsets into start.elf, from the first of the two lists in a fixup file.

    One byte n stands for a step of 2(n - 1) bytes; 01 and three bytes for twice their number;
    00 ends the list.
    """
    at, place = 0, -4
    while at < len(fixup) and fixup[at]:
        if fixup[at] == 1:
            place += 2 * int.from_bytes(fixup[at + 1 : at + 4], "little")
            at += 4
        else:
            place += 2 * (fixup[at] - 1)
            at += 1
        yield place


def pair_fault(start: bytes, fixup: bytes) -> str | None:
    """Why these two do not belong together; None when they do, or when the fixup file has a form
    that is unknown here (see ``knows_fixup``).

    Files of two releases that differ very little can pass; only their digests tell them apart.
    """
    elf = _parse_elf(start)
    if isinstance(elf, str) or not knows_fixup(fixup):
        return None
    places = list(_places(fixup))
    count = len(elf.headers)
    expected = [_HEADERS_AT + n * _HEADER_BYTES + field for n in range(count) for field in (8, 12)]
    if places[1 : 1 + 2 * count] != expected:
        return f"the fixup file is made for a firmware with other than {count} program headers"
    low, high = elf.span()
    for place in places:
        (value,) = struct.unpack_from("<I", start, place) if place + 4 <= len(start) else (0,)
        if not low <= value & _ADDRESS_BITS <= high:
            return f"the fixup file would change byte {place} of it, which holds no address"
    return None


def knows_fixup(fixup: bytes) -> bool:
    """Whether the file has the form described above."""
    if len(fixup) > _FIXUP_MAX:
        return False
    steps = _places(fixup)
    first = [next(steps, None) for _ in range(3)]
    return first == [_ENTRY_AT, _HEADERS_AT + 8, _HEADERS_AT + 12]
