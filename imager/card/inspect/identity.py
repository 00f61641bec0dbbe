"""Whose card is it? In a few words, before it is overwritten.

In: a way to read a disk or image. Out: the node and rack of its stamp, else the name that the
system on it gives itself. Nobody vouches for either: it is what a person is reminded by.
"""

from __future__ import annotations

from pathlib import Path

from imager.base.errors import PicloudError
from imager.bootcheck.root.roots import Roots
from imager.card.host.target import Target
from imager.card.inspect.stamp import read_stamp
from imager.card.inspect.verify import open_target
from imager.disk.budget import Budget, ReadLimits
from imager.disk.manifest import Reader
from imager.disk.padded import padded
from imager.disk.table import read_table
from imager.node.stamp.facts import StampError, StampFacts

_LIMITS = ReadLimits(steps=1_000_000)
"""Every disk of the computer may be asked, so this takes a second at most."""


def identity_of(target: Target) -> str:
    """Whose ``target`` is now; empty where nothing is there, nothing says so, or it cannot be
    read."""
    if target.is_new or not target.size_bytes:
        return ""
    try:
        with open_target(Path(target.node)) as fresh:
            return identity_on(fresh.reader(), fresh.raw.size_bytes)
    except (PicloudError, OSError):
        return ""


def identity_on(read: Reader, size_bytes: int) -> str:
    """As ``identity_of``, of what is behind ``read``; raises what that raises."""
    try:
        return written_for(read_stamp(read, size_bytes).facts)
    except StampError:
        return system_on(read, size_bytes)


def written_for(facts: StampFacts) -> str:
    """The node, the rack and the day of a stamp."""
    return f"{facts.node} of rack {facts.rack}, written on {facts.day}"


def system_on(read: Reader, size_bytes: int) -> str:
    """The name that the system on it gives itself, and its host; empty where there is none that
    can be read."""
    read, budget = padded(read, size_bytes), Budget(_LIMITS)
    try:
        roots = Roots(read, read_table(read, size_bytes), size_bytes, budget)
        root = roots.filesystem(roots.presumed)
    except (PicloudError, ValueError):
        return ""
    if root is None or root.system is None:
        return ""
    return f"{root.system}, host {root.node}" if root.node else root.system
