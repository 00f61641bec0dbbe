"""Does rack.lock give the nodes what rack.toml asks for? It is a text: people edit and merge it.

In: a wish, the set that rack.lock has for it, and the packages of that set. Out: nothing, or every
way in which they differ. That nothing is missing which the packages need is seen when they are
installed (``imager.image.packages``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.text import told
from imager.packages.metadata import without_bound
from imager.packages.plan import offer_of
from imager.packages.resolve.base_system import BaseSystem
from imager.packages.resolve.resolve import installed_of
from imager.packages.verified import VerifiedPacman
from imager.packages.wish import PackageWish
from imager.release.lock import SetPin


def require_fulfilled(
    lock_file: Path,
    wish: PackageWish,
    pin: SetPin,
    packages: Sequence[VerifiedPacman],
    base: BaseSystem | None,
) -> None:
    """Raise ConfigurationError unless ``pin``, whose ``packages`` are archived, fulfils ``wish`` on
    ``base``. Without a base nothing is said of what the release itself may have."""
    faults = told([*_other_wish(wish, pin), *_missing(wish, pin, packages, base)])
    if faults:
        raise ConfigurationError(
            f"{lock_file}: set.{wish.key} {faults[0]}",
            hint="take its last good state from git, or run picloud-image lock --update",
            details=faults if len(faults) > 1 else (),
        )


def elsewhere(wish: PackageWish, pin: SetPin) -> frozenset[str]:
    """The wished names that no package of ``pin`` has."""
    return wish.names.difference(pin.packages)


def _other_wish(wish: PackageWish, pin: SetPin) -> Iterator[str]:
    for what, pinned, wished in (
        ("wants", pin.wanted, wish.install),
        ("removes", pin.remove, wish.remove),
    ):
        if set(pinned) != set(wished):
            yield f"{what} {_listed(pinned)}, and rack.toml {_listed(wished)}"


def _missing(
    wish: PackageWish, pin: SetPin, packages: Sequence[VerifiedPacman], base: BaseSystem | None
) -> Iterator[str]:
    left = elsewhere(wish, pin)
    if not left or base is None:
        return
    stay = (each for name, (_, each) in installed_of(base).items() if name not in pin.remove)
    left = left.difference(name for package in stay for name in package.names)
    if left:
        provided = (word for package in packages for word in offer_of(package).provides)
        left = left.difference(map(without_bound, provided))
    for name in sorted(left):
        yield f"has no {name}, which rack.toml asks for"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(sorted(set(words))) or "nothing"
