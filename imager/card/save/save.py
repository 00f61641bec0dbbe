"""Saves a card: what its filesystems use becomes an image file with a block map beside it.

In: a card, open for reading only, and where to. Out: a SavedCard: what was read, how fast, what was
lost and to which files it belonged. Nothing is ever written to the card.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from imager.base.durable import require_free
from imager.base.errors import CardIOError
from imager.base.progress import Progress
from imager.base.run import require_tools
from imager.base.units import MiB, format_size
from imager.card.diagnosis.damage import Damage, DamageKind
from imager.card.diagnosis.places import Places
from imager.card.medium.meter import PhaseFigures
from imager.card.medium.reopen import FreshRead
from imager.card.save.card_map import BLOCK_BYTES, CardMap
from imager.card.save.copy import PIECE_BYTES, CardCopy, differing
from imager.card.save.pack import pack, packer
from imager.card.save.saved_file import HeldFile, SavedFile
from imager.card.save.smaller import replay, require_shrinkable, shrink
from imager.disk.bmap import Bmap, BmapRange, encode_bmap
from imager.disk.budget import MAX_FINDINGS, Budget
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import InUse
from imager.disk.rescue_map import LOST, BlockState

_MARKS = "card:"
_MOST_TOLD = 20
_SPARE_BYTES = 16 * MiB


@dataclass(frozen=True, slots=True)
class SaveOrder:
    """What a person wants beside the image: all of it ``verified`` by a second reading, journals
    ``replayed`` and the last ext4 ``shrunk`` in the copy."""

    verify: bool = False
    replay: bool = False
    shrink: bool = False


@dataclass(frozen=True, slots=True)
class SavedCard:
    """A finished image. ``size_bytes`` is what it is unpacked, ``mapped_bytes`` what of it counts.
    ``losses`` are ranges of the card, the first ones with their places, ``lost`` is all of them.
    ``map_sha256`` is that of the block map, which has the digest of every range; ``sha256`` that of
    a packed image. ``replayed`` are the partitions whose journal was."""

    files: SavedFile
    card: CardMap
    size_bytes: int
    mapped_bytes: int
    cache_bypassed: bool
    phases: tuple[PhaseFigures, ...]
    lost: ExtentMap
    losses: tuple[Damage, ...]
    map_sha256: str
    sha256: str
    replayed: tuple[str, ...]
    went_on: bool

    @property
    def lost_files(self) -> tuple[str, ...]:
        """The files that lost something, as far as their names are known."""
        places = (place for loss in self.losses for place in loss.places)
        return tuple(dict.fromkeys(path for place in places for path in place.paths))

    def error(self) -> CardIOError | None:
        """What a person is told when something was lost; None when nothing was."""
        if not self.lost:
            return None
        told = [*map(str, self.losses[:_MOST_TOLD])]
        if more := len(self.lost) - len(told):
            told.append(f"and {more} more ranges, see {self.files.map}")
        count = "one range" if len(self.lost) == 1 else f"{len(self.lost)} ranges"
        again = (
            "read it again to a file that is not packed, which a later run goes on with"
            if self.files.packing
            else "read again to the same file to try only these once more"
        )
        return CardIOError(
            f"{self.files.path} is not whole: {count} of the card could not be read, "
            f"{format_size(self.lost.total_bytes)} in all",
            hint=f"{self.files.map} says which; {again}, in another reader if you have one",
            details=told,
        )


def require_room(card: CardMap, files: SavedFile, order: SaveOrder) -> None:
    """Raise HostStorage when what is to be saved surely does not fit, MissingTool when a program
    is not there, UsageError when the last partition cannot be made smaller as asked."""
    if files.packing:
        require_tools(packer(files.packing, 0)[0])
    if order.replay or order.shrink:
        require_tools("e2fsck", "resize2fs")
    if order.shrink:
        require_shrinkable(card)
    kept = files.goes_on_with
    have = kept.stat().st_blocks * 512 if kept else 0
    require_free(
        files.path.parent,
        card.in_use_bytes - have - _SPARE_BYTES,
        "what is in use on the card takes at least",
        "free some space, or choose a folder on another disk",
    )


def save_card(
    fresh: FreshRead, card: CardMap, files: SavedFile, order: SaveOrder, progress: Progress
) -> SavedCard:
    """Read the card and give the image its name. What was lost is in the result; raises CardIOError
    when the card is gone, and HostStorage. Then the same call goes on where this one stopped."""
    with files.hold(card.size_bytes) as held:
        went_on = bool(held.state.having(BlockState.SAVED))
        _require_same(held, card)
        copy = CardCopy(fresh.raw, held.raw, held.state, held.keep_state)
        lost = copy.read(card.extents, progress)
        digests = _digests(held, card.extents, copy.digests)
        if order.verify:
            sound = {piece: one for piece, one in digests.items() if not _touches(lost, piece)}
            for wrong in differing(fresh.raw, sound, progress, copy.phases):
                held.state.put(wrong, BlockState.BAD)
            lost = card.extents & held.state.having(*LOST)
        losses = tuple(_losses(held, lost))
        whole, size = not lost, card.size_bytes
        replayed = replay(held, card.areas) if whole and order.replay else ()
        if whole and order.shrink:
            size = shrink(held, require_shrinkable(card))
        if replayed or size != card.size_bytes:
            found = InUse(held.read, size, Budget.of_our_image())
            ranges = ExtentMap([*found.ranges(), found.behind])
            mapped = ranges.aligned(BLOCK_BYTES, limit=size)
            digests = _digests(held, mapped, {})
        bmap = encode_bmap(
            Bmap(size, tuple(BmapRange(piece, digests[piece]) for piece in sorted(digests)))
        )
        image, sha256 = files.partial, ""
        if files.packing:
            image = files.partial.with_name(f".{files.path.name}.packed")
            sha256, figures = pack(held.fd, size, files.packing, image, progress)
            copy.phases.append(figures)
        else:
            os.fsync(held.fd)
        files.put_beside(files.bmap, bmap)
        held.finish(image, lacks=bool(lost))
    return SavedCard(
        files=files,
        card=card,
        size_bytes=size,
        mapped_bytes=sum(piece.length for piece in digests),
        cache_bypassed=fresh.cache_bypassed,
        phases=tuple(copy.phases),
        lost=lost,
        losses=losses,
        map_sha256=hashlib.sha256(bmap).hexdigest(),
        sha256=sha256,
        replayed=replayed,
        went_on=went_on,
    )


def _require_same(held: HeldFile, card: CardMap) -> None:
    """Raise TargetRefused when what was saved before is of another card, or of this one before it
    was written to."""
    notes = [note.removeprefix(_MARKS).split() for note in held.state.notes if _MARKS in note]
    if notes and not card.is_of(notes[0]):
        raise held.names.of_another(
            f"{held.names.partial} was begun with another card, or this one was in use since then"
        )
    held.state.notes = (f"{_MARKS} {' '.join(card.marks)}",)


def _touches(ranges: ExtentMap, piece: Extent) -> bool:
    return next(ranges.within(piece.offset, piece.length), None) is not None


def _digests(held: HeldFile, extents: ExtentMap, known: dict[Extent, bytes]) -> dict[Extent, bytes]:
    """The digest of each piece of the image; what is not known is read from the file."""
    return {
        piece: known.get(piece) or hashlib.sha256(held.read(piece.offset, piece.length)).digest()
        for piece in extents.split(PIECE_BYTES)
    }


def _losses(held: HeldFile, lost: ExtentMap) -> list[Damage]:
    """The first ranges of ``lost`` with the files they belong to, as the copy names them."""
    size = held.state.size_bytes
    places = Places(None, held.read, size, Budget.of_disk(size))
    return [
        Damage(extent, DamageKind.UNREADABLE, extent.offset, places=places.of(extent))
        for extent in list(lost)[:MAX_FINDINGS]
    ]
