"""``rack keys``: show fingerprints, replace keys, and export them to a Salt master."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from imager.base.errors import UsageError
from imager.cli.choice import chosen_nodes, open_rack
from imager.cli.consent import ask
from imager.cli.lazy import CommandGroup
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.settings import common_options, take
from imager.config.rack import Node, Rack
from imager.node.keys import export as master_keys
from imager.node.keys import rotate as rotation_of
from imager.node.keys.export import MasterFile
from imager.node.keys.identity import salt_keys, salt_keys_at_hand, ssh_keys_at_hand
from imager.node.keys.rotate import MASTER_PKI, KeyKind, Rotation, key_in_use, steps_after
from imager.node.keys.salt import fingerprint

_NODES = click.argument("nodes", required=False, metavar="[NODES]")


@command("list", uses=("rack",))
@_NODES
def list_keys(session: Session, nodes: str | None) -> CommandResult:
    """Show the fingerprints by which nodes and master know each other.

    NODES are names such as pi[1-13]; all of the rack when left out.

    Examples:
        picloud-image rack keys list
            Fingerprints, to compare with salt-key -F.
        picloud-image rack keys list 'pi[1-3]'
            Only of three nodes.
    """
    rack = open_rack(session, looking=True)
    chosen = chosen_nodes(rack, nodes)
    salt, ssh = salt_keys_at_hand(rack, chosen), ssh_keys_at_hand(rack, chosen)
    master = salt.master.public if salt.master else rack.master.public_key
    told = "not made yet" if rack.master.is_node else "not known"
    session.console.lines(f"master {rack.master.name}: {_fingerprint(master) or told}")
    for node in chosen:
        session.console.lines(
            node.name,
            f"    salt {_fingerprint(salt.minions[node.name]) or 'not made yet'}",
            *(f"    ssh  {key.fingerprint} {key.line.split()[0]}" for key in ssh[node.name]),
            *(() if ssh[node.name] else ("    ssh  not made yet",)),
        )
    if not all(salt.minions[node.name] and ssh[node.name] for node in chosen):
        session.console.note("a node's keys are made when its card is first written")
    return {
        "master": _fingerprint(master),
        "nodes": [
            {
                "node": node.name,
                "salt": _fingerprint(salt.minions[node.name]),
                "ssh": {key.name: key.fingerprint for key in ssh[node.name]},
            }
            for node in chosen
        ],
    }


def _fingerprint(public: str | bytes | None) -> str | None:
    """The fingerprint of a Salt key; None if the key is not made yet."""
    if public is None:
        return None
    return fingerprint(public.encode() if isinstance(public, str) else public)


@command("rotate", uses=("rack",))
@click.argument("node")
@click.option("--salt", is_flag=True, help="Its Salt key; this, if nothing is named.")
@click.option("--ssh", is_flag=True, help="Its ssh host keys.")
@click.option("--master", is_flag=True, help="The key of the Salt master, which NODE is.")
@click.option("--undo", is_flag=True, help="Put back what the last rotation replaced.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before the master's key is replaced.")
def rotate(
    session: Session,
    node: str,
    salt: bool,
    ssh: bool,
    master: bool,
    undo: bool,
    dry_run: bool,
    yes: bool,
) -> CommandResult:
    """Give NODE new keys, and say what to do so that it joins with them.

    Examples:
        picloud-image rack keys rotate pi7 --dry-run
            What must be done after it?
        picloud-image rack keys rotate pi7 --salt --ssh
            Both anew, as after a card was stolen.
    """
    rack = open_rack(session, looking=dry_run)
    asked = {KeyKind.SALT: salt, KeyKind.SSH: ssh, KeyKind.MASTER: master}
    kinds = [kind for kind in KeyKind if asked[kind]] or [KeyKind.SALT]
    # Raises here if any of them cannot be replaced, or put back, before the first is changed.
    before = {kind: key_in_use(rack, rack.node(node), kind, undo=undo) for kind in kinds}
    if dry_run:
        return _show_plan(session, rack, rack.node(node), before, undo=undo)
    if KeyKind.MASTER in before and not yes:
        _ask(session, node)
    return _rotate_each(session, rack, rack.node(node), before, undo=undo)


@command("export", uses=("rack",))
@click.option(
    "--pki",
    metavar="DIR",
    required=True,
    type=PATH,
    help="The master's /etc/salt/pki/master, or a new folder to copy there.",
)
@click.option("--master-key", is_flag=True, help="Also the master's own key, if this rack's.")
@click.option("--replace", is_flag=True, help="Also where another key is in the way.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
def export(
    session: Session, pki: Path, master_key: bool, replace: bool, dry_run: bool
) -> CommandResult:
    """Accept every node on a Salt master elsewhere, by its key.

    Examples:
        picloud-image rack keys export --pki pki
            Write a folder to copy to the master.
        picloud-image rack keys export --pki pki --dry-run
            Which keys would be in it?
    """
    rack = open_rack(session, looking=dry_run)
    pki = pki.absolute()
    there = salt_keys_at_hand(rack)
    places = master_keys.plan_export(rack, there, pki, own_key=master_key)
    if not replace:
        master_keys.require_no_conflict(pki, places)
    if not dry_run:
        places = _export_all(session, rack, pki, places, own_key=master_key)
    session.console.table(["key", "found"], [[str(p.path), _state_of(p)] for p in places])
    if dry_run:
        session.console.lines("nothing was changed")
    else:
        _show_how_to_copy(session, rack, pki, own_key=master_key)
    return {
        "pki": str(pki),
        "dry_run": dry_run,
        "keys": [
            {
                "path": str(place.path),
                "found": place.found.value,
                "key_made": place.content is not None,
                "conflict": place.conflict,
                "removed": [str(path) for path in place.stale],
            }
            for place in places
        ],
    }


@click.group("keys", cls=CommandGroup, uses=("rack",), commands=[list_keys, rotate, export])
@common_options
@click.pass_context
def keys(context: click.Context, /, **options: object) -> None:
    """Look at the keys of the nodes, replace them, give them to a Salt master.

    Examples:
        picloud-image rack keys list
        picloud-image rack keys rotate pi7 --dry-run
    """
    context.obj = take(context, options)


def _show_plan(
    session: Session,
    rack: Rack,
    node: Node,
    before: Mapping[KeyKind, str | None],
    *,
    undo: bool,
) -> CommandResult:
    which = "its former" if undo else "a new"
    steps: dict[str, list[str]] = {}
    for kind, key in before.items():
        lines = steps_after(rack, node, kind) if key else ()
        steps[kind.value] = list(lines)
        if key:
            session.console.lines(f"{node.name} would get {which} {kind.noun}. Then:", *lines)
        else:
            session.console.lines(f"{node.name} has no {kind.noun} yet; it would get its first")
    return {"dry_run": True, "steps": steps}


def _ask(session: Session, node: str) -> None:
    if not session.console.can_ask:
        raise UsageError(
            "another master's key means every card anew, and there is nobody to ask",
            hint="say --yes if that is wanted",
        )
    ask(session, ["Every card of the rack must be written anew after this."], node)


def _rotate_each(
    session: Session, rack: Rack, node: Node, kinds: Iterable[KeyKind], *, undo: bool
) -> CommandResult:
    act = rotation_of.undo if undo else rotation_of.rotate
    done = []
    for kind in kinds:
        done.append(act(rack, node, kind))
        _show_rotation(session, done[-1], undo=undo)
    return {
        "rotated": [
            {
                "node": rotation.node,
                "kind": rotation.kind.value,
                "before": rotation.before,
                "after": rotation.after,
                "steps": list(rotation.steps),
            }
            for rotation in done
        ]
    }


def _show_rotation(session: Session, rotation: Rotation, *, undo: bool) -> None:
    name, title = rotation.node, rotation.kind.noun
    say = session.console.lines
    if rotation.before is None:
        say(f"{name} had no {title} yet; its first is {rotation.after}")
        return
    say(
        f"{name} has {'its former' if undo else 'a new'} {title}",
        f"    until now {rotation.before}",
        f"    from now  {rotation.after}",
    )
    if undo:
        say("Where a card was written since the rotation, or the master told of it:")
    else:
        say("The old one is kept until the next rotation; --undo puts it back. Now:")
    say(*rotation.steps)


def _export_all(
    session: Session, rack: Rack, pki: Path, places: tuple[MasterFile, ...], *, own_key: bool
) -> tuple[MasterFile, ...]:
    """Export to ``places``; return them with the keys that had to be made for it."""
    if any(place.content is None for place in places):
        keys = salt_keys(rack, session.console)
        places = master_keys.plan_export(rack, keys, pki, own_key=own_key)
    master_keys.export(pki, places)
    return places


def _state_of(place: MasterFile) -> str:
    """What was found at the place of a key, and which files were removed for it."""
    made = "" if place.content is not None else "; the key would be made"
    gone = "".join(f"; {path.parent.name}/{path.name} removed" for path in place.stale)
    return (place.conflict or place.found.value) + made + gone


def _show_how_to_copy(session: Session, rack: Rack, pki: Path, *, own_key: bool) -> None:
    if str(pki) != MASTER_PKI:
        root = f"root@{rack.master.address or rack.master.name}"
        session.console.lines(
            f"Copy them to the master, {'then restart it' if own_key else 'while it runs'}:",
            f"    scp -r {shlex.quote(str(pki))}/. {root}:{MASTER_PKI}/",
        )
    if not rack.master.is_node and rack.master.public_key is None:
        session.console.warn(
            f"the cards do not know {rack.master.name}'s key and trust the first master that "
            "answers: copy its master.pub beside rack.toml and name it under [salt]"
        )
