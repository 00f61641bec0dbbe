"""One more node on an existing golden image: how long until the first byte goes to its card.

Every repetition takes a node that had no keys yet, on a card (a sparse loop device) that is left
at the first byte, as by Ctrl-C. The peer is what tools do that keep an image for each node: copy
the golden one.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.devices import card_of, missing_abilities
from benchmarks.process import measure
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.base.units import GiB, MiB
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.personalise import personalise
from imager.release.catalogue import spec_for
from imager.release.fetch import fetch_release
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms

LIMIT_SECONDS = 2.0
LIMIT_BYTES = 4 * MiB
CARDS = {"4 GiB": 4 * GiB, "32 GB": 32 * 10**9, "128 GB": 128 * 10**9}
_FIRST_NODE = 20
"""Lower numbers are left to the other measurements."""


def node_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Seconds to the first byte, and the size of the delta, for small and large cards."""
    place.picloud("compose")
    rack = load_rack(place.rack)
    golden = golden_of(place, rack)
    number = _FIRST_NODE
    for title, size in CARDS.items():
        what, limit = f"one more node, {title} card: to the first byte", f"{LIMIT_SECONDS:.0f} s"
        if missing := missing_abilities():
            yield skipped(what, limit, missing)
            continue
        ours, theirs = [], []
        for _ in range(repetitions):
            seconds, cpu = _first_byte(place, f"pi{number}", size)
            ours.append(seconds)
            theirs.append(_copy(place, golden))
            number += 1
        mine, copy = Sample(tuple(ours)), Sample(tuple(theirs))
        tell(f"{what}: {mine.text('s', 2)}, CPU {cpu:.2f} s")
        yield Row(
            what,
            limit,
            mine.text("s", 2),
            f"cp --sparse of the image: {copy.text('s', 2)}",
            mine.ratio_to(copy),
            mine.median <= LIMIT_SECONDS,
        )
    deltas = [
        personalise(golden, rack, rack.node("pi7"), size, Quiet()).delta.extents.total_bytes
        for size in CARDS.values()
    ]
    yield Row(
        f"one more node: its delta ({', '.join(CARDS)})",
        f"{LIMIT_BYTES // MiB} MiB",
        ", ".join(f"{delta / MiB:.2f}" for delta in deltas) + " MiB",
        f"a copy: {golden.manifest.extents.total_bytes / MiB:.0f} MiB",
        max(deltas) / golden.manifest.extents.total_bytes,
        max(deltas) <= LIMIT_BYTES,
    )


def _first_byte(place: Workshop, node: str, size_bytes: int) -> tuple[float, float]:
    """Seconds and CPU seconds from the start of the process to the first phase on the card."""
    with card_of(place.folder, size_bytes) as card:
        ran = place.picloud(
            "write", card.node, "--node", node, "--yes", "--full", "--no-probe", stop_at="blank"
        )
    first = ran.phase("blank")
    return first.began, first.cpu_began


def _copy(place: Workshop, golden: GoldenImage) -> float:
    copy = place.folder / "copy.img"
    try:
        return measure(["cp", "--sparse=always", "--reflink=auto", golden.path, copy]).seconds
    finally:
        copy.unlink(missing_ok=True)


def golden_of(place: Workshop, rack: Rack) -> GoldenImage:
    """The golden image of the archived release, composed if it is not there."""
    spec = spec_for(rack.release.source, rack.release.signing_key, rack.nodes[0].model)
    cache = Cache(place.cache)
    lock = RackLock.load(rack.lock_file)
    release = fetch_release(spec, lock, FetchTerms(cache, Quiet(), offline=True))
    return compose(release, cache, Quiet())
