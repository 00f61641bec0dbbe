"""``archive``: all that a rack's cards are made from, in one file for another computer or year."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from imager.base.errors import NetworkError, UsageError
from imager.base.progress import Quiet
from imager.base.units import format_size
from imager.cli.choice import by_boot, chosen_release, existing_rack, rack_at_hand
from imager.cli.consent import ask
from imager.cli.lazy import CommandGroup
from imager.cli.packages import packages_at_hand_for
from imager.cli.paths import EXISTING_FILE, PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.settings import common_options, take
from imager.cli.views.archive import (
    HEAD,
    archive_fields,
    archive_rows,
    entry_fields,
    intake_lines,
    lock_lines,
    summary,
    total_line,
)
from imager.config.folder import find_rack
from imager.config.rack import Rack
from imager.packages.carry.carried import opened
from imager.packages.carry.entries import Entry
from imager.packages.carry.export import all_found, prove, require_free
from imager.packages.carry.export import export as export_file
from imager.packages.carry.form import LOCK
from imager.packages.carry.lists import differences, intake_of, missing_of, rows_of
from imager.release.fetch import fetch_release
from imager.release.lock import RackLock
from imager.release.salt.salt import require_pinned
from imager.release.terms import FetchTerms, KeySources


@command("export")
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--replace", is_flag=True, help="Also where FILE is there already.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and touch nothing.")
def export(session: Session, file: Path, replace: bool, dry_run: bool) -> CommandResult:
    """Write all that rack.lock pins, with signatures and keys, to FILE.

    With FILE, rack.toml and overlays, another computer makes the same bytes.

    Examples:
        picloud-image archive export rack.tar
            All that is needed to make the same cards elsewhere.
    """
    # Not imported above: the modules for the network take 0.1 s to import.
    from imager.packages.carry.keys import keys_of

    rack, file = existing_rack(session), file.absolute()
    lock = RackLock.load(rack.lock_file)
    require_free(file, replace=replace)
    entries = all_found(lock, session.cache)
    _require_locked(session, rack, lock)
    listed = [each.entry for each in entries]
    fields = {"archive": str(file), "dry_run": dry_run, "entries": entry_fields(listed)}
    session.console.event("plan", **fields)
    if dry_run:
        session.console.lines(
            f"{file}: {summary(listed)} would be written", "Nothing was touched (--dry-run)."
        )
        return fields
    signers = [entry.signer for entry in listed if entry.signer]
    keys = keys_of(signers, _terms(session), _sources(session))
    prove(entries, keys, session.cache, session.console)
    written = export_file(lock, entries, keys, file, session.console, replace=replace)
    session.console.lines(
        f"{file}: {summary(listed)}, {format_size(written.size_bytes)}",
        f"sha256 {written.sha256}",
        "take it elsewhere with the folder of the rack; there: picloud-image archive import FILE",
    )
    return {**fields, "size_bytes": written.size_bytes, "sha256": written.sha256}


@command("import")
@click.argument("file", metavar="FILE", type=EXISTING_FILE)
@click.option("--dry-run", is_flag=True, help="Say what would be taken in, and touch nothing.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before the rack gets its rack.lock from FILE."
)
def import_(session: Session, file: Path, dry_run: bool, yes: bool) -> CommandResult:
    """Prove what FILE holds and put it into the archive; nothing of it stays if anything is wrong.

    A rack without a rack.lock gets the one in FILE. Otherwise its own stays, and it is said where
    they differ.

    Examples:
        picloud-image archive import rack.tar --dry-run
            What is in it, and is it whole?
        picloud-image archive import rack.tar
            Take it in, for the rack here.
    """
    # Not imported above: the modules for the network take 0.1 s to import.
    from imager.packages.carry.keys import keys_of
    from imager.packages.carry.take_in import check, take_in

    rack = existing_rack(session)
    own, terms = RackLock.load(rack.lock_file), _terms(session)
    with opened(file, _known_keys(session, rack, own)) as carried:
        entries = [each.entry for each in carried.entries]
        brings_lock = not own.all_pins()
        intake = intake_of(entries, carried.lock if brings_lock else own, session.cache)
        differing = [] if brings_lock else differences(own, carried.lock)
        fields = {
            "archive": str(file.absolute()),
            "dry_run": dry_run,
            "taken": entry_fields(intake.wanted),
            "here": entry_fields(intake.here),
            "left": entry_fields(intake.left),
            "lock": str(rack.lock_file) if brings_lock else None,
            "differences": differing,
        }
        session.console.event("plan", **fields)
        if dry_run:
            check(carried, terms)
        else:
            if brings_lock and not yes:
                _ask_for_lock(session, rack, file, entries)
            sources = _sources(session)
            signers = [entry.signer for entry in entries if entry.signer]
            keys = keys_of(signers, terms, sources, carried.keys)
            take_in(carried, frozenset(intake.wanted), keys, terms)
            if brings_lock:
                own.filled(carried.lock)
    session.console.lines(
        *intake_lines(intake, dry_run=dry_run),
        *lock_lines(rack.lock_file, differing, brought=brings_lock, dry_run=dry_run),
        *(
            ["Nothing was touched (--dry-run); signatures are checked when it is."]
            if dry_run
            else []
        ),
    )
    return fields


@command("list", uses=("rack", "cache"))
@click.argument("racks", nargs=-1, metavar="[RACK]...", type=PATH)
def list_archive(session: Session, racks: tuple[Path, ...]) -> CommandResult:
    """List everything in the archive: size, when fetched, and which racks pin it.

    The racks that are looked at are the one at hand and those in the folders RACK.

    Examples:
        picloud-image archive list
            What is archived, for the rack here.
        picloud-image archive list ~/rack ~/school
            The same for two racks.
    """
    locks = {folder: RackLock.load(folder / LOCK) for folder in _folders(session, racks)}
    rows = rows_of(session.cache, locks)
    if rows:
        session.console.table(HEAD, archive_rows(rows))
    session.console.lines(total_line(rows, session.cache.root))
    missing = {folder: missing_of(session.cache, lock) for folder, lock in locks.items()}
    for folder, entries in missing.items():
        for entry in entries:
            session.console.warn(f"{folder} pins {entry.called}, which is not here")
    for row in rows:
        if row.fault:
            session.console.warn(row.fault)
    return {
        "archive": str(session.cache.root),
        "entries": archive_fields(rows),
        "racks": [
            {"rack": str(folder), "missing": entry_fields(entries)}
            for folder, entries in missing.items()
        ],
    }


@click.group("archive", cls=CommandGroup, commands=[export, import_, list_archive])
@common_options
@click.pass_context
def archive(context: click.Context, /, **options: object) -> None:
    """Carry all that cards are made from in one file; say what is archived.

    Examples:
        picloud-image archive list
        picloud-image archive export rack.tar
    """
    context.obj = take(context, options)


def _folders(session: Session, named: Iterable[Path]) -> list[Path]:
    """The racks to look at, each once."""
    here = rack_at_hand(session)
    found = [find_rack(Path.cwd(), folder).path for folder in named]
    return list(dict.fromkeys([*([here] if here else []), *found]))


def _terms(session: Session) -> FetchTerms:
    return FetchTerms(session.cache, session.console, session.settings.offline)


def _sources(session: Session) -> KeySources:
    return KeySources(file=session.settings.signing_key)


def _require_locked(session: Session, rack: Rack, lock: RackLock) -> None:
    """Raise unless what rack.lock pins is all that the cards of ``rack`` need."""
    terms = FetchTerms(session.cache, Quiet(), offline=True)
    for first, *_ in by_boot(rack.nodes):
        release = fetch_release(chosen_release(session, rack, first), lock, terms)
        if packages_at_hand_for(session, rack, release, terms) is None:
            raise NetworkError(
                f"{rack.lock_file} does not say yet which packages all nodes have",
                hint="run picloud-image fetch, then export again",
            )
    if rack.salt_version is not None:
        require_pinned(rack.salt_version, lock)


def _known_keys(session: Session, rack: Rack, own: RackLock) -> frozenset[str]:
    """The fingerprints of the keys that the rack names."""
    asked = (chosen_release(session, rack, node).signing_key for node in rack.nodes)
    return frozenset([*asked, *(pin.fingerprint for pin in own.pins.values())])


def _ask_for_lock(session: Session, rack: Rack, file: Path, entries: Iterable[Entry]) -> None:
    unsigned = [entry for entry in entries if entry.signer is None]
    lines = [
        f"{rack.folder} has no rack.lock yet; it would get the one in {file}.",
        *(
            f"{entry.called} (sha256 {entry.sha256}) has no signature: whoever made {file.name} "
            "says that it is right."
            for entry in unsigned
        ),
    ]
    if not session.console.can_ask:
        raise UsageError(
            f"{rack.folder} would get its rack.lock from {file}, and there is nobody to ask",
            hint="look with --dry-run, then say --yes if you trust where the file comes from",
        )
    ask(session, lines, "yes")
