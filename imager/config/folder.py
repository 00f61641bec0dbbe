"""Which folder is the rack: the one that is named, the current one, or the default one.

In: the current folder. Out: a folder with a rack.toml. A rack is a folder of rack.toml,
rack.lock, overlays/ and .picloud/ (keys and receipts, private), so that backing up one folder
backs up the rack.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from imager.base.durable import locked, private_folder, write_atomically
from imager.base.errors import ConfigurationError
from imager.config.example import Choices, initial_rack_toml
from imager.config.load import parse_rack
from imager.config.rack import RACK_FILE, STATE, Rack


@dataclass(frozen=True, slots=True)
class RackFolder:
    """The rack's folder. ``is_default`` is true when nobody chose it; the person is then told
    which rack is used."""

    path: Path
    is_default: bool


def find_rack(start: Path, named: Path | None = None) -> RackFolder:
    """The rack ``named``, else the nearest folder from ``start`` upwards that has a rack.toml,
    else the default rack in the user's data directory, made when it is not there yet.

    Raises ConfigurationError when the folder ``named`` has no rack.toml.
    """
    if named is not None:
        folder = named.parent if named.name == RACK_FILE else named
        if not (folder / RACK_FILE).is_file():
            raise ConfigurationError(
                f"{folder / RACK_FILE}: no such file",
                hint=f"make one with picloud-image rack init --rack {folder}",
            )
        return RackFolder(folder.absolute(), is_default=False)
    near = _nearest(start)
    if near is not None:
        return RackFolder(near, is_default=False)
    return RackFolder(_default_rack(), is_default=True)


def rack_at_hand(start: Path, named: Path | None = None) -> Path | None:
    """As ``find_rack``, but it makes no rack: None when there is none at all. For commands that
    only look at cards."""
    if named is not None:
        return find_rack(start, named).path
    near, default = _nearest(start), _default_folder()
    return near or (default if (default / RACK_FILE).is_file() else None)


def default_rack_to_be() -> Rack:
    """The default rack as ``find_rack`` would make it, for whoever looks where there is none."""
    return parse_rack(_default_folder(), initial_rack_toml())


def _nearest(start: Path) -> Path | None:
    start = start.absolute()
    return next((f for f in (start, *start.parents) if (f / RACK_FILE).is_file()), None)


def init_rack(folder: Path, choices: Choices | None = None) -> tuple[Path, ...]:
    """Make ``folder`` a rack; returns the files and folders that were made.

    Raises ConfigurationError, and makes nothing, for impossible choices, or when ``folder`` has a
    rack.toml already.
    """
    require_no_rack(folder)
    text = initial_rack_toml(choices)
    parse_rack(folder, text)
    write_atomically(folder / RACK_FILE, text.encode())
    return (folder / RACK_FILE, ensure_state(folder))


def require_no_rack(folder: Path) -> None:
    """Raise ConfigurationError when ``folder`` has a rack.toml."""
    path = folder / RACK_FILE
    if path.exists() or path.is_symlink():
        raise ConfigurationError(
            f"{path}: is there already",
            hint="edit it, or name another folder with --rack DIR",
        )


def ensure_state(folder: Path) -> Path:
    """The rack's private folder ``.picloud``, made when absent: mode 0700, ignored by git."""
    state = private_folder(folder / STATE)
    ignore = state / ".gitignore"
    if not ignore.exists():
        write_atomically(ignore, b"# Private keys: back this folder up, never publish it.\n*\n")
    return state


def _default_folder() -> Path:
    return platformdirs.user_data_path("picloud-image") / "default-rack"


def _default_rack() -> Path:
    folder = _default_folder()
    # Two first runs at once make one rack: whoever is second finds the first one's file.
    with locked(folder.with_suffix(".lock")):
        if not (folder / RACK_FILE).is_file():
            init_rack(folder)
    return folder
