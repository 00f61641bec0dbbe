"""The firmware: does the program that loads start*.elf find a whole pair of files?

In: the files of the boot partition and of the first partition, a board, and config.txt as the
loader reads it. Out: findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imager.base.boards import Board
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.formats import firmware
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.needs import Needs, cheap
from imager.bootcheck.route.settings import BOOTCODE, BootSettings, has_little_memory

_BOOTCODE, _START = cheap(firmware.bootcode_fault), cheap(firmware.start_fault)
_FIXUP, _BUILD = cheap(firmware.fixup_fault), cheap(firmware.build_id)
_CUT_DOWN = cheap(firmware.is_cut_down)
_VARIANT = re.compile(r"(?:start|fixup)(4|_)?(x|cd|db)?\.(?:elf|dat)")
"""How the maker names the files of one pair: start4cd.elf goes with fixup4cd.dat."""
_CUT_DOWN_NAME = re.compile(r"start(4|_)cd\.elf", re.IGNORECASE)


def bootcode_findings(first: Needs, model: Board) -> Iterator[Finding]:
    """What is wrong with bootcode.bin, which stands on the first partition."""
    if model.needs_bootcode:
        yield from first.whole(Code.BOOTCODE, BOOTCODE, _BOOTCODE)


def loader_findings(
    needs: Needs, first: Needs, model: Board, settings: BootSettings
) -> Iterator[Finding]:
    """What is wrong with bootcode.bin, which ``first`` has, and with the start and fixup files."""
    yield from bootcode_findings(first, model)
    if settings.pair is None:
        return
    start, fixup = settings.pair
    faults = [
        *needs.whole(Code.START, start, _START),
        *needs.whole(Code.FIXUP, fixup, _FIXUP),
    ]
    # First of all, for to put the missing files there would not help.
    yield from _cut_down(needs, model, settings)
    yield from faults
    contents = needs.contents
    if not faults and contents.is_readable(start) and contents.is_readable(fixup):
        yield from _pair(needs, model, start, fixup)


def _cut_down(needs: Needs, model: Board, settings: BootSettings) -> Iterator[Finding]:
    """The cut-down firmware does not start when it is chosen by its name."""
    named = settings.loader.settings.get("start_file")
    if named is None or not named.value or has_little_memory(settings.loader, model):
        return
    name = named.value.rpartition("/")[2]
    if _CUT_DOWN_NAME.fullmatch(name) or needs.contents.about(named.value, _CUT_DOWN):
        what = f"{named.path}, line {named.line}: start_file={named.value} is the cut-down firmware"
        yield finding(Code.FIRMWARE_CUT_DOWN, what, path=named.path)


def _pair(needs: Needs, model: Board, start: str, fixup: str) -> Iterator[Finding]:
    contents = needs.contents
    names = [_VARIANT.fullmatch(path.casefold().rpartition("/")[2]) for path in (start, fixup)]
    if names[0] and names[1] and names[0].groups() != names[1].groups():
        what = f"{start} and {fixup}: by their names they belong to two pairs"
        yield finding(Code.FIRMWARE_PAIR, what, path=start)
        return
    # Files that are as the release has them are a pair: its makers know better than we do.
    if contents.proven(start) and contents.proven(fixup):
        return
    start_data, fixup_data = contents.read(start) or b"", contents.read(fixup) or b""
    if not firmware.knows_fixup(fixup_data):
        what = f"{fixup} is of an unknown form"
        yield finding(Code.FIRMWARE_UNPROVEN, what, path=fixup)
        return
    fault = firmware.pair_fault(start_data, fixup_data)
    if fault is not None:
        yield finding(Code.FIRMWARE_PAIR, f"{start} and {fixup}: {fault}", path=start)
    build = contents.about(start, _BUILD)
    pairs = (model.firmware_pair(variant) for variant in ("", "cd", "x", "db"))
    for other, _ in filter(None, pairs):
        other_build = contents.about(other, _BUILD)
        if build and other_build and build != other_build:
            what = f"{start} is of build {build[:12]}, {other} of build {other_build[:12]}"
            yield finding(Code.FIRMWARE_MIXED, what, path=other)
