"""Whether a node will have room on its card for the swap file that rack.toml wants.

In: a target, the golden images that may go on it, the rack. Out: a refusal, or none. Without room,
first boot would make no swap file and report that at every boot, and writing the card would have
been wasted work. An image file is never refused: the size of the card it will go on is not known.
"""

from __future__ import annotations

from collections.abc import Collection

from imager.base.units import MiB, align_down, format_chosen, format_size
from imager.card.host.refusals import refused
from imager.card.host.target import Refusal, RefusalCode, Target
from imager.config.rack import Rack
from imager.image.compose.golden import GoldenImage

SPARE_BYTES = 256 * MiB
"""How many bytes firstboot/steps/30-swap leaves free beside the swap file."""
_STEP = 16 * MiB
"""A proposed size is a multiple of this, because the node's own first files, such as its log, leave
somewhat less free than was computed."""


def require_swap_room(target: Target, golden: GoldenImage, rack: Rack) -> None:
    """Raise TargetRefused for a disk on which the swap file has no room beside ``golden``."""
    reasons = swap_refusals(target, [golden], rack)
    if reasons:
        raise refused(target, reasons)


def swap_refusals(
    target: Target, goldens: Collection[GoldenImage], rack: Rack
) -> tuple[Refusal, ...]:
    """Why ``target`` cannot be a card of ``rack`` with any of ``goldens`` on it. Empty where it
    can, where they are not known, and where it is too small for the image itself."""
    capacity = target.capacity_bytes
    if capacity is None or not goldens or not rack.swap_bytes:
        return ()
    if capacity < max(golden.layout.size_bytes for golden in goldens):
        return ()
    free = min(free_bytes(golden, capacity) for golden in goldens)
    if free >= rack.swap_bytes + SPARE_BYTES:
        return ()
    most = align_down(max(0, free - SPARE_BYTES), _STEP)
    less = f'"{most // MiB}MiB" or less, or ' if most else ""
    return (
        Refusal(
            RefusalCode.NO_SWAP_ROOM,
            f"{target.node} has no room for a swap file of {format_chosen(rack.swap_bytes)} "
            f"([swap] size): {format_size(free)} are free beside the system, and "
            f"{format_size(SPARE_BYTES)} must stay so",
            f'use a larger card, or set [swap] size in rack.toml to {less}"0" for none',
        ),
    )


def free_bytes(golden: GoldenImage, size_bytes: int) -> int:
    """The bytes that df(1) would show as free on the root filesystem of a card of ``size_bytes``.
    It is some MiB too low, because inode tables in use are counted twice."""
    root = golden.layout.grown_to(size_bytes).root
    old = golden.layout.root
    used = sum(part.length for part in golden.manifest.extents.within(old.offset, old.length))
    # 256 bytes of inode table for every 16 KiB; one per cent is root's own (mke2fs -m 1); so much
    # the kernel keeps for itself (fs/ext4/super.c, ext4_calculate_resv_clusters).
    kept = root.length // 64 + root.length // 100 + min(root.length // 50, 16 * MiB)
    return max(0, root.length - used - kept)
