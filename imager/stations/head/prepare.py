"""A node's image made on the head, and what of it goes to a station.

In: a job, the rack, the golden image. Out: the line of a work order, and the packed delta. Only
here are keys read and stamps signed; the image itself is forgotten again.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.progress import Progress
from imager.card.make.boot_check import BootCheck
from imager.config.rack import Rack
from imager.node.content import recipe_of
from imager.node.edit.edit import OpenGolden
from imager.node.personalise import personalise_one
from imager.stations.head.remote import RemoteJob
from imager.stations.wire.delta import pack_delta
from imager.stations.wire.order import CardWork


@dataclass(frozen=True, slots=True)
class Prepared:
    """``delta`` holds private keys: it is for ``job.station`` alone, and stays in memory."""

    job: RemoteJob
    work: CardWork
    delta: bytes

    def __repr__(self) -> str:
        return f"Prepared({self.work})"


def prepare(
    job: RemoteJob, golden: OpenGolden, rack: Rack, secret: str, progress: Progress
) -> Prepared:
    """The image of ``job``; its delta will be handed over under the name ``secret``.

    Raises as ``personalise_one``, and WouldNotBoot.
    """
    recipe = recipe_of(golden, rack, job.node)
    image = personalise_one(golden, rack, job.node, job.target.size_bytes, progress)
    BootCheck(job.node, image).of_image()
    facts = job.target.seen.facts
    work = CardWork(
        node=job.name,
        model=job.node.model,
        path=facts.path,
        slot=job.slot,
        size_bytes=facts.size_bytes,
        diskseq=facts.diskseq,
        first_mib=job.target.first_mib,
        image_id=image.image_id,
        recipe=recipe,
        secret=secret,
    )
    return Prepared(job, work, pack_delta(image.delta))
