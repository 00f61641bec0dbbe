"""The picture of a batch fits its terminal, whatever happens in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import CardFaulty
from imager.base.units import clock
from imager.card.host.image_file import ImageFile
from imager.cli.views.batch_bars import CardRow, draw
from imager.cli.views.plan import said_table
from imager.config.rack import Node
from imager.rack.batch.card_progress import Moment
from imager.rack.batch.crew import CardJob
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome


def job(name: str, slot: str = "") -> CardJob:
    target = ImageFile(Path(f"/img/{name}.img"), False, 0, True)
    return CardJob(Node(name, "pi2", (), None, ()), target, 1 << 30, slot)


def at_work(name: str, share: float, *, phase: str = "write", slot: str = "") -> CardRow:
    done = int(400e6 * share)
    return CardRow(job(name, slot), Moment(phase, done, 400_000_000, 10.0, done, 800_000_000))


def over(name: str, error: CardFaulty | None = None) -> CardRow:
    outcome = Outcome.FAULTY if error else Outcome.VERIFIED
    return CardRow(job(name), result=CardResult(job(name), outcome, 34.4, error=error))


def test_it_reads_like_this() -> None:
    rows = [
        at_work("pi0", 0.5, slot="A1"),
        at_work("pi1", 0.25, phase="read back", slot="A2"),
        CardRow(job("pi2", "A3")),
        CardRow(job("pi10", "A4"), Moment("prepare pi10", 0, None, 0.1, 0, 0)),
    ]
    assert draw(rows, 79, 24) == [
        "pi0   A1  write        50% ████████████████·················   20.0 MB/s   0:30",
        "pi1   A2  read back    25% ████████·························   10.0 MB/s   1:10",
        "pi2   A3  waits for its turn",
        "pi10  A4  prepare …",
        "rack: 0 of 4 done   9% ███··································   30.0 MB/s   2:20",
    ]


@pytest.mark.parametrize(
    ("columns", "card", "rack"),
    [
        (
            60,
            "pi0  tower-A-07  write        50% ███····   20.0 MB/s   0:30",
            "rack: 1 of 1001 done, 1 failed   0% ·····   20.0 MB/s   0:30",
        ),
        (40, "pi0  tower-A-07  write … 50%    0:30", "rack: 1 of 1001 done, 1 …  0%    0:30"),
        (30, "pi0  tower-A-07 … 50%    0:30", "rack: 1 of 1001 …  0%    0:30"),
    ],
)
def test_what_is_least_wanted_goes_first_where_it_is_narrow(
    columns: int, card: str, rack: str
) -> None:
    rows = [
        at_work("pi0", 0.5, slot="tower-A-07"),
        over("pi1"),
        over("pi2", CardFaulty("/dev/sdb does not keep what is written to it", hint="y")),
    ]
    lines = draw(rows, columns, 24, cardless=998)
    assert lines[0] == card
    assert lines[-1] == rack
    assert lines[2].endswith(" …")


def test_the_rack_is_not_done_while_a_node_has_no_card() -> None:
    assert draw([over("pi0")], 79, 24, cardless=3)[-1].startswith("rack: 1 of 4 done  25% ")


def test_between_two_phases_nothing_begins_anew() -> None:
    row = CardRow(job("pi0"), Moment("", 0, None, 0.0, 400_000_000, 800_000_000))
    assert draw([row], 79, 24)[0] == "pi0  goes on …"


def test_work_without_bytes_shows_how_long_it_has_been_going_on() -> None:
    row = CardRow(job("pi0"), Moment("prepare pi0", 0, None, 12.3, 0, 0))
    assert draw([row], 79, 24)[0] == "pi0  prepare … 0:12"
    assert " B/s" not in draw([row], 79, 24)[1], "nothing moves, so there is no rate"


def test_steps_have_a_bar_of_their_own() -> None:
    row = CardRow(job("pi0"), Moment("prepare pi0", 0, None, 4.0, 0, 0, 1, 4))
    assert draw([row], 60, 24) == [
        "pi0  prepare      25% ████···············               0:12",
        "rack: 0 of 1 done   0% ··················                  –",
    ]


def test_a_failure_is_told_where_it_happened() -> None:
    rows = [over("pi0"), over("pi1", CardFaulty("/dev/sdb: " + "x" * 100, hint="y"))]
    lines = draw(rows, 79, 24)
    assert lines[0] == "pi0  verified in 0:34"
    assert lines[1].startswith("pi1  faulty: /dev/sdb: xxx")
    assert lines[2].startswith("rack: 1 of 2 done, 1 failed 100%")


def test_where_there_is_no_room_those_at_work_and_failed_stay() -> None:
    rows = [over(f"pi{n}") for n in range(40)]
    rows[30] = at_work("pi30", 0.5)
    rows[35] = over("pi35", CardFaulty("bad", hint="y"))
    lines = draw(rows, 79, 6)
    assert len(lines) == 6
    assert lines[2].startswith("pi30  write")
    assert lines[3].startswith("pi35  faulty: bad")
    assert lines[4] == "and 36 more"


rows = st.one_of(
    st.builds(at_work, st.text("pi0", min_size=1, max_size=60), st.floats(0, 1)),
    st.builds(over, st.text("pi0", min_size=1, max_size=60)),
    st.builds(CardRow, st.builds(job, st.text("pi0", min_size=1), st.text("AB1", max_size=16))),
)


@given(st.lists(rows, max_size=60), st.integers(10, 200), st.integers(4, 60))
def test_it_always_fits(some: list[CardRow], columns: int, lines: int) -> None:
    drawn = draw(some, columns, lines)
    assert len(drawn) <= lines
    assert all(len(line) <= columns for line in drawn)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")]
)
def test_times(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_a_column_in_which_nothing_is_said_is_left_out() -> None:
    head = ("node", "slot", "time")
    assert said_table(head, [("pi0", "–", "–"), ("pi1", "–", "0:04")], 80) == [
        "node  time",
        "pi0   –",
        "pi1   0:04",
    ]
