"""docs/boards.md's table, made from the code: ``python -m tests.support.boarddoc`` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from imager.base.boards import AS_IT_IS, BOARDS, Board
from tests.support.madedoc import made_anew

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/boards.md"
BEGIN = "<!-- boards: made by python -m tests.support.boarddoc -->"
END = "<!-- end of boards -->"
_HEADS = (
    "`model`", "board", "releases", "firmware", "kernel", "device tree the firmware gives",
    "device tree U-Boot loads (`dtbs/broadcom/`)", "sections of config.txt",
)  # fmt: skip


def table() -> str:
    """Every board as one row."""
    rows = (" | ".join(cells) for cells in (_HEADS, ["---"] * len(_HEADS), *map(_row, BOARDS)))
    return "\n".join(f"| {row} |" for row in rows)


def _row(board: Board) -> Iterable[str]:
    pair = board.firmware_pair("")
    firmware = _code([*(["bootcode.bin"] if board.needs_bootcode else []), *(pair or ())])
    kernels = (*board.kernels64, *board.kernels32)
    return (
        f"`{board.name}`",
        board.title,
        "; ".join(_release(name, kernels) for name, kernels in board.kernels.items()),
        firmware if pair else "in a chip of the board",
        _code(kernels if board.prefers_64bit else board.kernels32),
        _code(tree.file for tree in board.device_trees),
        _code(tree.file for tree in board.uboot_trees),
        _code(f"[{name}]" for name in sorted(board.filters)),
    )


def _release(name: str, kernels: Iterable[str]) -> str:
    told = {"alarm-rpi-armv7": "32-bit", "alarm-rpi-aarch64": "64-bit"}[name]
    if AS_IT_IS in kernels:
        return told
    return f"{told} with {' or '.join(f'`{kernel}`' for kernel in kernels)}"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names) or "–"


def with_table(text: str) -> str:
    """The document with its table made anew."""
    return made_anew(text, BEGIN, table(), END)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
