"""What real pacman makes of a release and packages, and what it says of an image that has them.

In: a tarball, packages, an image. Out: folders that are laid out as on a node, and what is in each.
Everything runs in one fakeroot, which keeps owners for whoever runs the tests, and none of it
enters the folder with chroot(2): what belongs to a node is not run.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imager.base.run import search_path
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.image.compose.golden import GoldenImage

_CONF = "[options]\nArchitecture = armv7h any\nSigLevel = Never\n"
_LIST = """\
import hashlib, json, os, sys
root = sys.argv[1]
found = {}
for folder, folders, files in os.walk(root):
    for name in (*folders, *files):
        path = os.path.join(folder, name)
        at, link = os.lstat(path), os.path.islink(path)
        whole = not link and os.path.isfile(path)
        found[os.path.relpath(path, root)] = [
            oct(at.st_mode), at.st_uid, at.st_gid, os.readlink(path) if link else "",
            hashlib.sha256(open(path, "rb").read()).hexdigest() if whole else "",
            int(at.st_mtime) if whole or link else 0,
        ]
print(json.dumps(found))
"""
_MEND = """\
import json, os, stat, sys
for path, mode, mtime in json.loads(sys.argv[1]):
    if stat.S_ISLNK(mode):
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    else:
        os.chmod(path, stat.S_IMODE(mode))
"""


@dataclass(frozen=True)
class LaidOut:
    """A root filesystem in a folder, with the owners it has on a node."""

    root: Path
    state: Path

    def run(self, *words: str | Path, ok: Sequence[int] = (0,)) -> str:
        """Run ``words`` as the root that owns the files."""
        kept = ("-i", self.state) if self.state.exists() else ()
        done = subprocess.run(
            ["fakeroot", *kept, "-s", self.state, "--", *words],
            env={"PATH": search_path(), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pacman(self, *words: str | Path, ok: Sequence[int] = (0,)) -> str:
        """What pacman says here; it runs no scriptlet, and no hook that is there."""
        masked = self.root.with_name(f"{self.root.name}-masked")
        masked.mkdir(exist_ok=True)
        for hook in ("svc-mark.hook",):
            (masked / hook).unlink(missing_ok=True)
            (masked / hook).symlink_to(os.devnull)
        conf = masked / "pacman.conf"
        conf.write_text(_CONF)
        options = ["--noscriptlet"] if "-U" in words or "-R" in words else []
        return self.run(
            *("pacman", "--config", conf, "--root", self.root, "--noconfirm"),
            *("--dbpath", self.root / "var/lib/pacman", "--logfile", masked / "log"),
            *("--cachedir", masked / "cache", "--hookdir", masked),
            *("--gpgdir", masked / "gnupg"),
            *words,
            *options,
            ok=ok,
        )

    def files(self) -> dict[str, Any]:
        """Path -> mode, owner, group, target, hash, time of everything below the root."""
        found: dict[str, Any] = json.loads(self.run(sys.executable, "-c", _LIST, self.root))
        return found


def unpacked_release(folder: Path, tarball: Path) -> LaidOut:
    """The release as tar unpacks it."""
    laid = _empty(folder)
    laid.run("tar", "-xpf", tarball, "-C", laid.root, "--numeric-owner")
    return laid


def laid_out(folder: Path, golden: GoldenImage) -> LaidOut:
    """The root filesystem of an image, as debugfs reads it; it loses the upper bits of modes
    and the times of links."""
    laid = _empty(folder)
    offset = golden.layout.root.offset
    link = folder.with_name(f"{folder.name}.image")
    link.symlink_to(golden.path)
    laid.run("debugfs", "-R", f"rdump / {shlex.quote(str(laid.root))}", f"{link}?offset={offset}")
    with golden.path.open("rb") as file:
        read = lambda at, length: os.pread(file.fileno(), length, at)  # noqa: E731
        image = Ext4.open(read, offset, Budget.of_our_image())
        inodes = ((path, image.inode(number)) for path, number in image.numbers())
        lost = [
            [str(laid.root / path[1:]), inode.mode, inode.mtime_ns]
            for path, inode in inodes
            if inode.mode & 0o7000 or inode.is_symlink
        ]
    laid.run(sys.executable, "-c", _MEND, json.dumps(lost))
    return laid


def _empty(folder: Path) -> LaidOut:
    folder.mkdir()
    return LaidOut(folder, folder.with_name(f"{folder.name}.fakeroot"))
