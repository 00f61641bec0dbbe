"""Exports the nodes' keys to a Salt master that is not a node, or whose card is not written yet.

In: a rack and the master's pki folder, or an empty one to be copied there. Out: first, as data,
what is now at each key's place; then the keys themselves. A different key that is there already is
not overwritten unless the person says so: it may belong to a machine that works.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.base.below import Below, entered, reached
from imager.base.durable import host_storage, make_folder, replace_in
from imager.base.errors import ConfigurationError, TargetRefused, UsageError
from imager.config.rack import Rack
from imager.node.keys.identity import SaltKeys
from imager.node.keys.salt import clean, fingerprint

# Where a master keeps the keys of each state (salt/cache/localfs_key.py, BASE_MAPPING).
ACCEPTED, PENDING, DENIED, REJECTED = (
    "minions",
    "minions_pre",
    "minions_denied",
    "minions_rejected",
)
_PUBLIC, _MASTER_PRIVATE = 0o644, 0o400
_LIMIT_BYTES = 1 << 16


class MasterFileState(StrEnum):
    """What is now at the place of a key."""

    NOTHING = "new"
    SAME = "there already"
    OTHER = "another key"


@dataclass(frozen=True, slots=True)
class MasterFile:
    """One file of the master's folder. ``content`` is None for a key that nobody has made yet.
    ``stale`` are files that go first: a minion's key in another state, which the master would look
    at instead or list for ever."""

    path: Path
    content: bytes | None
    mode: int
    found: MasterFileState
    conflict: str | None = None
    stale: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"MasterFile({self.path}, {self.found})"


def plan_export(
    rack: Rack, keys: SaltKeys, pki: Path, *, own_key: bool = False
) -> tuple[MasterFile, ...]:
    """What ``export`` would do to ``pki``. With ``own_key`` the master's own pair comes too.

    Raises UsageError when ``pki`` is no such folder, HostStorage when it cannot be read, and
    ConfigurationError when the master's key is not this rack's.
    """
    with host_storage(pki):
        _require_pki(pki)
        places = [_minion(pki, name, public) for name, public in keys.minions.items()]
        return (*places, *(_master(rack, keys, pki) if own_key else ()))


def require_no_conflict(pki: Path, places: Sequence[MasterFile]) -> None:
    """Raise TargetRefused, with every reason, where another key is in the way."""
    conflicts = [place.conflict for place in places if place.conflict]
    if conflicts:
        raise TargetRefused(
            f"{pki}: {len(conflicts)} of {len(places)} keys are not the ones of this rack",
            hint="look whose they are; --replace puts this rack's in their place",
            details=conflicts,
        )


def export(pki: Path, places: Sequence[MasterFile]) -> None:
    """Write ``places`` as planned, also over other keys. If root runs this, the files get the owner
    of ``pki``. Raises HostStorage when ``pki`` cannot be written, ValueError for a key not made
    yet."""
    with host_storage(pki), ExitStack() as held:
        make_folder(pki, 0o700)
        folder = held.enter_context(reached(pki, (), judged=False))
        owner = os.fstat(folder)
        for place in places:
            if place.content is None:
                raise ValueError(f"{place.path}: this key is not made yet")
            for path in place.stale:
                _remove(pki, folder, path)
            if place.found is not MasterFileState.SAME:
                _put(pki, folder, owner, place)


def _require_pki(pki: Path) -> None:
    if not pki.exists():
        return
    if not pki.is_dir():
        raise UsageError(f"--pki {pki}: is no folder", hint="name the master's pki folder")
    names = set(Below(pki, judged=False).names())
    if names and not names & {ACCEPTED, PENDING, "master.pem", "master.pub"}:
        below = " (it is the folder master in it)" if "master" in names else ""
        raise UsageError(
            f"--pki {pki}: holds other things than a Salt master's keys{below}",
            hint="name the master's /etc/salt/pki/master, or a new folder to copy there",
        )
    for name in (ACCEPTED, PENDING, DENIED, REJECTED):
        about = Below(pki, (name,), judged=False).status()
        if about is not None and not stat.S_ISDIR(about.st_mode):
            raise UsageError(
                f"--pki {pki}: {name} in it is a link or no folder, and no link is followed there",
                hint="put the folder itself in its place, or name a new folder to copy there",
            )


def _minion(pki: Path, name: str, public: bytes | None) -> MasterFile:
    path = pki / ACCEPTED / name
    found = _found(pki, path, public)
    conflict = None
    if found is MasterFileState.OTHER:
        own = f"; {name}'s is {fingerprint(public)}" if public else ""
        conflict = f"{path}: another key, {fingerprint(_read(pki, path))}{own}"
    rejected = pki / REJECTED / name
    if _present(pki, rejected):
        conflict = f"{rejected}: somebody told the master to reject {name}"
    stale = [pki / PENDING / name, rejected, pki / DENIED / name]
    return MasterFile(
        path, public, _PUBLIC, found, conflict, tuple(path for path in stale if _present(pki, path))
    )


def _master(rack: Rack, keys: SaltKeys, pki: Path) -> Iterator[MasterFile]:
    if not rack.master.is_node:
        raise ConfigurationError(
            f"this rack does not have the key of its master {rack.master.name}",
            hint="the master made it itself; leave out --master-key",
        )
    # The private half alone is enough for a master, a public one that does not fit is not: so
    # the old public half goes first, and a kill between any two leaves one that works.
    name = _own_name(pki)
    private, public = pki / f"{name}.pem", pki / f"{name}.pub"
    contents = (keys.master.private, keys.master.public) if keys.master else (None, None)
    found = (
        _found(pki, private, contents[0]),
        _found(pki, public, contents[1]),
    )
    conflicts = [
        f"{path}: another master's key" if one is MasterFileState.OTHER else None
        for path, one in zip((private, public), found, strict=True)
    ]
    stale = (public,) if found[1] is MasterFileState.OTHER else ()
    yield MasterFile(private, contents[0], _MASTER_PRIVATE, found[0], conflicts[0], stale)
    yield MasterFile(public, contents[1], _PUBLIC, found[1], conflicts[1])


def _own_name(pki: Path) -> str:
    """The name of the master's own key. Salt 3008 moves it to the master's id when it first starts,
    leaves a link, and looks there first (salt/crypt.py, MasterKeys._setup_keys)."""
    link = pki / "master.pem"
    # The folder that the link names may be another: this one may be a copy.
    if link.is_symlink() and (pki / link.readlink().name).is_file():
        return link.readlink().stem
    return "master"


def _found(pki: Path, path: Path, content: bytes | None) -> MasterFileState:
    if not _present(pki, path):
        return MasterFileState.NOTHING
    return (
        MasterFileState.SAME
        if content and clean(_read(pki, path)) == clean(content)
        else MasterFileState.OTHER
    )


def _below(pki: Path, path: Path) -> Below:
    """``path`` in the folder ``pki``: it may be another user's (Salt's packages run the master as
    one of its own), who must not choose what root reads, writes or removes. So no link is
    followed."""
    return Below(pki, path.relative_to(pki).parts, judged=False)


def _present(pki: Path, path: Path) -> bool:
    return _below(pki, path).status() is not None


def _read(pki: Path, path: Path) -> bytes:
    """The content of a key's file; empty if it is not a file of a key's size. Symbolic links are
    not followed, as Salt does not follow them here either."""
    try:
        return _below(pki, path).read(_LIMIT_BYTES)[0]
    except PermissionError:
        raise
    except OSError:
        return b""


def _remove(pki: Path, folder: int, path: Path) -> None:
    with ExitStack() as held, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=_state(held, pki, folder, path))


def _put(pki: Path, folder: int, owner: os.stat_result, place: MasterFile) -> None:
    """Write one key. It belongs to the owner of ``pki``, who must be able to read it."""

    def give(descriptor: int) -> None:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    with ExitStack() as held:
        if place.path.parent != pki:
            with suppress(FileExistsError):
                os.mkdir(place.path.parent.name, 0o700, dir_fd=folder)
                give(_state(held, pki, folder, place.path))
        into = _state(held, pki, folder, place.path)
        replace_in(into, place.path.name, place.content or b"", place.mode, give)


def _state(held: ExitStack, pki: Path, folder: int, path: Path) -> int:
    """The descriptor of the folder that ``path`` is in: ``pki``, open as ``folder``, or in it."""
    if path.parent == pki:
        return folder
    state = entered(folder, path.parent.name, path.parent, judged=False)
    held.callback(os.close, state)
    return state
