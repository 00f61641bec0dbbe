"""What head and station tell each other: the same at its end, and every value checked."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.units import MiB
from imager.card.host.target import TargetFacts
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Manifest
from imager.rack.batch.card_progress import Moment, PhaseBegan, PhaseEnded, Said
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Holds
from imager.stations.wire.order import CardWork, GoldenWanted, WorkOrder, order_from
from imager.stations.wire.report import (
    MOST_RECEIPT_BYTES,
    AtDesk,
    CardReport,
    NodeMoment,
    Reports,
    StationProgress,
    Told,
    progress_from,
    reports_from,
)
from imager.stations.wire.survey import Survey, SurveyedCard, UnfitCard, survey_from
from tests.support.rackhistory import receipt_of

SHA = "a" * 64
CARD = SurveyedCard(
    TargetFacts("/dev/sdb", 2**30, "usb", diskseq=7),
    "a card",
    Holds.BLANK,
    "blank",
    "A1",
    None,
    SHA,
)
SURVEY = Survey("1.0", 1e9, 5, {"k" * 32: SHA}, (CARD,), (UnfitCard("/dev/sdc", None, ("why",)),))
WORK = CardWork("pi1", "pi2", "/dev/sdb", "A1", 2**30, 7, SHA, SHA, SHA, "b.1+pi1")
ORDER = WorkOrder(
    "b.1", "b", SHA, "1.0", 1e9, GoldenWanted("0" * 32, SHA, SHA), (WORK,), True, True, None, 2**38
)
REPORT = CardReport(
    "b.1+pi1", "b", "pi1", "/dev/sdb", "A1", Outcome.FAULTY, "r", "h", ("d",), 1.5, SHA, SHA, None
)
REPORTS = Reports((REPORT,), (AtDesk("b", "pi2", ""),), ("b.2",), 1e9)
PROGRESS = StationProgress(
    "b.1",
    (NodeMoment("pi1", Moment("write", 1, None, 0.5, 1, 2)),),
    tuple(
        Told("pi1", event)
        for event in (PhaseBegan("w", 5), PhaseEnded("w", 5, 5, 1.0, False), Said("x", True))
    ),
    ("pi1",),
    "f",
    "h",
)
READERS: list[tuple[dict[str, object], Callable[[JsonObject], object], object]] = [
    (SURVEY.to_json(), survey_from, SURVEY),
    (ORDER.to_json(), order_from, ORDER),
    (REPORTS.to_json(), reports_from, REPORTS),
    (PROGRESS.to_json(), progress_from, PROGRESS),
]


@pytest.mark.parametrize(("document", "reader", "value"), READERS)
def test_it_arrives_as_it_was(
    document: dict[str, object], reader: Callable[[JsonObject], object], value: object
) -> None:
    assert reader(read_object(json.dumps(document))) == value


@pytest.mark.parametrize(("document", "reader", "value"), READERS)
@pytest.mark.parametrize("wrong", [None, [], {}, "x" * 5000, -1, 1e300, [1] * 300, [{}] * 2])
def test_each_field_is_checked(
    document: dict[str, object],
    reader: Callable[[JsonObject], object],
    value: object,
    wrong: object,
) -> None:
    """Whatever a field is, it is a fault or a value of bounded size, and no other error."""
    for name in document:
        try:
            found = reader(read_object(json.dumps({**document, name: wrong})))
        except JsonFault as fault:
            assert len(str(fault)) < 1000
            continue
        assert len(repr(found)) < 3 * len(repr(value)) + 2000


def wrong_order(**changes: object) -> WorkOrder:
    card = replace(WORK, **changes)  # type: ignore[arg-type]
    return order_from(read_object(json.dumps(replace(ORDER, cards=(card,)).to_json())))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/dev/../etc/passwd"},
        {"path": "card.img"},
        {"node": "../pi1"},
        {"node": "pi 1"},
        {"secret": "../x"},
        {"secret": ""},
        {"image_id": "x"},
        {"recipe": "x"},
        {"size_bytes": -1},
    ],
)
def test_an_order_that_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(JsonFault):
        wrong_order(**changes)


def test_no_order_has_two_cards_of_one_node_or_disk() -> None:
    for other in (
        replace(WORK, path="/dev/sdc", secret="s"),
        replace(WORK, node="pi2", secret="s"),
        replace(WORK, node="pi2", path="/dev/sdc"),
    ):
        with pytest.raises(JsonFault, match="two have the same"):
            order_from(
                JsonObject(json.loads(json.dumps(replace(ORDER, cards=(WORK, other)).to_json())))
            )


def test_a_verified_card_has_a_receipt_that_says_so() -> None:
    for outcome in (Outcome.VERIFIED, Outcome.UNKNOWN, Outcome.SAVED):
        reports = replace(REPORTS, reports=(replace(REPORT, outcome=outcome),))
        with pytest.raises(JsonFault):
            reports_from(read_object(json.dumps(reports.to_json())))


def test_a_receipt_travels_packed() -> None:
    receipt = receipt_of("pi1", 1)
    digests = tuple(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(1600))
    extents = ExtentMap([Extent(0, 1600 * MiB)])
    receipt = replace(receipt, manifest=Manifest(32 * 1024 * MiB, extents, digests))
    report = replace(REPORT, outcome=Outcome.VERIFIED, receipt=receipt)
    document = json.dumps(replace(REPORTS, reports=(report,)).to_json())
    assert len(document) < 100_000, "Salt cuts off what is larger than 1 MiB"
    assert reports_from(read_object(document)).reports == (report,)


def test_a_receipt_that_unpacks_to_more_than_any_is_refused() -> None:
    packed = base64.b64encode(zlib.compress(bytes(MOST_RECEIPT_BYTES + 1), 1)).decode()
    document = REPORTS.to_json()
    document["reports"] = [REPORT.to_json() | {"receipt": packed}]
    with pytest.raises(JsonFault, match="larger than"):
        reports_from(read_object(json.dumps(document)))
