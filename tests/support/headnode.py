"""A salt-master that is no node of the rack: this computer, on a network of its own.

In: the real Salt from PyPI. Out: a running master with no configuration but Salt's own, whose
neighbours are the machines of ``tests.support.qemu`` that are switched on on the same wire.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.salt import Box, SaltPrograms, Wire, switched_on, wire

HOST = "10.0.2.2"
"""What QEMU's own network calls this computer."""
PUBLIC_KEY = "head.pub"
"""Salt names it after the master; master.pub is a link that leads nowhere outside the box."""
PATIENCE = 180
"""Seconds that an emulated node may take to answer. It was seen to take 15 on a busy computer."""
_START_SECONDS = 120
_WORK_SECONDS = 900
"""So long a node may work on what it is asked. Then Salt asks whether it still does, and gives it
up without an answer in 10 s, which an emulated node on a busy computer takes longer for."""


@dataclass(frozen=True)
class HeadNode:
    """The master, and where it keeps its keys."""

    box: Box
    wire: Wire
    pki: Path

    def ask(self, node: str, *words: str) -> Any:
        """What ``node`` returns for a function of Salt and its arguments."""
        asking = ("--out=json", "--static", f"--timeout={_WORK_SECONDS}", node)
        said = self.box.run("salt", *asking, *words, seconds=_WORK_SECONDS + 2 * PATIENCE)
        answers = json.loads(said or "{}")
        assert node in answers, f"{node} did not answer {words}: {said}{self.box.errors}"
        return answers[node]


@contextmanager
def head_node(folder: Path, programs: SaltPrograms) -> Iterator[HeadNode]:
    """A master called "head" in ``folder``; it has made its own key when the block begins."""
    etc = folder / "etc"
    pki = etc / "salt" / "pki" / "master"
    pki.mkdir(parents=True)
    (etc / "hostname").write_text("head\n")
    (etc / "hosts").write_text("127.0.0.1 localhost head\n")
    with wire([]) as on, switched_on(folder, on, programs, "salt-master") as box:
        began = time.monotonic()
        while not (pki / PUBLIC_KEY).exists():
            assert time.monotonic() - began < _START_SECONDS, box.log("salt-master")
            time.sleep(0.2)
        yield HeadNode(box, on, pki)
