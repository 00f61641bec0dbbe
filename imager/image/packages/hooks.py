"""The hooks of pacman that a change of packages would have run.

In: the hook files in a release, and what became of its packages. Out: those that ask for it, with
the command of each, in pacman's order. Nothing is run. Only what comes after a transaction counts:
what was to come before it would now come too late. Sources: alpm-hooks(5); ``lib/libalpm/hook.c``
of pacman 6.0.2 and 7.0.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imager.image.packages.changes import PackageChange, changed_files
from imager.image.unpack.members import EntryKind
from imager.image.unpack.stager import Stager

FOLDERS = ("usr/share/libalpm/hooks", "etc/pacman.d/hooks")
"""A hook in the second takes the place of one of its name in the first (alpm-hooks(5))."""
_PLAIN = re.compile(r"[A-Za-z0-9@._+-]+\.hook")


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook to run: ``words`` are its command, ``targets`` what it reads from its standard input,
    if it asks for that."""

    name: str
    words: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trigger:
    about_packages: bool
    operations: frozenset[str]
    targets: tuple[str, ...]

    def found(self, packages: Mapping[str, str], files: Mapping[str, str]) -> Iterator[str]:
        """The names that match; the last pattern that does decides, one with ``!`` against it."""
        patterns = [
            (pattern.startswith("!"), re.compile(fnmatch.translate(pattern.removeprefix("!"))))
            for pattern in reversed(self.targets)
        ]
        for name, operation in (packages if self.about_packages else files).items():
            if operation in self.operations:
                against = next((no for no, pattern in patterns if pattern.match(name)), True)
                if not against:
                    yield name


def hooks_to_run(
    stager: Stager, changes: tuple[PackageChange, ...], provided: frozenset[str]
) -> tuple[Hook, ...]:
    """The hooks in the release that ``changes`` trigger, sorted by name; ``provided`` are the
    names of all packages there are, which a hook may need. A hook that is malformed is left out,
    as by pacman."""
    packages = {change.package.name: change.operation for change in changes}
    files = changed_files(changes)
    found = (
        _hook(name, stager.text_of_root(path), packages, files, provided)
        for name, path in sorted(_paths(stager).items())
    )
    return tuple(hook for hook in found if hook is not None)


def _paths(stager: Stager) -> dict[str, str]:
    return {
        name: f"{folder}/{name}"
        for folder in FOLDERS
        for name in _names(stager, folder)
        if _PLAIN.fullmatch(name)
    }


def _names(stager: Stager, folder: str) -> Iterable[str]:
    entry = stager.entry(folder)
    if entry is None or entry.kind is not EntryKind.FOLDER:
        return ()  # a link would lead into this computer
    return [path.name for path in (stager.root_folder / folder).iterdir()]


def _hook(
    name: str,
    text: str,
    packages: Mapping[str, str],
    files: Mapping[str, str],
    provided: frozenset[str],
) -> Hook | None:
    sections = list(_sections(text))
    action = next((keys for title, keys in sections if title == "Action"), {})
    needs = (re.split("[<>=]", word)[0] for word in action.get("Depends", ()))
    if action.get("When") != ["PostTransaction"] or not provided.issuperset(needs):
        return None
    try:
        words = tuple(shlex.split(action["Exec"][0]))
    except (KeyError, ValueError):
        return None
    triggers = [_trigger(keys) for title, keys in sections if title == "Trigger"]
    found = {target for trigger in triggers for target in trigger.found(packages, files)}
    if not found or not words:
        return None
    return Hook(name, words, tuple(sorted(found)) if "NeedsTargets" in action else ())


def _trigger(keys: Mapping[str, Sequence[str]]) -> _Trigger:
    return _Trigger(
        keys.get("Type", [""])[0] == "Package",
        frozenset(keys.get("Operation", ())),
        tuple(keys.get("Target", ())),
    )


def _sections(text: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each section of an ini file with its keys, which may come more than once."""
    title, keys = "", dict[str, list[str]]()
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            yield title, keys
            title, keys = line[1:-1], {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys.setdefault(key.strip(), []).append(value.strip())
    yield title, keys
