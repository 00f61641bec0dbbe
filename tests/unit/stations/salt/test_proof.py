"""What a master passes on is believed of the station that has signed it, and of no other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from io import BytesIO
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import UsageError
from imager.base.json_fields import JsonFault, JsonObject
from imager.stations.salt.conversation import conversation
from imager.stations.salt.proof import proven
from imager.stations.salt.scripts import asking, handing, word_of
from imager.stations.salt.sealing import public_of, seal

TOKENS = {"desk1": "11" * 32, "desk2": "22" * 32}


def signed(token: str, said: object) -> JsonObject:
    text = json.dumps(said)
    mac = hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()
    return JsonObject({"text": text, "mac": mac})


def said(**more: Any) -> dict[str, Any]:
    lines = ['{"a": 1}', "no JSON", "[]", '{"b": 2}']
    return {"station": "desk1", "request": "r", "number": 3, "lines": lines, **more}


def test_the_station_that_signed_it_said_it() -> None:
    found = proven(signed(TOKENS["desk1"], said()), TOKENS)
    assert found is not None
    assert (found.station, found.request, found.number) == ("desk1", "r", 3)
    assert [dict(line.values) for line in found.lines] == [{"a": 1}, {"b": 2}]
    assert (found.is_last, found.fault) == (False, "")
    last = proven(signed(TOKENS["desk1"], said(status=1, fault="it\x1b[2J " + "x" * 999)), TOKENS)
    assert last is not None and last.is_last
    assert last.fault.isprintable() and len(last.fault) == 300


@pytest.mark.parametrize(
    "forged",
    [
        signed(TOKENS["desk2"], said()),
        signed("", said()),
        signed(TOKENS["desk1"], said(station="desk2")),
        signed(TOKENS["desk1"], said(station="desk3")),
        signed(TOKENS["desk1"], said(number="3")),
        signed(TOKENS["desk1"], said(lines=[1])),
        signed(TOKENS["desk1"], []),
        JsonObject({"text": "{}", "mac": "ü"}),
        JsonObject({"text": json.dumps(said())}),
        JsonObject({}),
    ],
)
def test_nothing_else_is_believed(forged: JsonObject) -> None:
    assert proven(forged, TOKENS) is None


@given(st.dictionaries(st.sampled_from(["text", "mac", "x"]), st.text() | st.integers()))
def test_whatever_comes_is_read(values: dict[str, object]) -> None:
    assert proven(JsonObject(values), TOKENS) is None


def test_a_station_hears_its_arguments_and_opens_its_secrets() -> None:
    own = X25519PrivateKey.generate()
    sealed = base64.b64encode(seal(public_of(own), b"key")).decode()
    lines = [{"node": "pi1"}, {"secret": "delta", "base64": sealed}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines) + '\n{"path": "/x/0001"}\n{}\n'
    talk = conversation(BytesIO(text.encode()), own)
    assert dict(talk.arguments.values) == {"node": "pi1"}
    assert talk.secrets == {"delta": b"key"}
    assert talk.key == public_of(own).hex()
    told: list[Any] = []
    assert str(talk.bring(told.append, "golden/0001")) == "/x/0001"
    assert told == [{"event": "bring", "name": "golden/0001"}]
    with pytest.raises(FileNotFoundError, match="nobody fetches it"):
        talk.bring(told.append, "golden/0002")
    for bad in (
        b"",
        b"[]\n\n",
        b'{}\n{"secret": "a"}\n',
        b'{}\n{"secret": "a", "base64": "aa"}\n',
        b'{}\n{"secret": "a", "base64": "\xc3\xa4"}\n',
    ):
        with pytest.raises(JsonFault):
            conversation(BytesIO(bad), own)


def test_no_name_means_more_than_itself_to_a_shell() -> None:
    for name in ("a b", "$(x)", "../x", "", "a\nb", "-rf", "a;b", "a'b"):
        with pytest.raises(UsageError):
            asking([name], "word", 5)
        with pytest.raises(UsageError):
            handing("desk1", "5e55", name, "text")
    word = word_of({"a": "$(x) 'y' \"z\" =1 ä"})
    assert word.replace("-", "").replace("_", "").isalnum()
    assert word.startswith("eN"), "neither a number nor name=value to Salt"
