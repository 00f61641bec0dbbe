"""Archives no card may be made of are refused by name, and nothing leaves the folder."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.base.errors import HostStorage, MalformedRelease, NotAuthentic
from imager.base.progress import Quiet
from imager.image.compose.staging import Staged, stage
from tests.support.release import ReleaseTree, build_release, everyday_tree, release_of

pytestmark = pytest.mark.image

Add = Callable[[ReleaseTree], None]


def staged(tmp_path: Path, tree: ReleaseTree | None = None, *, raw: bytes | None = None) -> Staged:
    release = build_release(tmp_path, tree, raw=raw)
    folder = tmp_path / "staging"
    folder.mkdir()
    return stage(release, folder, Quiet())


def twice(tree: ReleaseTree, path: str) -> None:
    tree.file(path, "first")
    tree.hardlink("other", path)
    tree.file(path, "second")


def put(method: str, *words: object, **fields: object) -> Add:
    return lambda tree: getattr(tree, method)(*words, **fields)


HOSTILE: dict[str, tuple[list[Add], str]] = {
    "absolute": ([put("file", "/etc/passwd")], "'/etc/passwd' is absolute"),
    "climbs": ([put("file", "a/../../x")], "'a/../../x' climbs out"),
    "climbs by a link's target": ([put("hardlink", "x", "../y")], "'../y' climbs out"),
    "absolute hard link": ([put("hardlink", "x", "/etc/shadow")], "'/etc/shadow' is absolute"),
    "through a link": (
        [put("symlink", "way", "/tmp"), put("file", "way/x")],
        "'way/x' leads through 'way', a symbolic link",
    ),
    "through a link made later than its directory": (
        [put("folder", "way"), put("symlink", "way", "/tmp")],
        "'way' is a symbolic link and comes after a directory",
    ),
    "hard link through a link": (
        [put("symlink", "way", "etc"), put("file", "etc/x"), put("hardlink", "y", "way/x")],
        "'y' is a hard link to 'way/x', which is not before it",
    ),
    "through a file": (
        [put("file", "f"), put("file", "f/x")],
        "'f/x' leads through 'f', a file",
    ),
    "hard link to nothing": ([put("hardlink", "x", "y")], "'x' is a hard link to 'y'"),
    "hard link to a directory": (
        [put("folder", "d"), put("hardlink", "x", "d")],
        "'x' is a hard link to the directory 'd'",
    ),
    "file over a directory": (
        [put("folder", "d"), put("file", "d")],
        "'d' is a file and comes after a directory",
    ),
    "root is a file": ([put("file", ".")], "is a file"),
    "boot is a link": ([put("symlink", "boot", "tmp")], "'boot' is a symbolic link and must be"),
    "link in boot": ([put("symlink", "boot/a", "b")], "'boot/a' is a symbolic link, and FAT"),
    "device in boot": (
        [put("add", "boot/tty", tarfile.CHRTYPE)],
        "'boot/tty' is a character device, and FAT",
    ),
    "name FAT cannot hold": ([put("file", "boot/a:b")], "'boot/a:b' cannot be on the FAT"),
    "name mtools would write as another": (
        [put("file", "boot/€.txt")],
        "'boot/€.txt' cannot be on the FAT boot partition: its name has '€' in it",
    ),
    "a file where our folder is": (
        [put("file", "boot/PiCloud")],
        "'boot/PiCloud' is a file, and picloud-image writes into a folder of that name",
    ),
    "a folder where our file is": (
        [put("file", "boot/picloud/node.json/x")],
        "'boot/picloud/node.json' is a folder, and picloud-image writes a file of that name",
    ),
    "a folder where cmdline.txt is": (
        [put("folder", "boot/CMDLINE.TXT")],
        "'boot/CMDLINE.TXT' is a folder, and picloud-image writes a file of that name",
    ),
    "one name on FAT": (
        [put("file", "boot/overlays/A"), put("file", "boot/Overlays/a")],
        "are one name on FAT",
    ),
    "directory and file of one name on FAT": (
        [put("folder", "boot/x"), put("file", "boot/X")],
        "'boot/X' and 'boot/x' are one name on FAT",
    ),
    "unknown type": ([put("add", "x", b"V")], "'x' is of type b'V'"),
    "hard-linked device": (
        [put("add", "tty", tarfile.CHRTYPE), put("hardlink", "tty2", "tty")],
        "'tty2' is a hard link to 'tty', a character device",
    ),
    "name too long": ([put("file", "n" * 256)], "longer than 255 bytes"),
    "zero byte in the name": (
        [put("file", "x", pax_headers={"path": "a\0b"})],
        "zero byte",
    ),
    "a huge header": (
        [put("file", "x", pax_headers={"comment": "c" * (17 << 20)})],
        r"claims \d+ bytes",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused_by_name(name: str, tmp_path: Path) -> None:
    members, says = HOSTILE[name]
    tree = ReleaseTree()
    for add in members:
        add(tree)
    before = threading.active_count()
    with pytest.raises(MalformedRelease, match=says) as caught:
        staged(tmp_path, tree)
    assert caught.value.exit_code == 13
    assert "\n" not in caught.value.what
    assert caught.value.hint
    assert threading.active_count() == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "staging",
        "stand-in-rpi-armv7-latest.tar.gz",
    }


def test_what_gnu_tar_packs_is_unpacked_alike(tmp_path: Path) -> None:
    """Long names, sparse files and links in GNU's own format, which everyday_tree has not."""
    source = tmp_path / "source"
    (source / ("d" * 120) / ("e" * 120)).mkdir(parents=True)
    (source / ("d" * 120) / ("e" * 120) / ("f" * 120)).write_bytes(b"deep")
    (source / "link").symlink_to("t" * 150)
    with (source / "holes").open("wb") as file:
        for number in range(40):  # more than fit the header, so extension blocks follow
            file.seek(number * 100_000)
            file.write(b"%03d" % number * 1000)
        file.truncate(5_000_000)
    tarball = tmp_path / "gnu.tar.gz"
    subprocess.run(
        ["tar", "-czSf", tarball, "--format=gnu", "-C", source, "."], check=True, cwd=tmp_path
    )
    folder = tmp_path / "staging"
    folder.mkdir()
    found = stage(release_of(tarball), folder, Quiet())
    for path in source.rglob("*"):
        copy = found.root_folder / path.relative_to(source)
        assert copy.is_symlink() == path.is_symlink()
        if path.is_symlink():
            assert copy.readlink() == path.readlink()
        elif path.is_file():
            assert copy.read_bytes() == path.read_bytes()


def test_a_later_member_wins_and_leaves_links_to_the_earlier_one(tmp_path: Path) -> None:
    tree = ReleaseTree()
    twice(tree, "x")
    found = staged(tmp_path, tree)
    assert (found.root_folder / "x").read_text() == "second"
    assert (found.root_folder / "other").read_text() == "first"


def test_a_replaced_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    tree = ReleaseTree()
    tree.symlink("x", str(victim))
    tree.file("x", "gone")
    found = staged(tmp_path, tree)
    assert victim.read_text() == "safe"
    assert (found.root_folder / "x").read_text() == "gone"


def test_links_across_boot_become_copies(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("boot/a", "1")
    tree.hardlink("boot/b", "boot/a")
    tree.hardlink("usr/a", "boot/a")
    found = staged(tmp_path, tree)
    assert (found.boot_folder / "b").read_text() == (found.root_folder / "usr/a").read_text() == "1"
    assert sorted(path for path, _ in found.root.files()) == ["boot", "usr", "usr/a"]


def test_parents_nobody_packed_are_made(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("a/b/c", "x", mtime=5)
    found = staged(tmp_path, tree)
    assert [(p, e.mode, e.mtime_ns) for p, e in found.root.files()][:2] == [
        ("a", 0o755, 5_000_000_000),
        ("a/b", 0o755, 5_000_000_000),
    ]


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_umask_and_setgid_of_the_host_do_not_show(mask: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    release = build_release(tmp_path)
    folder = tmp_path / "staging"
    folder.mkdir()
    before = os.umask(mask)
    try:
        found = stage(release, folder, Quiet())
    finally:
        os.umask(before)
    for path in (found.root_folder / "usr").rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == 0o600
        elif stat.S_ISDIR(status.st_mode):
            assert stat.S_IMODE(status.st_mode) & 0o777 == 0o700


def test_a_member_from_the_future_does_not_date_the_image(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("old", mtime=1000)
    tree.file("new", mtime=1 << 33)
    assert staged(tmp_path, tree).made_at == 1000


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda raw: gzip.compress(raw)[:-900], r"ends in the middle, at its byte \d+"),
        (
            lambda raw: gzip.compress(raw) + b"garbage behind the end",
            r"trailing garbage at its byte \d+",
        ),
        (lambda raw: gzip.compress(raw)[:-8] + bytes(8), "incorrect data check before its byte"),
        (lambda raw: lzma.compress(raw), "compressed with xz"),
        (lambda raw: raw, "not a gzip file"),
        (lambda _: b"", "not a gzip file"),
        (lambda _: gzip.compress(b""), "at its byte 0: empty file"),
        (lambda raw: gzip.compress(raw[: 512 * 9]), "stops without an end mark|ends at its byte"),
        (lambda raw: gzip.compress(raw + bytes(512) + b"more"), "data follows the end"),
        (lambda _: gzip.compress(b"x" * 10_240), "not a sound tar archive at its byte"),
    ],
    ids=range(10),
)
def test_a_broken_archive_is_named_with_the_byte(
    spoil: Callable[[bytes], bytes], says: str, tmp_path: Path
) -> None:
    tarball = tmp_path / "broken.tar.gz"
    tarball.write_bytes(spoil(everyday_tree().pack()))
    (tmp_path / "staging").mkdir()
    with pytest.raises(MalformedRelease, match=says) as caught:
        stage(release_of(tarball), tmp_path / "staging", Quiet())
    assert str(tarball) in caught.value.what


def test_a_header_broken_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    tree = ReleaseTree()
    for number in range(4):
        tree.file(f"file{number}")
    raw = bytearray(tree.pack())
    raw[512 * 2] ^= 1
    with pytest.raises(MalformedRelease, match="at its byte 1536: a header's checksum is wrong"):
        staged(tmp_path, raw=bytes(raw))


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "hostile"])
def test_an_archive_changed_since_its_fetch_is_not_authentic(damage: str, tmp_path: Path) -> None:
    release = build_release(tmp_path)
    packed = bytearray(release.tarball.read_bytes())
    if damage == "flipped":
        packed[len(packed) // 2] ^= 4
    elif damage == "cut":
        del packed[-1000:]
    elif damage == "longer":
        packed += b"x"
    else:
        tree = ReleaseTree()
        tree.file("/absolute")
        packed = bytearray(gzip.compress(tree.pack()))
    release.tarball.write_bytes(packed)
    (tmp_path / "staging").mkdir()
    with pytest.raises(NotAuthentic, match=release.sha256) as caught:
        stage(release, tmp_path / "staging", Quiet())
    assert caught.value.hint.startswith("run the same command again")


def test_an_archive_packed_in_several_gzip_members_is_one_archive(tmp_path: Path) -> None:
    tarball = tmp_path / "members.tar.gz"
    raw = everyday_tree().pack()
    half = len(raw) // 2
    tarball.write_bytes(gzip.compress(raw[:half]) + gzip.compress(b"") + gzip.compress(raw[half:]))
    (tmp_path / "staging").mkdir()
    found = stage(release_of(tarball), tmp_path / "staging", Quiet())
    assert "etc/hostname" in found.root.entries


def test_a_missing_archive_says_which(tmp_path: Path) -> None:
    release = replace(build_release(tmp_path), tarball=tmp_path / "gone.tar.gz")
    (tmp_path / "staging").mkdir()
    with pytest.raises(HostStorage, match=r"gone\.tar\.gz: No such file"):
        stage(release, tmp_path / "staging", Quiet())


SMALL = ReleaseTree()
SMALL.folder("etc")
SMALL.file("etc/a", b"a" * 700, pax_headers={"mtime": "5.5", "SCHILY.xattr.user.x": "y"})
SMALL.symlink("etc/b", "a")
SMALL.hardlink("etc/c", "etc/a")
SMALL.sparse("etc/d", 5000, [(0, b"x" * 600), (4000, b"y" * 600)])
SMALL_RAW = SMALL.pack()


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SMALL_RAW) - 9), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=6,
    ),
    mend=st.booleans(),
)
def test_any_archive_is_unpacked_inside_the_folder_or_refused(
    changes: list[tuple[int, bytes]], mend: bool
) -> None:
    raw = bytearray(SMALL_RAW)
    for at, junk in changes:
        raw[at : at + len(junk)] = junk
    if mend:
        for start in range(0, len(raw), 512):
            block = raw[start : start + 512]
            if block[257:262] == b"ustar":
                total = sum(block[:148]) + 8 * 32 + sum(block[156:])
                raw[start + 148 : start + 156] = b"%06o\0 " % total
    outer = Path(tempfile.mkdtemp())
    try:
        staged(outer, raw=bytes(raw))
    except MalformedRelease:
        pass
    finally:
        assert {path.name for path in outer.iterdir()} <= {
            "staging",
            "stand-in-rpi-armv7-latest.tar.gz",
        }
        shutil.rmtree(outer)


def test_a_host_filesystem_that_ignores_case_is_said_not_blamed_on_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def ignoring_case(path: str, flags: int, mode: int = 0o777, **words: int) -> int:
        return real(path.lower() if path == "README" else path, flags, mode, **words)

    monkeypatch.setattr(os, "open", ignoring_case)
    tree = ReleaseTree()
    tree.file("readme")
    tree.file("README")
    with pytest.raises(HostStorage, match="cannot hold 'README'") as caught:
        staged(tmp_path, tree)
    assert "--cache" in caught.value.hint
