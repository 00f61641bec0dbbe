"""The boot check of a finished card, as a CardOrder takes it."""

from __future__ import annotations

from imager.base.errors import WouldNotBoot
from imager.bootcheck.check import check_boot
from imager.card.make.order import Check
from imager.config.rack import Node
from imager.disk.manifest import Reader
from imager.node.image import NodeImage


def boot_check(node: Node, image: NodeImage) -> Check:
    """The boot check of a card made for ``node``; it raises WouldNotBoot."""

    def check(read: Reader, size_bytes: int) -> None:
        report = check_boot(read, size_bytes, model=node.model, expected=dict(image.boot_files))
        if not report.bootable:
            raise WouldNotBoot(
                f"{node.name} would not boot: {report.errors[0].what}",
                hint=report.errors[0].mend,
                details=[f"{found.code}: {found.what}" for found in report.errors],
            )

    return check


def require_bootable(node: Node, image: NodeImage) -> None:
    """Raise WouldNotBoot for an image that would not, before any card is touched."""
    with image.open() as reader:
        boot_check(node, image)(reader.read, image.layout.size_bytes)
