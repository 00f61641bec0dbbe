"""firstboot.json as a laptop reads it: a story where it is whole, a reason where it is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.card.inspect.firstboot import (
    FirstBoot,
    FirstBootStep,
    State,
    StepState,
    parse_firstboot,
)
from imager.cli.views.firstboot import firstboot_fields, firstboot_lines

FAILED = {
    "format": 1,
    "node": "pi7",
    "state": "failed",
    "step": "60-reach-master",
    "since": "2026-11-25T03:10:00Z",
    "time": "2026-11-25T03:40:00Z",
    "note": "pi0 (10.0.0.10) does not answer on port 4506",
    "hint": "switch the master on",
    "tries": 4,
    "retry_s": 240,
    "steps": [
        {"name": "10-clock", "state": "done", "since": "", "note": "later", "hint": ""},
        {"name": "60-reach-master", "state": "failed", "note": "no", "hint": "do"},
    ],
}


def parsed(**changes: object) -> FirstBoot:
    return parse_firstboot(json.dumps(FAILED | changes).encode())


def test_a_failure_says_which_step_since_when_and_what_to_do() -> None:
    assert firstboot_lines(parsed()) == [
        "    first boot: failed in step 60-reach-master since 2026-11-25T03:10:00Z, tried 4 times "
        "since it was switched on, last at 2026-11-25T03:40:00Z",
        "        what: pi0 (10.0.0.10) does not answer on port 4506",
        "        do:   switch the master on",
        "        log:  picloud/firstboot.log on its boot partition",
    ]


def test_a_node_that_was_cut_off_goes_on() -> None:
    lines = firstboot_lines(parsed(state="running", step="40-keyring"))
    assert lines[0].startswith("    first boot: in step 40-keyring since 2026-11-25T03:10:00Z")
    assert "switch the node on again" in lines[1]


def test_a_node_that_joined_says_whom() -> None:
    steps = [{"name": "80-await-master", "state": "done", "note": "joined pi0"}]
    assert firstboot_lines(parsed(state="complete", step="", steps=steps)) == [
        "    first boot: complete at 2026-11-25T03:40:00Z, joined pi0"
    ]


def test_a_skipped_one_says_how_to_go_on() -> None:
    assert "cmdline.txt" in firstboot_lines(parsed(state="skipped"))[1]


def test_none_yet_is_no_damage() -> None:
    assert "not yet" in firstboot_lines(None)[0]
    assert firstboot_fields(None) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\0" * 512, "is empty"),
        (json.dumps(FAILED).encode()[:-40], "is not a JSON object, as after a loss of power"),
        (b"[" * 60_000, "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b"{}", "is not a report"),
        (b'{"format": 1}', "knows no state ''"),
        (b'{"format": 1, "state": "joined"}', "knows no state 'joined'"),
    ],
)
def test_what_is_no_report_says_why(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_firstboot(data)


def test_what_cannot_be_read_is_said_and_so_is_what_to_do() -> None:
    lines = firstboot_lines("is empty, as after a loss of power")
    assert "unknown" in lines[0]
    assert "switch the node on again" in lines[1]
    assert firstboot_fields("is empty") == {"state": "unreadable", "fault": "is empty"}


def test_what_is_not_as_it_should_be_is_left_out() -> None:
    found = parsed(node=["pi7"], tries=True, retry_s=-1, steps=[7, {"name": 3, "state": "odd"}])
    assert (found.node, found.tries, found.retry_s) == ("", 0, 0)
    assert found.steps == (FirstBootStep("", StepState.PENDING, "", "", ""),)


def test_a_hundred_steps_are_kept() -> None:
    steps = [{"name": str(number)} for number in range(101)]
    found = parsed(steps=steps)
    assert [step.name for step in found.steps] == [str(number) for number in range(100)]
    assert found.to_json()["node"] == "pi7"


def test_counts_have_31_bits() -> None:
    found = parsed(tries=(1 << 31) - 1, retry_s=1 << 31)
    assert (found.tries, found.retry_s) == ((1 << 31) - 1, 0)


def test_nothing_in_it_moves_the_cursor_or_fills_the_screen() -> None:
    found = parsed(note="\x1b[2J\r\nall is well\u202e", hint="x" * 5000)
    assert found.note == "[2Jall is well"
    assert len(found.hint) == 400


def test_a_note_that_is_no_utf8_is_read_all_the_same() -> None:
    data = json.dumps(FAILED).encode().replace(b"switch", b"sw\xffitch")
    assert parse_firstboot(data).hint == "sw\ufffditch the master on"


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.dictionaries(st.sampled_from([*FAILED, "odd"]), NONSENSE))
def test_any_value_in_any_field_gives_a_story_or_a_reason(changes: dict[str, object]) -> None:
    data = json.dumps(FAILED | changes).encode()
    try:
        found = parse_firstboot(data)
    except ValueError as error:
        assert str(error)
        return
    for line in firstboot_lines(found):
        assert line.isprintable()
        assert len(line) < 2000
    json.dumps(firstboot_fields(found), allow_nan=False)


@given(st.binary(max_size=400) | st.integers(0, 900).map(lambda n: json.dumps(FAILED).encode()[:n]))
def test_any_bytes_give_a_report_or_a_reason(data: bytes) -> None:
    try:
        found = parse_firstboot(data)
    except ValueError as error:
        assert str(error)
    else:
        assert found.state in State


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_words(state: State) -> None:
    assert firstboot_lines(replace(parsed(), state=state))[0].startswith("    first boot: ")
