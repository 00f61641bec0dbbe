"""The small files that this program keeps on a card's boot partition, in the folder ``picloud``.

In: the bytes of one. Out: what it says. ``node.json`` is written with the image and says which node
the card is for; ``firstboot.*`` are written by the node and say how far its first boot came.
Any computer can change or damage them, so nothing in them is proven.
"""

from __future__ import annotations

from imager.bootcheck.sums import SUMS_PATH
from imager.disk.fat.names import same_on_fat

NODE_PATH = "picloud/node.json"
FIRSTBOOT_PREFIX = "picloud/firstboot."
FIRSTBOOT_PATH = FIRSTBOOT_PREFIX + "json"
CMDLINE_PATH = "cmdline.txt"
"""Not in that folder, but every card gets one of its own, too."""
_WRITTEN = tuple(map(same_on_fat, (NODE_PATH, SUMS_PATH, CMDLINE_PATH)))


def place_fault(path: str, *, is_folder: bool) -> str | None:
    """Why there cannot be a folder, or a file, at ``path`` of a boot partition: a file of this
    program could not be written there."""
    key = same_on_fat(path)
    if is_folder and key in _WRITTEN:
        return "is a folder, and picloud-image writes a file of that name"
    if not is_folder and any(written.startswith(f"{key}/") for written in _WRITTEN):
        return "is a file, and picloud-image writes into a folder of that name"
    return None
