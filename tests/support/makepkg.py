"""Packages that makepkg itself builds, kept in ``build/packages``: they have what only real ones
have, as an .MTREE and owners by number.

In: a recipe, as a PKGBUILD has it. Out: the package's file. makepkg refuses to run as root, so root
builds as somebody else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from imager.base.run import search_path
from imager.packages.verified import PackageSet, VerifiedPacman

ROOT = Path(__file__).resolve().parents[2]
_SOMEBODY = 65534
_BUILT_AT = "1760000000"
_CONF = """\
CARCH=armv7h
CHOST=armv7l-unknown-linux-gnueabihf
PKGEXT=.pkg.tar.xz
SRCEXT=.src.tar.gz
COMPRESSXZ=(xz -c -z -0 -)
OPTIONS=(!strip docs libtool staticlibs emptydirs !zipman !purge !debug !lto)
INTEGRITY_CHECK=(sha256)
DBGSRCDIR=/usr/src/debug
PACKAGER="stand-in <nobody@localhost>"
BUILDENV=(!distcc color !ccache !check !sign)
"""


@dataclass(frozen=True)
class Recipe:
    """A PKGBUILD: ``lines`` stand at its top, ``commands`` put files into the folder they run in,
    ``scriptlet`` is the text of its .install file."""

    name: str
    version: str
    commands: str
    lines: str = ""
    scriptlet: str = ""
    arch: str = "armv7h"
    file_name: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "file_name", f"{self.name}-{self.version}-1-{self.arch}.pkg.tar.xz"
        )

    @property
    def pkgbuild(self) -> str:
        install = f"install={self.name}.install\n" if self.scriptlet else ""
        return (
            f"pkgname={self.name}\npkgver={self.version}\npkgrel=1\narch=({self.arch})\n"
            f"license=(MIT)\n{install}{self.lines}\npackage() {{\ncd $pkgdir\n{self.commands}\n}}\n"
        )


def built(recipe: Recipe) -> Path:
    """The package of ``recipe``; building it takes some two seconds where it never was."""
    made_from = f"{_CONF}{recipe.pkgbuild}{recipe.scriptlet}"
    folder = ROOT / "build/packages" / hashlib.sha256(made_from.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / recipe.file_name
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _build(recipe, path)
    return path


def _build(recipe: Recipe, path: Path) -> None:
    with TemporaryDirectory() as name:
        work = Path(name)
        (work / "PKGBUILD").write_text(recipe.pkgbuild)
        (work / "makepkg.conf").write_text(_CONF)
        if recipe.scriptlet:
            (work / f"{recipe.name}.install").write_text(recipe.scriptlet)
        other: tuple[str, ...] = ()
        if os.geteuid() == 0:
            other = ("setpriv", f"--reuid={_SOMEBODY}", f"--regid={_SOMEBODY}", "--clear-groups")
            for file in (work, *work.iterdir()):
                os.chown(file, _SOMEBODY, _SOMEBODY)
        done = subprocess.run(
            [*other, "makepkg", "--config", work / "makepkg.conf", "-d", "--nocheck"],
            cwd=work,
            env={
                "PATH": search_path(),
                "HOME": name,
                "LC_ALL": "C.UTF-8",
                "SOURCE_DATE_EPOCH": _BUILT_AT,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shutil.copy(work / recipe.file_name, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)


def verified(path: Path) -> VerifiedPacman:
    """The package ``path`` as if its signature had been checked."""
    name, version, release, arch = path.name.removesuffix(".pkg.tar.xz").rsplit("-", 3)
    data = path.read_bytes()
    return VerifiedPacman(
        name=name,
        version=f"{version}-{release}",
        arch=arch,
        file_name=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        signer="0" * 40,
        path=path,
        signature=path.with_name(f"{path.name}.sig"),
    )


def set_of(
    *paths: Path, remove: tuple[str, ...] = (), explicit: tuple[str, ...] = ()
) -> PackageSet:
    """A PackageSet that installs the packages ``paths`` in this order."""
    install = tuple(verified(path) for path in paths)
    return PackageSet(install, remove, frozenset(explicit))
