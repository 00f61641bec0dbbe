"""This very program as one archive, so that a station without the internet gets the head's own.

In: the modules from which it runs here. Out: a tar.gz of them, and of the modules of others that
they need, for a computer with the same Python and of the same kind. What a station has of its own
is not used, so head and station run the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from imager.base.errors import MissingTool
from imager.config.shipped_trees import trees_folder

_NEEDED = (
    *("click", "ClusterShell", "cryptography", "jinja2", "markupsafe", "platformdirs", "pyudev"),
    *("pysequoia", "requests", "certifi", "idna", "urllib3", "tqdm"),
)
_WHERE_THERE = ("_cffi_backend", "cffi", "pycparser", "charset_normalizer", "chardet")
"""Some versions of the needed ones need these, in parts that are compiled."""
_DATA = {
    "docs": "docs",
    "overlays": "overlays",
    "firstboot": "firstboot",
    "udev": "packaging/udev",
}
"""As a wheel has them, and where they are in a checkout."""
_LEFT_OUT = {"__pycache__", "tests", "test"}
LAUNCHER = """\
#!/usr/bin/env -S {python} -I
import sys

sys.path.insert(0, "{folder}")
from imager.cli.main import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class PackedProgram:
    """``data`` is the archive, ``python`` the name of the Python it needs, such as python3.13, and
    ``machine`` the kind of computer, such as x86_64."""

    data: bytes
    python: str
    machine: str

    @property
    def sha256(self) -> str:
        """Of the archive, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def launcher(self, folder: str) -> str:
        """A program that runs what was unpacked in ``folder``."""
        return LAUNCHER.format(python=self.python, folder=folder)


def pack_program() -> PackedProgram:
    """Pack what runs now. Raises MissingTool for a module that is not there."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(_members()):
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                archive.addfile(info, file)
    major, minor = sys.version_info[:2]
    data = gzip.compress(plain.getvalue(), 6, mtime=0)
    return PackedProgram(data, f"python{major}.{minor}", platform.machine())


def _members() -> Iterator[tuple[str, Path]]:
    """Name in the archive -> file."""
    imager, trees = _place("imager"), trees_folder()
    if imager is None:
        raise _missing("imager")
    yield from _below(imager, "imager")
    if trees != imager / "data":
        for name, there in _DATA.items():
            yield from _below(trees / there, f"imager/data/{name}")
    for name in (*_NEEDED, *_WHERE_THERE):
        place = _place(name)
        if place is not None and place.is_dir():
            yield from _below(place, name)
        elif place is not None:
            yield place.name, place
        elif name in _NEEDED:
            raise _missing(name)
    yield from _beside()
    # By this it knows its own version; a checkout that is not installed has none.
    for known in distributions(name="picloud-image"):
        folder = Path(str(known.locate_file(f"picloud_image-{known.version}.dist-info")))
        if (folder / "METADATA").is_file():
            yield f"{folder.name}/METADATA", folder / "METADATA"
            return


def _beside() -> Iterator[tuple[str, Path]]:
    """Compiled modules with a name of their own, that mypyc makes for others."""
    place = _place("charset_normalizer")
    if place is not None:
        for suffix in EXTENSION_SUFFIXES:
            for path in place.parent.glob(f"*__mypyc{suffix}"):
                yield path.name, path


def _place(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _below(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not _LEFT_OUT & set(parts):
            yield "/".join((name, *parts)), path


def _missing(name: str) -> MissingTool:
    return MissingTool(f"{name} is not a module of this Python", hint="install picloud-image again")
