"""A kind of target that only the tests know: a card in this computer's memory.

In: a size. Out: a Target like any other, behind an open descriptor; needs no root and no device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.errors import TargetRefused
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import (
    HeldTarget,
    Limits,
    Refusal,
    RefusalCode,
    Target,
    TargetFacts,
)
from imager.card.medium.raw import Descriptor
from imager.card.medium.reopen import fresh_read


@dataclass(frozen=True, slots=True)
class MemoryCard(Target):
    """A card in this computer's memory, behind an open descriptor."""

    noun = "a card in memory"

    fd: int
    write_protected: bool = False
    port: str | None = None

    @property
    def node(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.fd).st_size

    @property
    def capacity_bytes(self) -> int:
        return self.size_bytes

    @property
    def facts(self) -> TargetFacts:
        return TargetFacts(self.node, self.size_bytes, "memory", model="DIMM", serial="007")

    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        if self.size_bytes < need_bytes:
            yield Refusal(RefusalCode.TOO_SMALL, "too little memory", "add some")
        if self.size_bytes > limits.max_size_bytes:
            yield Refusal(RefusalCode.TOO_LARGE, "too much memory", "take some out")

    def root_port(self, kernel: HostTrees) -> str | None:
        return self.port

    @contextmanager
    def hold(self, size_bytes: int, limits: Limits, kernel: HostTrees) -> Iterator[HeldTarget]:
        if self.write_protected:
            raise TargetRefused("the memory is write-protected", hint="unlock it")
        raw = Descriptor(self.fd, self.node, self.size_bytes, 512)
        yield HeldTarget(
            raw=raw,
            reopen=lambda: fresh_read(self.node, self.node, self.size_bytes, 512),
            keep=lambda: None,
            fallbacks=("memory forgets",),
        )


@contextmanager
def memory_card(size_bytes: int, port: str | None = None) -> Iterator[MemoryCard]:
    """A blank card of so many bytes, behind the USB root port ``port``; gone after the block."""
    fd = os.memfd_create("card")
    try:
        os.ftruncate(fd, size_bytes)
        yield MemoryCard(fd, port=port)
    finally:
        os.close(fd)
