"""The names of our own small files on a card's boot partition.

``picloud/node.json`` is written with the image and says which node the card is;
``picloud/firstboot.*`` are written by the node and say how far it came. Any laptop can change or
damage them, so they are only what a card says of itself.
"""

from __future__ import annotations

NODE_PATH = "picloud/node.json"
FIRSTBOOT_PREFIX = "picloud/firstboot."
FIRSTBOOT_PATH = FIRSTBOOT_PREFIX + "json"
