"""What head and station tell each other: the same at its end, and every value checked."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from string import ascii_letters, ascii_lowercase, digits
from typing import Any

import pytest

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.units import MiB
from imager.card.host.target import TargetFacts
from imager.card.receipt.receipt import ReceiptResult, SourceFacts
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Manifest
from imager.rack.batch.card_progress import (
    FindingReported,
    Moment,
    PhaseBegan,
    PhaseEnded,
    Said,
)
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Holds
from imager.stations.salt.scripts import word_of
from imager.stations.wire.made_of import MOST_BYTES, MadeOf
from imager.stations.wire.order import CardWork, GoldenWanted, WorkOrder, order_from
from imager.stations.wire.report import (
    MOST_RECEIPT_BYTES,
    CardReport,
    NodeMoment,
    StationProgress,
    Told,
    progress_from,
    report_from,
)
from imager.stations.wire.reports import (
    PIECE_LETTERS,
    AtDesk,
    Reports,
    given_out,
    piece_of,
    report_of_pieces,
    reports_from,
)
from imager.stations.wire.survey import MOST_CARDS, Survey, SurveyedCard, UnfitCard, survey_from
from tests.support.rackhistory import receipt_of
from tests.support.stamps import FACTS

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
SURVEY = Survey(
    "1.0",
    1e9,
    5,
    {"k" * 32: SHA},
    (CARD,),
    (UnfitCard("/dev/sdc", None, ("why",)),),
    ("m" * 32,),
)
MADE_OF = MadeOf(
    SHA, ("pi2",), (SHA, "b" * 64), (SHA,), ("docker",), ("nano",), ("docker.service",)
)
WORK = CardWork("pi1", "pi2", "/dev/sdb", "A1", 2**30, 7, SHA, SHA, SHA, "b.1+pi1")
ORDER = WorkOrder(
    "b.1",
    "b",
    SHA,
    "1.0",
    1e9,
    GoldenWanted("0" * 32, SHA, SHA),
    (WORK,),
    True,
    True,
    None,
    2**38,
    MADE_OF,
)
REPORT = CardReport(
    "b.1+pi1", "b", "pi1", "/dev/sdb", "A1", Outcome.FAULTY, "r", "h", ("d",), 1.5, SHA, SHA, None
)
REPORTS = Reports((REPORT,), ("b.1+pi3",), (AtDesk("b", "pi2", ""),), ("b.2",), 1e9)
REPORTS = replace(REPORTS, closed=("a",), unreadable={"b.1+pi4": "it is no report"})
PROGRESS = StationProgress(
    "b.1",
    (NodeMoment("pi1", Moment("write", 1, None, 0.5, 1, 2, 3, 4)),),
    tuple(
        Told("pi1", event)
        for event in (PhaseBegan("w", 5), PhaseEnded("w", 5, 5, 1.0, False), Said("x", True))
    ),
    ("pi1",),
    "f",
    "h",
)
Sent = WorkOrder | Survey | Reports | CardReport | StationProgress
Reader = Callable[[JsonObject], Any]
READERS: list[tuple[dict[str, object], Reader, Sent]] = [
    (SURVEY.to_json(), survey_from, SURVEY),
    (ORDER.to_json(), order_from, ORDER),
    (REPORTS.to_json(), reports_from, REPORTS),
    (PROGRESS.to_json(), progress_from, PROGRESS),
]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("release", "../../etc"),
        ("models", ["pi9"]),
        ("salt", [SHA[1:]]),
        ("packages", [f"{number:064x}" for number in range(200)]),
        ("packages", [SHA, SHA]),
        ("explicit", ["../x"]),
        ("remove", ["a b"]),
        ("enable", ["../../x.service/y"]),
        ("enable", [f"{'x' * 200}.service"]),
    ],
)
def test_what_an_image_is_made_of_is_checked(field: str, wrong: object) -> None:
    document = {**ORDER.to_json(), "made_of": {**MADE_OF.to_json(), field: wrong}}
    with pytest.raises(JsonFault, match="made_of"):
        order_from(read_object(json.dumps(document)))


def travelled(value: Sent, reader: Reader) -> Any:
    """``value`` as it comes out at the other end."""
    return reader(read_object(json.dumps(value.to_json())))


@pytest.mark.parametrize(("document", "reader", "value"), READERS)
def test_it_arrives_as_it_was(document: dict[str, object], reader: Reader, value: Sent) -> None:
    assert reader(read_object(json.dumps(document))) == value


@pytest.mark.parametrize(("document", "reader", "value"), READERS)
@pytest.mark.parametrize("wrong", [None, [], {}, "x" * 5000, -1, 1e300, [1] * 300, [{}] * 2])
def test_each_field_is_checked(
    document: dict[str, object],
    reader: Reader,
    value: Sent,
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
        {"path": "//dev/sdb"},
        {"path": "/dev/a b"},
        {"node": "../pi1"},
        {"node": "pi 1"},
        {"secret": "../x"},
        {"secret": ""},
        {"secret": ".x"},
        {"secret": "x" * 161},
        {"image_id": "x"},
        {"recipe": "x"},
        {"size_bytes": -1},
        {"slot": "x" * 1001},
    ],
)
def test_an_order_that_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(JsonFault):
        wrong_order(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"at_once": 0}, {"golden": GoldenWanted("0" * 31, SHA, SHA)}, {"batch": ""}, {"rack": "a"}],
)
def test_an_order_of_what_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(JsonFault):
        travelled(replace(ORDER, **changes), order_from)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 2, None])
def test_as_many_at_once_as_a_person_wants(at_once: int | None) -> None:
    assert travelled(replace(ORDER, at_once=at_once), order_from).at_once == at_once


def test_no_order_has_two_cards_of_one_node_or_disk() -> None:
    others = {"node": "pi2", "path": "/dev/sdc", "secret": "s"}
    for what in others:
        alike = {name: value for name, value in others.items() if name != what}
        with pytest.raises(JsonFault, match=f"two have the same {what}"):
            travelled(replace(ORDER, cards=(WORK, replace(WORK, **alike))), order_from)  # type: ignore[arg-type]
    travelled(replace(ORDER, cards=(WORK, replace(WORK, **others))), order_from)  # type: ignore[arg-type]


CARDS = tuple(replace(WORK, node=f"n{n}", path=f"/dev/sd{n}", secret=f"s{n}") for n in range(257))


@pytest.mark.parametrize(
    ("most", "made", "reader"),
    [
        (256, lambda n: replace(ORDER, cards=CARDS[:n]), order_from),
        (256, lambda n: replace(SURVEY, cards=(CARD,) * n), survey_from),
        (256, lambda n: replace(SURVEY, unfit=SURVEY.unfit * n), survey_from),
        (256, lambda n: replace(SURVEY, unfit=(UnfitCard("p", None, ("r",) * n),)), survey_from),
        (256, lambda n: replace(SURVEY, goldens={str(k): SHA for k in range(n)}), survey_from),
        (1000, lambda n: replace(SURVEY, cards=(replace(CARD, title="x" * n),)), survey_from),
        (256, lambda n: replace(REPORTS, reports=(REPORT,) * n), reports_from),
        (1000, lambda n: replace(REPORTS, making=REPORTS.making * n), reports_from),
        (1000, lambda n: replace(REPORTS, over=("b.1",) * n), reports_from),
        (256, lambda n: replace(REPORTS, closed=("b",) * n), reports_from),
        (
            256,
            lambda n: replace(REPORTS, unreadable={f"b.1+pi{k}": "why" for k in range(n)}),
            reports_from,
        ),
        (1000, lambda n: replace(REPORT, details=("d",) * n), report_from),
        (1000, lambda n: replace(PROGRESS, told=PROGRESS.told[:1] * n), progress_from),
        (1000, lambda n: replace(PROGRESS, moments=PROGRESS.moments * n), progress_from),
        (1000, lambda n: replace(PROGRESS, ended=("pi1",) * n), progress_from),
    ],
)
def test_so_much_and_no_more(most: int, made: Callable[[int], Sent], reader: Reader) -> None:
    """Of anything that a stranger may send, what is allowed arrives, and one more is a fault."""
    assert travelled(made(most), reader) == made(most)
    with pytest.raises(JsonFault):
        travelled(made(most + 1), reader)


@pytest.mark.parametrize("field", ["reason", "hint", "details"])
def test_words_of_a_report_are_cut(field: str) -> None:
    words: object = "x" * 1001 if field != "details" else ("x" * 1001,)
    cut: object = "x" * 1000 if field != "details" else ("x" * 1000,)
    sent = replace(REPORTS, reports=(replace(REPORT, **{field: words}),))  # type: ignore[arg-type]
    assert getattr(travelled(sent, reports_from).reports[0], field) == cut


def test_a_verified_card_has_a_receipt_that_says_so() -> None:
    for outcome in (Outcome.VERIFIED, Outcome.UNKNOWN, Outcome.SAVED):
        with pytest.raises(JsonFault):
            travelled(replace(REPORT, outcome=outcome), report_from)


def test_a_receipt_is_that_of_the_card() -> None:
    good = replace(REPORT, outcome=Outcome.VERIFIED, receipt=receipt_of("pi1", 1))
    verified = receipt_of("pi1", 1)
    faulty = receipt_of("pi1", 1, result=ReceiptResult.FAULTY, failure="it is")
    of_any = replace(verified.image, source=SourceFacts("a.img", SHA, 5), layout=None)
    no_time = "does not say when the card was finished"
    assert travelled(good, report_from) == good
    for report, why in (
        (replace(good, receipt=None), "is missing, and the card is verified"),
        (replace(good, receipt=faulty), "says faulty, and the report says verified"),
        (replace(good, outcome=Outcome.FAILED), "says verified, and the report says failed"),
        (replace(good, receipt=receipt_of("pi2", 1)), "is not that of a card of pi1"),
        (replace(good, receipt=replace(verified, image=of_any)), "is not that of a card of pi1"),
        (replace(good, receipt=replace(verified, finished_at="../x")), no_time),
        (replace(good, receipt=replace(verified, finished_at="2" * 300)), no_time),
    ):
        with pytest.raises(JsonFault, match=f"receipt: {why}"):
            travelled(report, report_from)
    kept = replace(good, outcome=Outcome.FAULTY, receipt=faulty)
    assert travelled(kept, report_from) == kept


def test_a_stamp_travels_as_its_own_text() -> None:
    cards = (replace(CARD, holds=Holds.OURS, stamp=FACTS),)
    assert travelled(replace(SURVEY, cards=cards), survey_from).cards == cards
    document = json.dumps(replace(SURVEY, cards=cards).to_json())
    with pytest.raises(JsonFault, match="stamp"):
        survey_from(read_object(document.replace("imaged_at", "imaged")))


def test_findings_stay_on_the_station() -> None:
    """They are in the receipt."""

    class Finding:
        def to_json(self) -> dict[str, object]:
            return {}

    told = (*PROGRESS.told, Told("pi1", FindingReported(Finding())))
    assert travelled(replace(PROGRESS, told=told), progress_from) == PROGRESS


def test_an_event_of_a_kind_that_is_not_known() -> None:
    document = json.dumps(PROGRESS.to_json())
    for kind in ("began", "ended", "said"):
        with pytest.raises(JsonFault):
            progress_from(read_object(document.replace(f'"kind": "{kind}"', '"kind": "x"')))


def report_of(mib: int) -> CardReport:
    """That of a card with so many MiB of data."""
    digests = tuple(hashlib.sha256(b"%d" % number).digest() for number in range(mib))
    manifest = Manifest(mib * MiB, ExtentMap([Extent(0, mib * MiB)]), digests)
    receipt = replace(receipt_of("pi1", 1), manifest=manifest)
    return replace(REPORT, outcome=Outcome.VERIFIED, receipt=receipt)


def test_a_receipt_travels_packed() -> None:
    report = report_of(1600)
    given = given_out([report], (), (), 0.0)
    document = json.dumps(given.to_json())
    assert len(document) < 100_000
    assert reports_from(read_object(document)).reports == (report,)


def test_a_receipt_that_is_no_base64_is_refused() -> None:
    sent = replace(REPORT, receipt=receipt_of("pi1", 1)).to_json()
    sent["receipt"] = f"{sent['receipt']}"[:4] + "\n" + f"{sent['receipt']}"[4:]
    with pytest.raises(JsonFault, match="receipt"):
        report_from(read_object(json.dumps(sent)))


def test_a_report_that_cannot_be_taken_is_named_among_the_others() -> None:
    document = REPORTS.to_json()
    wrong = replace(REPORT, name="b.1+pi5").to_json() | {"outcome": "fine"}
    document["reports"] = [wrong, REPORT.to_json()]
    found = reports_from(read_object(json.dumps(document)))
    assert found.reports == (REPORT,)
    assert found.unreadable == {
        **REPORTS.unreadable,
        "b.1+pi5": 'reports[0].outcome: "fine" is none of verified, saved, faulty, io-error, '
        "fake-capacity, would-not-boot, interrupted, refused, failed, unknown",
    }
    document["reports"] = [wrong | {"name": "../b"}]
    with pytest.raises(JsonFault, match="name"):
        reports_from(read_object(json.dumps(document)))


def test_an_older_station_closes_nothing_and_names_nothing() -> None:
    document = REPORTS.to_json()
    del document["closed"], document["unreadable"]
    assert travelled(REPORTS, reports_from) == REPORTS
    assert reports_from(read_object(json.dumps(document))) == replace(
        REPORTS, closed=(), unreadable={}
    )


def test_a_report_larger_than_salt_carries_comes_in_pieces() -> None:
    """32 GiB of data; an answer is cut off at 1 MiB."""
    report, small = report_of(32 * 1024), report_of(16)
    given = given_out([report, small], (), (), 0.0)
    assert (given.reports, given.large) == ((small,), (report.name,))
    asked: list[int] = []

    def piece(start: int) -> str:
        asked.append(start)
        return piece_of(report, start)

    assert report_of_pieces(report.name, piece) == report
    assert asked == [number * PIECE_LETTERS for number in range(4)]
    assert len(piece_of(report, 0)) == PIECE_LETTERS > len(piece_of(report, asked[-1])) > 0


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (lambda _: "x" * PIECE_LETTERS, "report b: "),
        (lambda _: "", "cut short"),
        (lambda _: "ä", "report b: "),
        (lambda start: piece_of(REPORT, start), "that of another card"),
        (lambda _: base64.b64encode(zlib.compress(b"[1]")).decode(), "object"),
    ],
)
def test_pieces_of_no_report(piece: Callable[[int], str], why: str) -> None:
    with pytest.raises(JsonFault, match=why):
        report_of_pieces("b", piece)


def test_many_reports_are_given_out_bit_by_bit() -> None:
    reports = [replace(REPORT, name=f"b.1+pi{number}", reason="r" * 900) for number in range(1000)]
    given = given_out(reports, (), [f"b.{number}" for number in range(2000)], 0.0)
    document = json.dumps(given.to_json())
    assert 100 < len(given.reports) <= 256 and len(document) < 512 * 1024
    assert reports_from(read_object(document)).over[-1] == "b.1999"
    given = given_out([replace(one, reason="") for one in reports], (), (), 0.0)
    assert len(reports_from(read_object(json.dumps(given.to_json()))).reports) == 256


def test_an_order_for_as_many_cards_as_a_station_may_have_is_one_argument_of_a_program() -> None:
    """Whatever its texts are; Linux takes no argument of 128 KiB (execve(2), MAX_ARG_STRLEN)."""
    chance = random.Random(5)

    def text(letters: str, length: int) -> str:
        return "".join(chance.choices(letters, k=length))

    def sha() -> str:
        return text("0123456789abcdef", 64)

    batch = text(digits, 29)
    nodes = [text(ascii_lowercase + digits, 63) for _ in range(MOST_CARDS)]
    cards = tuple(
        CardWork(
            node=node,
            model="pi2",
            path="/" + text(ascii_letters + digits + "-_+=", 99),
            slot="A" + text(ascii_letters, 15),
            size_bytes=chance.randrange(2**40),
            diskseq=chance.randrange(2**63),
            first_mib=sha(),
            image_id=sha(),
            recipe=sha(),
            secret=f"{batch}.100+{node}",
        )
        for node in nodes
    )
    made_of = replace(
        MADE_OF,
        packages=tuple(sha() for _ in range(60)),
        explicit=tuple(text(ascii_letters, 30) for _ in range(66)),
    )
    assert MOST_BYTES - 64 < made_of.size_bytes <= MOST_BYTES
    order = replace(ORDER, job=f"{batch}.100", batch=batch, cards=cards, made_of=made_of).to_json()
    assert len(order_from(read_object(json.dumps(order))).cards) == MOST_CARDS
    secrets = [card.secret for card in cards]
    word = word_of({"action": "work", "arguments": order, "secrets": secrets})
    assert len(word) < 128 * 1024


@pytest.mark.parametrize("slot", ["A" * 17, "A 1", "x" * 500])
def test_a_slot_has_a_label(slot: str) -> None:
    with pytest.raises(JsonFault, match="slot"):
        wrong_order(slot=slot)
    with pytest.raises(JsonFault, match="slot"):
        card = replace(CARD, slot=slot)
        survey_from(read_object(json.dumps(replace(SURVEY, cards=(card,)).to_json())))


def test_a_receipt_that_unpacks_to_more_than_any_is_refused() -> None:
    packed = base64.b64encode(zlib.compress(bytes(MOST_RECEIPT_BYTES + 1), 1)).decode()
    with pytest.raises(JsonFault, match="larger than"):
        report_from(read_object(json.dumps(REPORT.to_json() | {"receipt": packed})))


def test_a_report_in_pieces_that_is_no_base64() -> None:
    letters = piece_of(REPORT, 0)
    with pytest.raises(JsonFault, match=f"report {re.escape(REPORT.name)}: "):
        report_of_pieces(REPORT.name, lambda start: f"{letters[:4]}\n{letters[4:]}"[start:])
    assert report_of_pieces(REPORT.name, lambda start: letters[start:]) == REPORT
