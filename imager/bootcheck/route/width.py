"""The mode in which a processor is started, and whether it is the kernel's.

In: a board, what config.txt says, the file of the kernel and what is in it. Out: findings.
start*.elf starts the processor in 32 or 64 bits before the kernel runs, by the kernel's name and
arm_64bit; that it looks into the kernel for that is said nowhere. Sources: Raspberry Pi
documentation, "kernel" and "arm_64bit"; raspberrypi/documentation pull requests 1858 (names) and
2881 (default of a Pi 4), raspberrypi/firmware issues 1193 and 1685; the names stand in start*.elf.
For pages: the kernel's arch/arm64/kernel/head.S, which stops where the processor has none of its
size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imager.base.boards import Board
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.formats.kernel import KernelFile
from imager.bootcheck.meanings import finding
from imager.bootcheck.route.paths import SystemPaths

_WIDE_NAME = re.compile(r"kernel8(?!-32)\w*\.img\Z|kernel_2712\.img\Z|.*8\.img\Z")
_NARROW_NAMES = frozenset({"kernel.img", "kernel7.img", "kernel7l.img", "kernel8-32.img"})
_EITHER = 96
"""32 and 64: less the one it is the other."""


def width_findings(
    model: Board, paths: SystemPaths, kernel: KernelFile | None
) -> Iterator[Finding]:
    """What is wrong with the width of ``kernel``, which ``model`` loads; None is one that could not
    be looked at."""
    path, bits = paths.kernel, kernel.bits if kernel else None
    widths = {32: model.kernels32, 64: model.kernels64 or paths.only_some_boards}
    if paths.only_some_boards and bits != 32:
        what = f"{path} is started in 64-bit mode, which only this board has: "
        yield finding(Code.KERNEL_BOARD, what + paths.only_some_boards, path=path)
    if kernel is None or bits is None:
        return
    if not widths[bits]:
        what = f"{path} is a {bits}-bit kernel; a {model.title} cannot run it"
        yield finding(Code.KERNEL_WIDTH, what, path=path)
        return
    if model.kernels32:
        yield from _mode_findings(model, paths, bits)
    yield from page_findings(model, path, kernel)


def page_findings(model: Board, path: str, kernel: KernelFile) -> Iterator[Finding]:
    """That ``kernel`` is built for pages of memory that ``model`` has not."""
    if kernel.page_kib is not None and kernel.page_kib not in model.pages_kib:
        what = (
            f"{path} is a kernel for pages of {kernel.page_kib} KiB, which the processor of a "
            f"{model.title} does not have"
        )
        yield finding(Code.KERNEL_WIDTH, what, path=path)


def _mode_findings(model: Board, paths: SystemPaths, bits: int) -> Iterator[Finding]:
    """Whether the firmware starts the processor of ``model`` in the mode of a kernel of ``bits``.
    Where config.txt says the right one, the kernel's name does not matter."""
    path, other = paths.kernel, _EITHER - bits
    what, named = f"{path} is a {bits}-bit kernel", _bits_by_name(paths)
    asked = None if paths.is_64bit is None else 64 if paths.is_64bit else 32
    if asked == bits:
        return
    grade = None
    if asked == other and named == bits:
        grade = Severity.WARNING
        what += f", as its name says, and config.txt asks for {other}-bit mode"
    elif asked == other:
        what += f", and config.txt asks for {other}-bit mode"
    elif named == other:
        what += f" under the name of a {other}-bit one"
    elif named is None and _had_other_default(model):
        grade = Severity.WARNING
        asking = f"arm_64bit={bits // 64}"
        what += f"; without {asking} in config.txt it depends on the firmware's age if it starts"
    elif named is None and bits == 64:
        what += ", and neither its name nor config.txt asks for 64-bit mode (arm_64bit=1)"
    else:
        return
    yield finding(Code.KERNEL_WIDTH, what, path=path, severity=grade)


def _bits_by_name(paths: SystemPaths) -> int | None:
    """Which mode the firmware takes the kernel's name for; None for one it does not know."""
    name = paths.kernel.removeprefix(paths.prefix).rpartition("/")[2]
    return 64 if _WIDE_NAME.match(name) else 32 if name in _NARROW_NAMES else None


def _had_other_default(model: Board) -> bool:
    """Whether the mode of ``model`` where nothing is said changed, as it did for the kinds of Pi 4
    in March 2023."""
    return model.firmware == "4"
