"""A rack joins its master by itself: the real Salt, configured by finished node images."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.keys.export import export, plan_export
from imager.node.keys.identity import identity_of, salt_keys
from imager.node.keys.rotate import KeyKind, rotate
from tests.support.release import build_release
from tests.support.salt import SaltPrograms
from tests.support.saltrack import RunningRack, rack_of, running
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=3),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

JOIN_SECONDS = 300
"""On two idle cores 14 nodes take about 40."""
LONG_JOIN_SECONDS = 1200
NO_STATE: dict[str, list[str]] = {"minions_pre": [], "minions_rejected": [], "minions_denied": []}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    return compose(build_release(folder), Cache(folder / "cache"), Quiet())


@pytest.fixture(scope="module")
def joined(
    golden: GoldenImage, salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRack]:
    """14 nodes, all switched on at once, all answering."""
    folder = tmp_path_factory.mktemp("salt")
    with running(folder, rack_of(folder / "rack", 14), golden, salt_programs) as rack:
        rack.join_all(seconds=JOIN_SECONDS)
        yield rack


def settings(rack: RunningRack, node: str, *names: str) -> dict[str, object]:
    """What Salt makes of its configuration on ``node``."""
    return {
        name: json.loads(rack[node].run("salt-call", "--local", "--out=json", "config.get", name))[
            "local"
        ]
        for name in names
    }


def in_time(condition: Callable[[], bool], *, seconds: float = JOIN_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(2)


def test_a_cold_rack_joins_with_no_key_accepted_by_hand(joined: RunningRack, tell: Tell) -> None:
    tell(joined.joined_in)
    assert joined.master.keys() == {"minions": sorted(joined.names), **NO_STATE}
    assert set(os.listdir(joined.etc("pi0") / "salt/pki/master/minions")) == joined.names


def test_every_node_has_its_own_name_and_key(joined: RunningRack) -> None:
    said = json.loads(joined.master.run("salt", "--out=json", "--static", "*", "key.finger"))
    assert len(set(said.values())) == 14
    said = json.loads(
        joined.master.run("salt", "--out=json", "--static", "*", "grains.get", "host")
    )
    assert said == {name: name for name in joined.names}


def test_the_master_uses_the_key_where_the_card_has_it(joined: RunningRack) -> None:
    """It moves none, which a power cut could fall into."""
    pki = joined.etc("pi0") / "salt/pki/master"
    own = identity_of(joined.rack, joined.rack.node("pi0")).master
    assert own.pair is not None
    assert sorted(path.name for path in pki.glob("*.p*")) == [
        *("master.pem", "master.pub", "pi0.pem", "pi0.pub"),
    ]
    assert (pki / "pi0.pem").read_bytes() == own.pair.private
    assert (pki / "master.pem").readlink() == Path("pi0.pem"), "relative, as the card has it"


def test_salt_takes_the_settings_as_they_are_meant(joined: RunningRack) -> None:
    assert settings(joined, "pi7", "random_startup_delay", "auth_timeout", "recon_max", "id") == {
        "random_startup_delay": 0,
        "auth_timeout": 30,
        "recon_max": 30000,
        "id": "pi7",
    }
    for node, daemon in (("pi7", "salt-minion"), ("pi0", "salt-minion"), ("pi0", "salt-master")):
        log = joined[node].log(daemon)
        assert f"Starting up the Salt {daemon[5:].title()}" in log
        assert "invalid type" not in log, "Salt complains of a setting"


def test_a_node_whose_card_is_made_again_joins_again(joined: RunningRack) -> None:
    joined.switch_off("pi7")
    joined.image("pi7")
    joined.switch_on("pi7")
    joined.master.wait_until_answering({"pi7"}, seconds=JOIN_SECONDS)
    assert joined.master.keys() == {"minions": sorted(joined.names), **NO_STATE}


def test_a_new_key_joins_when_the_steps_were_followed(joined: RunningRack) -> None:
    joined.switch_off("pi7")
    done = rotate(joined.rack, joined.rack.node("pi7"), KeyKind.SALT)
    joined.image("pi7")
    tell_the_master(joined, done.steps)
    joined.switch_on("pi7")
    joined.master.wait_until_answering({"pi7"}, seconds=JOIN_SECONDS)
    assert joined.master.keys() == {"minions": sorted(joined.names), **NO_STATE}
    joined.master.wait_until_answering(joined.names, seconds=JOIN_SECONDS)


def tell_the_master(rack: RunningRack, steps: tuple[str, ...]) -> None:
    """Run the steps' ssh and scp commands on the master, as if they came over the network."""
    ran = []
    for program, *words in (shlex.split(line) for line in steps if line.startswith("    ")):
        if program == "ssh":
            rack.master.run(*words[1:])
        elif program == "scp":
            target = words[1].partition(":")[2].removeprefix("/etc/")
            shutil.copy(words[0], rack.etc("pi0") / target)
        ran.append(program)
    assert ran == ["picloud-image", "ssh", "scp", "picloud-image"]


def test_an_export_lets_a_denied_node_in_while_both_run(joined: RunningRack) -> None:
    joined.switch_off("pi3")
    rotate(joined.rack, joined.rack.node("pi3"), KeyKind.SALT)
    joined.image("pi3")
    joined.switch_on("pi3")
    in_time(lambda: joined.master.keys()["minions_denied"] == ["pi3"])
    assert joined.master.answering(["pi3"]) == set()
    pki = joined.etc("pi0") / "salt/pki/master"
    export(pki, plan_export(joined.rack, salt_keys(joined.rack, Quiet()), pki))
    joined.master.wait_until_answering({"pi3"}, seconds=JOIN_SECONDS)
    assert joined.master.keys() == {"minions": sorted(joined.names), **NO_STATE}


def test_another_master_s_key_is_refused_and_the_minion_says_so(
    joined: RunningRack, tmp_path: Path
) -> None:
    stranger = rack_of(tmp_path / "stranger", 2)
    public = identity_of(stranger, stranger.node("pi1")).master.public
    assert public is not None
    joined.switch_off("pi5")
    pin = joined.etc("pi5") / "salt/pki/minion/minion_master.pub"
    pin.write_bytes(public)
    joined.switch_on("pi5")
    in_time(lambda: "The master key has changed" in joined["pi5"].log("salt-minion"))
    assert joined.master.answering(["pi5"]) == set()
    joined.switch_off("pi5")


def test_the_fingerprint_alone_tells_the_right_master_from_a_wrong_one(
    joined: RunningRack,
) -> None:
    """Salt itself agrees with the master_finger that was computed here."""
    pin = joined.etc("pi9") / "salt/pki/minion/minion_master.pub"
    joined.switch_off("pi9")
    public = pin.read_bytes()
    pin.unlink()
    joined.switch_on("pi9")
    joined.master.wait_until_answering({"pi9"}, seconds=JOIN_SECONDS)
    assert pin.read_bytes().strip() == public.strip()

    joined.switch_off("pi9")
    pin.unlink()
    config = joined.etc("pi9") / "salt/minion.d/picloud.conf"
    text = config.read_text()
    config.write_text(text.replace("master_finger: '", "master_finger: '00:"))
    joined.switch_on("pi9")
    in_time(lambda: "ingerprint" in joined["pi9"].log("salt-minion"))
    assert joined.master.answering(["pi9"]) == set()
    joined.switch_off("pi9")


@pytest.mark.long(minutes=8)
@pytest.mark.timeout(2 * LONG_JOIN_SECONDS)
def test_four_times_as_many_join_as_well(
    golden: GoldenImage,
    salt_programs: SaltPrograms,
    tmp_path: Path,
    tell: Tell,
) -> None:
    with running(tmp_path, rack_of(tmp_path / "rack", 56), golden, salt_programs) as rack:
        rack.join_all(seconds=LONG_JOIN_SECONDS, patience=15)
        tell(rack.joined_in)
        assert rack.master.keys() == {"minions": sorted(rack.names), **NO_STATE}
        assert settings(rack, "pi7", "random_startup_delay") == {"random_startup_delay": 56}
