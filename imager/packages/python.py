"""Which Python a node gets, as far as its packages tell, and whether its Salt works there.

In: a release's packages, and those of a set. Out: nothing, or the reason against it, before a
package is fetched. Of a release without pacman nothing is known until its files are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from imager.base.errors import ConfigurationError
from imager.packages.resolve.base_system import BaseSystem
from imager.release.salt.version import python_too_new

_PYTHON, _SALT = "python", "salt"
_VERSION = re.compile(r"(?:\d+:)?3\.(\d+)[.\w]*-")
_ENTRY = re.compile(rf"{_PYTHON}-((?:\d+:)?3\.[^-]+-[^-]+)")


def require_python(salt: str | None, base: BaseSystem, versions: Mapping[str, str]) -> None:
    """Raise ConfigurationError when Salt ``salt`` never works on the Python that nodes get:
    ``versions`` are those of their packages beyond ``base``, by name. Where one of the packages is
    Salt, that one runs on the nodes, and the distribution has seen to it."""
    if _SALT in versions or any(entry.startswith(f"{_SALT}-3") for entry in base.local):
        return
    own = (found[1] for entry in base.local if (found := _ENTRY.fullmatch(entry)))
    version = versions.get(_PYTHON) or next(own, "")
    found = _VERSION.match(version)
    if salt and found:
        refuse_python(salt, int(found[1]), f"the nodes get python {version}")


def refuse_python(salt: str, minor: int, whose: str) -> None:
    """Raise ConfigurationError when Salt ``salt`` never works on Python 3.``minor``; ``whose`` is a
    clause that says where that is."""
    fault = python_too_new(salt, minor)
    if fault:
        raise ConfigurationError(
            f"{fault}; {whose}",
            hint="choose a newer series as version under [salt] in rack.toml, such as 3008.3,"
            " which was seen to work there (picloud-image docs salt)",
        )
