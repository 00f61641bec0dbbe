"""``receipt``: show what a receipt says, with a curve of how fast it went.

In: a receipt file, or a node whose newest one is shown. Out: lines for a person; with ``--json``
the receipt itself, without its list of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from imager.base.errors import ConfigurationError, UsageError
from imager.base.units import format_chosen, format_rate, format_size
from imager.card.diagnosis.damage import Diagnosis
from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import all_receipts, load_receipt
from imager.cli.choice import open_rack
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


@command("receipt", uses=("rack",))
@click.argument("file", required=False, type=PATH)
@click.option("--node", metavar="NAME", help="The newest receipt of this node.")
def receipt(session: Session, file: Path | None, node: str | None) -> CommandResult:
    """Show a receipt: which card, which node, how fast, with what result.

    Examples:
        picloud-image receipt --node pi7
            How pi7's card was written the last time.
        picloud-image receipt --node pi7 --json
            The receipt itself, for a script.
    """
    path, found = _chosen(session, file, node)
    session.console.lines(*_lines(path, found))
    shown = found.to_json()
    del shown["manifest"]
    return {"path": str(path), "receipt": shown}


def _chosen(session: Session, file: Path | None, node: str | None) -> tuple[Path, Receipt]:
    if (file is None) == (node is None):
        raise UsageError(
            "give either a receipt's file or --node NAME",
            hint="receipts lie in .picloud/receipts of the rack",
        )
    if file is not None:
        return file, load_receipt(file)
    folder = open_rack(session, looking=True).receipts
    for path, found in all_receipts(folder):
        if found.node == node:
            return path, found
    raise ConfigurationError(
        f"no receipt in {folder} is of a node {node}",
        hint="name the rack it was written for with --rack DIR",
    )


def _lines(path: Path, receipt: Receipt) -> Iterator[str]:
    target, image = receipt.target, receipt.image
    made = " ".join(filter(None, (target.vendor, target.model)))
    marks = {"serial": target.serial, "CID": target.cid, "slot": target.slot}
    known = ", ".join(f"{name} {value}" for name, value in marks.items() if value)
    yield f"{receipt.node}: {receipt.result.value}, {receipt.finished_at}"
    if receipt.failure:
        yield f"    {receipt.failure}"
    yield f"card      {target.path}{f' ({made})' if made else ''}, {format_size(target.size_bytes)}"
    if known:
        yield f"          {known}"
    if image.source is None:
        yield f"release   {image.release_name}, sha256 {image.release_sha256[:16]}…"
    else:
        yield f"source    {image.source.name}, sha256 {image.source.sha256 or 'not known'}"
    if image.salt:
        yield f"salt      {image.salt}"
    yield f"image     {image.image_id[:16]}…, disk id {image.disk_id:08x}"
    yield (
        f"mapped    {format_size(receipt.manifest.extents.total_bytes)} in "
        f"{len(receipt.manifest.digests)} chunks, {format_chosen(receipt.options.block_bytes)} a "
        f"transfer, {receipt.options.depth} in flight"
        f"{f' ({receipt.options.why})' if receipt.options.why else ''}"
    )
    for phase in receipt.phases:
        yield (
            f"{phase.name:<14}{format_size(phase.size_bytes):>10} {phase.seconds:8.1f} s "
            f"{format_rate(phase.bytes_per_second):>12}  {curve(phase.samples)}"
        ).rstrip()
    if receipt.trouble is not None:
        yield f"trouble   {receipt.trouble.meaning}"
        yield from (f"          {line}" for line in Diagnosis(receipt.trouble.found).lines)
    if not receipt.cache_bypassed:
        yield "caution   it was read back through the computer's cache, or not at all"
    yield from (f"caution   {fallback}" for fallback in receipt.fallbacks)
    yield f"file      {path}"


def curve(samples: Sequence[int]) -> str:
    """Draw one-second samples as a line of bars, from zero to the fastest. If there are many, a bar
    stands for several seconds. Empty for less than two samples."""
    if len(samples) < 2 or not any(samples):
        return ""
    step = -(-len(samples) // _WIDTH)
    means = [
        sum(part) / len(part)
        for part in (samples[start : start + step] for start in range(0, len(samples), step))
    ]
    top = max(means)
    return "".join(_BARS[round(mean / top * (len(_BARS) - 1))] for mean in means)
