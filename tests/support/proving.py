"""Write a card that misbehaves, prove it, and keep everything that was said and done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imager.base.errors import PicloudError
from imager.base.progress import FindingData, Phase, Quiet
from imager.base.units import MiB
from imager.card.diagnosis.trouble import Trouble
from imager.card.medium.meter import PhaseFigures
from imager.card.stages import WriteOptions
from imager.card.write.read_back import read_back
from imager.card.write.write import write_card
from imager.disk.extents import Extent
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, Flush, Write, claimed


@dataclass
class Heard(Quiet):
    """A Progress that remembers what it was told."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[dict[str, object]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        self.begun.append(name)
        with super().phase(name, total_bytes) as phase:
            yield phase

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def finding(self, finding: FindingData) -> None:
        self.findings.append(finding.to_json())


@dataclass
class Made:
    """What came of writing and proving one card."""

    card: FaultyCard
    heard: Heard
    error: PicloudError | None
    trouble: Trouble | None
    after: list[Write | Flush]
    """Writes and flushes after the first reading began."""
    phases: list[PhaseFigures]

    @property
    def repaired(self) -> Trouble:
        assert self.error is None, self.error
        assert self.trouble is not None
        assert self.trouble.left == ()
        return self.trouble

    @property
    def body_writes(self) -> list[Extent]:
        return [
            Extent(step.offset, step.length)
            for step in self.after
            if isinstance(step, Write) and step.offset >= MiB
        ]


def make(
    image: NodeImage, card: FaultyCard, spoil: Callable[[], None] | None = None, depth: int = 2
) -> Made:
    """Write and prove ``card``; ``spoil`` is called between the two."""
    heard, held = Heard(), claimed(card)
    error = None
    before = 0
    try:
        written = write_card(image, held, heard, WriteOptions(MiB, depth))
        before = len(card.log)
        if spoil:
            spoil()
        read_back(written, heard)
    except PicloudError as caught:
        error = caught
    return Made(card, heard, error, held.log.trouble, card.log[before:], held.log.phases)


def is_whole(card: FaultyCard, image: NodeImage) -> bool:
    with image.open() as reader:
        return all(card.holds(e) == reader.read(e.offset, e.length) for e in image.manifest.extents)
