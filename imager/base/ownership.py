"""Whose a file is, and whether that is somebody who may decide what this program does.

In: what stat(2) says. Out: the reason not to use it, or None. Trusted are who runs this program,
the person behind sudo, and root; and nobody else may be able to write there. That is what git
calls safe.directory: a folder of somebody else's could tell root what to do.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from contextlib import suppress
from pathlib import Path

_ACL = "system.posix_acl_access"


def trusted_users() -> frozenset[int]:
    """The users whose files may be used: root, who runs this, and who called sudo for it."""
    return frozenset({0, os.geteuid(), person()})


def person() -> int:
    """The user who typed the command: with sudo the one who called it, else who runs this."""
    own = os.geteuid()
    behind = os.environ.get("SUDO_UID", "")
    return int(behind) if own == 0 and behind.isdecimal() else own


def at_home(path: str) -> Path:
    """``path``, where a ``~`` at its start is the home of ``person``: sudo makes root's of HOME.
    Raises RuntimeError where a user has no home."""
    user = person()
    if user != os.geteuid() and (path == "~" or path.startswith("~/")):
        with suppress(KeyError):
            return Path(pwd.getpwuid(user).pw_dir + path[1:])
    return Path(path).expanduser()


def home_behind_sudo() -> Path | None:
    """The home folder of who called sudo, where there is one that is theirs; None without sudo."""
    user = person()
    if user == os.geteuid():
        return None
    try:
        home = Path(pwd.getpwuid(user).pw_dir)
        return home if home.stat().st_uid == user else None
    except (KeyError, OSError):
        return None


def distrust(about: os.stat_result, descriptor: int) -> str | None:
    """Why the open file or folder ``descriptor`` must not be used, None when it may be."""
    if about.st_uid != os.geteuid() and about.st_uid not in trusted_users():
        return f"belongs to {user_name(about.st_uid)}"
    if about.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if about.st_mode & stat.S_IWGRP and not _is_owners_alone(about, descriptor):
        return f"can be written by the group {group_name(about.st_gid)}"
    return None


def mend(about: os.stat_result, reason: str, path: Path) -> str:
    """What to do so that ``path`` may be used, by whoever runs this."""
    quoted = shlex.quote(str(path))
    if about.st_mode & stat.S_ISVTX:
        return "name a folder of your own, as a copy of it (--rack DIR, --cache DIR, --images DIR)"
    if reason.startswith("can be written") and os.geteuid() in (0, about.st_uid):
        return f"chmod -R go-w {quoted}"
    if os.geteuid() == 0:
        return f"chown -R {chown_words(person())} {quoted}"
    return f"copy it, and the copy is yours: cp -r {quoted} NEW"


def give_to(descriptor: int, owner: os.stat_result) -> None:
    """Let what root has just made belong to ``owner``'s user and group, where that is a person who
    is trusted."""
    if os.geteuid() == 0 and owner.st_uid != 0 and owner.st_uid in trusted_users():
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def give_tree_to(folder: Path, owner: os.stat_result) -> None:
    """As ``give_to``, for ``folder`` and all in it, which root has just made in private."""
    if os.geteuid() != 0 or owner.st_uid == 0 or owner.st_uid not in trusted_users():
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def user_name(uid: int) -> str:
    """The name of the user ``uid``, or ``user 7`` where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def chown_words(uid: int) -> str:
    """The user ``uid`` and their group, as chown(1) takes them."""
    try:
        return f"{pwd.getpwuid(uid).pw_name}:"
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of the group ``gid``, or the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_owners_alone(about: os.stat_result, descriptor: int) -> bool:
    """Whether the group is one that many distributions give each user, with nobody else in it,
    and no access control list lets in others under the group's bits."""
    try:
        owner = pwd.getpwuid(about.st_uid)
        members = set(grp.getgrgid(about.st_gid).gr_mem)
    except KeyError:
        return False
    if owner.pw_gid != about.st_gid or members - {owner.pw_name}:
        return False
    if any(user.pw_gid == about.st_gid and user.pw_uid != owner.pw_uid for user in pwd.getpwall()):
        return False
    return not _has_acl(descriptor)


def _has_acl(descriptor: int) -> bool:
    try:
        os.getxattr(descriptor, _ACL)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True
