"""What pacman says when it cannot do what was asked, in words that say what to do.

In: lines of pacman, and what is known of packages. Out: lines for a person. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from imager.packages.metadata import without_bound
from imager.packages.resolve.database import Database, PackageOffer

PINNED = "picloud-pinned"
"""The name of the database of what rack.lock pins; it is asked first."""
_UNMET = re.compile(r":: unable to satisfy dependency '([^']+)' required by (\S+)")
_BREAKS = re.compile(
    r":: (?:installing|removing) (\S+).* breaks dependency '([^']+)' required by (\S+)"
)
_MISSING = re.compile(r"missing '([^']+)' dependency for '([^']+)'")
_CONFLICT = re.compile(r"'([^']+)' conflicts with '([^']+)'")
_NOT_FOUND = re.compile(r"error: target not found: (\S+)")
_REASONS, _NAMES, _LETTERS = 20, 8, 400
_NOISE = re.compile(r"error: failed to (prepare|init) transaction|warning: |No database errors")


@dataclass(frozen=True, slots=True)
class Known:
    """What there is: the versions the release has, by name, and what repositories offer."""

    release: str
    installed: Mapping[str, str]
    databases: Sequence[Database]

    def names(self) -> frozenset[str]:
        """The name of every package that can be had."""
        return frozenset().union(*(database.names for database in self.databases))

    def offer(self, name: str) -> PackageOffer | None:
        """The first package called ``name``."""
        for database in self.databases:
            try:
                found = database.offer(name)
            except ValueError:
                continue
            if found is not None:
                return found
        return None

    def is_pinned(self, name: str) -> bool:
        """Whether rack.lock says which ``name`` it is."""
        return any(name in each.names for each in self.databases if each.name == PINNED)

    def providers(self, name: str) -> tuple[str, ...]:
        """The packages that provide ``name``, unless one is called so."""
        if name in self.names():
            return ()
        found = (maker for each in self.databases for maker in each.providers.get(name, ()))
        return tuple(dict.fromkeys(found))

    def versions(self, name: str) -> str:
        """Who has ``name`` in which version, in a clause."""
        offer, here = self.offer(name), self.installed.get(name)
        told = [f"{self.release} has {here}"] if here else []
        if offer is not None:
            place = "rack.lock pins" if self.is_pinned(name) else "the mirror has"
            told.append(f"{place} {offer.version}")
        return " and ".join(told) or "no repository has it"


def unknown_names(words: Iterable[str], known: Known) -> Iterator[str]:
    """A line for each of ``words`` that is no package that can be had."""
    names = known.names()
    for word in words:
        name = without_bound(word)
        if name in names:
            continue
        makers = known.providers(name)
        if makers:
            yield f"{name} is no package; {_any(makers)} provides it: name the one that is meant"
        else:
            near = get_close_matches(name, names, n=1)
            yield f"no repository has {name}" + (f"; did you mean {near[0]}?" if near else "")


def explained(lines: Iterable[str], known: Known) -> Iterator[str]:
    """``lines`` of pacman, each with what is behind it."""
    for line in _causes(tuple(lines)):
        if unmet := _UNMET.match(line):
            yield _needs(unmet[2], unmet[1], known)
        elif missing := _MISSING.match(line):
            yield _needs(missing[2], missing[1], known)
        elif breaks := _BREAKS.match(line):
            yield f"{breaks[1]} would break {breaks[3]}, which needs {breaks[2]}"
        elif conflict := _CONFLICT.match(line):
            yield _conflicts(conflict[1], conflict[2], known)
        elif absent := _NOT_FOUND.match(line):
            name = without_bound(absent[1])
            yield f"{absent[1]} cannot be had: {known.versions(name)}"
        elif not _NOISE.match(line):
            yield f"pacman says: {line}"


def _causes(lines: Sequence[str]) -> Sequence[str]:
    """``lines`` without the needs that follow from another: what would meet them has one itself."""
    unmet = {line: found for line in lines if (found := _UNMET.match(line))}
    stuck = {found[2] for found in unmet.values()}
    causes = [
        line for line in lines if line not in unmet or without_bound(unmet[line][1]) not in stuck
    ]
    return causes or lines


def _needs(who: str, word: str, known: Known) -> str:
    name = without_bound(word)
    told = known.versions(name)
    pinned = f"; picloud-image lock --update {name} moves it" if known.is_pinned(name) else ""
    return f"{who} needs {word}: {told}{pinned}"


def _conflicts(one: str, other: str, known: Known) -> str:
    """The two, with the way out where one of them is the release's."""
    new, old = (one, other) if other in known.installed else (other, one)
    if old not in known.installed:
        return f"{one} and {other} exclude each other: leave one of them out"
    return (
        f"{new} excludes {old}, which {known.release} has: write "
        f'replace = {{ "{old}" = "{new}" }} to have it instead'
    )


def _any(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"each of {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """``names``, or the first of them and how many more there are."""
    few = ", ".join(names[:_NAMES])
    return f"{few} and {len(names) - _NAMES} more" if len(names) > _NAMES else few


def few_of(reasons: Sequence[str]) -> tuple[str, ...]:
    """``reasons``, or the first of them and how many more there are: a mirror may say any number,
    of any length."""
    few = tuple(
        reason if len(reason) <= _LETTERS else f"{reason[:_LETTERS]}…"
        for reason in reasons[:_REASONS]
    )
    return (*few, f"and {len(reasons) - _REASONS} more") if len(reasons) > _REASONS else few
