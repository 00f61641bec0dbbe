"""Every header becomes a clean path and an entry, or is refused by name."""

from __future__ import annotations

import base64
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import MalformedRelease
from imager.image.unpack.acl import AclError, acl_xattr
from imager.image.unpack.members import EntryKind, clean_path, entry_of, segments_of


def header(**fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(fields.pop("name", "etc/file"))
    for name, value in fields.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (".", ""),
        ("./", ""),
        ("./etc/", "etc"),
        ("etc//./ssh/", "etc/ssh"),
        ("..a/b..", "..a/b.."),
        ("n" * 255, "n" * 255),
        ("\udce9", "\udce9"),
        ("/".join(["n" * 255] * 16), "/".join(["n" * 255] * 16)),
        ("/".join("a" * 64), "/".join("a" * 64)),
    ],
)
def test_names_are_cleaned(name: str, path: str) -> None:
    assert clean_path(name) == path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/etc/passwd", "absolute"),
        ("../etc/passwd", r"climbs out with \.\."),
        ("etc/../../passwd", r"climbs out with \.\."),
        ("etc/..", r"climbs out with \.\."),
        ("a\0b", "zero byte"),
        ("n" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        ("a/" * 2048 + "b", "longer than 4095 bytes"),
        ("/".join(["n" * 255] * 15 + ["n" * 254, "x"]), "longer than 4095 bytes"),
        ("/".join("a" * 65), "more than 64 folders"),
    ],
)
def test_hostile_names_are_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(MalformedRelease, match=says) as caught:
        clean_path(name)
    assert repr(name) in caught.value.what
    caught.value.what.encode()  # can be printed whatever the name is made of


@given(st.text())
def test_no_name_leads_out_of_the_root(name: str) -> None:
    try:
        path = clean_path(name)
    except MalformedRelease:
        return
    parts = path.split("/") if path else []
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"uid": 2**32}, "owner number"),
        ({"gid": -1}, "group number"),
        ({"type": tarfile.CHRTYPE, "devmajor": 4096, "devminor": 0}, "device number"),
        ({"type": tarfile.CHRTYPE, "devmajor": -1, "devminor": 0}, "device number"),
        ({"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": -1}, "device number"),
        # The name without its prefix, the value and 24 bytes: 3001 in all.
        ({"pax_headers": {"SCHILY.xattr.user.b": "1" * 2971}}, "more extended attributes"),
        ({"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 2**20}, "device number"),
        ({"type": tarfile.SYMTYPE, "linkname": ""}, "symbolic link to nowhere"),
        ({"type": tarfile.SYMTYPE, "linkname": "x" * 4096}, "symbolic link to nowhere"),
        ({"type": tarfile.SYMTYPE, "linkname": "a\0b"}, "symbolic link to nowhere"),
        ({"size": -1}, "claims -1 bytes"),
        ({"size": 2**44 - 4095}, "claims 17592186040321 bytes"),
        ({"type": b"Z"}, "of type b'Z'"),
        ({"type": tarfile.GNUTYPE_LONGNAME}, "of type"),
        ({"mtime": 2**34 - 2**31}, "time ext4 cannot hold"),
        ({"mtime": -(2**31) - 1}, "time ext4 cannot hold"),
        ({"pax_headers": {"mtime": "9" * 18}}, "time ext4 cannot hold"),
        ({"pax_headers": {"mtime": "-" + "9" * 18}}, "time ext4 cannot hold"),
        ({"pax_headers": {"mtime": "1e18"}}, "impossible time"),
        ({"pax_headers": {"mtime": "-1e18"}}, "impossible time"),
        ({"pax_headers": {"mtime": "soon"}}, "impossible time"),
        ({"pax_headers": {"mtime": "Infinity"}}, "impossible time"),
        ({"pax_headers": {"SCHILY.xattr.nonsense": "1"}}, "extended attribute"),
        ({"pax_headers": {"SCHILY.xattr.user.a\nb": "1"}}, "extended attribute"),
        ({"pax_headers": {"SCHILY.xattr.user.big": "1" * 4000}}, "more extended attributes"),
        ({"pax_headers": {"LIBARCHIVE.xattr.user.x": "*"}}, "not base64"),
        ({"pax_headers": {"SCHILY.acl.access": "user::rw?"}}, "access control list"),
    ],
)
def test_impossible_headers_are_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedRelease, match=says) as caught:
        entry_of(header(name="etc/strange", **fields))
    assert "'etc/strange'" in caught.value.what


def test_everything_an_inode_keeps_is_taken_over() -> None:
    entry = entry_of(
        header(
            mode=0o104755,
            uid=70_000,
            gid=2**32 - 1,
            size=17,
            mtime=1_700_000_000.1234567,
            pax_headers={
                "mtime": "1700000000.123456789",
                "SCHILY.xattr.security.capability": "\1\0\udcff",
                "LIBARCHIVE.xattr.user.note": base64.b64encode(b"a\0b\xff").decode().rstrip("="),
                "LIBARCHIVE.creationtime": "5",
            },
        )
    )
    assert (entry.kind, entry.mode, entry.size_bytes) == (EntryKind.FILE, 0o4755, 17)
    assert (entry.uid, entry.gid) == (70_000, 2**32 - 1)
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert entry.xattrs == (("security.capability", b"\1\0\xff"), ("user.note", b"a\0b\xff"))


def test_time_before_1970_keeps_its_fraction() -> None:
    assert entry_of(header(pax_headers={"mtime": "-86400.25"})).mtime_ns == -86_400_250_000_000


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"size": 2**44 - 4096}, 2**44 - 4096),
        ({"mtime": 2**34 - 2**31 - 1}, 0),
        ({"mtime": -(2**31)}, 0),
        ({"type": tarfile.SYMTYPE, "linkname": "x" * 4095, "size": 7}, 0),
        ({"type": tarfile.FIFOTYPE, "size": 7}, 0),
    ],
)
def test_the_largest_and_oldest_that_ext4_can_hold(fields: dict[str, Any], found: int) -> None:
    """Only a file has a size; of the others the number in the header says nothing."""
    entry = entry_of(header(**fields))
    assert entry.size_bytes == found
    assert entry.target == fields.get("linkname", "")
    assert entry.mtime_ns == fields.get("mtime", 0) * 10**9
    assert entry.device == (0, 0)


def test_an_empty_record_of_the_time_is_none() -> None:
    assert entry_of(header(mtime=5, pax_headers={"mtime": ""})).mtime_ns == 5 * 10**9


def test_of_two_records_of_one_attribute_libarchive_s_counts() -> None:
    both = {"LIBARCHIVE.xattr.user.n": "YQ", "SCHILY.xattr.user.n": "b"}
    assert entry_of(header(pax_headers=both)).xattrs == (("user.n", b"a"),)
    default = {"SCHILY.acl.default": "user::rwx", "SCHILY.acl.access": ""}
    ((name, _),) = entry_of(header(pax_headers=default)).xattrs
    assert name == "system.posix_acl_default"


@pytest.mark.parametrize(
    "holes",
    [
        [(512, 512), (0, 512)],
        [(0, 512), (100, 8)],
        [(0, 512), (511, 8)],
        [(0, 2000)],
        [(0, 1025)],
        [(0, -1)],
        [(-1, 5)],
    ],
)
def test_impossible_hole_maps_are_refused(holes: list[tuple[int, int]]) -> None:
    with pytest.raises(MalformedRelease, match="holes"):
        segments_of(header(size=1024, sparse=holes))


def test_hole_maps_lose_their_empty_entries() -> None:
    assert segments_of(header(size=1024, sparse=[(0, 10), (1024, 0)])) == ((0, 10),)
    assert segments_of(header(size=1024, sparse=[(9, 0), (0, 10), (2000, 0)])) == ((0, 10),)
    assert segments_of(header(size=1024)) == ((0, 1024),)
    touching = ((0, 10), (10, 1014))
    assert segments_of(header(size=1024, sparse=[*touching])) == touching


def test_access_control_lists_become_what_the_kernel_stores() -> None:
    """The bytes are linux/posix_acl_xattr.h: version 2, then tag, permissions, id."""
    text = "user::rwx,user:adm:r-x:1000,group::r-x,group:5:--x,mask::rwx,other::---"
    assert acl_xattr(text).hex() == (
        "02000000"
        "0100"
        "0700"
        "ffffffff"
        "0200"
        "0500"
        "e8030000"
        "0400"
        "0500"
        "ffffffff"
        "0800"
        "0100"
        "05000000"
        "1000"
        "0700"
        "ffffffff"
        "2000"
        "0000"
        "ffffffff"
    )


@pytest.mark.parametrize(
    "text",
    [
        "user::rwx:1:2",
        "user",
        "user:4294967295:rwx",
        "user:-1:rwx",
        "user:\u0663:rwx",
        "user:adm:rwx",
        "nobody::rwx",
        "mask:5:rwx",
        "user::rwxx",
        "user::rw",
    ],
)
def test_what_is_no_access_control_list(text: str) -> None:
    with pytest.raises(AclError):
        acl_xattr(text)


def test_access_control_lists_in_other_words() -> None:
    long = acl_xattr("user::rwx,user:4294967294:r--,group::r-X,mask::rwx,other::---")
    assert acl_xattr("u::rwx\n g::r-x ,\nu:4294967294:r--,m::rwx,o::---,") == long


@given(st.text(alphabet="usergomaskth:rwx-,0189\n ", max_size=60))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        value = acl_xattr(text)
    except AclError:
        return
    assert len(value) % 8 == 4


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (4095, 2**20 - 1)])
def test_device_numbers_at_the_edge_of_what_may_be(major: int, minor: int) -> None:
    entry = entry_of(header(type=tarfile.CHRTYPE, devmajor=major, devminor=minor))
    assert entry.device == (major, minor)


def test_as_many_attributes_as_ext4_can_hold() -> None:
    (found,) = entry_of(header(pax_headers={"SCHILY.xattr.user.b": "1" * 2970})).xattrs
    assert found == ("user.b", b"1" * 2970)
