"""The archive unpacked into plain files that any user may own.

In: a VerifiedRelease, perhaps a PackageSet and a VerifiedSalt, and an empty folder. Out: two trees
of files named as in the archive, one for each partition, and the TreeEntry of each. Owners, modes,
times, attributes and device nodes are only recorded here; ``root_fs`` sets them in the finished
filesystem. So the result does not depend on privileges, umask or this computer's filesystem.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.progress import Progress
from imager.image.packages.install import add_packages
from imager.image.salt.tree import add_salt
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from imager.image.unpack.tree import Tree
from imager.packages.verified import PackageSet
from imager.release.verified import VerifiedRelease, VerifiedSalt


@dataclass(frozen=True, slots=True)
class Staged:
    """A release as files: ``root_folder`` and ``boot_folder`` hold the files that the two trees
    describe."""

    root_folder: Path
    boot_folder: Path
    root: Tree
    boot: Tree
    made_at: int
    """The time at which the image counts as made, in seconds since 1970: that of the newest file of
    the release, without those dated in the future (e2fsck reports a filesystem made tomorrow)."""
    first_boot: tuple[str, ...] = ()
    """What its packages left for the node's first boot, the lines of its queue."""


def stage(
    release: VerifiedRelease,
    folder: Path,
    progress: Progress,
    salt: VerifiedSalt | None = None,
    packages: PackageSet | None = None,
) -> Staged:
    """Unpack ``release`` into ``folder``, which must be empty and private, ``packages`` over it,
    and ``salt`` over both unless they have a Salt of their own.

    Raises MalformedRelease for a file that must not be on a card, NotAuthentic when an archive
    is no longer what was fetched, ConfigurationError when ``packages`` do not go together with the
    release or what ``salt`` needs is not there, HostStorage when the disk is full.
    """
    with host_storage(folder), Stager.opened(folder) as stager:
        with (
            progress.phase("unpack", release.size_bytes) as phase,
            unpacked(release.tarball, release.sha256, phase) as stream,
        ):
            read_members(stream, release.tarball, stager.add)
        left = add_packages(stager, packages, release.name, progress) if packages else ()
        if salt is not None:
            add_salt(stager, salt, release.name, progress)
    return Staged(folder / "root", folder / "boot", stager.root, stager.boot, stager.newest, left)
