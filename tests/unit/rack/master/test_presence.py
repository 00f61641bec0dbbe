"""What the master said is kept between runs, and nothing in the file is believed unseen."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.rack.master.presence import Presence, Seen, load_presence, parse_presence, save_presence

SEEN = Seen(Presence.JOINED, "2026-11-23T09:00:00Z", "2026-11-23T09:00:00Z", "complete")


def test_a_rack_never_asked_about_knows_nothing(tmp_path: Path) -> None:
    assert load_presence(tmp_path) == {}


def test_what_is_saved_is_loaded_and_other_nodes_are_kept(tmp_path: Path) -> None:
    denied = Seen(Presence.DENIED, "2026-11-23T10:00:00Z")
    save_presence(tmp_path, {"pi0": SEEN, "pi1": SEEN})
    save_presence(tmp_path, {"pi1": denied})
    assert load_presence(tmp_path) == {"pi0": SEEN, "pi1": denied}
    (path,) = (tmp_path / ".picloud").glob("presence*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_character_is_kept_as_it_came(tmp_path: Path) -> None:
    """JSON can name one, so a file that came with a stranger's rack may."""
    strange = Seen(Presence.JOINED, "\ud800")
    save_presence(tmp_path, {"pi0": strange})
    assert load_presence(tmp_path) == {"pi0": strange}


@pytest.mark.parametrize(
    "damage", ['{"presence": "here"}', '{"presence": ["joined"]}', '{"asked_at": 3}', "[]", "null"]
)
def test_a_damaged_node_is_as_if_never_asked(damage: str) -> None:
    document = {"format": "picloud-image presence", "nodes": {"pi0": json.loads(damage)}}
    assert parse_presence(json.dumps(document).encode()) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(Presence),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["format", "nodes", "presence", "note"]), inner)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_nodes_or_nothing(data: bytes) -> None:
    assert all(isinstance(seen, Seen) for seen in parse_presence(data).values())
