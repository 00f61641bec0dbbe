"""A folder in FUSE that takes no name but UTF-8, as ZFS with utf8only does.

``python -m tests.support.utf8fs MOUNTPOINT STORE`` serves the folder STORE.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import mfusepy

from tests.support.folderfs import Folder, serve


class WantingUtf8(Folder):
    """The store, as far as its names are UTF-8."""

    def _at(self, path: str) -> str:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise mfusepy.FuseOSError(errno.EILSEQ) from None
        return super()._at(path)


if __name__ == "__main__":
    serve(WantingUtf8(Path(sys.argv[2])), sys.argv[1], "picloud-utf8fs")
