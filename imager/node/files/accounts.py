"""passwd(5), group(5) and shadow(5) of the release: its users, and all passwords removed.

In: the text of the three files. Out: numbers for names, homes to put authorized_keys in, and a
shadow file without passwords. Pure. They are bytes, because these files have no fixed encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NO_PASSWORD = b"*"
"""shadow(5): no password matches it. With ``!`` an sshd without PAM would refuse keys too, and with
``!`` before the old hash ``passwd -u`` would bring back a password that everybody knows."""

FIRST_USER, LAST_USER = 1000, 59999
"""Numbers of people's accounts (login.defs(5), UID_MIN and UID_MAX as systemd fixes them)."""

_NO_LOGIN = (b"nologin", b"false", b"sync", b"shutdown", b"halt")


@dataclass(frozen=True, slots=True)
class Account:
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: bytes

    @property
    def may_log_in(self) -> bool:
        """Whether this is root or a person with a shell and a home."""
        person = self.uid == 0 or FIRST_USER <= self.uid <= LAST_USER
        return person and self.home.startswith("/") and not self.shell.endswith(_NO_LOGIN)


class Accounts:
    """The users and groups of a release, by name."""

    def __init__(self, passwd: bytes, group: bytes) -> None:
        self.users = {account.name: account for account in _parse_passwd(passwd)}
        self._groups = dict(_parse_group(group))

    def owner(self, text: str) -> tuple[int, int]:
        """(uid, gid) of ``user``, ``user:group`` or numbers. Raises ValueError that names what
        the release does not have."""
        user, colon, group = text.partition(":")
        account = self.users.get(user)
        if account is None and not user.isdigit():
            raise ValueError(f"the release has no user {user!r}")
        uid = account.uid if account else int(user)
        if not colon:
            return uid, account.gid if account else uid
        if group not in self._groups and not group.isdigit():
            raise ValueError(f"the release has no group {group!r}")
        return uid, self._groups.get(group, int(group) if group.isdigit() else 0)


def without_passwords(shadow: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A shadow (or passwd) file without passwords, and the names of the accounts that had one."""
    lines, taken = [], []
    for line in shadow.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 1 and _works(fields[1]):
            fields[1] = NO_PASSWORD
            taken.append(fields[0].decode(errors="replace"))
        lines.append(b":".join(fields))
    return b"\n".join(lines), tuple(taken)


def _works(password: bytes) -> bool:
    """Whether somebody can log in with this password field: an empty one lets anybody in; ``x``
    means that the password is in shadow."""
    return password != b"x" and not password.startswith((b"!", b"*"))


def _parse_passwd(text: bytes) -> Iterable[Account]:
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            name, _, uid, gid, _, home, shell = fields
            yield Account(
                name.decode(errors="surrogateescape"),
                int(uid),
                int(gid),
                home.decode(errors="surrogateescape"),
                shell,
            )


def _parse_group(text: bytes) -> Iterable[tuple[str, int]]:
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3 and fields[2].isdigit():
            yield fields[0].decode(errors="surrogateescape"), int(fields[2])
