"""Every card a node could hold when its first boot is cut, gathered in one run.

In: a FakeNode. Out: folders like its root, one for each state between two changes of any file; each
once more with the data of what was not synced lost, as a card may lose it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.fakenode import Boot, FakeNode
from tests.support.fusing import fuse_process
from tests.support.treefs import SYNCED


def boot_and_gather(node: FakeNode, states: Path) -> Boot:
    """Boot ``node`` in a folder that remembers its states, and leave them in ``states``."""
    store = node.root.with_name("store")
    node.root.rename(store)
    node.root.mkdir()
    states.mkdir()
    node.fake_tool("sync", f'/bin/mkdir "$PICLOUD_ROOT/{SYNCED}" 2>/dev/null || :\n')
    with fuse_process("tests.support.treefs", node.root, store, states):
        boot = node.boot()
    node.root.rmdir()
    store.rename(node.root)
    return boot


def cards_in(states: Path) -> Iterator[Path]:
    """The gathered cards; a pair where data could be lost."""
    for unsynced in sorted(states.glob("*.unsynced")):
        card = unsynced.with_suffix("")
        yield card
        written = [card / name for name in unsynced.read_text().splitlines()]
        lossy = [path for path in written if path.is_file() and path.stat().st_size]
        if lossy:
            less = card.with_name(f"{card.name}-less")
            shutil.copytree(card, less, symlinks=True)
            for path in lossy:
                with (less / path.relative_to(card)).open("r+b") as file:
                    file.truncate(0)
            yield less
