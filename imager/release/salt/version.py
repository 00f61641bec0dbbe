"""Versions of Salt: which go on a card, which work on a Python, which master and minion can talk.

In: versions as text. Out: an order between them, or the reason why not. Pure.
"""

from __future__ import annotations

import re

OLDEST = "3006.0"
"""The oldest series that still gets corrections and has metadata in its source release."""
# Until 3005 the first release of a series had no minor number.
_VERSION = re.compile(r"(\d{4}\.\d{1,3}(\.\d{1,3})?|300[0-5])\Z")

# Authentication by protocol version 3 came with session keys, to which both sides must hold: seen
# in salt/channel/client.py and salt/crypt.py of the source releases 3006.11, 3006.12, 3007.3 and
# 3007.4. Masters insist on it since the versions that brought minimum_auth_version.
_SPEAKS = {3006: 12, 3007: 4}
_INSISTS = {3006: 17, 3007: 9}
# Since Python 3.14 asyncio makes no event loop for who asks for the current one. 3006.30 was seen
# to start there ("no current event loop") and never to say a word to its master.
_LAST_PYTHON = {3006: 13}
_SPEAKING = ", ".join(f"{series}.{minor}" for series, minor in _SPEAKS.items()) + " or newer"


def parse_version(text: str) -> tuple[int, ...]:
    """``3008.3`` as (3008, 3), to compare with others. Raises ValueError for anything else."""
    if not _VERSION.match(text):
        raise ValueError(f"{text!r} is not a version of Salt")
    return tuple(int(number) for number in text.split("."))


def master_version_fault(text: str) -> str | None:
    """Why ``text`` cannot be the version of an existing master, which may be old; None when it can.
    The reason continues a sentence that begins with ``text``."""
    return None if _VERSION.match(text) else "is not a version of Salt"


def version_fault(text: str) -> str | None:
    """Why ``text`` cannot be the version to put on a card; None when it can. The reason continues
    a sentence that begins with ``text``."""
    fault = master_version_fault(text)
    if fault is None and parse_version(text) < parse_version(OLDEST):
        return f"is older than {OLDEST}, the oldest that can be put on a card"
    return fault


def python_too_new(version: str, minor: int) -> str | None:
    """Why Salt ``version`` cannot work on Python 3.``minor``, which its metadata lets pass; None if
    nothing is known against it. The reason is a whole sentence without its full stop."""
    last = _LAST_PYTHON.get(parse_version(version)[0], minor)
    if minor <= last:
        return None
    return f"Salt {version} starts on Python 3.{minor} and never talks to its master"


def cannot_talk(minion: str, master: str) -> str | None:
    """Why nodes with Salt ``minion`` cannot join a master with Salt ``master``; None if they can.

    Versions as ``parse_version`` takes them.
    """
    nodes, head = parse_version(minion), parse_version(master)
    if _reaches(nodes, _SPEAKS) and not _reaches(head, _SPEAKS):
        return (
            f"nodes with {minion} want a session key, which a master with {master} never sends; "
            f"it needs {_SPEAKING}"
        )
    if _reaches(head, _INSISTS) and not _reaches(nodes, _SPEAKS):
        return (
            f"a master with {master} refuses nodes with {minion}: they authenticate by a protocol "
            f"older than its minimum_auth_version 3; they need {_SPEAKING}"
        )
    return None


def _reaches(version: tuple[int, ...], floors: dict[int, int]) -> bool:
    """Whether ``version`` is at least the minor release that ``floors`` has for its series."""
    series = version[0]
    if series in floors:
        return version[1] >= floors[series]
    return series > max(floors)
