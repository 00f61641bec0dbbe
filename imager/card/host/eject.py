"""Tell a reader that its card is about to be taken out.

In: a disk that no program has open any more. Out: whether the reader did as it was asked. All that
was written has been flushed before, so the card may be taken out in any case. Asked as eject(1)
does, some readers switch off the slot's power or their light.
"""

from __future__ import annotations

import fcntl
import os

_DOOR_UNLOCK = 0x5381
"""SCSI_IOCTL_DOORUNLOCK, <scsi/scsi_ioctl.h>. Opening a removable disk locks its door (see
sd_open in the kernel's drivers/scsi/sd.c), and a reader with a locked door does not eject."""
_CDROMEJECT = 0x5309
"""<linux/cdrom.h>; the SCSI layer takes it for any removable disk (START STOP UNIT, LoEj)."""


def eject(node: str) -> bool:
    """Ask the USB reader at ``node`` to let go of the card; False where it cannot, which does no
    harm."""
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, _DOOR_UNLOCK)
        fcntl.ioctl(descriptor, _CDROMEJECT)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
