"""Where the files lie that come with this program: overlays/ and firstboot/, which go onto cards,
and docs/, for people.

In: nothing. Out: folders, and documents by their names. In a source checkout they lie beside the
package, where a person reads and edits them; in an installed wheel they lie in the package's
``data`` folder.
"""

from __future__ import annotations

from pathlib import Path

import imager
from imager.base.errors import ConfigurationError

ROLE = "role"


def trees_folder() -> Path:
    """The folder that holds ``overlays/``, ``firstboot/`` and ``docs/``. Raises
    ConfigurationError."""
    package = Path(imager.__file__).resolve().parent
    for folder in (package.parent, package / "data"):
        if (folder / "overlays" / "base" / "overlay.toml").is_file():
            return folder
    raise ConfigurationError(
        f"{package.parent / 'overlays'}: the built-in overlays are missing",
        hint="install picloud-image again, or run it from a complete checkout",
    )


def udev_rule() -> bytes:
    """The rule that lets who sits at a computer write its cards (docs/permissions.md)."""
    trees = trees_folder()
    folder = trees / "udev" if trees.name == "data" else trees / "packaging/udev"
    return (folder / "70-picloud-image.rules").read_bytes()


def documents() -> dict[str, str]:
    """The text of each document by its name (``salt`` for docs/salt.md), sorted."""
    found = {path.stem: path for path in (trees_folder() / "docs").glob("*.md")}
    return {name: path.read_text() for name, path in sorted(found.items())}


def roles_in(*overlays: Path) -> tuple[str, ...]:
    """The names of the roles that any of these overlays folders has."""
    found = (role.name for folder in overlays for role in (folder / ROLE).glob("*"))
    return tuple(sorted(set(found)))
