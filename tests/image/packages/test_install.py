"""A set of packages put into a release: what replaces what, what is refused, what is left to do."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, MalformedRelease, NotAuthentic
from imager.base.progress import Quiet
from imager.image.compose.staging import Staged, stage
from imager.packages.verified import PackageSet
from tests.support.makepkg import set_of, verified
from tests.support.pacman import package, with_pacman
from tests.support.release import CAPABILITY, ReleaseTree, build_release, plain_tree

LOCAL = "var/lib/pacman/local"
NAME = "stand-in-rpi-armv7"


def staged(
    folder: Path,
    packages: PackageSet,
    tree: ReleaseTree | None = None,
) -> Staged:
    release = build_release(folder, tree or with_pacman(plain_tree()))
    (folder / "staged").mkdir()
    return stage(release, folder / "staged", Quiet(), None, packages)


def owning(tree: ReleaseTree, name: str, version: str, **files: str) -> ReleaseTree:
    """``tree`` with an installed package that owns these files; ``__`` is a slash, one at the end
    means a folder."""
    paths = {path.replace("__", "/"): text for path, text in files.items()}
    folders = {
        f"{'/'.join(parts[:depth])}/"
        for parts in (path.split("/") for path in paths)
        for depth in range(1, len(parts))
    }
    for path, text in paths.items():
        if not path.endswith("/"):
            tree.file(f"./{path}", text)
    listed = "".join(f"{path}\n" for path in sorted(folders | set(paths)))
    place = f"./{LOCAL}/{name}-{version}"
    tree.file(f"{place}/desc", f"%NAME%\n{name}\n\n%VERSION%\n{version}\n\n%ARCH%\narmv7h\n\n")
    tree.file(f"{place}/files", f"%FILES%\n{listed}\n")
    return tree


def faults(folder: Path, packages: PackageSet, tree: ReleaseTree | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as told:
        staged(folder, packages, tree)
    assert told.value.what == f"the packages do not go together with {NAME}"
    return told.value.details


# --- files of another


def test_every_file_that_another_has_is_named_with_both(tmp_path: Path) -> None:
    one = package(tmp_path, "one", "1-1", {"usr/bin/one": "1", "usr/bin/both": "1"})
    two = package(
        tmp_path, "two", "2-1", {"usr/bin/both": "2", "usr/bin/init": "2", "usr/bin/zlib": "2"}
    )
    tree = owning(with_pacman(plain_tree()), "zlib", "1.3-1", usr__bin__zlib="z")
    assert faults(tmp_path, set_of(one, two), tree) == (
        "two 2-1 brings /usr/bin/both, which one 1-1 has",
        f"two 2-1 brings /usr/bin/init, which {NAME} has",
        "two 2-1 brings /usr/bin/zlib, which zlib 1.3-1 has",
    )


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    one = package(tmp_path, "one", "1-1", {"usr/bin": "1"})
    assert faults(tmp_path, set_of(one)) == (f"one 1-1 brings /usr/bin, which {NAME} has",)


def test_a_file_that_moves_to_another_package_goes_with_it(tmp_path: Path) -> None:
    """As when gcc-libs was split: the new owner may come first or last."""
    new = package(tmp_path, "libgcc", "2-1", {"usr/lib/libgcc.so": "new"})
    rest = package(tmp_path, "gcc-libs", "2-1", {"usr/lib/rest.so": "new"}, depend="libgcc")
    for number, order in enumerate(([new, rest], [rest, new])):
        folder = tmp_path / str(number)
        folder.mkdir()
        tree = owning(
            with_pacman(plain_tree()), "gcc-libs", "1-1", **{"usr__lib__libgcc.so": "old"}
        )
        found = staged(folder, set_of(*order), tree)
        assert (found.root_folder / "usr/lib/libgcc.so").read_text() == "new"
        assert (found.root_folder / "usr/lib/rest.so").read_text() == "new"
        assert f"{LOCAL}/gcc-libs-1-1/desc" not in found.root.entries


def test_a_folder_takes_the_place_of_the_packages_own_file(tmp_path: Path) -> None:
    tree = owning(with_pacman(plain_tree()), "app", "1-1", usr__app="file")
    new = package(tmp_path, "app", "2-1", {"usr/app/": "", "usr/app/file": "f"})
    found = staged(tmp_path, set_of(new), tree)
    assert (found.root_folder / "usr/app/file").read_text() == "f"


@pytest.mark.parametrize(
    ("reason", "asked_for", "is_dependency"),
    [("1", False, True), ("1", True, False), ("0", False, False), ("0", True, False)],
)
def test_an_upgrade_leaves_why_a_package_is_there_unless_it_is_asked_for(
    tmp_path: Path, reason: str, asked_for: bool, is_dependency: bool
) -> None:
    tree = owning(with_pacman(plain_tree()), "app", "1-1", usr__app="file")
    desc = next(data for info, data in tree.members if info.name == f"./{LOCAL}/app-1-1/desc")
    tree.file(f"./{LOCAL}/app-1-1/desc", desc + f"%REASON%\n{reason}\n\n".encode())
    new = package(tmp_path, "app", "2-1", {"usr/app": "f"})
    found = staged(tmp_path, set_of(new, explicit=("app",) if asked_for else ()), tree)
    text = (found.root_folder / LOCAL / "app-2-1/desc").read_text()
    assert ("%REASON%\n1\n" in text) == is_dependency


# --- taking out


def test_a_package_taken_out_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    tree = with_pacman(plain_tree())
    nano = {"usr__share__both__a": "n"}
    nano |= {"usr__bin__nano": "n", "usr__share__nano__a": "n", "usr__share__vi__b": "n"}
    owning(tree, "nano", "1-1", **nano)
    owning(tree, "vi", "1-1", usr__share__vi__c="v", usr__share__both__="")
    tree.file("./usr/share/vi/unowned", "u")
    found = staged(tmp_path, set_of(remove=("nano",)), tree)
    gone = ("usr/bin/nano", "usr/share/nano", "usr/share/nano/a", "usr/share/vi/b")
    assert not [path for path in gone if path in found.root.entries]
    assert not (found.root_folder / "usr/share/nano").exists()
    kept = {"usr/bin", "usr/share/vi/c", "usr/share/vi/unowned", "usr/share/both"}
    assert kept <= found.root.entries.keys()
    assert not [path for path in found.root.entries if path.startswith(f"{LOCAL}/nano")]


@pytest.mark.parametrize("said", ["1-2", "1-1/../../../../../../../../etc/apt", "1-1/sub"])
def test_a_database_that_speaks_of_another_place_is_not_believed(tmp_path: Path, said: str) -> None:
    tree = owning(with_pacman(plain_tree()), "foo", "1-1", usr__bin__foo="f")
    place = f"./{LOCAL}/foo-1-1"
    tree.file(f"{place}/desc", f"%NAME%\nfoo\n\n%VERSION%\n{said}\n\n%ARCH%\narmv7h\n\n")
    tree.symlink(f"./{LOCAL}/foo-1-2", "/etc")
    told = faults(tmp_path, set_of(remove=("foo",)), tree)
    assert told == (f"foo cannot be taken out, as {NAME} has none",)


def test_a_folder_in_an_entry_of_the_database_goes_with_it(tmp_path: Path) -> None:
    tree = owning(with_pacman(plain_tree()), "foo", "1-1", usr__bin__foo="f")
    tree.file(f"./{LOCAL}/foo-1-1/sub/file", "")
    found = staged(tmp_path, set_of(remove=("foo",)), tree)
    assert not [path for path in found.root.entries if path.startswith(f"{LOCAL}/foo")]


def test_what_is_needed_is_not_taken_out(tmp_path: Path) -> None:
    tree = owning(with_pacman(plain_tree()), "libx", "1-1", usr__lib__x="x")
    app = package(tmp_path, "app", "1-1", {"usr/bin/app": ""}, depend=["libx>=1", "nothing"])
    packages = set_of(app, remove=("libx", "absent"))
    assert faults(tmp_path, packages, tree) == (
        f"absent cannot be taken out, as {NAME} has none",
        "app 1-1 needs libx, which is not there",
        "app 1-1 needs nothing, which is not there",
    )


def test_a_kernel_is_replaced_by_another(tmp_path: Path) -> None:
    """Also on the boot partition; and what it needs at first boot is left to do."""
    tree = with_pacman(plain_tree())
    tree.file("./usr/bin/mkinitcpio", "")
    name = "lib/modules/6.18.1-rpi/kernel.ko"
    owning(tree, "linux-rpi", "6.18.1-1", **{"boot__old.dtb": "o", f"usr__{name}": "k"})
    files = {"boot/new.dtb": "n", "usr/lib/modules/6.18.2-16k/kernel.ko": "k"}
    kernel = package(tmp_path, "linux-rpi-16k", "6.18.2-1", files)
    found = staged(tmp_path, set_of(kernel, remove=("linux-rpi",)), tree)
    assert "old.dtb" not in found.boot.entries
    assert not (found.boot_folder / "old.dtb").exists()
    assert (found.boot_folder / "new.dtb").read_text() == "n"
    assert [path for path in found.root.entries if path.startswith("usr/lib/modules/")] == [
        "usr/lib/modules/6.18.2-16k",
        "usr/lib/modules/6.18.2-16k/kernel.ko",
    ]
    assert found.first_boot == ("modules 6.18.2-16k", "initramfs")


# --- units


def test_units_are_enabled(tmp_path: Path) -> None:
    unit = "[Install]\nWantedBy=multi-user.target\nAlso=svc.socket\n"
    files = {
        "usr/lib/systemd/system/svc.service": unit,
        "usr/lib/systemd/system/svc.socket": "[Install]\nWantedBy=sockets.target\n",
        "usr/lib/systemd/system/alias.service": "->svc.service",
    }
    svc = package(tmp_path, "svc", "1-1", files)
    found = staged(tmp_path, replace(set_of(svc), enable=("alias.service",)))
    links = {
        path: entry.target
        for path, entry in found.root.entries.items()
        if path.startswith("etc/systemd/system/") and entry.target
    }
    assert links == {
        "etc/systemd/system/multi-user.target.wants/svc.service": (
            "/usr/lib/systemd/system/svc.service"
        ),
        "etc/systemd/system/sockets.target.wants/svc.socket": "/usr/lib/systemd/system/svc.socket",
    }


def test_a_unit_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no docker\.service in stand-in-rpi-armv7") as no:
        staged(tmp_path, replace(set_of(), enable=("sshd.service", "docker.service")))
    assert "overlay.toml" in no.value.hint


# --- what a package may be


def repacked(path: Path, pack: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(pack(lzma.decompress(path.read_bytes())))
    return path


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, zstd, lzma.compress])
def test_every_packing_is_read_and_a_cut_is_noticed(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    whole = repacked(package(tmp_path, "one", "1-1", {"usr/one": "1\n" * 90_000}), pack)
    found = staged(tmp_path, set_of(whole))
    assert (found.root_folder / "usr/one").read_text() == "1\n" * 90_000
    cut = tmp_path / "cut"
    cut.mkdir()
    shorter = cut / whole.name
    shorter.write_bytes(whole.read_bytes()[:-30] if pack is not bytes else b"")
    with pytest.raises(MalformedRelease, match=r"package one-1-1-any\.pkg\.tar\.xz cannot go on a"):
        staged(cut, set_of(shorter))


@pytest.mark.parametrize("pack", [zstd, lzma.compress])
def test_one_that_is_refused_at_its_beginning_is_not_waited_for(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """It was proven, so all of it is hashed: a file that was damaged is told from one made so. The
    next one, which is being unpacked already, is given up as well."""
    files = {"../out": "x", "usr/large": "0123456789" * 9_000_000}
    bad = repacked(package(tmp_path, "one", "1-1", files), pack)
    before = {*threading.enumerate()}
    with pytest.raises(MalformedRelease, match=r"climbs out with \.\."):
        staged(tmp_path, PackageSet((verified(bad), verified(bad))))
    assert not {*threading.enumerate()} - before


def test_one_that_was_altered_in_the_archive_is_not_authentic(tmp_path: Path) -> None:
    path = package(tmp_path, "one", "1-1", {"usr/one": "1"})
    packages = set_of(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotAuthentic, match="SHA-256"):
        staged(tmp_path, packages)


@pytest.mark.parametrize(
    ("files", "info", "why"),
    [
        ({"../etc/passwd": "x"}, {}, r"climbs out with \.\."),
        ({"lib/x": "x"}, {}, "leads through 'lib', a symbolic link"),
        ({}, {"pkgname": "two"}, "it calls itself 'two 1-1'"),
        ({}, {"pkgver": "1-1/../../x"}, "it calls itself 'one 1-1/../../x'"),
        ({}, {"pkgver": ""}, "it does not tell its pkgver"),
    ],
)
def test_one_that_cannot_go_on_a_card(
    tmp_path: Path, files: dict[str, str], info: dict[str, str], why: str
) -> None:
    path = package(tmp_path, "one", "1-1", {"usr/one": "1"} | files, **info)
    lying = replace(verified(path), version=info.get("pkgver", "1-1"))
    with pytest.raises(MalformedRelease, match=why):
        staged(tmp_path, PackageSet((lying,)))


def test_capabilities_and_owners_arrive(tmp_path: Path) -> None:
    path = tmp_path / "ping-1-1-any.pkg.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        said = b"pkgname = ping\npkgver = 1-1\narch = any\n"
        about = tarfile.TarInfo(".PKGINFO")
        about.size = len(said)
        archive.addfile(about, BytesIO(said))
        ping = tarfile.TarInfo("ping")
        ping.uid, ping.gid, ping.mode = 70_000, 7, 0o2755
        text = CAPABILITY.decode("latin-1")
        ping.pax_headers = {"SCHILY.xattr.security.capability": text}
        archive.addfile(ping)
    path = path.rename(path.with_suffix(".tar.xz"))
    found = staged(tmp_path, set_of(path)).root.entries["ping"]
    assert (found.uid, found.gid, found.mode) == (70_000, 7, 0o2755)
    assert found.xattrs == (("security.capability", CAPABILITY),)


def test_a_release_without_pacman_gets_none(tmp_path: Path) -> None:
    one = package(tmp_path, "one", "1-1", {"usr/one": "1"})
    with pytest.raises(ConfigurationError, match="has no pacman that knows its packages"):
        staged(tmp_path, set_of(one), plain_tree())
