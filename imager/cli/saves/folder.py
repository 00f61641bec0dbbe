"""The folder with the saved cards of a rack, judged: it holds the keys of all nodes.

In: a path that a person gave. Out: a TrustedFolder. Where it lies in the rack, nothing on the way
from the rack to it may be a link, either.
"""

from __future__ import annotations

from pathlib import Path

from imager.base.errors import UsageError
from imager.base.trusted_folder import TrustedFolder
from imager.config.rack import Rack


def folder_of_saves(rack: Rack, named: Path) -> TrustedFolder:
    """The folder, whether or not it is there."""
    path = Path.cwd() / named
    if ".." not in path.parts and path.is_relative_to(rack.folder):
        return TrustedFolder(rack.folder, path.relative_to(rack.folder).parts)
    return TrustedFolder(path)


def require_there(folder: TrustedFolder) -> None:
    """Raise UsageError for a folder that is not there."""
    if not folder.exists():
        raise UsageError(
            f"there is no folder {folder}",
            hint="name the one that cards were saved to",
        )
