"""Which folder is the rack: the one that is named, the current one, or the default one.

In: the current folder. Out: a folder with a rack.toml. A rack is a folder of rack.toml,
rack.lock, overlays/ and .picloud/ (keys and receipts, private), so that backing up one folder
backs up the rack.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError
from imager.base.ownership import home_behind_sudo
from imager.base.trusted_folder import TrustedFolder
from imager.config.example import Choices, initial_rack_toml
from imager.config.load import no_rack_in, parse_rack
from imager.config.rack import RACK_FILE, Rack


@dataclass(frozen=True, slots=True)
class RackFolder:
    """The rack's folder. ``is_default`` is true when nobody chose it; the person is then told
    which rack is used."""

    path: Path
    is_default: bool


def find_rack(start: Path, named: Path | None = None) -> RackFolder:
    """The rack ``named``, else the nearest folder from ``start`` upwards that has a rack.toml,
    else the default rack in the user's data directory, made when it is not there yet.

    Raises ConfigurationError when the folder ``named`` has no rack.toml, and for a folder, however
    it was found, that is a stranger's or can be written by one.
    """
    if named is not None:
        folder = named.parent if named.name == RACK_FILE else named
        if not _has_rack(folder):
            raise no_rack_in(folder)
        return RackFolder(_judged(folder.absolute()), is_default=False)
    near = _nearest(start)
    if near is not None:
        return RackFolder(_judged(near), is_default=False)
    return RackFolder(_default_rack(), is_default=True)


def rack_at_hand(start: Path, named: Path | None = None) -> Path | None:
    """As ``find_rack``, but it makes no rack: None when there is none at all. For commands that
    only look at cards."""
    if named is not None:
        return find_rack(start, named).path
    near, default = _nearest(start), _default_folder()
    found = near or (default if _has_rack(default) else None)
    return _judged(found) if found else None


def default_rack_to_be() -> Rack:
    """The default rack as ``find_rack`` would make it, for whoever looks where there is none."""
    return parse_rack(_default_folder(), initial_rack_toml())


def _nearest(start: Path) -> Path | None:
    start = start.absolute()
    return next((folder for folder in (start, *start.parents) if _has_rack(folder)), None)


def _has_rack(folder: Path) -> bool:
    """Whether there is a rack.toml, whatever it is: a link counts, and is refused when read."""
    try:
        os.lstat(folder / RACK_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        with host_storage(folder / RACK_FILE):
            raise
    return True


def _judged(folder: Path) -> Path:
    """``folder``, which is there, unless a stranger could tell this program what to do by it."""
    TrustedFolder(folder).exists()
    return folder


def init_rack(folder: Path, choices: Choices | None = None) -> tuple[Path, ...]:
    """Make ``folder`` a rack; returns the files and folders that were made.

    Raises ConfigurationError, and makes nothing, for impossible choices, or when ``folder`` has a
    rack.toml already.
    """
    require_no_rack(folder)
    text = initial_rack_toml(choices)
    try:
        parse_rack(folder, text)
    except ConfigurationError as error:
        # There is no such file, so nobody could look at its lines.
        raise ConfigurationError(
            f"no {RACK_FILE} was made of these choices: {error.what.rpartition(': ')[2]}",
            hint="choose again: picloud-image rack init --help says what can be chosen",
            details=[re.sub(r"\A[^:]+:(\d+:)? ", "", fault) for fault in error.details],
        ) from None
    TrustedFolder(folder).write(RACK_FILE, text.encode())
    return (folder / RACK_FILE, ensure_state(folder).path)


def require_no_rack(folder: Path) -> None:
    """Raise ConfigurationError when ``folder`` has a rack.toml."""
    if _has_rack(folder):
        raise ConfigurationError(
            f"{folder / RACK_FILE}: is there already",
            hint="edit it, or name another folder with --rack DIR",
        )


def ensure_state(folder: Path) -> TrustedFolder:
    """The rack's private folder, made when absent."""
    return TrustedFolder(folder).private()


def data_folder() -> Path:
    """What belongs to no rack is kept there: in the person's home, also with sudo. Where root has
    such a folder already, as from before that was so, sudo goes on with it: there are keys in it.
    """
    own = platformdirs.user_data_path("picloud-image")
    home = None if "XDG_DATA_HOME" in os.environ else home_behind_sudo()
    return own if home is None or own.exists() else home / ".local/share/picloud-image"


def _default_folder() -> Path:
    return data_folder() / "default-rack"


def _default_rack() -> Path:
    folder = _default_folder()
    # Two first runs at once make one rack: whoever is second finds the first one's file.
    with TrustedFolder(folder.parent).locked(f"{folder.name}.lock"):
        if not _has_rack(folder):
            init_rack(folder)
    return folder
