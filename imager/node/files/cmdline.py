"""The kernel's command line: ``root=`` is different on each card, and overlays add words.

In: the release's or the rack's cmdline.txt. Out: the same words on one line, with root= and the id
of this card's second partition, and with the words of the overlays. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z0-9_.,:=/@+%~^*-]+\Z")
_FOR_INIT = b"--"
"""What stands behind it is for init, not for the kernel (kernel-parameters.rst)."""


def with_root(text: bytes, partuuid: str) -> bytes:
    """``text`` with ``root=PARTUUID=<partuuid>`` and ``rootwait``, on one line.

    All other words stay as they are, and so do those for init. Lines after the first are left out:
    the firmware does not read them (Raspberry Pi documentation, "Kernel command line"). Without
    ``rootwait`` the kernel would panic, because the card becomes readable a little later than the
    kernel looks for it.
    """
    root = b"root=PARTUUID=" + partuuid.encode()
    words = next((line.split() for line in text.splitlines() if line.strip()), [])
    own = _own(words)
    found: list[bytes] = []
    for word in words[:own]:
        if not word.startswith(b"root="):
            found.append(word)
        elif root not in found:
            found.append(root)
    if root not in found:
        found.insert(0, root)
    if b"rootwait" not in found:
        found.insert(found.index(root) + 1, b"rootwait")
    return b" ".join([*found, *words[own:]]) + b"\n"


def with_words(line: bytes, words: Iterable[str]) -> bytes:
    """``line``, without its end, and behind it those of ``words`` that it lacks.

    They come last because the kernel takes the last value of most keys.
    """
    kept = line.split()
    place = _own(kept)
    missing = dict.fromkeys(word.encode() for word in words)
    kept[place:place] = [word for word in missing if word not in kept[:place]]
    return b" ".join(kept)


def _own(words: list[bytes]) -> int:
    """How many of ``words`` are the kernel's own."""
    return words.index(_FOR_INIT) if _FOR_INIT in words else len(words)


def word_fault(word: str) -> str | None:
    """Why ``word`` cannot be added to the command line of every card; None when it can."""
    if not _WORD.match(word) or word == _FOR_INIT.decode():
        return "is not one plain word of a kernel's command line"
    if word.partition("=")[0] == "root":
        return "is set by this program, for each card"
    return None
