"""The [packages] tables of rack.toml: of the rack, of a role, of one node.

In: Tables. Out: a PackageWish for each node, the names that never move, and the nodes that try
what moved. Whether the packages exist is seen when they are resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from imager.base.json_fields import shown
from imager.config.fields import Table, Unknown
from imager.config.rack import MINION, Node
from imager.packages.wish import UNIT_EXAMPLE, PackageWish, name_fault, name_in, unit_fault

_LONGEST_CHECK = 1000
_MOST_WORDS = 500
"""What the rack asks for is put together with what each of its nodes asks for."""


def read_packages(table: Table) -> PackageWish:
    """``install``, ``remove``, ``replace`` and ``enable`` of one [packages] table."""
    install = _words(table, "install", '["docker"]', lambda word: name_fault(word, bounded=True))
    remove = _words(table, "remove", '["nano"]', name_fault)
    enable = _words(table, "enable", f'["{UNIT_EXAMPLE}"]', unit_fault)
    replaced = _read_replace(table)
    both = {name_in(word) for word in install} & {*remove, *replaced}
    for name in sorted(both):
        table.fault("install", f"{shown(name)} is to be removed, too; leave it out of one of them")
    return PackageWish((*install, *replaced.values()), (*remove, *replaced), enable)


def read_hold(table: Table) -> frozenset[str]:
    """[packages] hold: names that ``lock --update`` leaves as they are."""
    return frozenset(_words(table, "hold", '["linux-rpi"]', name_fault))


def read_canary(table: Table, nodes: Sequence[Node]) -> tuple[str, ...]:
    """[packages] canary: the nodes that get what ``lock --update`` moved before the others do."""
    known = {node.name: node for node in nodes}
    names = table.strings("canary", example='["pi3"]') or ()
    for name in names:
        if name not in known:
            table.fault("canary", f"{shown(name)} is not a node", Unknown(name, known))
        elif MINION not in known[name].roles:
            table.fault("canary", f"{shown(name)} has not the role {MINION}, so Salt cannot ask it")
    if len(set(names)) != len(names):
        table.fault("canary", "names one twice")
    return names


def read_check(table: Table, canary: Sequence[str]) -> str | None:
    """[packages] check: the shell command that must succeed on each canary node."""
    check = table.string("check", example='"docker run --rm hello-world"')
    if check is None:
        return None
    if not canary:
        table.fault("check", 'is run on canary nodes, and there is none; add canary = ["pi3"]')
    if not check.strip() or not check.isprintable() or len(check) > _LONGEST_CHECK:
        table.fault("check", f"is not one line of 1 to {_LONGEST_CHECK} printable characters")
    return check


def read_roles_packages(top: Table, roles: Sequence[str]) -> dict[str, PackageWish]:
    """The wish of each role that has a table ``[roles.NAME.packages]``."""
    table = top.table("roles")
    found = {}
    for name, own in table.tables():
        if name not in roles:
            table.fault(name, "is not a role", Unknown(name, roles))
        packages = own.table("packages")
        found[name] = read_packages(packages)
        packages.close()
        own.close()
    return found


def wish_of(
    rack: PackageWish, roles: Mapping[str, PackageWish], names: Sequence[str], own: PackageWish
) -> PackageWish:
    """What a node with the roles ``names`` wants: the rack's, then each role's, then its ``own``;
    what comes later wins."""
    wish = rack
    for name in names:
        wish = wish.then(roles.get(name, PackageWish()))
    return wish.then(own)


def _read_replace(table: Table) -> dict[str, str]:
    """``replace``: the new package by the name of the release's own that goes."""
    found = {}
    replace = table.table("replace")
    for old in _at_most(table, "replace", replace.names()):
        new = replace.string(old, example='linux-rpi = "linux-rpi-16k"')
        for word in (old, new):
            fault = name_fault(word) if word is not None else None
            if fault:
                replace.fault(old, f"{shown(word)} {fault}")
        if new is not None:
            found[old] = new
    return found


def _words(
    table: Table, name: str, example: str, fault_of: Callable[[str], str | None]
) -> tuple[str, ...]:
    words = _at_most(table, name, table.strings(name, example=example) or ())
    for word in words:
        fault = fault_of(word)
        if fault:
            table.fault(name, f"{shown(word)} {fault}; write the list like {example}")
    if len(set(words)) != len(words):
        table.fault(name, "names one twice")
    return words


def _at_most(table: Table, name: str, words: tuple[str, ...]) -> tuple[str, ...]:
    if len(words) > _MOST_WORDS:
        table.fault(name, f"has {len(words)} names; at most {_MOST_WORDS} can be given")
    return words[:_MOST_WORDS]
