"""``write --image``: a card with the image of any system, written while it is read.

In: TARGET and where the image is. Out: a card that was written and read back. No rack is needed and
none is made: the receipt goes into the person's own data folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.errors import ConfigurationError, TargetRefused
from imager.base.text import command_line
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import format_chosen, format_rate, format_size
from imager.bootcheck.check import judge_card
from imager.bootcheck.partitions import read_card
from imager.card.host.refusals import accept
from imager.card.host.target import Limits, Target
from imager.card.host.targets import target_at
from imager.card.make.finish import MadeCard
from imager.card.make.order import Check, SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.save.at_rest import require_different
from imager.card.source.opened import OpenedSource, WantedImage, measured, needed, opened_source
from imager.card.stages import WriteOptions
from imager.cli.card.wish import CardWish
from imager.cli.choice import rack_at_hand
from imager.cli.consent import consented, refuse_early
from imager.cli.session import CommandResult, Session
from imager.config.folder import data_folder
from imager.disk.manifest import Reader
from imager.release.openpgp import fingerprints_in, parse_certificate
from imager.release.signing_keys import key_file

_PI_FILE = re.compile(r"(start\w*\.elf|bootcode\.bin|config\.txt|autoboot\.txt)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImageWish:
    """Which image: a path or URL, the SHA-256 (hex) it must have, None where the person gave none,
    whether a block map beside it is used, and whether its last partition is to fill the card."""

    source: str
    sha256: str | None
    mapped: bool
    grow: bool = False


def own_receipts() -> TrustedFolder:
    """Where receipts are kept of cards that belong to no rack."""
    return TrustedFolder(data_folder() / "receipts")


def folders_of_ours(session: Session) -> tuple[Path, ...]:
    """The cache, and the rack if one is at hand: a disk on which they lie must not become a
    card."""
    rack = rack_at_hand(session)
    return (session.cache.root.resolve(), *([rack.resolve()] if rack else []))


@dataclass(frozen=True, slots=True)
class _Request:
    """The source, open, and where it is to go."""

    name: str
    opened: OpenedSource
    target: Target
    options: WriteOptions
    size_bytes: int | None


def write_image(session: Session, wish: CardWish, image: ImageWish) -> CommandResult:
    """Look at the source, show the plan, ask, and make the card."""
    ours = folders_of_ours(session)
    target = target_at(wish.path, ours)
    require_different(Path(image.source), [target])
    options, limits = wish.options(target), wish.limits(ours)
    size = wish.size_for(target)
    refuse_early(target, limits, size or 0)
    wanted = WantedImage(
        image.source,
        image.sha256,
        _named_key(session),
        image.mapped,
        session.settings.offline,
    )
    with opened_source(wanted) as opened:
        request = _Request(image.source, opened, target, options, size)
        _require_room(session, request, limits)
        session.console.event("plan", **_plan_fields(request))
        for line in _plan_lines(request):
            session.console.say(line)
        lacks = opened.known.lacks_bytes
        if lacks is None:
            session.console.warn(
                f"whether {image.source} is whole cannot be told: the map beside it, of what its "
                "card did not give, cannot be read"
            )
        elif lacks:
            session.console.warn(
                f"{image.source} is not whole: {format_size(lacks)} of it could not be read from "
                "its card, and are zeros (the map beside it says which)"
            )
        if wish.dry_run:
            session.console.lines("Nothing was touched (--dry-run).")
            return {"dry_run": True, **_plan_fields(request)}
        limits = consented(session, target, limits, yes=wish.yes)
        need = _size_of(session, request)
        order = SourceOrder(
            opened.source,
            need,
            accept(target, need, limits),
            own_receipts(),
            options=options,
            check=_boot_warnings(session),
            grow=image.grow,
        )
        made = make_poured_card(order, session.console, probe=wish.probe)
    return _show_result(session, request, made)


def _size_of(session: Session, request: _Request) -> int:
    """How much must fit; of an image file to be, exactly its size."""
    if request.target.capacity_bytes is not None:
        return request.opened.source.least_bytes
    return request.size_bytes or measured(request.opened.source, session.console)


def _named_key(session: Session) -> Cert | None:
    file = session.settings.signing_key
    if file is None:
        return None
    data = key_file(file)
    found = fingerprints_in(data)
    certificate = parse_certificate(data, found[0]) if len(found) == 1 else None
    if certificate is None:
        raise ConfigurationError(
            f"--signing-key {file}: holds {len(found)} OpenPGP keys, not one",
            hint="give the file of the one key that signs the image",
        )
    return certificate


def _require_room(session: Session, request: _Request, limits: Limits) -> None:
    size = request.size_bytes
    need = needed(request.opened, size or request.target.capacity_bytes, session.console)
    if request.target.capacity_bytes is None and size is not None and size < need:
        raise TargetRefused(
            f"--size {size} is too small: the image in {request.name} has {need} bytes "
            f"({format_size(need)})",
            hint=f"say --size {need} or more, or leave it out",
        )
    refuse_early(request.target, limits, size or need)
    refuse_early(request.target, limits, need)


def _plan_lines(request: _Request) -> list[str]:
    source, options = request.opened.source, request.options
    packed = f", packed with {request.opened.packing}" if request.opened.packing else ""
    size = format_size(source.size_bytes) if source.size_bytes else "not known before it is read"
    counts = "what its block map names" if source.bmap else "what its filesystems use"
    return [
        f"image     {request.name}{packed}",
        f"size      {size}",
        f"target    {request.target.title}",
        *(f"proof     {line}" for line in request.opened.known.told),
        f"written   {counts}, and what lies outside of partitions",
        f"transfers {format_chosen(options.block_bytes)} each, {options.depth} in flight "
        f"({options.why}); every byte is read back",
    ]


def _plan_fields(request: _Request) -> dict[str, object]:
    opened, options = request.opened, request.options
    return {
        "image": request.name,
        "packing": opened.packing,
        "image_bytes": opened.source.size_bytes,
        "needs_bytes": opened.source.least_bytes,
        "sha256": opened.known.sha256 or None,
        "block_map": opened.source.bmap is not None,
        "lacks_bytes": opened.known.lacks_bytes,
        "proof": list(opened.known.told),
        "target": request.target.node,
        "target_is": request.target.title,
        "holds": list(request.target.holds),
        "size_bytes": request.size_bytes,
        "block_bytes": options.block_bytes,
        "depth": options.depth,
        "transfers_chosen": options.why,
    }


def _boot_warnings(session: Session) -> Check:
    """What would keep a Raspberry Pi from starting, as warnings: an image need not be for one."""

    def check(read: Reader, size_bytes: int) -> None:
        card = read_card(read, size_bytes)
        paths = card.fat.entries if card.fat else ()
        if not any(_PI_FILE.match(path) for path in paths):
            session.console.note(
                "no boot files of a Raspberry Pi on it: whether it boots is not known"
            )
            return
        report = judge_card(card)
        for found in report.errors:
            session.console.warn(f"a Raspberry Pi would not start from it: {found.what}")
        if report.undecided is not None:
            session.console.warn(
                "not all of it was looked at, so it is not known whether a Raspberry Pi starts "
                f"from it: {report.undecided.what}"
            )

    return check


def _show_result(session: Session, request: _Request, made: MadeCard) -> CommandResult:
    receipt = made.receipt
    read = next((phase for phase in receipt.phases if phase.name == "read back"), None)
    rate = f" at {format_rate(read.bytes_per_second)}" if read else ""
    caution = "" if receipt.cache_bypassed else " (through this computer's cache: see the receipt)"
    session.console.verdict(
        f"{request.target.node} holds {request.name}: written, read back{rate}{caution}",
        good=True,
    )
    verify = command_line("verify", request.target.node, "--receipt", made.receipt_path)
    session.console.lines(
        *([receipt.trouble.meaning] if receipt.trouble else []),
        f"receipt {made.receipt_path}",
        f"check it again later with {verify}",
    )
    fields = _result_fields(made)
    session.console.event("receipt", path=str(made.receipt_path), **fields)
    return fields


def _result_fields(made: MadeCard) -> dict[str, object]:
    receipt, source = made.receipt, made.receipt.image.source
    return {
        "image": source.name if source else receipt.node,
        "image_sha256": source.sha256 if source else None,
        "image_bytes": source.size_bytes if source else None,
        **receipt.brief(),
        "receipt": str(made.receipt_path),
    }
