"""The kernel's command line, cmdline.txt, and the one word of it that each card needs its own.

In: the release's or the rack's cmdline.txt. Out: the same words on one line, with root= naming
this card's second partition. Pure.
"""

from __future__ import annotations


def with_root(text: bytes, partuuid: str) -> bytes:
    """``text`` with ``root=PARTUUID=<partuuid>`` and ``rootwait``, on one line.

    Every other word keeps its place and its bytes. Only the first line counts: the firmware
    stops there (Raspberry Pi documentation, "Kernel command line"), so what follows it never
    was in force and is left out. The card's reader appears late, so without ``rootwait`` the
    kernel would panic before it is there.
    """
    root = b"root=PARTUUID=" + partuuid.encode()
    words = next((line.split() for line in text.splitlines() if line.strip()), [])
    found: list[bytes] = []
    for word in words:
        if not word.startswith(b"root="):
            found.append(word)
        elif root not in found:
            found.append(root)
    if root not in found:
        found.insert(0, root)
    if b"rootwait" not in found:
        found.insert(found.index(root) + 1, b"rootwait")
    return b" ".join(found) + b"\n"
