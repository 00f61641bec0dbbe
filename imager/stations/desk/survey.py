"""What is here: the cards in this station's readers, its program, its room. Nothing is changed.

In: what the head asks with: the rack's public key, the golden images it will use. Out: a Survey. Of
each card only the first MiB is read.
"""

from __future__ import annotations

import time

from imager.base.cache import Cache
from imager.base.durable import free_bytes
from imager.base.json_fields import JsonObject
from imager.base.programs import tool_version
from imager.card.host.disks import Disk, list_disks
from imager.card.host.refusals import refusals
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits
from imager.rack.plan.candidates import Candidate, Unfit, look, sort_disks
from imager.rack.plan.slots import load_slots
from imager.stations.desk.golden import can_make
from imager.stations.desk.records import Records
from imager.stations.wire.golden import golden_at_hand
from imager.stations.wire.made_of import made_of_in
from imager.stations.wire.order import golden_from
from imager.stations.wire.survey import (
    MOST_CARDS,
    Survey,
    SurveyedCard,
    UnfitCard,
    bounded,
    digest,
)


def survey(asked: JsonObject, records: Records, cache: Cache, kernel: HostTrees) -> Survey:
    """This station, as ``asked``: ``rack`` is the public key (hex) of the rack's stamps,
    ``goldens`` are the images that may be used, ``need_bytes`` is what they need of a card and
    ``max_size_bytes`` the largest card that is taken. Raises JsonFault."""
    rack, need = digest(asked, "rack"), asked.integer("need_bytes")
    bounded(asked.items("goldens"), MOST_CARDS, asked)
    wanted = {golden_from(each): made_of_in(each) for each in asked.children("goldens")}
    limits = station_limits(records, cache, asked.integer("max_size_bytes"))
    slots = load_slots(records.folder.path)

    def against(disk: Disk) -> tuple[str, ...]:
        return tuple(str(reason) for reason in refusals(disk, need, limits))

    here = {each for each in wanted if golden_at_hand(each, cache)}
    fit, unfit = sort_disks(list_disks(limits.ours, kernel), slots, against)
    found = (
        look(disk, slots, lambda stamp: stamp.public_key.hex() == rack) for disk in fit[:MOST_CARDS]
    )
    return Survey(
        version=tool_version(),
        clock=time.time(),
        free_bytes=free_bytes(cache.root),
        goldens={each.key: each.digest for each in here},
        cards=tuple(map(_surveyed, found)),
        unfit=tuple(map(_unfit, unfit[:MOST_CARDS])),
        makes=tuple(
            each.key
            for each, made_of in wanted.items()
            if made_of and each not in here and can_make(each, made_of, cache)
        ),
        more=len(fit[MOST_CARDS:]) + len(unfit[MOST_CARDS:]),
    )


def station_limits(records: Records, cache: Cache, max_size_bytes: int) -> Limits:
    """What a station never writes: a disk that belongs in it, and where it keeps its own files."""
    ours = (cache.root.resolve(), records.folder.path.resolve())
    return Limits(max_size_bytes=max_size_bytes, allow_fixed_disk=None, ours=ours)


def _surveyed(candidate: Candidate) -> SurveyedCard:
    target = candidate.target
    return SurveyedCard(
        facts=target.facts,
        title=target.title,
        holds=candidate.holds,
        about=candidate.about,
        slot=candidate.slot,
        stamp=candidate.stamp,
        first_mib=target.first_mib,
    )


def _unfit(card: Unfit) -> UnfitCard:
    return UnfitCard(card.target.node, card.slot, card.reasons)
