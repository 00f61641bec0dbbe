"""The archive unpacked into plain files that any user may own.

In: a VerifiedRelease, perhaps a VerifiedSalt, and an empty folder. Out: two trees of files named
as in the archive, one for each partition, and the Entry of each. Owners, modes, times, attributes
and device nodes are only recorded: ``root_fs`` gives them to the finished filesystem, so that
neither privileges nor umask nor the host's filesystem change what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.progress import Progress
from imager.image.salt.tree import add_salt
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from imager.image.unpack.tree import Tree
from imager.release.verified import VerifiedRelease, VerifiedSalt


@dataclass(frozen=True, slots=True)
class Staged:
    """A release as files: ``root_folder`` and ``boot_folder`` hold what the trees describe."""

    root_folder: Path
    boot_folder: Path
    root: Tree
    boot: Tree
    made_at: int
    """The image's own time, seconds since 1970: that of the youngest member not from the future
    (a filesystem "made" tomorrow is a fault to e2fsck)."""


def stage(
    release: VerifiedRelease, folder: Path, progress: Progress, salt: VerifiedSalt | None = None
) -> Staged:
    """Unpack ``release`` into ``folder``, which must be empty and private, and ``salt`` over it
    unless the release has a Salt of its own.

    Raises MalformedRelease for a member that must not be on a card, NotAuthentic when the tarball
    is no longer what was fetched, ConfigurationError when the release lacks what ``salt`` needs,
    HostStorage when the disk is full.
    """
    with host_storage(folder), Stager.opened(folder) as stager:
        with (
            progress.phase("unpack", release.size_bytes) as phase,
            unpacked(release.tarball, release.sha256, phase) as stream,
        ):
            read_members(stream, release.tarball, stager.add)
        if salt is not None:
            add_salt(stager, salt, release.name, progress)
    return Staged(folder / "root", folder / "boot", stager.root, stager.boot, stager.newest)
