"""The kernel's command line, cmdline.txt: ``root=`` is different on each card.

In: the release's or the rack's cmdline.txt. Out: the same words on one line, with root= and the id
of this card's second partition. Pure.
"""

from __future__ import annotations


def with_root(text: bytes, partuuid: str) -> bytes:
    """``text`` with ``root=PARTUUID=<partuuid>`` and ``rootwait``, on one line.

    All other words stay as they are. Lines after the first are left out: the firmware does not
    read them (Raspberry Pi documentation, "Kernel command line"). Without ``rootwait`` the kernel
    would panic, because the card becomes readable a little later than the kernel looks for it.
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
