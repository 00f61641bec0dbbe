"""A card the way the distribution tells: partition it, make both filesystems, unpack, sync.

In: a card of ours. Out: seconds from the first filesystem to the last sync. The boot files go to
their partition with mcopy, where the distribution has them moved onto the mounted partition: not
every kernel that this runs on has vfat. Nothing is checked and nothing is read back.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmarks.process import measure
from benchmarks.workshop import Workshop
from tests.support.loop import Loop

_TOOLS = ("sfdisk", "partx", "mkfs.vfat", "mkfs.ext4", "bsdtar", "mcopy")
_PARTITION = "printf 'label: dos\\n,200M,c\\n,,L\\n' | sfdisk --quiet --no-reread \"$CARD\""
_BY_HAND = """
mkfs.vfat "$BOOT" >/dev/null
mkfs.ext4 -q -F "$ROOT"
mount "$ROOT" mounted
bsdtar -xpf "$TARBALL" -C mounted
sync
mcopy -s -m -i "$BOOT" mounted/boot/* ::/
rm -rf mounted/boot/*
umount mounted
sync "$BOOT" "$ROOT"
"""


def without_tools() -> str:
    """Why it cannot be done here; empty when it can."""
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
    return f"needs {', '.join(absent)}" if absent else ""


def unpack(place: Workshop, card: Loop) -> float:
    """Seconds it takes."""
    card.require_ours()
    environment = {"PATH": _path(), "CARD": str(card.node), "MTOOLS_SKIP_CHECK": "1"}
    measure(["sh", "-euc", _PARTITION], env=environment)
    boot, root = card.partition_nodes()
    environment |= {"BOOT": str(boot), "ROOT": str(root), "TARBALL": str(place.tarball)}
    mounted = place.folder / "mounted"
    mounted.mkdir(exist_ok=True)
    try:
        return measure(["sh", "-euc", _BY_HAND], cwd=place.folder, env=environment).seconds
    finally:
        if os.path.ismount(mounted):
            subprocess.run(["umount", mounted], check=True)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
