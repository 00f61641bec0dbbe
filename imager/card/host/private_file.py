"""A file that is to hold private keys, in a folder of whoever it is.

In: a path whose folder a person chose; anybody who may write there may have put something under
that name. Out: a descriptor of a file of our own. What is written through it can be read by nobody
but its owner, whoever owns the folder: a stranger there may rename the file or remove it, no more.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from imager.base.below import PLAIN
from imager.base.errors import PicloudError
from imager.base.ownership import distrust, trusted_users, user_name

ErrorFor: TypeAlias = Callable[[str, Path], PicloudError]
"""Makes an error of what is wrong and the path."""


def open_private(path: Path, flags: int, error_for: ErrorFor) -> int:
    """Open the file ``path`` with ``flags`` (of open(2)). With O_CREAT one that is not there is
    made, with mode 0600 from birth.

    Raises what ``error_for`` makes of what is there and is a link, no regular file, one with a
    second name, or one that somebody else owns or may write to. It is looked at before it is
    opened: a device is not even touched. Raises OSError.
    """
    while True:
        try:
            _require_own(path.lstat(), path, error_for)
            return _judged(os.open(path, flags & ~os.O_CREAT | PLAIN), path, error_for)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        with suppress(FileExistsError):  # another run made it meanwhile: look at that one
            return os.open(path, flags | PLAIN | os.O_EXCL, 0o600)


def removal(*paths: Path) -> str:
    """What to type so that nothing is at ``paths`` any more."""
    folders = any(path.is_dir() and not path.is_symlink() for path in paths)
    return shlex.join(["rm", *(["-r"] if folders else []), *map(str, paths)])


def _judged(descriptor: int, path: Path, error_for: ErrorFor) -> int:
    """``descriptor``, which is closed where something else got the name since it was looked at."""
    try:
        about = os.fstat(descriptor)
        _require_own(about, path, error_for)
        reason = distrust(about, descriptor)
        if reason is not None:
            raise error_for(f"{path} {reason}", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(about: os.stat_result, path: Path, error_for: ErrorFor) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise error_for(f"{path} is a link", path)
    if about.st_uid not in trusted_users():
        raise error_for(f"{path} belongs to {user_name(about.st_uid)}", path)
    if about.st_nlink > 1 or not stat.S_ISREG(about.st_mode):
        raise error_for(f"{path} is no file of its own", path)
