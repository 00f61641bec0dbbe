"""Text of strangers as it is shown: in one line, with nothing in it that a terminal obeys."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.text import as_counted, json_line, printable, toml_tree

HOSTILE = {
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "clipboard (OSC 52)": ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
    "bell": ("a\x07b", r"a\x07b"),
    "8-bit control": ("a\x9b2Jb", r"a\x9b2Jb"),
    "bidi": ("exe.\u202egpj", r"exe.\u202egpj"),
    "forged line": ("pi7\n    signed by this rack's key", r"pi7\n    signed by this rack's key"),
    "carriage return": ("bad\rgood", r"bad\rgood"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "lone surrogate": ("a\ud800b", r"a\ud800b"),
    "a byte that is no UTF-8": (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\udce9"),
    "tag characters": ("a\U000e0041b", r"a\U000e0041b"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_terminal_would_obey_is_shown_as_its_escape(name: str) -> None:
    text, shown = HOSTILE[name]
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["", "pi7", "größer – 漢字 ไทย 🙂", r"C:\temp\n", "é (combining)", "█·→…"]
)
def test_letters_of_every_language_stay(text: str) -> None:
    assert printable(text) == text
    assert json_line({"a": text}) == json.dumps({"a": text}, ensure_ascii=False)


@given(st.text())
def test_a_shown_text_is_one_line_that_any_stream_takes(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([], [shown])
    assert not any(unicodedata.category(letter).startswith("C") for letter in shown)
    shown.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_loses_no_text(text: str) -> None:
    line = json_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert line.isprintable()


@given(st.recursive(st.text() | st.floats() | st.none(), lambda inner: st.lists(inner)))
def test_json_is_valid_whatever_is_in_it(value: object) -> None:
    line = json_line({"value": value})
    json.loads(line.encode(), parse_constant=lambda name: pytest.fail(name))
    assert line.isprintable()


@pytest.mark.parametrize(
    "key",
    [
        "x." * 400_000 + "x",
        '"\\"" . ' * 100_000 + "x",
        "'.'." * 100_000 + "x",
        "x-y_1\t." * 40 + "x",
    ],
)
@pytest.mark.parametrize("form", ["{} = 1", "[{}]", "a = {{ {} = 1 }}", "[[{}]]"])
def test_a_key_of_many_parts_costs_nothing(key: str, form: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="too many parts"):
        toml_tree("\n\n" + form.format(key))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ['x = "' + "a" * 1_000_000 + '"', "x" * 1_000_000 + " = 1"])
def test_long_words_are_no_long_keys(text: str) -> None:
    began = time.process_time()
    assert len(toml_tree(text)) == 1
    assert time.process_time() - began < 5


def test_names_are_sorted_as_people_count() -> None:
    names = ["pi0", "pi1", "pi2", "pi9", "pi10", "pi100", "rack1-pi2", "rack1-pi10", "rack02", ""]
    assert sorted(reversed(names), key=as_counted) == [
        "",
        *names[:6],
        "rack1-pi2",
        "rack1-pi10",
        "rack02",
    ]


@given(st.lists(st.text(alphabet="pi-012345٣²"), max_size=8))
def test_any_names_can_be_sorted_so(names: list[str]) -> None:
    assert sorted(sorted(names, key=as_counted)) == sorted(names)
