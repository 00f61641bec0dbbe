"""Makes the keys that are missing, with every core of this computer.

In: folders of the key store, and what makes the files of each. Out: every folder is filled. A prime
of an RSA key is found without Python's lock (``cryptography`` lets go of it), so threads are
enough; the store is locked only while a folder that is made gets its place. Whoever stops this at
any moment has whole folders and absent ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from imager.base.progress import Phase
from imager.base.trusted_folder import TrustedFolder
from imager.node.keys.store import KeyFolder, KeyMaker, store_locked


def make_missing(
    keys: TrustedFolder, makers: Mapping[KeyFolder, KeyMaker], phase: Phase | None = None
) -> None:
    """Fill each folder of ``makers``, all in the store ``keys``, that is absent, each a step of
    ``phase``. One that another run fills meanwhile stays as that run made it. Call it without the
    store's lock."""

    def fill(folder: KeyFolder) -> None:
        files = makers[folder]()
        with store_locked(keys, nodes=()):
            folder.kept((), lambda: files)

    absent = missing(makers)
    if absent:
        with ThreadPoolExecutor(min(len(absent), len(os.sched_getaffinity(0)))) as pool:
            # Ctrl-C comes out of this loop, and what no thread has begun is then never begun.
            for _ in pool.map(fill, absent):
                if phase:
                    phase.advance(1)


def missing(makers: Mapping[KeyFolder, KeyMaker]) -> list[KeyFolder]:
    """The folders of ``makers`` that are absent."""
    return [folder for folder in makers if not folder.is_there]
