"""What canary nodes say is bounded, and what cannot be read is no good news."""

from __future__ import annotations

import json
import subprocess
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from imager.rack.master.answers import NoAnswer
from imager.rack.master.trial import Trial, question_trial, run_on_node, trials

CHECK = "docker run --rm x"


def printed(**parts: object) -> str:
    return "".join(
        f"\n==picloud== begin {name}\n{json.dumps(value)}\n\n==picloud== end {name} 0\n"
        for name, value in parts.items()
    )


def answer(retcode: int, stdout: str, stderr: str = "") -> dict[str, object]:
    return {"pid": 1, "retcode": retcode, "stdout": stdout, "stderr": stderr}


def test_versions_and_the_last_lines() -> None:
    text = printed(
        packages={"pi3": answer(0, "docker 1:1.7.0-1\nrunc 1.1-1\nno version here")},
        check={"pi3": answer(125, "1\n2\n3\n", "\x1b[31mred" + "!" * 999)},
    )
    trial = trials(text, ["pi3"], CHECK)["pi3"]
    assert trial.installed == {"docker": "1:1.7.0-1", "runc": "1.1-1"}
    assert trial.status == 125
    assert trial.said[:2] == ("2", "3")
    assert trial.said[2].startswith(" [31mred!")
    assert len(trial.said[2]) == 300


def test_a_node_that_says_nothing_or_no_pacman_is_not_well() -> None:
    text = printed(packages={"pi3": answer(127, "docker 9-1")}, check={"pi3": "Minion is busy"})
    assert trials(text, ["pi3", "pi4"], CHECK) == {
        "pi3": Trial(None, None, ("Minion is busy",)),
        "pi4": Trial(None, None, ("it did not answer",)),
    }


def test_no_word_of_the_check_meets_a_shell_of_the_master() -> None:
    script = question_trial(["pi3", "a;reboot"], "'; reboot #\n$(reboot) `reboot`")
    assert "reboot" not in script
    assert "check" not in question_trial(["pi3"], None).replace("==picloud==", "")


def run_here(check: str, seconds: int = 60) -> tuple[int, str]:
    """How a check ends, and what of its words is left, as a node's shell runs it."""
    words = ["sh", "-c", run_on_node(check, seconds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def test_only_the_end_of_what_a_check_says_leaves_the_node() -> None:
    status, said = run_here('seq 100000; echo "it\'s broken" >&2; exit 7')
    assert status == 7
    assert said.endswith("\n100000\nit's broken\n")
    assert len(said) == 4000
    assert run_here("exit 0") == (0, "")


def test_a_check_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    began = time.monotonic()
    assert run_here("echo begun; sleep 61 & sleep 62", 1) == (124, "begun\n")
    assert time.monotonic() - began < 30, "and nobody waits for what it left behind"
    text = printed(packages={"pi3": answer(0, "")}, check={"pi3": answer(124, "begun\n")})
    assert trials(text, ["pi3"], CHECK)["pi3"] == Trial({}, None, ("begun",))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(json_values, json_values)
def test_anything_else_is_an_answer_or_none(packages: object, check: object) -> None:
    try:
        found = trials(printed(packages={"pi3": packages}, check={"pi3": check}), ["pi3"], CHECK)
    except NoAnswer:
        return
    assert set(found) == {"pi3"}
    assert found["pi3"].status != 0
