"""Writes an image of so many GiB, all of it mapped, to a card: ``benchmarks.flat`` measures it.

``python -m benchmarks.synthetic FOLDER TARGET GIB`` speaks as our command does with ``--json``. The
golden file is a hole with a partition table: the engine does not care what the bytes are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imager.base.units import GiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.cli.console import Console
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import build_manifest
from imager.disk.mbr import encode
from imager.image.compose.golden import GoldenImage
from imager.node.image import Delta, ImageReader, NodeImage
from tests.support.cards import DISK_ID, small_layout


def _image(folder: Path, size_bytes: int) -> NodeImage:
    path, layout, delta = folder / "golden", small_layout(size_bytes), Delta([])
    with path.open("wb") as file:
        file.write(encode(layout, DISK_ID))
        file.truncate(size_bytes)
    with path.open("rb") as file:
        read = ImageReader(file.fileno(), delta, path).read
        manifest = build_manifest(size_bytes, ExtentMap([Extent(0, size_bytes)]), read)
    golden = GoldenImage(
        path, "k" * 64, "synthetic", "0" * 64, ("pi2",), layout, manifest, boot_files={}
    )
    return NodeImage(golden, "pi7", "1" * 64, layout, delta, manifest, {})


def main() -> None:
    """Make the image and the card."""
    folder, node, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) * GiB
    image = _image(folder, size)
    console = Console(as_json=True)
    make_card(CardOrder(image, accept(target_at(node), size), folder / "receipts"), console)
    console.event("result", mapped_bytes=image.manifest.extents.total_bytes)


if __name__ == "__main__":
    main()
