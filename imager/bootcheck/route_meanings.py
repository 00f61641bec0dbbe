"""What each finding about the way a board takes means for a person.

In: nothing. Out: a part of MEANINGS, which ``meanings`` puts together.
"""

from __future__ import annotations

from collections.abc import Mapping

from imager.bootcheck.findings import Code, Meaning
from imager.bootcheck.symptoms import NO_START, SILENT, START_FAILS, error, warning

ROUTE_MEANINGS: Mapping[Code, Meaning] = {
    Code.FIRMWARE_CUT_DOWN: error(
        "The cut-down firmware starts only where the GPU has 16 MB of memory.",
        START_FAILS,
        "Say gpu_mem=16 instead of start_file= and fixup_file=, or take those two lines out.",
    ),
    Code.KERNEL_BOARD: warning(
        "Boards of two kinds are sold under this model's name, and only one of them runs this.",
        "On the other boards: " + SILENT[0].lower() + SILENT[1:],
        "Look at the board: on a Pi 2 the revision is printed on it. For all of them take a 32-bit "
        "kernel, and arm_64bit=1 out of config.txt.",
    ),
    Code.CONFIG_INCLUDED: warning(
        "The program that loads start*.elf (bootcode.bin, or one in a chip) reads config.txt only, "
        "no file that it includes.",
        "A setting without effect.",
        "Write the line into config.txt itself.",
    ),
    Code.CONFIG_FILTER: warning(
        "Firmware takes a filter that it does not know for none, so that the line counts on every "
        "board.",
        "The board loads what was meant for another one.",
        "Take bootcode.bin, start*.elf and fixup*.dat from a newer release, or take the line out.",
    ),
    Code.AUTOBOOT: error(
        "autoboot.txt sends the board to a partition from which it cannot start.",
        NO_START,
        "Name a FAT partition with the boot files in boot_partition=, or remove autoboot.txt to "
        "boot from the first partition.",
    ),
    Code.BOOT_IMAGE: error(
        "With boot_ramdisk=1 every boot file comes from inside boot.img.",
        NO_START,
        "Copy boot.img again from where it was made, or take boot_ramdisk out of config.txt.",
    ),
    Code.PROGRAM_MISSING: warning(
        "config.txt asks for a program that is not there; the firmware goes on without it.",
        "Nothing, or another system than the one meant, or none.",
        "Copy the file, or take the line out of config.txt.",
    ),
    Code.ROUTE_NOT_FOLLOWED: warning(
        "Another program than Linux is started here, and that one finds its system itself.",
        "Nothing if that system is whole.",
        "None needed. If the Pi does not boot, look at what that program shows on the screen or "
        "the serial console.",
    ),
    Code.TEXT_FORM: warning(
        "The firmware and the kernel compare bytes, and this file has some that an editor or a "
        "shell added to the text.",
        "A setting without effect; with root= lost, a kernel panic: 'Unable to mount root fs'.",
        "Save the file as plain text: UTF-8 without a byte order mark, with Unix line ends.",
    ),
    Code.KERNEL_MODULES: warning(
        "A kernel loads only modules that were made with it, and those of its release are not on "
        "the root filesystem: somebody copied boot files from another card, or an upgrade was cut "
        "short.",
        "The Pi starts, perhaps without a network, so that it never joins; USB devices and file "
        "systems are missing.",
        "Copy the kernel, its device trees and its initramfs that belong to this root filesystem, "
        "or write the card again.",
    ),
}
