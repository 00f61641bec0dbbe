"""What a Salt master's programs print is taken for what it is, and for nothing more."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.card.inspect.firstboot import parse_firstboot
from imager.rack.master.answers import (
    CardSaid,
    NoAnswer,
    card_said,
    cards,
    parts_of,
    question_cards,
    question_who,
    who,
)
from imager.rack.master.presence import Presence

KEYS = {"minions": ["pi0", "pi1"], "minions_pre": ["pi2"], "minions_denied": ["pi1", "pi3"]}
UP = {"up": ["pi0"], "down": ["pi1"]}
NODE = {"format": 1, "node": "pi1", "release_sha256": "ab" * 32, "imaged_at": 1_795_000_000}
FIRSTBOOT = {
    "format": 1,
    "node": "pi1",
    "state": "failed",
    "step": "30-swap",
    "note": "no room",
    "hint": "make some",
    "steps": [],
}


def printed(**parts: object) -> str:
    """The output of a script whose programs printed ``parts``, with noise around the JSON."""
    return "".join(
        f"\n==picloud== begin {name}\n[WARNING ] old\n{json.dumps(value, indent=4)}\n"
        f"\n==picloud== end {name} 0\n"
        for name, value in parts.items()
    )


def run_with(folder: Path, script: str, **programs: str) -> str:
    """What ``script`` prints under a real sh where only ``programs`` can be found."""
    for name, text in {"timeout": 'shift\nexec "$@"', **programs}.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    # The script adds the system's folders to PATH, so ours stand first.
    done = subprocess.run(
        ["/bin/sh", "-s"], input=script, env={"PATH": str(folder)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


def test_the_later_list_weighs_more_and_an_answer_most() -> None:
    assert who(printed(keys=KEYS, up=UP)).standing == {
        "pi0": Presence.JOINED,
        "pi1": Presence.DENIED,
        "pi2": Presence.PENDING,
        "pi3": Presence.DENIED,
    }


def test_the_question_as_sh_runs_it(tmp_path: Path) -> None:
    said = run_with(
        tmp_path,
        question_who(),
        **{"salt-key": f"echo '{json.dumps(KEYS)}'", "salt-run": f"echo '{json.dumps(UP)}'"},
    )
    assert who(said).standing["pi0"] is Presence.JOINED


def test_a_node_says_which_card_it_runs_from_and_how_far_it_came(tmp_path: Path) -> None:
    text = json.dumps(NODE, indent=2) + "\n" + json.dumps(FIRSTBOOT)
    found = cards(printed(cards={"pi1": text, "pi2": "cat: no such file", "pi3": False}))
    assert found == {
        "pi1": CardSaid("ab" * 32, 1_795_000_000, parse_firstboot(json.dumps(FIRSTBOOT).encode())),
        "pi2": CardSaid(),
    }


def test_only_names_that_are_minion_ids_reach_the_shell(tmp_path: Path) -> None:
    evil = ["pi1", "pi2; touch " + str(tmp_path / "x"), "$(id)", "-L"]
    script = question_cards(evil)
    said = run_with(tmp_path, script, salt='printf "{\\"pi1\\": \\"%s\\"}\\n" "$*"')
    assert not (tmp_path / "x").exists()
    words = json.loads(parts_of(said)["cards"].text.strip())["pi1"]
    assert " -L pi1 cmd.run " in words


@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ({"salt-key": "exit 127"}, "salt-key is not installed there"),
        ({"salt-key": "exit 124"}, "salt-key did not end within 180 s"),
        ({"salt-key": "echo oh no; exit 3"}, "salt-key ended with status 3 and said: oh no"),
        (
            {"salt-key": "echo '{}'", "salt-run": "exit 1"},
            "salt-run manage.status ended with status 1 and said: nothing",
        ),
    ],
)
def test_programs_that_do_not_answer_are_named(
    tmp_path: Path, programs: dict[str, str], said: str
) -> None:
    with pytest.raises(NoAnswer) as caught:
        who(run_with(tmp_path, question_who(), **programs))
    assert str(caught.value) == said


def test_an_answer_cut_off_is_no_answer() -> None:
    text = printed(keys=KEYS, up=UP)
    with pytest.raises(NoAnswer, match="did not come to its end"):
        who(text[: text.index("end up")])


@pytest.mark.parametrize("end", ["\u2028", "\x85"])
def test_no_node_ends_the_answer_of_the_others(end: str) -> None:
    """Salt prints JSON with all letters as they are (salt.utils.json.dumps)."""
    mark = f"{end}==picloud== end cards 0{end}"
    said = json.dumps({"pi3": mark, "pi1": json.dumps(NODE)}, ensure_ascii=False)
    text = f"\n==picloud== begin cards\n{said}\n\n==picloud== end cards 0\n"
    assert cards(text)["pi1"].release_sha256 == "ab" * 32


def test_what_a_node_says_is_one_short_line() -> None:
    said = card_said(json.dumps({"release_sha256": "a\x1b[31m\nb" + "c" * 9999}))
    assert said.release_sha256.startswith("a [31m b")
    assert len(said.release_sha256) == 300


@pytest.mark.parametrize("damage", ["{}", '{"steps": [], "format": 2}', '{"steps": []'])
def test_a_report_that_is_none_says_nothing(damage: str) -> None:
    assert card_said(f"{json.dumps(NODE)}\n{damage}").firstboot is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["minions", "up", "steps", "step", "state", "name", "note", "release_sha256",
                 "imaged_at", "pi0"]
            ),
            inner,
        )
    ),
    max_leaves=10,
)  # fmt: skip
lines = st.sampled_from(
    ["==picloud== begin keys", "==picloud== end keys 0", "==picloud== begin up", "{", "}", "{}",
     "==picloud== end up 0", "==picloud== end up x", "==picloud== begin cards",
     "==picloud== end cards 0"]
) | st.text(max_size=20)  # fmt: skip


@given(st.lists(lines, max_size=12).map("\n".join) | values.map(lambda v: printed(keys=v, up=v)))
def test_any_output_is_an_answer_or_none(text: str) -> None:
    try:
        found = who(text)
    except NoAnswer as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(how, Presence) for how in found.standing.values())


@given(st.text(max_size=80) | values.map(json.dumps))
def test_any_file_of_a_node_is_something_said_or_nothing(text: str) -> None:
    said = card_said(text)
    assert 0 <= said.imaged_at < 1 << 33
    assert said.release_sha256.isprintable() or not said.release_sha256


@given(values)
def test_any_cards_are_read(value: object) -> None:
    with suppress(NoAnswer):
        cards(printed(cards=value))
