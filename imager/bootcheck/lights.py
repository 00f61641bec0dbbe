"""What a board shows when it does not start, the other way round: from the light to the cause.

In: what a person sees. Out: what it means and what to check, the likeliest first. Sources: the
Raspberry Pi documentation ("LED warning flash codes", "boot sequence") and, for firmware from
before 2020, its users' reports (docs/boot-check.md, "Reading the lights").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imager.base.boards import Board
from imager.bootcheck.findings import Code

_CARD = "read the card: 'picloud-image inspect /dev/sdX' in a laptop names a wrong file"
_CONTACT = "take the card out and put it in again; try another card in this board"
_POWER = "try another power supply and cable: a weak one stops a board at any step"
_TABLE = frozenset(
    {Code.MBR_MISSING, Code.GPT_ONLY, Code.BOOT_PARTITION_MISSING, Code.PARTITION_TYPE_REFUSED,
     Code.PARTITION_TYPE_UNPROVEN, Code.PARTITION_OUTSIDE}
)  # fmt: skip
_FAT = frozenset(code for code in Code if code.startswith("fat-"))
_FIRMWARE = frozenset(
    {Code.START, Code.FIXUP, Code.FIRMWARE_PAIR, Code.FIRMWARE_UNPROVEN, Code.FIRMWARE_CUT_DOWN}
)  # fmt: skip
_KERNEL = frozenset(
    {Code.KERNEL, Code.KERNEL_WIDTH, Code.KERNEL_BOARD, Code.KERNEL_CHOICE, Code.OS_PREFIX}
)  # fmt: skip
_AWAY = frozenset({Code.AUTOBOOT, Code.BOOT_IMAGE})
"""What sends the board to a partition or an image that is not there or not whole."""
_TREE = frozenset({Code.DEVICE_TREE, Code.DEVICE_TREE_MODEL, Code.DEVICE_TREE_BOARD})
_FILES = frozenset({Code.FILE_CHANGED, Code.FILE_LOST})


@dataclass(frozen=True, slots=True)
class BoardSign:
    """Something a board shows. ``before_2020`` is what it meant with older firmware on boards that
    load it from the card, empty where the same; ``codes`` are the findings that can cause it."""

    seen: str
    means: str
    checks: tuple[str, ...]
    codes: frozenset[Code] = frozenset()
    before_2020: str = ""

    def meaning_on(self, board: Board | None) -> str:
        """What it means on ``board``, or on any."""
        if self.before_2020 and (board is None or board.needs_bootcode):
            return f"{self.means}; with firmware from before 2020: {self.before_2020}"
        return self.means


_REPAIR = "the board is broken or its memory is: no card mends that"
BLINKS: Mapping[str, BoardSign] = {
    "3": BoardSign(
        "3 short blinks",
        "the firmware could not start, for no reason of its own name",
        (_CARD, "take bootcode.bin, start*.elf and fixup*.dat from one release", _POWER),
        _FIRMWARE | _AWAY | _FAT | _FILES,
        "start.elf was not found",
    ),
    "4": BoardSign(
        "4 short blinks",
        "start*.elf was not found",
        (
            _CARD,
            "see start_file=, start_x= and gpu_mem=16 in config.txt: they choose another file",
            _CONTACT,
        ),
        _FIRMWARE | _AWAY | _FAT | _FILES,
        "start.elf was found and did not start",
    ),
    "7": BoardSign(
        "7 short blinks",
        "the kernel was not found",
        (
            _CARD,
            "see kernel=, arm_64bit= and os_prefix= in config.txt: they choose another file",
            "is the card made for this model?",
        ),
        _KERNEL | _FAT | _FILES,
    ),
    "8": BoardSign("8 short blinks", "the memory failed", (_POWER, _REPAIR)),
    "9": BoardSign("9 short blinks", "there is not enough memory", (_POWER, _REPAIR)),
    "10": BoardSign(
        "10 short blinks",
        "the board was halted: it was shut down, and waits",
        ("switch it off and on again",),
    ),
    "2+1": BoardSign(
        "2 long blinks and 1 short", "the partition is no FAT", (_CARD, _CONTACT), _TABLE | _FAT
    ),
    "2+2": BoardSign(
        "2 long blinks and 2 short", "the partition could not be read", (_CONTACT, _CARD), _FAT
    ),
    "2+3": BoardSign(
        "2 long blinks and 3 short", "the extended partition is no FAT", (_CARD,), _TABLE | _FAT
    ),
    "2+4": BoardSign(
        "2 long blinks and 4 short", "a file does not fit its signature", (_CARD,), _FILES
    ),
    "3+1": BoardSign("3 long blinks and 1 short", "the EEPROM failed", (_POWER, _REPAIR)),
    "3+2": BoardSign("3 long blinks and 2 short", "the EEPROM is write-protected", (_REPAIR,)),
    "3+3": BoardSign("3 long blinks and 3 short", "the I2C bus failed", (_POWER, _REPAIR)),
    "3+4": BoardSign(
        "3 long blinks and 4 short",
        "the settings of secure boot are not valid",
        ("see the EEPROM's own settings: rpi-eeprom-config",),
    ),
    "4+4": BoardSign(
        "4 long blinks and 4 short",
        "the firmware does not know this board",
        ("take the firmware of a newer release: the board is younger than the card's files",),
        _FIRMWARE,
    ),
    "4+5": BoardSign("4 long blinks and 5 short", "the firmware ended", (_CARD, _POWER), _FIRMWARE),
    "4+6": BoardSign("4 long blinks and 6 short", "the power failed (type A)", (_POWER, _REPAIR)),
    "4+7": BoardSign("4 long blinks and 7 short", "the power failed (type B)", (_POWER, _REPAIR)),
}
RAINBOW = BoardSign(
    "the rainbow screen stays",
    "start*.elf works, so card, partition table and firmware do; the kernel did not start",
    (_CARD, "is the kernel for this model, and its device tree there?", _POWER),
    _KERNEL | _TREE | _FIRMWARE | _FILES | {Code.INITRAMFS},
)
BLANK = BoardSign(
    "nothing: a dark screen and no blink",
    "the board found nothing to start, or has no power, or only its screen is missing",
    ("is the red light on? if not: " + _POWER, _CONTACT, _CARD,
     "another screen or cable, at the socket beside the power; ask the network whether it answers",
     "on a Pi 4 or 5 the EEPROM may need the recovery image of the Raspberry Pi Imager"),
    _TABLE | _AWAY | _FAT | _FILES | {Code.BOOTCODE, Code.KERNEL, Code.KERNEL_WIDTH} | _TREE,
)  # fmt: skip
