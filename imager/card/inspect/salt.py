"""Which Salt lies on a card's root filesystem, told by the name of its metadata folder.

In: a way to read a card or an image, and where the filesystem begins. Out: a version. Neither
stamp nor boot partition has it: the release may bring a Salt of its own, of which nobody told us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imager.base.errors import CardIOError
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.manifest import Reader
from imager.image.salt.tree import FOLDER

_METADATA = re.compile(r"salt-([0-9][0-9A-Za-z.+!_]{0,60})(?:-py[0-9.]+)?\.(?:dist|egg)-info\Z")
_PYTHON = re.compile(r"python3(?:\.[0-9]+)?\Z")


def salt_on(read: Reader, root_offset: int, budget: Budget | None = None) -> str:
    """The version of the Salt in the filesystem at byte ``root_offset``: the one we put there,
    else the release's own; empty where there is none, or none that can be read."""
    try:
        root = Ext4.open(read, root_offset, budget)
        for folder in _folders(root):
            for name in root.list_directory(folder):
                found = _METADATA.match(name)
                if found:
                    return found[1]
    except (ValueError, CardIOError):
        pass
    return ""


def _folders(root: Ext4) -> Iterator[str]:
    yield FOLDER
    for python in root.list_directory("usr/lib"):
        if _PYTHON.match(python):
            yield f"usr/lib/{python}/site-packages"
            yield f"usr/lib/{python}/dist-packages"
