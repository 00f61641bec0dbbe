"""What is missing in an image that was read from a failing card: its mark is the map beside it.

In: the path of an image file. Out: the ranges of the card that could not be read. ``read`` leaves
``NAME.map`` beside ``NAME`` only when something was lost; ddrescue's mapfile has the same form.
"""

from __future__ import annotations

from pathlib import Path

from imager.base.durable import host_storage
from imager.disk.extents import ExtentMap
from imager.disk.rescue_map import LOST, MAX_MAP_BYTES, RescueMap


def map_beside(image: Path) -> Path:
    """Where the map of ``image`` lies, if it has one."""
    return image.with_name(f"{image.name}.map")


def load_map(path: Path) -> RescueMap | None:
    """The map at ``path``; None where there is none. Raises RescueMapError for a file that is none,
    HostStorage for one that cannot be read."""
    with host_storage(path):
        try:
            with path.open("rb") as file:
                return RescueMap.parse(file.read(MAX_MAP_BYTES + 1))
        except FileNotFoundError:
            return None


def lost_in(image: Path) -> ExtentMap:
    """The bytes that ``image``, packed or not, lacks because the card did not give them; nothing
    where no map says so. Raises as ``load_map``."""
    found = load_map(map_beside(image))
    return found.having(*LOST) if found else ExtentMap()
