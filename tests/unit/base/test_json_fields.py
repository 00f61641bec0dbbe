"""Fields of a JSON object come out with their type checked, or as a fault with a dotted path."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.json_fields import JsonFault, JsonObject, read_object


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


WHOLE = JsonObject(
    {
        "text": "x",
        "empty": "",
        "whole": 7,
        "part": 1.5,
        "yes": True,
        "null": None,
        "list": ["a", "b"],
        "numbers": [1, 2, 3],
        "extent": [4096, 512],
        "extents": [[0, 1], [2, 3]],
        "colour": "blue",
        "object": {"inner": "x", "list": [{"n": 1}, {"n": -1}]},
        "objects": [{}, 7],
    }
)


def test_what_is_there_comes_out_typed() -> None:
    assert (WHOLE.text("text"), WHOLE.text("empty")) == ("x", "")
    assert (WHOLE.integer("whole"), WHOLE.number("whole", 8), WHOLE.number("part", 8)) == (
        7,
        7,
        1.5,
    )
    assert WHOLE.boolean("yes") is True
    assert WHOLE.choice("colour", Colour) is Colour.BLUE
    assert (WHOLE.texts("list"), WHOLE.integers("numbers")) == (("a", "b"), (1, 2, 3))
    assert (WHOLE.pair("extent"), WHOLE.pairs("extents")) == ((4096, 512), ((0, 1), (2, 3)))
    assert WHOLE.child("object").text("inner") == "x"
    assert [one.values for one in WHOLE.child("object").children("list")] == [{"n": 1}, {"n": -1}]
    assert WHOLE.optional("null", WHOLE.text) is None
    assert WHOLE.optional("absent", WHOLE.text) is None
    assert WHOLE.optional("text", WHOLE.text) == "x"
    assert "null" in WHOLE
    assert "absent" not in WHOLE


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda: WHOLE.text("absent"), "absent: is missing"),
        (lambda: WHOLE.text("whole"), "whole: 7 is not text"),
        (lambda: WHOLE.text("object"), "object: an object is not text"),
        (lambda: WHOLE.text("null"), "null: null is not text"),
        (lambda: WHOLE.integer("yes"), "yes: true is not a whole number from 0 to"),
        (lambda: WHOLE.integer("part"), "part: 1.5 is not a whole number"),
        (lambda: WHOLE.integer("whole", 8, 9), "whole: 7 is not a whole number from 8 to 9"),
        (lambda: WHOLE.integer("whole", 0, 6), "whole: 7 is not a whole number from 0 to 6"),
        (lambda: WHOLE.number("yes", 8), "yes: true is not a number from 0 to 8"),
        (lambda: WHOLE.number("whole", 7), "whole: 7 is not a number from 0 to 7"),
        (lambda: WHOLE.boolean("whole"), "whole: 7 is not true or false"),
        (lambda: WHOLE.choice("text", Colour), 'text: "x" is none of red, blue'),
        (lambda: WHOLE.items("text"), 'text: "x" is not a list'),
        (lambda: WHOLE.texts("numbers"), "numbers: 1 is not text"),
        (lambda: WHOLE.integers("numbers", 2), "numbers: 3 is not a whole number from 0 to 2"),
        (lambda: WHOLE.pair("numbers"), "numbers: 3 numbers where two belong"),
        (lambda: WHOLE.pair("extent", 4095), "extent: 4096 is not a whole number from 0 to 4095"),
        (lambda: WHOLE.pairs("extent"), "extent: 4096 is not a list"),
        (lambda: WHOLE.child("list"), "list: a list is not an object"),
        (lambda: WHOLE.children("objects"), "objects[1]: 7 is not an object"),
        (lambda: WHOLE.child("object").text("list"), "object.list: a list is not text"),
        (
            lambda: WHOLE.child("object").children("list")[1].integer("n"),
            "object.list[1].n: -1 is not a whole number",
        ),
        (lambda: WHOLE.child("object").exactly(["inner"]), "object.list: no such field"),
        (lambda: WHOLE.exactly([*WHOLE.values, "more"]), "more: is missing"),
    ],
)
def test_what_is_not_is_named(read: Callable[[], object], fault: str) -> None:
    with pytest.raises(JsonFault) as caught:
        read()
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize("low", [float("nan"), float("inf"), -0.5])
def test_a_number_is_finite_and_not_negative(low: float) -> None:
    with pytest.raises(JsonFault):
        JsonObject({"x": low}).number("x", 1e12)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON: "),
        (b"\xff", "not JSON: "),
        (b"{", "not JSON: "),
        (b"[" * 60_000, "not JSON: nested too deeply"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_what_is_no_object_is_said(data: bytes, why: str) -> None:
    with pytest.raises(JsonFault, match=why):
        read_object(data)


def test_a_fault_cannot_move_a_terminals_cursor_and_is_short() -> None:
    read = read_object(json.dumps({"a\x1b[2J": "\x9b2J\u202e" + "x" * 1000, "ü": "ß"}))
    with pytest.raises(JsonFault) as caught:
        read.integer("a\x1b[2J")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
    with pytest.raises(JsonFault, match='ü: "ß" is not'):
        read.integer("ü")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
READERS: list[Callable[[JsonObject, str], object]] = [
    JsonObject.text,
    JsonObject.integer,
    lambda read, name: read.number(name, 1e12),
    JsonObject.boolean,
    lambda read, name: read.choice(name, Colour),
    JsonObject.items,
    JsonObject.texts,
    JsonObject.integers,
    JsonObject.pair,
    JsonObject.pairs,
    JsonObject.child,
    JsonObject.children,
]


@given(VALUES, st.sampled_from(READERS), st.text(max_size=5))
def test_any_value_is_taken_or_a_fault_that_can_be_printed(
    value: object, reader: Callable[[JsonObject, str], object], name: str
) -> None:
    read = read_object(json.dumps({name: value}))
    try:
        reader(read, name)
    except JsonFault as fault:
        assert str(fault).isprintable()


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_fault(data: bytes) -> None:
    with suppress(JsonFault):
        assert isinstance(read_object(data).values, dict)
