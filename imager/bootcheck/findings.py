"""What the boot check can find: the codes, and the form of a finding.

Scripts rely on the codes, so they never change; what each means for a person is in ``meanings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error stops the boot, or is damage in something the boot needs; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """The name of each finding: stable, for scripts."""

    MBR_MISSING = "mbr-missing"
    GPT_ONLY = "gpt-only"
    GPT_LOST = "gpt-lost"
    BOOT_PARTITION_MISSING = "boot-partition-missing"
    BOOT_PARTITION_LATER = "boot-partition-later"
    PARTITION_TYPE_REFUSED = "partition-type-refused"
    PARTITION_TYPE_UNPROVEN = "partition-type-unproven"
    PARTITION_OUTSIDE = "partition-outside"
    PARTITIONS_OVERLAP = "partitions-overlap"
    ROOT_PARTITION_MISSING = "root-partition-missing"
    ROOT_FILESYSTEM = "root-filesystem"
    ROOT_UNPROVEN = "root-unproven"
    ROOT_JOURNAL = "root-journal"
    ROOT_INIT = "root-init"
    FSTAB = "fstab"
    FAT_MISSING = "fat-missing"
    FAT_COPIES_DIFFER = "fat-copies-differ"
    FAT_CROSS_LINKED = "fat-cross-linked"
    FAT_CHAIN = "fat-chain"
    FAT_DIRECTORY = "fat-directory"
    FAT_SIZE = "fat-size"
    FAT_SECTOR_SIZE = "fat-sector-size"
    FAT_LOST_CLUSTERS = "fat-lost-clusters"
    FAT_BACKUP_DIFFERS = "fat-backup-differs"
    FAT_DIRTY = "fat-dirty"
    FAT_KIND = "fat-kind"
    FAT_CLUSTER_SIZE = "fat-cluster-size"
    BOOTCODE = "bootcode"
    START = "start"
    FIXUP = "fixup"
    FIRMWARE_PAIR = "firmware-pair"
    FIRMWARE_CUT_DOWN = "firmware-cut-down"
    FIRMWARE_MIXED = "firmware-mixed"
    FIRMWARE_UNPROVEN = "firmware-unproven"
    KERNEL = "kernel"
    KERNEL_BOARD = "kernel-board"
    KERNEL_WIDTH = "kernel-width"
    KERNEL_MODULES = "kernel-modules"
    KERNEL_CHOICE = "kernel-choice"
    DEVICE_TREE = "device-tree"
    DEVICE_TREE_MODEL = "device-tree-model"
    DEVICE_TREE_BOARD = "device-tree-board"
    INITRAMFS = "initramfs"
    OVERLAY = "overlay"
    BOOT_SCRIPT = "boot-script"
    UBOOT_BOARD = "uboot-board"
    CONFIG_MISSING = "config-missing"
    CONFIG_NEEDED = "config-needed"
    CONFIG_LINE = "config-line"
    CONFIG_INCLUDED = "config-included"
    CONFIG_FILTER = "config-filter"
    CONFIG_UNDECIDED = "config-undecided"
    OS_PREFIX = "os-prefix"
    AUTOBOOT = "autoboot"
    BOOT_IMAGE = "boot-image"
    PROGRAM_MISSING = "program-missing"
    ROUTE_NOT_FOLLOWED = "route-not-followed"
    TEXT_FORM = "text-form"
    CMDLINE_MISSING = "cmdline-missing"
    CMDLINE_BUILT_IN = "cmdline-built-in"
    CMDLINE_LINES = "cmdline-lines"
    CMDLINE_TEXT = "cmdline-text"
    ROOT_MISSING = "root-missing"
    ROOT_ELSEWHERE = "root-elsewhere"
    ROOT_TYPE = "root-type"
    ROOTWAIT = "rootwait"
    FILE_CHANGED = "file-changed"
    FILE_REPLACED = "file-replaced"
    FILE_LOST = "file-lost"
    FILE_UNLISTED = "file-unlisted"
    SUMS_DAMAGED = "sums-damaged"
    NOT_LOOKED_AT = "not-looked-at"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Why a finding matters, what a person would see, and how to mend it."""

    severity: Severity
    why: str
    symptom: str
    mend: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the check found; ``what`` names the file, byte or setting."""

    code: Code
    severity: Severity
    what: str
    why: str
    symptom: str
    mend: str
    path: str | None

    def to_json(self) -> dict[str, str | None]:
        """The form of ``inspect --json``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": self.what,
            "why": self.why,
            "symptom": self.symptom,
            "mend": self.mend,
            "path": self.path,
        }
