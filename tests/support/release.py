"""A small release tarball, made by hand, that has one of everything a real one may have.

In: nothing, or a tree to pack. Out: a VerifiedRelease whose tarball is a few MB. Written with
``tarfile``, so that what reads it in the product and what wrote it here share no code.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imager.release.verified import VerifiedRelease
from tests.support.bootfiles import minimal_boot_files

MTIME = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""security.capability as ``setcap cap_net_raw+ep`` stores it (linux/capability.h, revision 2)."""
ODD_NAMES = (
    "with space",
    'quo"te',
    "back\\slash",
    "new\nline",
    "-dash",
    "<7>",
    "größe-日本語",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
    "n" * 255,
    "#hash",
    "  leading",
    "tab\tand\x7fdel",
)


@dataclass
class ReleaseTree:
    """Members in the order they are packed."""

    members: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)

    def add(self, path: str, kind: bytes, data: bytes = b"", **fields: Any) -> None:
        """Add one member of ``tarfile`` type ``kind``; ``fields`` are attributes of TarInfo."""
        info = tarfile.TarInfo(path)
        info.type, info.mtime, info.size = kind, MTIME, len(data)
        for name, value in fields.items():
            setattr(info, name, value)
        self.members.append((info, data))

    def folder(self, path: str, mode: int = 0o755, **fields: Any) -> None:
        self.add(path, tarfile.DIRTYPE, mode=mode, **fields)

    def file(self, path: str, data: bytes | str = b"", mode: int = 0o644, **fields: Any) -> None:
        raw = data.encode() if isinstance(data, str) else data
        self.add(path, tarfile.REGTYPE, raw, mode=mode, **fields)

    def symlink(self, path: str, target: str, **fields: Any) -> None:
        self.add(path, tarfile.SYMTYPE, linkname=target, mode=0o777, **fields)

    def hardlink(self, path: str, target: str, **fields: Any) -> None:
        self.add(path, tarfile.LNKTYPE, linkname=target, mode=0o644, **fields)

    def sparse(self, path: str, size: int, segments: list[tuple[int, bytes]]) -> None:
        """A sparse file in the pax 1.0 form (GNU tar manual, "Storing Sparse Files")."""
        numbers = [len(segments), *(n for at, data in segments for n in (at, len(data)))]
        table = "".join(f"{number}\n" for number in numbers).encode()
        data = table.ljust(-(-len(table) // 512) * 512, b"\0") + b"".join(d for _, d in segments)
        self.file(
            str(Path(path).parent / "GNUSparseFile.0" / Path(path).name),
            data,
            pax_headers={
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": path,
                "GNU.sparse.realsize": str(size),
            },
        )

    def pack(self) -> bytes:
        """The uncompressed archive."""
        stream = io.BytesIO()
        with tarfile.open(
            fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        ) as archive:
            for info, data in self.members:
                archive.addfile(info, io.BytesIO(data))
        return stream.getvalue()


def build_release(
    folder: Path,
    tree: ReleaseTree | None = None,
    *,
    models: tuple[str, ...] = ("pi2",),
    raw: bytes | None = None,
) -> VerifiedRelease:
    """Pack ``tree`` (default ``everyday_tree()``), or the archive ``raw``, in ``folder``."""
    packed = gzip.compress(raw or (tree or everyday_tree()).pack(), compresslevel=1, mtime=0)
    tarball = folder / "stand-in-rpi-armv7-latest.tar.gz"
    tarball.write_bytes(packed)
    return release_of(tarball, models=models)


def release_of(tarball: Path, *, models: tuple[str, ...] = ("pi2",)) -> VerifiedRelease:
    """The VerifiedRelease a fetch of ``tarball`` would have ended in."""
    with tarball.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return VerifiedRelease(
        name="stand-in-rpi-armv7",
        models=models,
        sha256=sha256,
        tarball=tarball,
        size_bytes=tarball.stat().st_size,
        fingerprint="0" * 40,
        source_url="http://127.0.0.1/stand-in-rpi-armv7-latest.tar.gz",
        fetched_at="2026-01-02T03:04:05Z",
    )


def everyday_tree() -> ReleaseTree:
    """A tree shaped like the distribution's, with every kind of member in it."""
    tree = plain_tree()
    _add_odd_files(tree)
    return tree


def plain_tree() -> ReleaseTree:
    """A tree shaped like the distribution's, with nothing that is hard for other programs."""
    tree = ReleaseTree()
    tree.folder(".", 0o755)
    for path in ("./boot", "./boot/overlays", "./dev", "./etc", "./proc", "./usr", "./usr/bin"):
        tree.folder(path)
    _add_boot_files(tree)
    _add_system_files(tree)
    return tree


def _add_boot_files(tree: ReleaseTree) -> None:
    files = minimal_boot_files("pi2") | {
        "large.bin": hashlib.sha256(b"large").digest() * 20_000,
        "A long name with spaces and ünïcödé.txt": b"long\n",
        "empty.txt": b"",
    }
    for number, (name, data) in enumerate(files.items()):
        tree.file(f"./boot/{name}", data, 0o755, mtime=MTIME + 7 * number)


def _add_system_files(tree: ReleaseTree) -> None:
    for path in ("ssh", "systemd", "systemd/network", "systemd/system", "salt"):
        tree.folder(f"./etc/{path}")
    texts = {
        "hostname": "alarmpi\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "fstab": "# <file system> <dir> <type> <options>\n/dev/mmcblk0p1  /boot   vfat"
        "    defaults        0       0\n",
        "passwd": "root:x:0:0::/root:/bin/bash\nalarm:x:1000:1000::/home/alarm:/bin/bash\n",
        "group": "root:x:0:root\nwheel:x:998:alarm\nalarm:x:1000:\n",
        "os-release": 'NAME="Stand-in for Arch Linux ARM"\nID=archarm\n',
        "machine-id": "",
        "systemd/network/eth.network": "[Match]\nName=eth*\n\n[Network]\nDHCP=yes\n",
        "ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n",
    }
    for name, text in texts.items():
        tree.file(f"./etc/{name}", text)
    shadow = "root:$6$salt$hash:14871::::::\nalarm:$6$salt$hash:14871::::::\n"
    tree.file("./etc/shadow", shadow, 0o600)
    tree.folder("./root", 0o700)
    tree.folder("./home")
    tree.folder("./home/alarm", 0o700, uid=1000, gid=1000)
    for path in (
        "./usr/lib",
        "./usr/lib/systemd",
        "./usr/lib/systemd/system",
        "./var",
        "./var/lib",
    ):
        tree.folder(path)
    tree.symlink("./lib", "usr/lib")
    tree.symlink("./bin", "usr/bin")
    tree.file("./usr/lib/systemd/systemd", b"\x7fELF" + bytes(4000), 0o755)
    tree.symlink("./usr/bin/init", "../lib/systemd/systemd")
    tree.file("./usr/lib/systemd/system/sshd.service", "[Service]\nExecStart=/usr/bin/sshd -D\n")
    tree.folder("./tmp", 0o1777)
    tree.folder("./var/mail", 0o2775, gid=8)


def _add_odd_files(tree: ReleaseTree) -> None:
    tree.file("./usr/bin/su", b"\x7fELF su", 0o4755)
    tree.file("./usr/bin/wall", b"\x7fELF wall", 0o2755, gid=5)
    tree.file(
        "./usr/bin/ping",
        b"\x7fELF ping",
        0o755,
        pax_headers={
            "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1"),
            "LIBARCHIVE.xattr.user.note": base64.b64encode(b"a\0b\xff").decode().rstrip("="),
        },
    )
    tree.hardlink("./usr/bin/ping4", "./usr/bin/ping")
    tree.file("./usr/bin/big-owner", b"x", 0o600, uid=70_000, gid=2**31 + 5)
    tree.file("./etc/exact-time", b"t", pax_headers={"mtime": f"{MTIME}.123456789"})
    tree.file("./etc/far-future", b"t", mtime=2**32 + 11)
    tree.file("./etc/epoch", b"t", mtime=0)
    tree.file("./etc/before-the-epoch", b"t", pax_headers={"mtime": "-86400.25"})
    tree.file("./etc/empty")
    tree.add("./dev/console", tarfile.CHRTYPE, mode=0o600, devmajor=5, devminor=1)
    tree.add("./dev/loop300", tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=7, devminor=300)
    tree.add("./dev/initctl", tarfile.FIFOTYPE, mode=0o600)
    tree.folder("./usr/odd")
    for number, name in enumerate(ODD_NAMES):
        tree.file(f"./usr/odd/{name}", f"odd {number}\n", uid=number)
    tree.symlink("./usr/odd/long link", "../" * 40 + "x" * 100, uid=3)
    tree.symlink("./usr/odd/nowhere", "/does/not/exist")
    deep = "./usr/odd/" + "/".join(letter * 90 for letter in "abcd")
    for depth in range(1, 5):
        tree.folder("/".join(deep.split("/")[: 3 + depth]), 0o750)
    tree.file(deep + "/" + "f" * 200, b"deep")
    tree.file("./usr/odd/large", bytes(range(256)) * 8192)
    tree.sparse("./usr/odd/sparse", 3_000_001, [(n * 200_000, b"%06d" % n * 900) for n in range(9)])
    tree.folder("./usr/many")
    for number in range(700):
        tree.file(f"./usr/many/entry-{number:05d}-with-a-name-of-some-length", f"{number}\n")
