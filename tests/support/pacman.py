"""Packages as makepkg makes them, and a release whose pacman they could be installed by."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from tests.support.pypi import PYTHON_FILES
from tests.support.release import ReleaseTree, everyday_tree


def package(
    folder: Path, name: str, version: str, files: Mapping[str, str], **info: str | list[str]
) -> Path:
    """The package NAME-VERSION-ARCH.pkg.tar.xz in ``folder``; a file whose text begins with ``->``
    is a symbolic link, a name with a slash at its end a folder, ``info`` are more lines of
    .PKGINFO."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"pkgname": name, "pkgver": version, "arch": "any", "size": "1"} | info
    path = folder / f"{name}-{version}-{facts['arch']}.pkg.tar.xz"
    lines = [
        f"{key} = {value}\n"
        for key, values in facts.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    with tarfile.open(path, "w:xz") as tar:
        for member, text in {".PKGINFO": "".join(lines), **files}.items():
            about = tarfile.TarInfo(member)
            about.mode = 0o644
            if member.endswith("/"):
                about.type, about.mode = tarfile.DIRTYPE, 0o755
            if text.startswith("->"):
                about.type, about.linkname = tarfile.SYMTYPE, text.removeprefix("->")
            about.size = 0 if about.issym() else len(text.encode())
            tar.addfile(about, BytesIO(text.encode()))
    return path


def description(name: str, version: str, arch: str = "any", provides: tuple[str, ...] = ()) -> str:
    """``var/lib/pacman/local/NAME-VERSION/desc`` of an installed package."""
    facts = {"NAME": [name], "VERSION": [version], "ARCH": [arch], "PROVIDES": list(provides)}
    return "".join(f"%{key}%\n" + "\n".join(values) + "\n\n" for key, values in facts.items())


def arch_tree(**installed: str) -> ReleaseTree:
    """The small release as Arch's is: with pacman, its database, and no Python."""
    return with_pacman(everyday_tree(), **installed)


def with_pacman(tree: ReleaseTree, **installed: str) -> ReleaseTree:
    """``tree`` with pacman and its database."""
    tree.file("./usr/bin/pacman", b"\x7fELF", 0o755)
    tree.file("./usr/lib/libcrypto.so.3", b"\x7fELF")
    tree.file("./var/lib/pacman/local/ALPM_DB_VERSION", "9\n")
    for name, version in ({"glibc": "2.40-1"} | installed).items():
        text = description(name, version, "armv7h")
        tree.file(f"./var/lib/pacman/local/{name}-{version}/desc", text)
        tree.file(f"./var/lib/pacman/local/{name}-{version}/files", "%FILES%\nusr/\n\n")
    return tree


def python_package(folder: Path, **info: str | list[str]) -> Path:
    """One package with all that Salt imports, for a release that has no Python."""
    files = {"usr/bin/python3": "->python3.11", "usr/bin/python3.11": "\x7fELF"}
    names = (name.replace("python3/dist", "python3.11/site") for name in PYTHON_FILES)
    files |= {f"usr/lib/{name}": "#" for name in names if "libcrypto" not in name}
    return package(
        folder, "python", "3.11.9-1", files, **{"arch": "armv7h", "depend": "glibc"} | info
    )
