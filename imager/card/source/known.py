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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.errors import MalformedRelease, NotAuthentic, UsageError
from imager.card.source.beside import beside, file_name, unpacked_names
from imager.card.source.origin import Origin
from imager.card.source.sums import first_name, sum_of
from imager.disk.bmap import Bmap, BmapError, parse_bmap
from imager.disk.rescue_map import LOST, RescueMap, RescueMapError
from imager.release.openpgp import parse_signatures, verify_detached

_SIGNATURES = (".sig", ".asc", ".gpg")
_SUM = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class KnownImage:
    """``sha256`` (hex) of the source as it is packed, empty where nobody says it; its ``bmap``,
    None where there is none; how many bytes the map of a rescue beside it calls lost; and what
    there is to say about the first two."""

    sha256: str
    bmap: Bmap | None
    lacks_bytes: int
    told: tuple[str, ...]


def known_of(origin: Origin, asked: str | None, key: Cert | None, *, mapped: bool) -> KnownImage:
    """Look beside ``origin``. ``asked`` is the sum that the person gave, ``key`` who must have
    signed; the block map is looked for where it is ``mapped``.

    Raises UsageError for an impossible sum, MalformedRelease for a block map that cannot be used,
    and NotAuthentic for a signature that is wrong or over a sum of another file, or where a key was
    named and nothing that it signed proves the image.
    """
    if asked is not None and not _SUM.fullmatch(asked):
        raise UsageError(
            f"--sha256 {asked}: a SHA-256 has 64 digits from 0 to f",
            hint="copy the whole sum from where the image is published",
        )
    told: list[str] = []
    signed = False
    sha256 = (asked or "").lower()
    if sha256:
        told.append("its SHA-256 is held against the one you gave")
    for name, text, found in _sums(origin):
        if _is_signed(origin, name, text, key, told):
            _require_named(origin, name, text)
            signed = True
        if sha256 not in ("", found):
            raise NotAuthentic(
                f"{name} beside {origin.name} says another SHA-256 than {sha256}: {found}",
                hint="see which of both is of this version of the image",
            )
        sha256 = found
        told.append(f"its SHA-256 is held against {name} beside it")
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
    return KnownImage(sha256, bmap, _lost(origin), tuple(told))


def _of_map(name: str, bmap: Bmap | None, *, proves: bool) -> str:
    """What is said of the block map ``name``; ``bmap`` is None where it is not used."""
    if bmap is None:
        return f"its block map {name} is not used, as nobody signed it"
    if proves:
        return f"what is written is held against its block map {name}"
    return f"its block map {name} says what is written, and has no checksums of all that"


def _require_named(origin: Origin, name: str, text: bytes) -> None:
    """Raise NotAuthentic where the signed sums in the file ``name`` are of another file: an older
    version, put beside its own sums under the name of the new one, would pass."""
    own = file_name(origin)
    if sum_of(text, own) is None:
        raise NotAuthentic(
            f"{name} is signed, and its sum is of {first_name(text) or 'a file without a name'}, "
            f"not of {own}",
            hint="if it is that file, give it that name; else get the sums of this one",
        )


def _sums(origin: Origin) -> Iterator[tuple[str, bytes, str]]:
    own = file_name(origin)
    for name, alone in ((f"{own}.sha256", True), (f"{own}.sha256sum", True), ("SHA256SUMS", False)):
        text = beside(origin, name)
        found = sum_of(text, own, alone=alone) if text else None
        if text and found:
            yield name, text, found


def _lost(origin: Origin) -> int:
    """How many bytes of a card were lost when the image was read from it."""
    text = beside(origin, f"{file_name(origin)}.map")
    with suppress(RescueMapError):
        return RescueMap.parse(text).having(*LOST).total_bytes if text else 0
    return 0


def _bmap(origin: Origin) -> tuple[str, bytes, Bmap] | None:
    for stem in unpacked_names(file_name(origin)):
        name = f"{stem}.bmap"
        text = beside(origin, name)
        if text:
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
        try:
            verify_detached(Path(f"/proc/{os.getpid()}/fd/{descriptor}"), made, key)
        except NotAuthentic as error:
            raise NotAuthentic(
                f"{name} is not what the key {key.fingerprint.upper()} signed", hint=error.hint
            ) from error
    finally:
        os.close(descriptor)
