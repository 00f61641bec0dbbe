"""What a release says of its packages is read within bounds: its key may be a stranger's."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import MalformedRelease
from imager.base.progress import Quiet
from imager.packages.resolve.base_system import base_of
from tests.support.release import ReleaseTree, build_release


def test_a_database_that_is_small_only_when_packed_is_refused(tmp_path: Path) -> None:
    """Twenty thousand entries of a megabyte are 20 MB of gzip, and were 20 GB of memory."""
    tree = ReleaseTree()
    for number in range(33):
        tree.file(f"var/lib/pacman/local/p{number}-1-1/desc", "\n" * (1 << 20))
    release = build_release(tmp_path, tree)
    with pytest.raises(MalformedRelease, match="makes its database of packages too large"):
        base_of(release, Cache(tmp_path / "cache"), Quiet())
