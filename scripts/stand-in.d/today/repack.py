"""Debian's packages as pacman's: the database of what a release has, and packages for the rest.

In: a folder with ``root`` (a release, unpacked), ``base`` (the .deb files it is of), ``all`` (these
and those of packages beyond it), ``sources`` (the Python files of all, compiled) and ``InRelease``
(of the suite); SOURCE_DATE_EPOCH. Out: ``root/var/lib/pacman/local``; a package in ``armv7h/core``
or ``armv7h/extra`` for what is only in ``all``; ``manifest``, which names every .deb file that was
used.

Names, versions and dependencies are as Arch would have them, so pacman resolves them, and packages
bring their bytecode. No maintainer script is taken over. The same .deb files and the same root give
the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debs import Deb, archive, in_usr, members_of, names_in, read, version_of

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
ARCHITECTURE = "armv7h"
PACKAGER = "picloud stand-in <stand-in@example.invalid>"
IN_PART = "makepkg"
"""Of this one only some files are there, which need nothing."""
LEFT_OUT = re.compile(r"usr/share/(doc|info|lintian|locale|man)(/|\Z)")
"""What the release does without as well."""
_SONAME = re.compile(r"usr/lib/(?:arm-linux-gnueabihf/)?(lib[^/]+\.so)\.(\d+)")
_SIGNS = {">>": ">", "<<": "<"}
_EXTRA = ("python-", "docker", "containerd", "runc")
_ALTERNATIVES = {
    "usr/sbin/xtables-nft-multi": tuple(
        f"usr/sbin/{tool}{what}"
        for tool in ("iptables", "ip6tables")
        for what in ("", "-save", "-restore")
    )
}
"""Links that a maintainer script makes and that Arch's package has, by what they lead to."""
_FIRMWARE = (".bin", ".dat", ".elf")
_WORDS = {
    "NAME": "pkgname",
    "BASE": "pkgbase",
    "XDATA": "xdata",
    "VERSION": "pkgver",
    "DESC": "pkgdesc",
    "URL": "url",
    "BUILDDATE": "builddate",
    "PACKAGER": "packager",
    "SIZE": "size",
    "ARCH": "arch",
    "PROVIDES": "provides",
    "BACKUP": "backup",
    "DEPENDS": "depend",
}
"""What .PKGINFO calls that which pacman's database has by the other name."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package in Arch's terms, made of one or more of Debian's."""

    name: str
    debs: tuple[Deb, ...]
    depends: tuple[str, ...]

    @property
    def version(self) -> str:
        """Of several sources the newest."""
        versions = [version_of(deb.version) for deb in self.debs]
        newest: tuple[str, str] = max(versions, key=_numbers)
        return "-".join(newest)

    @property
    def arch(self) -> str:
        only_text = all(deb.control["Architecture"] == "all" for deb in self.debs)
        return "any" if only_text else ARCHITECTURE

    @property
    def conffiles(self) -> frozenset[str]:
        return frozenset().union(*(deb.conffiles for deb in self.debs))

    def facts(self, size: int, files: Sequence[str]) -> dict[str, list[str]]:
        """What both pacman's database and a package say, by the keys of the database."""
        sonames = {f"{it[1]}={it[2]}-32" for name in files if (it := _SONAME.fullmatch(name))}
        control = self.debs[0].control
        return {
            "NAME": [self.name],
            "VERSION": [self.version],
            "BASE": [self.name],
            "DESC": [control["Description"]],
            "URL": [control.get("Homepage", "https://www.debian.org")],
            "ARCH": [self.arch],
            "BUILDDATE": [str(EPOCH)],
            "PACKAGER": [PACKAGER],
            "SIZE": [str(size)],
            "DEPENDS": list(self.depends),
            "PROVIDES": sorted(sonames),
            "XDATA": ["pkgtype=pkg"],
        }


def packages_of(debs: Sequence[Deb], name_of: Callable[[Deb], str]) -> list[Package]:
    """The packages that ``debs`` make, whose dependencies are each met by one of them."""
    groups: dict[str, list[Deb]] = {}
    for deb in debs:
        groups.setdefault(name_of(deb), []).append(deb)
    owners = {deb.name: name_of(deb) for deb in debs}
    virtual = {
        relation[0][0]: name_of(deb) for deb in debs for relation in deb.relations("Provides")
    }
    return [
        Package(name, tuple(group), _depends(name, group, owners, virtual))
        for name, group in sorted(groups.items())
    ]


def _depends(
    own: str, group: Sequence[Deb], owners: Mapping[str, str], virtual: Mapping[str, str]
) -> tuple[str, ...]:
    found: dict[str, set[str]] = {}
    for deb in (deb for deb in group if deb.name != IN_PART):
        for alternatives in deb.relations("Pre-Depends", "Depends"):
            for name, sign, version in alternatives:
                if name in owners:
                    bound = _SIGNS.get(sign, sign) + version_of(version)[0]
                    found.setdefault(owners[name], set()).update({bound} - {""})
                elif name in virtual:
                    found.setdefault(virtual[name], set())
                else:
                    continue
                break
            else:
                raise SystemExit(f"{deb.name} depends on {alternatives}, which is not here")
    found.pop(own, None)
    return tuple(
        name + bound for name, bounds in sorted(found.items()) for bound in sorted(bounds) or [""]
    )


def write_database(root: Path, packages: Sequence[Package]) -> None:
    """``var/lib/pacman/local`` of a release that ``packages`` were unpacked into."""
    local = root / "var/lib/pacman/local"
    local.mkdir(parents=True)
    (local / "ALPM_DB_VERSION").write_text("9\n")
    os.utime(local.parent, (EPOCH, EPOCH))  # pacman's own package lists this folder
    boot = {os.fspath(path.relative_to(root)) for path in (root / "boot").rglob("*")}
    for package in packages:
        names = {name for deb in package.debs for name in members_of(deb)}
        if package.name == "raspberrypi-bootloader":
            names |= {name for name in boot if name.endswith(_FIRMWARE)}
        if package.name == "linux-rpi":  # the initramfs is nobody's: a hook makes it
            names |= {it for it in boot if not it.endswith((*_FIRMWARE, "initramfs-linux.img"))}
        files = sorted(name for name in names if os.path.lexists(root / name))
        _write_entry(root, local / f"{package.name}-{package.version}", package, files)


def _write_entry(root: Path, folder: Path, package: Package, files: Sequence[str]) -> None:
    regular = [name for name in files if (root / name).is_file() and not (root / name).is_symlink()]
    facts = package.facts(sum((root / name).stat().st_size for name in regular), files)
    facts |= {"INSTALLDATE": [str(EPOCH)], "VALIDATION": ["pgp"]}
    backup = [f"{it}\t{_md5(root / it)}" for it in regular if it in package.conffiles]
    slashed = [f"{it}/" if _is_folder(root / it) else it for it in files]
    mtree = subprocess.run(
        [*_MTREE, "--no-recursion", "--directory", root, "--null", "--files-from", "-"],
        input="\0".join(files).encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    folder.mkdir()
    (folder / "desc").write_text(_sections(facts))
    (folder / "files").write_text(_sections({"FILES": slashed, "BACKUP": backup}))
    (folder / "mtree").write_bytes(gzip.compress(mtree, mtime=0))


def write_package(package: Package, sources: Path, folder: Path) -> None:
    """``package`` as a file that ``pacman -U`` takes, with the bytecode that ``sources`` has."""
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for deb in package.debs:
        with archive("--fsys-tarfile", deb.path) as tar:
            for info in tar:
                info.name = in_usr(info.name.removeprefix("./").rstrip("/"))
                if info.name not in ("", ".") and not LEFT_OUT.match(info.name):
                    file = tar.extractfile(info) if info.isreg() else None
                    members[info.name] = (info, file.read() if file else b"")
    for name in sorted(members):
        source = sources / name
        for compiled in source.parent.glob(f"__pycache__/{source.stem}.*.pyc"):
            made = compiled.relative_to(sources).as_posix()
            members[made] = _file(made, compiled.read_bytes())
        for link in _ALTERNATIVES.get(name, ()):
            members[link] = (_link(link, source.name), b"")
    facts = package.facts(sum(len(data) for _, data in members.values()), sorted(members))
    facts["BACKUP"] = sorted(package.conffiles & members.keys())
    members[".PKGINFO"] = _file(".PKGINFO", _pkginfo(facts))
    members[".BUILDINFO"] = _file(".BUILDINFO", _buildinfo(package))
    listed = subprocess.run(
        [*_MTREE, "@-"], input=_packed(members), stdout=subprocess.PIPE, check=True
    ).stdout
    members[".MTREE"] = _file(".MTREE", gzip.compress(listed, mtime=0))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package.name}-{package.version}-{package.arch}.pkg.tar.xz"
    path.write_bytes(lzma.compress(_packed(members), preset=1))


_MTREE = (
    *("bsdtar", "--create", "--file", "-", "--format", "mtree"),
    *("--options", "!all,use-set,type,uid,gid,mode,time,size,md5,sha256,link"),
)
"""MD5 is for pacman before 6.1, which takes a file without one for altered."""


def _pkginfo(facts: Mapping[str, list[str]]) -> bytes:
    lines: list[str] = []
    for key, word in _WORDS.items():
        lines += [f"{word} = {value}\n" for value in facts[key]]
    return "".join(lines).encode()


def _buildinfo(package: Package) -> bytes:
    lines = ["format = 2", f"pkgname = {package.name}", f"pkgbase = {package.name}"]
    lines += [f"pkgver = {package.version}", f"pkgarch = {package.arch}"]
    lines += [f"packager = {PACKAGER}", f"builddate = {EPOCH}"]
    lines += [f"installed = {deb.name}-{deb.control['Version']}" for deb in package.debs]
    return ("\n".join(lines) + "\n").encode()


def _packed(members: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for _, (info, data) in sorted(members.items()):
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _file(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), EPOCH
    return info, data


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, EPOCH
    return info


def _sections(facts: Mapping[str, Sequence[str]]) -> str:
    filled = ((key, values) for key, values in facts.items() if values)
    return "".join(f"%{key}%\n" + "\n".join(values) + "\n\n" for key, values in filled)


def _numbers(version: tuple[str, str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version[0])]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def main(work: Path) -> None:
    """Write all that the module's docstring names into ``work``."""
    base = {path.name for path in (work / "base").iterdir()}
    debs = [read(path) for path in sorted((work / "all").iterdir())]
    name_of = names_in((Path(__file__).parent / "names").read_text())
    packages = packages_of(debs, name_of)
    in_base = {name_of(deb) for deb in debs if deb.path.name in base}
    write_database(work / "root", [package for package in packages if package.name in in_base])
    suite = re.findall(r"^(?:Codename|Date): .*", (work / "InRelease").read_text(), re.MULTILINE)
    manifest = [f"# {' '.join(suite)}"]
    for package in packages:
        repository = "extra" if package.name.startswith(_EXTRA) else "core"
        if package.name in in_base:
            repository = "base"
            if strange := [deb.name for deb in package.debs if deb.path.name not in base]:
                raise SystemExit(f"the base has {package.name} without {strange}: name them apart")
        else:
            write_package(package, work / "sources", work / ARCHITECTURE / repository)
        made_of = (f"{deb.name}={deb.control['Version']}" for deb in package.debs)
        manifest.append(" ".join([repository, package.name, package.version, *made_of]))
    (work / "manifest").write_text("\n".join(manifest) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
