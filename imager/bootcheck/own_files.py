"""The small files that this program keeps on a card's boot partition, in the folder ``picloud``.

In: the bytes of one. Out: what it says. ``node.json`` is written with the image and says which node
the card is for; ``firstboot.*`` are written by the node and say how far its first boot came.
Any computer can change or damage them, so nothing in them is proven.
"""

from __future__ import annotations

NODE_PATH = "picloud/node.json"
FIRSTBOOT_PREFIX = "picloud/firstboot."
FIRSTBOOT_PATH = FIRSTBOOT_PREFIX + "json"
