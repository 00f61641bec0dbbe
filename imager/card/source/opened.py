"""A source that a person named, open: looked at, and ready to be read.

In: a path or a URL, and what is to be held against it. Out: a StreamedSource for as long as the
``with`` block lasts, and what is known of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.errors import MalformedRelease, NetworkError, TargetRefused
from imager.base.progress import Progress
from imager.card.source.known import KnownImage, known_of
from imager.card.source.origin import Origin, is_url, local_file, remote_file
from imager.card.source.packed import packing_in
from imager.card.source.streamed import StreamedSource
from imager.disk.mbr import MAX_DISK_BYTES
from imager.release.transfer.web import TransferLimits, Web


@dataclass(frozen=True, slots=True)
class WantedImage:
    """A source as a person names it: ``name`` is a path or a URL, ``sha256`` what its sum must be,
    ``key`` who must have signed sums or block map, each None where the person did not say."""

    name: str
    sha256: str | None = None
    key: Cert | None = None
    mapped: bool = True
    offline: bool = False


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """The source, how it is packed (empty for not at all), and what is known of it."""

    source: StreamedSource
    packing: str
    known: KnownImage


@contextmanager
def opened_source(
    wanted: WantedImage, limits: TransferLimits | None = None
) -> Iterator[OpenedSource]:
    """Open it and look at its beginning, its end, and what lies beside it.

    Raises UsageError, ConfigurationError, HostStorage and NetworkError for what cannot be opened,
    MalformedRelease for what is no image, and as ``known_of``.
    """
    with _origin(wanted, limits or TransferLimits()) as origin:
        packing = packing_in(origin)
        known = known_of(origin, wanted.sha256, wanted.key, mapped=wanted.mapped)
        if known.bmap and packing.size_bytes not in (None, known.bmap.size_bytes):
            raise MalformedRelease(
                f"{origin.name}: its block map is of an image of {known.bmap.size_bytes} bytes, "
                f"and it has {packing.size_bytes}",
                hint="fetch both again, or say --no-bmap",
            )
        source = StreamedSource(origin, packing, known.sums, known.bmap)
        yield OpenedSource(source, packing.name, known)


@contextmanager
def _origin(wanted: WantedImage, limits: TransferLimits) -> Iterator[Origin]:
    if not is_url(wanted.name):
        with local_file(Path(wanted.name)) as file:
            yield file
        return
    if wanted.offline:
        raise NetworkError(
            f"{wanted.name} would have to be fetched, and --offline forbids it",
            hint="fetch it first and give its path, or leave --offline out",
        )
    with closing(Web(limits, keeps_https=True)) as web:
        yield remote_file(wanted.name, web)


def measured(source: StreamedSource, progress: Progress, limit_bytes: int = MAX_DISK_BYTES) -> int:
    """The size of the image, unpacked for nothing else where it does not say so itself. Raises
    TargetRefused where it is larger than ``limit_bytes``."""
    if source.size_bytes is not None:
        return source.size_bytes
    with (
        progress.phase("measure", source.least_bytes or None) as phase,
        source.read(limit_bytes) as reading,
    ):
        for _, data in reading.pieces():
            phase.advance(len(data))
        return reading.size_bytes


def needed(opened: OpenedSource, room_bytes: int | None, progress: Progress) -> int:
    """How large the image is at least, which is to fit into ``room_bytes``, None for any size.

    Before it is said to be too large, a gzip file is unpacked as far as it says: the last four
    bytes of one that was cut are any. Raises as a reading does for what is damaged.
    """
    least = opened.source.least_bytes
    if opened.packing != "gzip" or room_bytes is None or least <= room_bytes:
        return least
    try:
        return measured(opened.source, progress, least)
    except TargetRefused:
        return least
