"""What is known of an image before it is read: its sum, its block map, who signed them, and what it
lacks because the card that it was read from did not give it.

In: an Origin, what the person said, and the files beside the source. Out: a KnownImage, whose
``told`` says what will be held against what. A signature counts only with a key that a person
named; that there is one, and no key for it, is told. With a key the image is proven by what that
key signed: a sum of this very file, or a block map with a checksum of everything it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.errors import MalformedRelease, NotAuthentic, UsageError
from imager.card.source.beside import beside, file_name, unpacked_names
from imager.card.source.origin import Origin
from imager.card.source.sums import ALGORITHMS, UnclearSums, first_name, sum_of
from imager.disk.bmap import Bmap, BmapError, parse_bmap
from imager.disk.rescue_map import LOST, RescueMap, RescueMapError
from imager.release.openpgp import parse_signatures, verify_detached

_SIGNATURES = (".sig", ".asc", ".gpg")
_SUM = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class KnownImage:
    """``sums`` (hex) of the source as it is packed, by what hashlib calls them, as far as somebody
    says them; its ``bmap``, None where there is none; how many bytes the map of a rescue beside it
    calls lost, None where that cannot be read; and what there is to say about the first two."""

    sums: Mapping[str, str]
    bmap: Bmap | None
    lacks_bytes: int | None
    told: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The SHA-256 among the sums; empty where nobody says it."""
        return self.sums.get("sha256", "")


@dataclass(frozen=True, slots=True)
class _Beside:
    """A file ``name`` of sums with the content ``text``, and which sum it has for the image."""

    name: str
    text: bytes
    algorithm: str
    digest: str

    def is_of(self, own: str) -> bool:
        """Whether it says that this is the sum of the file ``own``."""
        try:
            return sum_of(self.text, own, self.algorithm) == self.digest
        except UnclearSums:
            return False


def known_of(origin: Origin, asked: str | None, key: Cert | None, *, mapped: bool) -> KnownImage:
    """Look beside ``origin``. ``asked`` is the sum that the person gave, ``key`` who must have
    signed; the block map is looked for where it is ``mapped``.

    Raises UsageError for an impossible sum, MalformedRelease for a block map that cannot be used or
    a file of sums that is about this image and gives it none, and NotAuthentic for a signature that
    is wrong or over a sum of another file, or where a key was named and nothing that it signed
    proves the image.
    """
    if asked is not None and not _SUM.fullmatch(asked):
        raise UsageError(
            f"--sha256 {asked}: a SHA-256 has 64 digits from 0 to f",
            hint="copy the whole sum from where the image is published",
        )
    told: list[str] = []
    signed = False
    sums = {"sha256": asked.lower()} if asked else {}
    if sums:
        told.append("its SHA-256 is held against the one you gave")
    for found in _sums(origin, told, is_asked=bool(asked)):
        if _is_signed(origin, found.name, found.text, key, told):
            _require_named(origin, found)
            signed = True
        label, known = ALGORITHMS[found.algorithm], sums.setdefault(found.algorithm, found.digest)
        if known != found.digest:
            raise NotAuthentic(
                f"{found.name} beside {origin.name} says another {label} than {known}: "
                f"{found.digest}",
                hint="see which of both is of this version of the image",
            )
        told.append(f"its {label} is held against {found.name} beside it")
    bmap = None
    if mapped and (there := _bmap(origin)) is not None:
        name, text, bmap = there
        proves = all(one.digest is not None for one in bmap.ranges)
        if _is_signed(origin, name, text, key, told):
            signed |= proves
        elif key is not None:
            # Who made it could leave out what the key signed, and an old card would show through.
            bmap = None
        told.append(_of_map(name, bmap, proves=proves))
    if key is not None and not signed:
        raise NotAuthentic(
            f"{origin.name}: a key was named, and it signed neither a sum of this file nor a block "
            "map with checksums of all that is written",
            hint="leave --signing-key and PICLOUD_SIGNING_KEY out if you trust it by other means, "
            "as --sha256",
        )
    if not told:
        told.append("nothing is known of it beforehand: no sums, no block map, no --sha256")
    if origin.name.lower().startswith("http://") and not signed and asked is None:
        told.append("it and what is beside it come over http: anybody on the way can change them")
    return KnownImage(sums, bmap, _lost(origin), tuple(told))


def _of_map(name: str, bmap: Bmap | None, *, proves: bool) -> str:
    """What is said of the block map ``name``; ``bmap`` is None where it is not used."""
    if bmap is None:
        return f"its block map {name} is not used, as nobody signed it"
    if proves:
        return f"what is written is held against its block map {name}"
    return f"its block map {name} says what is written, and has no checksums of all that"


def _require_named(origin: Origin, sums: _Beside) -> None:
    """Raise NotAuthentic where the signed ``sums`` are of another file: an older version, put
    beside its own sums under the name of the new one, would pass."""
    own = file_name(origin)
    if not sums.is_of(own):
        other = first_name(sums.text, sums.algorithm) or "a file without a name"
        raise NotAuthentic(
            f"{sums.name} is signed, and its sum is of {other}, not of {own}",
            hint="if it is that file, give it that name; else get the sums of this one",
        )


def _sums(origin: Origin, told: list[str], *, is_asked: bool) -> Iterator[_Beside]:
    """The sums beside ``origin``. A file that is about it and gives no sum is not passed by, as if
    there were none, unless a person gave one: then that goes to ``told``."""
    own = file_name(origin)
    for algorithm in ALGORITHMS:
        names = (f"{own}.{algorithm}", f"{own}.{algorithm}sum", f"{algorithm.upper()}SUMS")
        for name in names:
            text = beside(origin, name)
            if text is None:
                continue
            try:
                digest = sum_of(text, own, algorithm, alone=name != names[-1])
            except UnclearSums as unclear:
                if not is_asked:
                    raise MalformedRelease(
                        f"{name} beside {origin.name} {unclear}",
                        hint="give the right sum with --sha256, or have the image in a folder "
                        "without that file",
                    ) from unclear
                told.append(f"{name} beside it is passed by: it {unclear}")
                continue
            if digest:
                yield _Beside(name, text, algorithm, digest)


def _lost(origin: Origin) -> int | None:
    """How many bytes of a card were lost when the image was read from it; None where a map beside
    it cannot be read: it would not be there if nothing were."""
    text = beside(origin, f"{file_name(origin)}.map")
    try:
        return 0 if text is None else RescueMap.parse(text).having(*LOST).total_bytes
    except RescueMapError:
        return None


def _bmap(origin: Origin) -> tuple[str, bytes, Bmap] | None:
    for stem in unpacked_names(file_name(origin)):
        name = f"{stem}.bmap"
        text = beside(origin, name)
        if text is not None:
            try:
                bmap = parse_bmap(text)
                if not bmap.ranges:
                    raise BmapError("it names no block of the image")
                return name, text, bmap
            except BmapError as error:
                raise MalformedRelease(
                    f"{name} beside {origin.name} is no block map that can be used: {error}",
                    hint="fetch it again, or say --no-bmap",
                ) from error
    return None


def _is_signed(origin: Origin, name: str, text: bytes, key: Cert | None, told: list[str]) -> bool:
    """Whether ``key`` signed the file ``name`` with the content ``text``; what is to be said goes
    to ``told``."""
    for suffix in _SIGNATURES:
        signature = beside(origin, name + suffix)
        if not signature:
            continue
        if key is None:
            told.append(
                f"{name}{suffix} signs {name}, which is believed to nobody: name the publisher's "
                "key with --signing-key FILE"
            )
            return False
        _verify(name, text, signature, key)
        told.append(f"{name} is signed by {key.fingerprint.upper()}")
        return True
    return False


def _verify(name: str, text: bytes, signature: bytes, key: Cert) -> None:
    made = parse_signatures(signature, key, f"the signature of {name}")
    descriptor = os.memfd_create("signed")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(text)
        verify_detached(Path(f"/proc/{os.getpid()}/fd/{descriptor}"), made, key, name)
    finally:
        os.close(descriptor)
