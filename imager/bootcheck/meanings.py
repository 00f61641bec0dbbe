"""What each finding means for a person: why it matters, what is seen, how to mend it.

``docs/boot-check.md`` is this table as text; a test keeps the two the same. What the lights and the
screen do is from the Raspberry Pi documentation ("LED warning flash codes") and, where firmware
from before 2020 differs, from its users' reports.
"""

from __future__ import annotations

from collections.abc import Mapping

from imager.bootcheck.findings import Code, Finding, Meaning, Severity
from imager.bootcheck.route_meanings import ROUTE_MEANINGS
from imager.bootcheck.symptoms import NO_START, SILENT, START_FAILS, error, warning

_DARK = "The red power light only; the green ACT light never blinks and the screen stays black."
_NO_KERNEL = "The rainbow screen stays and ACT blinks 7 times."
_NO_ROOT = "The kernel starts and stops at 'Waiting for root device' or in an emergency shell."
_ANY = "Anything from no light at all to a crash later, depending on which bytes are wrong."
_NOTHING = "Nothing on this card today."
_REWRITE = "Write the card again with 'picloud-image write'."
_COPY = "Copy the file again from the release, or write the card again."


MEANINGS: Mapping[Code, Meaning] = {
    Code.MBR_MISSING: error(
        "The boot ROM finds the boot partition through the table in the first sector.",
        _DARK,
        _REWRITE,
    ),
    Code.GPT_ONLY: error(
        "The boot ROM of a Pi 2 or 3 reads MBR tables; a pure GPT is invisible to it.",
        _DARK,
        "Partition the card with an MBR ('label: dos' in sfdisk), or write it with this tool.",
    ),
    Code.GPT_LOST: error(
        "Where an entry of the table says that there is a GPT, the kernel takes partitions from "
        "the GPT only.",
        _NO_ROOT,
        "Take that entry out ('sfdisk --delete DISK N'), or write the card again.",
    ),
    Code.BOOT_PARTITION_MISSING: error(
        "The boot ROM looks for bootcode.bin in the first entry of the table only; the EEPROM of a "
        "Pi 4 or 5 takes the first FAT partition.",
        _DARK,
        "Make the FAT partition the first entry of the table, of type 0c, or in a GPT EFI system.",
    ),
    Code.BOOT_PARTITION_LATER: warning(
        "The EEPROM of a Pi 4 or 5 takes the first FAT partition that it can boot from; an old one "
        "stops at the first of all.",
        "With an old EEPROM: its screen on HDMI, and ACT blinks in a pattern.",
        "Make the partition to boot from the first entry of the table, or renew the EEPROM.",
    ),
    Code.PARTITION_TYPE_REFUSED: error(
        "The boot ROM checks the type of the first entry and skips what is not FAT to it.",
        _DARK,
        "Set the type to 0c: 'sfdisk --part-type DISK 1 c'.",
    ),
    Code.PARTITION_TYPE_UNPROVEN: warning(
        "Types 0b and 0c are known to boot; this one is reported to boot some boards only.",
        "On some boards the red power light only; others boot.",
        "Set the type to 0c: 'sfdisk --part-type DISK 1 c'.",
    ),
    Code.PARTITION_OUTSIDE: error(
        "Part of the partition lies where the card has no storage.",
        "The boot stops where the missing part is first read, or files are lost later.",
        "Use a card at least as large as the image, or write the card again.",
    ),
    Code.PARTITIONS_OVERLAP: error(
        "Two partitions claim the same bytes, so writing to one destroys the other.",
        "It may boot once; then files on either partition turn to garbage.",
        _REWRITE,
    ),
    Code.ROOT_PARTITION_MISSING: error(
        "The system itself is on the second partition.",
        _NO_ROOT,
        _REWRITE,
    ),
    Code.ROOT_FILESYSTEM: error(
        "The partition that is to be the root holds nothing the kernel could mount.",
        _NO_ROOT,
        "If there is something to save, try 'e2fsck -f' on that partition; else write the card "
        "again.",
    ),
    Code.ROOT_UNPROVEN: warning(
        "Only the initramfs, or another filesystem's own tool, can tell whether the root is there "
        "and whole: it is not checked from here.",
        "Nothing if it is whole; else " + _NO_ROOT[0].lower() + _NO_ROOT[1:],
        "If the Pi does not boot, check that filesystem with its own tool.",
    ),
    Code.ROOT_JOURNAL: warning(
        "The root filesystem was not unmounted; the kernel replays its journal at the next boot.",
        _NOTHING,
        "None needed. Shut a Pi down before its card is pulled.",
    ),
    Code.ROOT_INIT: error(
        "The kernel has its root filesystem and finds no program to start on it.",
        "A kernel panic ('No working init found') or an emergency shell of the initramfs.",
        "Write the card again, or install the system on that partition.",
    ),
    Code.FSTAB: error(
        "The first program, systemd, waits for everything in /etc/fstab, by the very name, and "
        "gives up where something does not come, unless its line says nofail.",
        "The boot stands still for 90 seconds ('A start job is running for …') and ends in "
        "emergency mode, without a network.",
        "Name a partition of this card in that line of /etc/fstab ('blkid' prints the names), or "
        "add nofail to its options.",
    ),
    Code.FAT_MISSING: error(
        "The first partition holds no FAT filesystem, so nothing on it can be read.",
        "The red power light only, or ACT blinks 2 long and 1 short.",
        _REWRITE,
    ),
    Code.FAT_COPIES_DIFFER: error(
        "The firmware follows the first table; repair tools may trust the second one. One of them "
        "leads to the wrong clusters.",
        _ANY,
        "Run 'fsck.vfat -a' on the first partition, compare its files, better write it again.",
    ),
    Code.FAT_CROSS_LINKED: error(
        "Two files end in the same clusters, so at least one of them has foreign content.",
        _ANY,
        _REWRITE,
    ),
    Code.FAT_CHAIN: error(
        "The table does not lead through the whole file, so what is loaded is not the file.",
        _ANY,
        _REWRITE,
    ),
    Code.FAT_DIRECTORY: error(
        "A directory is damaged: files in it may be unreachable or under a wrong name.",
        _ANY,
        _REWRITE,
    ),
    Code.FAT_SIZE: error(
        "The firmware decides between FAT16 and FAT32 by the number of clusters and so misreads a "
        "filesystem whose number does not fit its form or its partition.",
        _DARK,
        "Format with 'mkfs.vfat -F 32 -s 1' a partition of at least 34 MiB, or write the card "
        "again.",
    ),
    Code.FAT_SECTOR_SIZE: error(
        "A card is read in sectors of 512 bytes, and the firmware knows no other FAT.",
        _DARK,
        "Format with 'mkfs.vfat -S 512 -F 32'.",
    ),
    Code.FAT_LOST_CLUSTERS: warning(
        "Space is marked as used that no file owns: a write was interrupted once.",
        _NOTHING,
        "Run 'fsck.vfat -a' on the first partition.",
    ),
    Code.FAT_BACKUP_DIFFERS: warning(
        "The two copies of the boot sector differ; the firmware uses the first one.",
        _NOTHING,
        "Run 'fsck.vfat' on the first partition and choose which copy is right.",
    ),
    Code.FAT_DIRTY: warning(
        "The partition was not unmounted after it was last written to.",
        "Nothing, unless the last write was cut short.",
        "Run 'fsck.vfat -a' on the first partition. Eject a card before it is pulled.",
    ),
    Code.FAT_KIND: warning(
        "Some boards boot from FAT32 only; FAT32 is what the maker of the Pi ships.",
        "On some boards the red power light only; others boot.",
        "Format with 'mkfs.vfat -F 32' (it makes FAT16 below 512 MiB when not told).",
    ),
    Code.FAT_CLUSTER_SIZE: warning(
        "Some boards read only FAT with 1 or 4 sectors per cluster, as the maker's images have.",
        "On some boards the red power light only; others boot.",
        "Format with 'mkfs.vfat -F 32 -s 1' (or -s 4).",
    ),
    Code.BOOTCODE: error(
        "The boot ROM loads bootcode.bin first; without a whole one nothing else is read.",
        _DARK,
        _COPY,
    ),
    Code.START: error(
        "bootcode.bin (on a Pi 4 the EEPROM) loads this firmware, which starts everything else.",
        NO_START,
        _COPY,
    ),
    Code.FIXUP: error(
        "The firmware needs this file to arrange its memory; start and fixup work as a pair.",
        "The rainbow screen stays, or the Pi boots with 256 MB of memory only.",
        _COPY,
    ),
    Code.FIRMWARE_PAIR: error(
        "The fixup file changes addresses inside start.elf; for another start.elf it changes the "
        "wrong bytes.",
        START_FAILS + " Or it boots with 256 MB of memory only.",
        "Take bootcode.bin, start*.elf and fixup*.dat from one release.",
    ),
    Code.FIRMWARE_MIXED: warning(
        "Firmware files of several releases are on the card; mixed sets have stopped Pis before.",
        "Nothing while the files in use fit together.",
        "Take bootcode.bin, start*.elf and fixup*.dat from one release.",
    ),
    Code.FIRMWARE_UNPROVEN: warning(
        "The fixup file has a form this check does not know, so it cannot be matched to start.elf.",
        "Nothing if they are a pair; else " + START_FAILS,
        "If the Pi does not boot, take both files from one release.",
    ),
    Code.KERNEL: error(
        "The firmware loads this kernel.",
        _NO_KERNEL + " With a damaged kernel: " + SILENT[0].lower() + SILENT[1:],
        _COPY,
    ),
    Code.KERNEL_WIDTH: error(
        "The kernel is for another kind of processor, or mode of it, than the one that runs it.",
        SILENT,
        "Use the release for this model: a Pi 2 runs 32-bit kernels only, a Pi 5 64-bit ones only, "
        "and pages of 16 KiB are for a Pi 5. The firmware goes by a kernel's name: kernel8.img is "
        "of 64 bits, kernel7.img (on a Pi 4 kernel7l.img) of 32; one under another name, kernel=, "
        "needs arm_64bit=1 or arm_64bit=0 beside it.",
    ),
    Code.KERNEL_CHOICE: warning(
        "A 32-bit and a 64-bit kernel are both there; which one is loaded depends on the age of "
        "the firmware.",
        "Nothing, or modules that do not load because the other kernel runs.",
        "Say arm_64bit=0 or arm_64bit=1 in config.txt, or keep one kernel only.",
    ),
    Code.DEVICE_TREE: error(
        "Kernels since 4.4 do not start without the device tree of their board.",
        SILENT,
        _COPY,
    ),
    Code.DEVICE_TREE_MODEL: error(
        "The device tree describes another board.",
        SILENT,
        _COPY,
    ),
    Code.DEVICE_TREE_BOARD: error(
        "Some boards sold under this model's name need a device tree that is missing or damaged, "
        "and nobody asks a Pi for its revision before putting the card in.",
        "On those boards: " + SILENT[0].lower() + SILENT[1:] + " Others boot.",
        "Copy the file from the release if you have such a board.",
    ),
    Code.INITRAMFS: error(
        "config.txt asks for this initramfs; without all of it the kernel finds no root.",
        "A kernel panic ('Unable to mount root fs') or an emergency shell, or a hang without blink "
        "codes.",
        "Run mkinitcpio again on the node, or copy the file again from the release.",
    ),
    Code.OVERLAY: warning(
        "config.txt asks for this overlay; the firmware boots without it.",
        "The device that the overlay describes is missing.",
        "Copy the overlay from the release, or take the line out of config.txt.",
    ),
    Code.BOOT_SCRIPT: error(
        "This release boots through U-Boot, which runs boot.scr.",
        "U-Boot's own prompt on the serial console and screen, or a reboot every few seconds.",
        _COPY,
    ),
    Code.UBOOT_BOARD: error(
        "The distribution's U-Boot does not know this board, or has no kernel for it.",
        "U-Boot's own prompt on the serial console and screen, or a black screen.",
        "Take a kernel that the firmware starts itself: linux-rpi-16k for a Pi 5, 500 or CM5, "
        "linux-rpi for another board, in place of linux-aarch64 and uboot-raspberrypi.",
    ),
    Code.CONFIG_MISSING: warning(
        "Without config.txt the firmware uses its defaults, which load no initramfs.",
        "Nothing, or no root filesystem where the kernel needs its initramfs.",
        "Copy config.txt from the release.",
    ),
    Code.CONFIG_NEEDED: error(
        "A Pi 5 takes a partition for one to boot from only if its config.txt is there and has "
        "something in it.",
        "The EEPROM's screen on HDMI; ACT blinks in a pattern.",
        "Copy config.txt from the release; one with a comment in it will do.",
    ),
    Code.CONFIG_LINE: warning(
        "The firmware does not read this line of config.txt as it is written.",
        "A setting without effect.",
        "Mend the line; one setting a line, at most 98 characters.",
    ),
    Code.CONFIG_UNDECIDED: warning(
        "A line of config.txt that holds on some boards or displays only names a missing file.",
        "Where the line holds: no boot.",
        "Copy the file, or take the line out of config.txt.",
    ),
    Code.OS_PREFIX: warning(
        "No kernel and device tree are under os_prefix, so the firmware ignores the prefix.",
        "The Pi boots another system than the one meant, or none.",
        "Copy the files under that prefix, or take os_prefix out of config.txt.",
    ),
    Code.CMDLINE_MISSING: error(
        "Without cmdline.txt the kernel is not told where its root filesystem is.",
        "A kernel panic: 'Unable to mount root fs'.",
        _COPY,
    ),
    Code.CMDLINE_BUILT_IN: warning(
        "Without cmdline.txt start*.elf hands a command line to the kernel that is built into it.",
        "Nothing, where the system is on the partition that it names; else as without root=.",
        _COPY,
    ),
    Code.CMDLINE_LINES: error(
        "The kernel gets the first line only; what stands on others is lost.",
        _NO_ROOT,
        "Put everything in cmdline.txt on one line.",
    ),
    Code.CMDLINE_TEXT: warning(
        "Part of the command line does not reach the kernel as it is written.",
        "A kernel option without effect.",
        "Write cmdline.txt as one short line of plain text with a Unix line end.",
    ),
    Code.ROOT_MISSING: error(
        "No root= tells the kernel where its root filesystem is.",
        "A kernel panic: 'Unable to mount root fs', or an emergency shell.",
        "Add root=PARTUUID=… of the second partition to cmdline.txt ('inspect' prints it).",
    ),
    Code.ROOT_ELSEWHERE: error(
        "root= names no partition of this card.",
        _NO_ROOT,
        "Set root= in cmdline.txt to the partition of this card that holds the system, unless the "
        "node has its system on another disk or a server.",
    ),
    Code.ROOT_TYPE: error(
        "The kernel tries the kinds of filesystem in rootfstype= and no other.",
        "A kernel panic: 'Unable to mount root fs', or an emergency shell.",
        "Name the filesystem that is there in rootfstype=, or take the word out of cmdline.txt.",
    ),
    Code.ROOTWAIT: warning(
        "A card answers later than the kernel looks for it; rootwait makes the kernel wait.",
        "Now and then a kernel panic at power-on: 'Unable to mount root fs'.",
        "Add rootwait to cmdline.txt.",
    ),
    Code.FILE_CHANGED: error(
        "The file is not what was put on this card, though its date says that nobody replaced it.",
        _ANY,
        _REWRITE + " If it happens again, throw the card away.",
    ),
    Code.FILE_REPLACED: warning(
        "The file was written after the card was made: by an upgrade on the node, or by hand.",
        _NOTHING,
        "None, if the node was upgraded or the file was edited on purpose.",
    ),
    Code.FILE_LOST: error(
        "A boot file that was put on this card is gone.",
        _ANY,
        _COPY,
    ),
    Code.FILE_UNLISTED: warning(
        "The file was not on the card when it was made; the firmware may prefer it to another.",
        _NOTHING,
        "Remove it if nobody knows what it is for.",
    ),
    Code.SUMS_DAMAGED: warning(
        "picloud/SHA256SUMS cannot be read, so boot files cannot be compared with what was put on "
        "this card.",
        _NOTHING,
        _REWRITE,
    ),
    **ROUTE_MEANINGS,
    Code.NOT_LOOKED_AT: warning(
        "There is far more of something than any Raspberry Pi needs; the rest of it was not "
        "looked at, so nothing is said of it here.",
        _ANY,
        "If you do not know who made this card, do not start it; else write it again.",
    ),
}
_LONGEST_WHAT = 1000


def finding(
    code: Code,
    what: str,
    *,
    path: str | None = None,
    severity: Severity | None = None,
    mend: str | None = None,
) -> Finding:
    """A finding of ``code``, with its meaning; ``severity`` where this case is less serious than
    the code usually is, ``mend`` where it needs another cure."""
    meaning = MEANINGS[code]
    if len(what) > _LONGEST_WHAT:
        what = f"{what[:_LONGEST_WHAT]}…"
    return Finding(
        code,
        severity or meaning.severity,
        what,
        meaning.why,
        meaning.symptom,
        mend or meaning.mend,
        path,
    )
