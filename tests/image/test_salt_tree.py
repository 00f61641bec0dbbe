"""Salt in the golden image: what of it is there, and what keeps it out."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, HostStorage, MalformedRelease, NotAuthentic
from imager.base.progress import Quiet
from imager.disk.ext4.filesystem import Ext4
from imager.image.compose.cache import golden_key
from imager.image.compose.compose import cached_golden, compose
from imager.image.compose.golden import GoldenImage
from imager.image.salt import tree as salt_tree
from imager.image.salt.bytecode import interpreter
from imager.packages.rack_folder import bundle_in
from imager.release.verified import VerifiedRelease, VerifiedSalt
from tests.support.fetching import Heard
from tests.support.pacman import arch_tree, package, python_package
from tests.support.pypi import (
    VERSION,
    source_release,
    tree_with_python,
    verified_salt,
    wheel,
)
from tests.support.release import ReleaseTree, build_release, everyday_tree

pytestmark = pytest.mark.image

SALT = "/opt/picloud/salt"
UNITS = "/usr/local/lib/systemd/system"


def root_of(golden: GoldenImage) -> Ext4:
    descriptor = os.open(golden.path, os.O_RDONLY)
    return Ext4.open(
        lambda offset, length: os.pread(descriptor, length, offset), golden.layout.root.offset
    )


def text(root: Ext4, path: str) -> str:
    inode = root.lookup(path)
    assert inode is not None, path
    return root.content(inode).decode()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    return build_release(tmp_path_factory.mktemp("release"), tree_with_python())


@pytest.fixture(scope="module")
def salt(tmp_path_factory: pytest.TempPathFactory) -> VerifiedSalt:
    return verified_salt(tmp_path_factory.mktemp("salt"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def golden(release: VerifiedRelease, salt: VerifiedSalt, cache: Cache) -> GoldenImage:
    return compose(release, cache, Quiet(), salt)


@pytest.fixture(scope="module")
def root(golden: GoldenImage) -> Ext4:
    return root_of(golden)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (SALT, 0o040755),
        (f"{SALT}/salt/scripts.py", 0o100644),
        (f"{SALT}/salt/cloud/deploy/bootstrap.sh", 0o100755),
        (f"{SALT}/looseversion/__init__.py", 0o100644),
        (f"{SALT}/bin/salt-minion", 0o100755),
        (f"{SALT}/salt-{VERSION}.dist-info/licenses/LICENSE", 0o100644),
        (f"{UNITS}/salt-master.service", 0o100644),
    ],
)
def test_everything_is_roots_and_readable(root: Ext4, path: str, mode: int) -> None:
    inode = root.lookup(path)
    assert inode is not None
    assert (inode.mode, inode.uid, inode.gid) == (mode, 0, 0)


def test_what_no_node_needs_is_left_out(root: Ext4) -> None:
    for path in ("tests", "setup.py", "tools", "README.rst", "pyproject.toml"):
        assert root.lookup(f"{SALT}/{path}") is None
        assert root.lookup(f"{SALT}/salt-{VERSION}/{path}") is None


def test_the_commands_are_on_path_and_run(golden: GoldenImage, root: Ext4, tmp_path: Path) -> None:
    """The very files of the image, with this computer's Python and their folder moved here."""
    for name in ("salt/__init__.py", "salt/version.py", "salt/_version.txt", "salt/scripts.py"):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text(root, f"{SALT}/{name}"))
    (tmp_path / "looseversion.py").write_text(text(root, f"{SALT}/looseversion/__init__.py"))
    for command in ("salt", "salt-call", "salt-key", "salt-master", "salt-minion", "salt-run"):
        link = root.lookup(f"/usr/local/bin/{command}")
        assert link is not None
        assert root.resolve(f"/usr/local/bin/{command}") == f"{SALT}/bin/{command}"
        script = text(root, f"{SALT}/bin/{command}")
        assert script.startswith("#!/usr/bin/python3\n")
        place = tmp_path / "bin" / command
        place.parent.mkdir(exist_ok=True)
        place.write_text(script.replace(SALT, os.fspath(tmp_path)))
        done = subprocess.run([sys.executable, place], capture_output=True, text=True, check=True)
        assert done.stdout == f"{command} {VERSION} looseversion\n"


BYTECODE = f"{SALT}/salt/__pycache__/scripts.cpython-311.pyc"


@pytest.mark.skipif(interpreter(11) is None, reason="needs the release's Python, 3.11")
def test_its_bytecode_is_beside_it(root: Ext4) -> None:
    inode = root.lookup(BYTECODE)
    assert inode is not None
    assert (inode.mode, inode.uid, inode.gid) == (0o100644, 0, 0)
    assert f"{SALT}/salt/scripts.py".encode() in root.content(inode), "as the node will have it"


def test_without_the_releases_python_the_node_makes_its_own_bytecode(
    tmp_path: Path, salt: VerifiedSalt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salt_tree, "interpreter", lambda minor: None)
    heard = Heard()
    root = root_of(composed(tmp_path, tree_with_python(), salt, heard))
    assert root.lookup(BYTECODE) is None
    assert root.lookup(f"{SALT}/salt/scripts.py") is not None
    assert any("no Python 3.11 here to compile Salt with" in note for note in heard.notes)


def test_the_units_are_as_upstreams(root: Ext4) -> None:
    minion, master = (
        text(root, f"{UNITS}/{name}.service") for name in ("salt-minion", "salt-master")
    )
    for line in ("Type=notify", "NotifyAccess=all", "KillMode=mixed", "LimitNOFILE=8192"):
        assert f"\n{line}\n" in minion
    assert "\nExecStart=/usr/local/bin/salt-minion\n" in minion
    assert "\nLimitNOFILE=100000\n" in master
    assert "WantedBy=multi-user.target" in master


def test_python_sees_an_installed_distribution(root: Ext4) -> None:
    info = f"{SALT}/salt-{VERSION}.dist-info"
    assert f"Version: {VERSION}" in text(root, f"{info}/METADATA")
    assert "salt-minion = salt.scripts:salt_minion" in text(root, f"{info}/entry_points.txt")
    assert text(root, f"{info}/INSTALLER") == "picloud-image\n"


def test_the_key_of_the_image_names_its_salt(
    release: VerifiedRelease, salt: VerifiedSalt, cache: Cache, golden: GoldenImage, tmp_path: Path
) -> None:
    assert cached_golden(release, cache, salt) == golden
    assert cached_golden(release, cache) is None
    other = verified_salt(tmp_path, source=source_release(files={"NOTICE": "other\n"}))
    assert cached_golden(release, cache, other) is None


def test_same_inputs_same_bytes(
    release: VerifiedRelease, salt: VerifiedSalt, golden: GoldenImage, tmp_path: Path
) -> None:
    again = compose(release, Cache(tmp_path), Quiet(), salt)
    assert again.key == golden.key
    assert again.manifest == golden.manifest


def composed(tmp_path: Path, tree: ReleaseTree, salt: VerifiedSalt, heard: Heard) -> GoldenImage:
    return compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), heard, salt)


def test_a_release_with_its_own_salt_keeps_it(tmp_path: Path, salt: VerifiedSalt) -> None:
    tree, heard = tree_with_python(), Heard()
    tree.file("./usr/bin/salt-minion", "#!/usr/bin/python3\n", 0o755)
    root = root_of(composed(tmp_path, tree, salt, heard))
    assert root.lookup(SALT) is None
    assert root.lookup("/usr/local/bin/salt-minion") is None
    assert any("its own Salt (/usr/bin/salt-minion)" in note for note in heard.notes)


@pytest.mark.parametrize(
    ("system", "package"), [("archarm", "python-pyzmq"), ("debian", "python3-zmq")]
)
def test_what_the_release_lacks_is_named_with_its_package(
    tmp_path: Path, salt: VerifiedSalt, system: str, package: str
) -> None:
    tree = tree_with_python(without=("/zmq/", "_psutil_linux"), system=system)
    with pytest.raises(
        ConfigurationError, match=r"lacks what Salt 3008\.3 needs: psutil, zmq"
    ) as no:
        composed(tmp_path, tree, salt, Heard())
    assert f"zmq: no such module; package {package}" in no.value.details
    assert "psutil: its compiled part is missing" in no.value.details[0]
    assert "[salt]" in no.value.hint


def test_a_salt_that_never_talks_on_the_releases_python(tmp_path: Path) -> None:
    """It is told before what else may be missing: no package would help."""
    tree = everyday_tree()
    tree.symlink("./usr/bin/python3", "python3.14")
    tree.file("./usr/lib/python3.14/os.py", b"#")
    with pytest.raises(ConfigurationError, match="never talks to its master") as no:
        composed(tmp_path, tree, verified_salt(tmp_path, version="3006.30"), Heard())
    assert "stand-in-rpi-armv7 has that Python" in no.value.what
    assert "version under [salt]" in no.value.hint


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE: Mapping[str, tuple[tarfile.TarInfo, str]] = {
    "absolute": (member("/etc/passwd"), "'/etc/passwd' is absolute"),
    "climbs": (member(f"salt-{VERSION}/salt/../../../x"), "climbs out"),
    "elsewhere": (member("etc/passwd"), f"is not below salt-{VERSION}/"),
    "a link": (
        member(f"salt-{VERSION}/salt/modules", tarfile.SYMTYPE, "/etc"),
        "is not an ordinary file",
    ),
    "a hard link": (
        member(f"salt-{VERSION}/salt/x.py", tarfile.LNKTYPE, "etc/shadow"),
        "is not an ordinary file",
    ),
    "a device": (member(f"salt-{VERSION}/salt/sda", tarfile.BLKTYPE), "is not an ordinary file"),
    "licence is a link": (
        member(f"salt-{VERSION}/LICENSE", tarfile.SYMTYPE, "/etc/shadow"),
        "is not a file of at most",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_source_release_is_refused(
    tmp_path: Path, release: VerifiedRelease, case: str
) -> None:
    info, why = HOSTILE[case]
    salt = verified_salt(tmp_path, source=source_release(extra=(info,)))
    with pytest.raises(MalformedRelease) as refused:
        compose(release, Cache(tmp_path / "cache"), Quiet(), salt)
    assert refused.value.what.startswith(f"Salt {VERSION}: ")
    assert why in refused.value.what
    assert "[salt]" in refused.value.hint
    assert not list((tmp_path / "cache" / "golden").glob("*/image"))


@pytest.mark.parametrize(
    "name", ["PKG-INFO", "salt.egg-info/requires.txt", "salt.egg-info/entry_points.txt"]
)
def test_a_source_release_without_its_metadata(
    tmp_path: Path, release: VerifiedRelease, name: str
) -> None:
    salt = verified_salt(tmp_path, source=source_release(files={name: None}))
    with pytest.raises(MalformedRelease, match=f"has no salt-{VERSION}/{name}"):
        compose(release, Cache(tmp_path / "cache"), Quiet(), salt)


def test_a_source_release_without_a_minion(tmp_path: Path, release: VerifiedRelease) -> None:
    entries = "[console_scripts]\nsalt-master = salt.scripts:salt_master\n"
    source = source_release(files={"salt.egg-info/entry_points.txt": entries})
    with pytest.raises(MalformedRelease, match="its entry points name no salt-minion"):
        compose(release, Cache(tmp_path / "cache"), Quiet(), verified_salt(tmp_path, source=source))


def zipped(sizes: Mapping[str, int], packing: int) -> bytes:
    """A zip file whose members are zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, size in sizes.items():
            archive.writestr(name, bytes(size))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        (wheel({"../../../etc/passwd": "x"}), "climbs out"),
        (wheel({"/etc/passwd": "x"}), "is absolute"),
        (b"no zip at all", "not a sound wheel"),
        (wheel()[:-30], "not a sound wheel"),
        (wheel({"salt": "x"}), "comes after a directory"),
        (zipped({"a": 3 << 20, "b": 3 << 20}, zipfile.ZIP_DEFLATED), "'b' makes the wheel larger"),
        (zipped({"a": 1}, zipfile.ZIP_LZMA), "is packed otherwise than wheels are"),
        (zipped({"a": 5 << 20}, zipfile.ZIP_STORED), "is larger than 4 MiB"),
    ],
)
def test_a_hostile_wheel_is_refused(
    tmp_path: Path, release: VerifiedRelease, beside: bytes, why: str
) -> None:
    salt = verified_salt(tmp_path, beside=beside)
    with pytest.raises(MalformedRelease, match=why):
        compose(release, Cache(tmp_path / "cache"), Quiet(), salt)


def test_an_archived_salt_that_was_altered_is_found_out(
    tmp_path: Path, release: VerifiedRelease
) -> None:
    salt = verified_salt(tmp_path)
    salt.source.path.write_bytes(source_release(files={"salt/scripts.py": "evil\n"}))
    with pytest.raises(NotAuthentic, match="SHA-256"):
        compose(release, Cache(tmp_path / "cache"), Quiet(), salt)


def test_an_archived_wheel_that_was_altered_is_found_out(
    tmp_path: Path, release: VerifiedRelease
) -> None:
    salt = verified_salt(tmp_path)
    salt.wheels[0].path.write_bytes(wheel({"looseversion/__init__.py": "evil\n"}))
    with pytest.raises(NotAuthentic, match="was altered since it was archived"):
        compose(release, Cache(tmp_path / "cache"), Quiet(), salt)


def with_bundle(salt: VerifiedSalt, folder: Path) -> VerifiedSalt:
    return replace(salt, bundle=bundle_in(folder))


def test_packages_bring_what_the_release_lacks(tmp_path: Path, salt: VerifiedSalt) -> None:
    path = python_package(tmp_path / "packages")
    path.with_name(f"{path.name}.sig").write_bytes(b"signed")
    bundled = with_bundle(salt, tmp_path / "packages")
    golden = composed(tmp_path, arch_tree(), bundled, Heard())
    root = root_of(golden)
    for file in bundled.bundle:
        inode = root.lookup(f"/usr/lib/picloud/packages/{file.name}")
        assert inode is not None
        assert (inode.mode, inode.uid, inode.gid) == (0o100644, 0, 0)
        assert root.content(inode) == file.path.read_bytes()
    assert root.lookup("/usr/bin/python3") is None, "installed by first boot, not here"
    unit = text(root, f"{UNITS}/salt-minion.service")
    assert "\nConditionPathExists=/usr/bin/python3\n" in unit


def test_the_key_of_the_image_names_its_packages(
    tmp_path: Path, release: VerifiedRelease, salt: VerifiedSalt
) -> None:
    python_package(tmp_path / "packages")
    keys = {
        golden_key(release, salt),
        golden_key(release, with_bundle(salt, tmp_path / "packages")),
    }
    python_package(tmp_path / "packages", packager="somebody else")
    keys.add(golden_key(release, with_bundle(salt, tmp_path / "packages")))
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("installed", "info", "fault"),
    [
        ({"python": "3.11.2-1"}, {}, "python 3.11.9-1 would replace 3.11.2-1"),
        ({}, {"depend": ["glibc", "expat>=2.6"]}, "python 3.11.9-1 needs expat"),
        (
            {},
            {"arch": "aarch64"},
            "python 3.11.9-1 is for aarch64, and stand-in-rpi-armv7 is armv7h",
        ),
    ],
)
def test_packages_that_first_boot_could_not_install(
    tmp_path: Path,
    salt: VerifiedSalt,
    installed: dict[str, str],
    info: dict[str, str | list[str]],
    fault: str,
) -> None:
    path = python_package(tmp_path / "packages", **info)
    with pytest.raises(ConfigurationError, match="first boot could not install") as told:
        composed(tmp_path, arch_tree(**installed), with_bundle(salt, path.parent), Heard())
    assert told.value.details[0].startswith(fault)
    assert str(path.parent) in told.value.what


def test_packages_for_a_release_without_pacman(tmp_path: Path, salt: VerifiedSalt) -> None:
    python_package(tmp_path / "packages")
    with pytest.raises(ConfigurationError) as told:
        composed(tmp_path, everyday_tree(), with_bundle(salt, tmp_path / "packages"), Heard())
    assert told.value.details == ("stand-in-rpi-armv7 has no pacman that could install them",)


def test_a_package_whose_files_are_another_ones(tmp_path: Path, salt: VerifiedSalt) -> None:
    python_package(tmp_path / "packages")
    package(tmp_path / "packages", "xz", "5-1", {"usr/bin/python3.11": "", "usr/bin/xz": ""})
    package(tmp_path / "packages", "zlib", "1-1", {"usr/bin/init": ""})
    with pytest.raises(ConfigurationError) as told:
        composed(tmp_path, arch_tree(), with_bundle(salt, tmp_path / "packages"), Heard())
    assert told.value.details == (
        "xz 5-1 brings /usr/bin/python3.11, which python 3.11.9-1 has",
        "zlib 1-1 brings /usr/bin/init, which stand-in-rpi-armv7 has",
    )


def test_packages_that_do_not_bring_enough(tmp_path: Path, salt: VerifiedSalt) -> None:
    package(tmp_path / "packages", "python-zmq", "27-1", {"usr/lib/zmq": ""})
    with pytest.raises(ConfigurationError, match=r"lacks what Salt 3008\.3 needs: python3") as told:
        composed(tmp_path, arch_tree(), with_bundle(salt, tmp_path / "packages"), Heard())
    assert "packages under [salt]" in told.value.hint


def test_a_package_altered_while_the_image_is_composed(tmp_path: Path, salt: VerifiedSalt) -> None:
    path = python_package(tmp_path / "packages")
    bundled = with_bundle(salt, path.parent)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(HostStorage, match="was altered while the image was composed"):
        composed(tmp_path, arch_tree(), bundled, Heard())
