"""What somebody wants on the nodes beyond their release, by name only.

In: nothing; ``imager.config`` makes these values from rack.toml. Out: the same, put together for
one node, with a key that is equal for nodes that want the same packages. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache

_WANTED = re.compile(r"(?P<name>[A-Za-z0-9@_+][A-Za-z0-9@._+-]*)((<|<=|=|>=|>)[A-Za-z0-9:._+~-]+)?")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|socket|timer|path|target|mount)")
UNIT_EXAMPLE = "docker.service"


@dataclass(frozen=True, slots=True)
class PackageWish:
    """``install`` are names as pacman takes them (``docker``, ``openssl>=3.6``), ``remove`` names
    of packages that the release has, ``enable`` names of systemd units."""

    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()

    def then(self, later: PackageWish) -> PackageWish:
        """This wish and a ``later`` one, which wins where one installs what the other removes."""
        if later == PackageWish():
            return self
        new, gone = {name_in(word) for word in later.install}, set(later.remove)
        kept = (word for word in self.install if name_in(word) not in new | gone)
        removed = (name for name in self.remove if name not in new | gone)
        return PackageWish(
            (*kept, *later.install),
            (*removed, *later.remove),
            tuple(dict.fromkeys((*self.enable, *later.enable))),
        )

    @property
    def key(self) -> str:
        """12 hex digits; the same for wishes that differ only in order or in units."""
        text = json.dumps([sorted(set(self.install)), sorted(set(self.remove))])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_plain(self) -> bool:
        """Whether it asks for no package to come or go."""
        return not self.install and not self.remove

    @property
    def names(self) -> frozenset[str]:
        """The names to install, without their bounds."""
        return frozenset(name_in(word) for word in self.install)


@lru_cache(maxsize=1 << 14)
def name_in(word: str) -> str:
    """``openssl`` for ``openssl>=3.6``."""
    found = _WANTED.match(word)
    return found["name"] if found else word


def name_fault(word: str, *, bounded: bool = False) -> str | None:
    """Why ``word`` is no name of a package; ``bounded`` allows a bound such as ``>=3.6``."""
    found = _WANTED.fullmatch(word)
    if found is None:
        return "is not the name of a package"
    return (
        None if bounded or found[0] == found["name"] else "has a bound, which has no meaning here"
    )


def unit_fault(word: str) -> str | None:
    """Why ``word`` is no name of a systemd unit that can be enabled."""
    return None if _UNIT.fullmatch(word) else "is not the name of a unit"
