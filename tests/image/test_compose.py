"""The finished image against the tarball, file by file, by code that shares nothing with it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import MalformedRelease
from imager.base.progress import Quiet
from imager.base.run import search_path
from imager.disk.ext4.filesystem import Ext4, Inode
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import Reader, digest_chunk
from imager.image.compose.compose import cached_golden, compose
from imager.image.compose.golden import GoldenImage
from imager.release.verified import VerifiedRelease
from tests.support.release import MTIME, ReleaseTree, build_release, everyday_tree

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parent.parent.parent
TYPES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def tool(*words: str | Path, cwd: Path | None = None) -> bytes:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        env={"PATH": search_path(), "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"},
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def golden(release: VerifiedRelease, cache: Cache) -> GoldenImage:
    return compose(release, cache, Quiet())


@pytest.fixture(scope="module")
def read(golden: GoldenImage) -> Reader:
    """Reads the image where it lies: it is over a GiB, nearly all holes."""
    descriptor = os.open(golden.path, os.O_RDONLY)
    return lambda offset, length: os.pread(descriptor, length, offset)


@pytest.fixture(scope="module")
def root(golden: GoldenImage, read: Reader) -> Ext4:
    return Ext4.open(read, golden.layout.root.offset)


def stored(path: Path) -> ExtentMap:
    """Where the file holds more than a hole; images are mostly holes."""
    found, position, size = [], 0, path.stat().st_size
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:
                break
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            found.append(Extent(start, position - start))
    finally:
        os.close(descriptor)
    return ExtentMap(found)


def same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        return one.stat().st_size == other.stat().st_size and all(
            os.pread(first.fileno(), part.length, part.offset)
            == os.pread(second.fileno(), part.length, part.offset)
            for part in (stored(one) | stored(other)).split(1 << 20)
        )


def root_device(golden: GoldenImage) -> str:
    return f"{golden.path}?offset={golden.layout.root.offset}"


def expected_members(release: VerifiedRelease) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Every member outside /boot by path, hard links as what they lead to."""
    found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(release.tarball, errors="surrogateescape") as archive:
        for info in archive:
            path = "/" + info.name.removeprefix(".").strip("/")
            if path.startswith("/boot/"):
                continue
            if info.islnk():
                found[path] = found["/" + info.linkname.removeprefix("./")]
                continue
            file = archive.extractfile(info) if info.isreg() else None
            found[path] = (info, file.read() if file else b"")
    return found


def mtime_ns(info: tarfile.TarInfo) -> int:
    return int(Decimal(info.pax_headers.get("mtime", str(int(info.mtime)))) * 10**9)


def attributes(info: tarfile.TarInfo) -> dict[str, bytes]:
    found = {}
    for key, value in info.pax_headers.items():
        kind, _, name = key.partition(".xattr.")
        if kind == "SCHILY":
            found[name] = value.encode("utf-8", "surrogateescape")
        elif kind == "LIBARCHIVE":
            found[name] = base64.b64decode(value + "==")
    return found


def test_every_member_is_in_the_filesystem_as_it_was_packed(
    release: VerifiedRelease, root: Ext4
) -> None:
    members = expected_members(release)
    found = dict(root.walk())
    assert set(found) == {*members, "/lost+found"}
    for path, (info, content) in members.items():
        inode = found[path]
        kind = tarfile.REGTYPE if info.type == tarfile.GNUTYPE_SPARSE else info.type
        assert inode.mode == TYPES[kind] | info.mode, path
        assert (inode.uid, inode.gid) == (info.uid, info.gid), path
        times = (inode.raw.mtime_ns, inode.raw.atime_ns, inode.raw.ctime_ns, inode.raw.crtime_ns)
        assert set(times) == {mtime_ns(info)}, path
        assert root.xattrs(inode) == attributes(info), path
        if info.isreg():
            assert root.content(inode) == content, path
        if info.issym():
            assert root.readlink(path) == info.linkname
        if info.isdev():
            assert inode.device == ((info.devmajor, info.devminor) if not info.isfifo() else None)


def test_names_packed_as_links_share_an_inode_and_no_others_do(
    release: VerifiedRelease, root: Ext4
) -> None:
    packed = defaultdict(set)
    for path, (info, _) in expected_members(release).items():
        packed[id(info)].add(path)
    stored = defaultdict(set)
    for path, inode in root.walk():
        if path != "/lost+found":
            stored[inode.number].add(path)
            assert inode.is_dir or inode.links == len(packed_with(packed, path))
    assert sorted(map(sorted, packed.values())) == sorted(map(sorted, stored.values()))


def packed_with(packed: dict[int, set[str]], path: str) -> set[str]:
    return next(names for names in packed.values() if path in names)


def test_debugfs_sees_the_same(golden: GoldenImage) -> None:
    """Spot checks by the filesystem's own tool, so that a fault in our reader cannot hide."""

    def ask(request: str) -> str:
        return tool("debugfs", "-R", request, root_device(golden)).decode(errors="replace")

    su = ask("stat /usr/bin/su")
    assert re.search(r"Type: regular +Mode: +04755", su)
    assert f"mtime: {MTIME:#x}:00000000" in su
    assert f"crtime: {MTIME:#x}:00000000" in su
    assert "security.capability (20) = 01 00 00 02 00 04" in ask("stat /usr/bin/ping4")
    assert "user.note (4) = 61 00 62 ff" in ask("stat /usr/bin/ping")
    assert re.search(r"User: 70000 +Group: -?2147483", ask("stat /usr/bin/big-owner"))
    assert "07:300" in ask("stat /dev/loop300")
    assert "Type: FIFO" in ask("stat /dev/initctl")
    assert ask('cat "/usr/odd/with space"') == "odd 0\n"
    assert "Blockcount: 176" in ask("stat /usr/odd/sparse")  # 22 blocks of 733 are stored


def test_boot_files_are_on_fat_byte_for_byte(
    release: VerifiedRelease, golden: GoldenImage, tmp_path: Path
) -> None:
    drive = f"{golden.path}@@{golden.layout.boot.offset}"
    tool("mcopy", "-s", "-m", "-i", drive, "::/", tmp_path)
    with tarfile.open(release.tarball) as archive:
        packed = {
            info.name.removeprefix("./boot/"): info
            for info in archive
            if info.name.startswith("./boot/")
        }
        copied = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*")}
        assert set(copied) == set(packed)
        for name, info in packed.items():
            if info.isreg():
                file = archive.extractfile(info)
                assert file is not None
                assert copied[name].read_bytes() == file.read()
                assert abs(copied[name].stat().st_mtime - info.mtime) < 2, name
    assert set(golden.boot_files) == {name for name, info in packed.items() if info.isreg()}
    for name, digest in golden.boot_files.items():
        assert tool("sha256sum", tmp_path / name).split()[0].decode().lstrip("\\") == digest


def test_boot_filesystem_is_what_every_pi_can_read(golden: GoldenImage, read: Reader) -> None:
    boot = FatVolume.parse(read, golden.layout.boot.offset, golden.layout.boot.length)
    assert (boot.kind, boot.sector_bytes) == (32, 512)
    assert boot.sectors_per_cluster in (1, 4)
    assert boot.cluster_count >= 65_525
    assert boot.faults == ()


def test_sfdisk_reads_the_table_as_planned(golden: GoldenImage) -> None:
    said = tool("sfdisk", "-d", golden.path).decode()
    boot, base = golden.layout.boot, golden.layout.root
    assert "label: dos" in said
    rows = re.findall(r": start= *(\d+), size= *(\d+), type=(\w+)(.*)", said)
    assert rows == [
        (str(boot.offset // 512), str(boot.length // 512), "c", ""),
        (str(base.offset // 512), str(base.length // 512), "83", ""),
    ]


def test_both_filesystems_are_clean_by_todays_clock(golden: GoldenImage, tmp_path: Path) -> None:
    tool("e2fsck", "-fn", root_device(golden))
    part = tmp_path / "boot.img"
    boot = golden.layout.boot
    with golden.path.open("rb") as image, part.open("wb") as file:
        image.seek(boot.offset)
        file.write(image.read(boot.length))
    tool("fsck.vfat", "-n", part)


def test_features_are_those_named_whatever_the_host_prefers(golden: GoldenImage) -> None:
    said = tool("dumpe2fs", root_device(golden)).decode()
    features = re.findall(r"Filesystem features: +(.+)", said)[0].split()
    assert sorted(features) == sorted(
        [
            *("has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent"),
            *("64bit", "flex_bg", "metadata_csum", "metadata_csum_seed", "sparse_super"),
            *("large_file", "huge_file", "dir_nlink", "extra_isize"),
        ]
    )
    assert "Total journal size:       16M" in said
    assert "user_xattr acl" in said
    assert "ITABLE_ZEROED" not in said  # unused inode tables are left to the node's kernel


def test_what_the_map_leaves_out_may_hold_anything(
    golden: GoldenImage, root: Ext4, read: Reader, tmp_path: Path
) -> None:
    """A card in its second life: junk everywhere, and nothing but the map written over it."""
    card = tmp_path / "card"
    junk, layout = os.urandom(1 << 20), golden.layout
    old_life = ExtentMap(
        [
            Extent(0, 48 << 20),
            Extent(layout.boot.end - (8 << 20), 8 << 20),
            Extent(layout.root.offset, 160 << 20),  # all inode tables, and a second group
            Extent(layout.size_bytes - (8 << 20), 8 << 20),
        ]
    )
    with card.open("wb") as file:
        file.truncate(layout.size_bytes)
        for part in old_life.split(len(junk)):
            os.pwrite(file.fileno(), junk, part.offset)
        for extent in golden.manifest.extents:
            file.seek(extent.offset)
            file.write(read(extent.offset, extent.length))
    tool("e2fsck", "-fn", f"{card}?offset={golden.layout.root.offset}")
    descriptor = os.open(card, os.O_RDONLY)
    try:

        def of_card(offset: int, length: int) -> bytes:
            return os.pread(descriptor, length, offset)

        copy = Ext4.open(of_card, golden.layout.root.offset)
        for path, inode in root.walk():
            if inode.is_file:
                assert copy.read_file(path) == root.content(inode)
        boot = FatVolume.parse(of_card, golden.layout.boot.offset, golden.layout.boot.length)
        assert boot.faults == ()
        journal = b"".join(of_card(extent.offset, extent.length) for extent in copy.journal)
        assert not any(journal[4096:])  # nothing of the old card's journal can be replayed
        assert not any(of_card(*pair) != read(*pair) for pair in stale_label_places(golden))
    finally:
        os.close(descriptor)
        card.unlink()


def stale_label_places(golden: GoldenImage) -> list[tuple[int, int]]:
    """Where blkid looks for RAID, LVM, swap and GPT signatures."""
    boot, base, size = golden.layout.boot, golden.layout.root, golden.layout.size_bytes
    ends = [(end - (1 << 20), 1 << 20) for end in (boot.end, base.end, size)]
    starts = [(start, 4096) for start in (0, boot.offset, base.offset)]
    return [*starts, *ends]


def test_the_manifest_is_of_these_bytes(golden: GoldenImage, read: Reader) -> None:
    for chunk, digest in golden.manifest.chunks():
        assert digest_chunk(chunk, read) == digest


def test_the_map_is_hardly_more_than_what_is_in_use(golden: GoldenImage, root: Ext4) -> None:
    stored = golden.path.stat().st_blocks * 512
    journal = root.journal.total_bytes
    assert golden.manifest.extents.total_bytes < 1.05 * stored + journal + (4 << 20)


def test_the_image_is_the_same_however_often_it_is_made(
    release: VerifiedRelease, golden: GoldenImage, tmp_path: Path
) -> None:
    again = compose(release, Cache(tmp_path), Quiet())
    assert same_bytes(golden.path, again.path)
    assert again.manifest == golden.manifest
    assert (again.key, again.boot_files) == (golden.key, golden.boot_files)


AS_NOBODY = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import encodings.cp437, encodings.utf_16_le  # loaded on use; a private home hides them later
from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose.compose import compose
from imager.release.verified import VerifiedRelease
release = VerifiedRelease({name!r}, ("pi2",), {sha256!r}, Path({tarball!r}), {size}, "", "", "")
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(0o077)
compose(release, Cache(Path({cache!r})), Quiet())
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder of nobody's; pytest keeps its own closed to everybody else."""
    folder = Path(tempfile.mkdtemp(prefix="picloud-test-"))
    try:
        os.chown(folder, 65534, 65534)
        folder.chmod(0o2755)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_user_composes_the_same_bytes(
    release: VerifiedRelease, golden: GoldenImage, public_folder: Path
) -> None:
    tarball = public_folder / "release.tar.gz"
    tarball.write_bytes(release.tarball.read_bytes())
    tarball.chmod(0o644)
    program = AS_NOBODY.format(
        root=str(ROOT),
        name=release.name,
        sha256=release.sha256,
        tarball=str(tarball),
        size=release.size_bytes,
        cache=str(public_folder / "cache"),
    )
    tool(sys.executable, "-c", program, cwd=Path("/"))
    image = next((public_folder / "cache" / "golden").glob("*/image"))
    assert image.stat().st_uid == 65534
    assert same_bytes(golden.path, image)


def test_a_release_without_a_kernel_is_named_before_any_card(tmp_path: Path) -> None:
    tree = everyday_tree()
    tree.members = [m for m in tree.members if m[0].name != "./boot/kernel7.img"]
    with pytest.raises(MalformedRelease, match=r"would not boot a pi2: .*kernel7\.img") as caught:
        compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())
    assert caught.value.exit_code == 13
    assert list((tmp_path / "cache" / "work").iterdir()) in ([], [tmp_path / "cache/work/.guard"])


def test_a_release_whose_config_is_longer_than_any_is_no_image(tmp_path: Path) -> None:
    tree = everyday_tree()
    tree.members = [m for m in tree.members if m[0].name != "./boot/config.txt"]
    tree.file("./boot/config.txt", "# a comment\n" * 6000)
    with pytest.raises(MalformedRelease, match=r"it cannot be said .* would boot a pi2: config"):
        compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())


def test_odd_device_names_and_access_lists_arrive(tmp_path: Path) -> None:
    tree = everyday_tree()
    names = ['with "quotes"', "with space", "<7>", "back\\slash", "-dash", "größe", "#hash"]
    for number, name in enumerate(names):
        tree.add(f"./dev/{name}", tarfile.CHRTYPE, mode=0o620, devmajor=4, devminor=number)
    tree.file(
        "./etc/acl",
        "x",
        0o640,
        pax_headers={
            "SCHILY.acl.access": "user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
        },
    )
    golden = compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())
    descriptor = os.open(golden.path, os.O_RDONLY)
    try:
        root = Ext4.open(
            lambda offset, length: os.pread(descriptor, length, offset), golden.layout.root.offset
        )
        for number, name in enumerate(names):
            inode = root.lookup(f"/dev/{name}")
            assert isinstance(inode, Inode)
            assert (inode.device, inode.mode) == ((4, number), stat.S_IFCHR | 0o620)
        listed = root.lookup("/etc/acl")
        assert listed is not None
        assert {name: value.hex() for name, value in root.xattrs(listed).items()} == {
            "system.posix_acl_access": "02000000"
            "01000600ffffffff"
            "02000400e8030000"
            "04000400ffffffff"
            "10000400ffffffff"
            "20000000ffffffff"
        }
    finally:
        os.close(descriptor)


def test_a_device_no_tool_can_name_is_refused(tmp_path: Path) -> None:
    tree = everyday_tree()
    tree.add("./dev/two\nlines", tarfile.CHRTYPE, devmajor=1, devminor=3)
    with pytest.raises(MalformedRelease, match=r"'dev/two\\nlines' is a character device"):
        compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())


def test_more_boot_files_than_one_command_line_holds(tmp_path: Path) -> None:
    tree = everyday_tree()
    for number in range(450):
        tree.file(f"./boot/overlays/one-of-many-{number:04d}.dtbo", b"%d" % number)
    golden = compose(build_release(tmp_path, tree), Cache(tmp_path / "cache"), Quiet())
    assert sum(path.startswith("overlays/one-of-many") for path in golden.boot_files) == 450


def test_an_empty_release_is_refused_not_crashed_on(tmp_path: Path) -> None:
    with pytest.raises(MalformedRelease, match="would not boot"):
        compose(build_release(tmp_path, ReleaseTree()), Cache(tmp_path / "cache"), Quiet())


def test_the_cache_is_asked_first(
    release: VerifiedRelease, golden: GoldenImage, cache: Cache
) -> None:
    assert cached_golden(release, cache) == golden
    assert compose(release, cache, Quiet()) == golden
    assert stat.S_IMODE(golden.path.stat().st_mode) == 0o444
    called = replace(release, name="as another rack calls it")
    for found in (cached_golden(called, cache), compose(called, cache, Quiet())):
        assert found == replace(golden, release_name=called.name)
