"""What a golden image is made of, told by digests, so that a station can make it too.

In: a golden image, on the head; JSON on the station, which refuses what is not exactly this. Out: a
MadeOf. It is no secret, and nothing of it is believed: the image that comes of it is taken only if
it is the one that the head has, by the digest of its manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from imager.base.boards import MODELS
from imager.base.json_fields import JsonObject
from imager.image.compose.golden import GoldenImage
from imager.packages.verified import PackageSet
from imager.packages.wish import name_fault, unit_fault
from imager.stations.wire.survey import bounded, digest, digest_fault

MOST_BYTES = 4096
"""Of ``size_bytes``: beside 256 cards, an order has room for no more. An image of more is
fetched."""
_MOST_WORDS = _LONGEST = 128


@dataclass(frozen=True, slots=True)
class MadeOf:
    """``release`` is the SHA-256 (hex) of a tarball, as are those in ``salt`` (its source release,
    then the wheels) and in ``packages``, in the order in which they are installed. The rest is as
    in VerifiedRelease and PackageSet."""

    release: str
    models: tuple[str, ...]
    salt: tuple[str, ...]
    packages: tuple[str, ...]
    explicit: tuple[str, ...]
    remove: tuple[str, ...]
    enable: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """About how much it takes on the wire, packed: 32 bytes for a digest, and all of a name."""
        names = (*self.explicit, *self.remove, *self.enable)
        return 32 * len((*self.salt, *self.packages)) + sum(len(name) + 1 for name in names)

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return asdict(self)


def made_of(golden: GoldenImage) -> MadeOf | None:
    """What ``golden`` is made of, where a station may have all of it in its archive."""
    its = golden.made_of
    if its is None or (its.salt and its.salt.bundle):  # a bundle is in the rack, and in no archive
        return None
    packages = its.packages or PackageSet(())
    found = MadeOf(
        release=its.release.sha256,
        models=its.release.models,
        salt=tuple(package.sha256 for package in its.salt.packages) if its.salt else (),
        packages=tuple(package.sha256 for package in packages.install),
        explicit=tuple(sorted(packages.explicit)),
        remove=packages.remove,
        enable=packages.enable,
    )
    return found if found.size_bytes <= MOST_BYTES else None


def made_of_in(document: JsonObject) -> MadeOf | None:
    """What the head says in ``made_of`` of ``document``, which may be null. Raises JsonFault that
    names the field which is wrong."""
    return document.optional("made_of", lambda name: _made_of(document.child(name)))


def _made_of(read: JsonObject) -> MadeOf:
    def words(name: str, fault_of: Callable[[str], str | None]) -> tuple[str, ...]:
        values = read.texts(name)
        bounded(values, _MOST_WORDS, read)
        if len(set(values)) < len(values):
            raise read.fault(name, "names one twice")
        for value in values:
            if fault := "is too long" if len(value) > _LONGEST else fault_of(value):
                raise read.fault(name, fault)
        return values

    return MadeOf(
        release=digest(read, "release"),
        models=words("models", lambda word: None if word in MODELS else "is no board"),
        salt=words("salt", digest_fault),
        packages=words("packages", digest_fault),
        explicit=words("explicit", name_fault),
        remove=words("remove", name_fault),
        enable=words("enable", unit_fault),
    )
