"""A rack, a cache and a card that an earlier version of the program wrote are still its own.

In: ``tests/data/before_rooms/written.tar.xz`` (its ``make.py`` says how it was made). Out: the
command opens all of it, and what is read of each file would be written as the same bytes today, so
that the earlier version can read it in turn.

Whoever changes on purpose what an image or a card is made of changes what is expected here: the
image is then composed anew and pi1's card is stale. What each file says is read as before.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from imager.base.cache import Cache
from imager.base.run import find_tool
from imager.base.trusted_folder import TrustedFolder
from imager.card.diagnosis.damage import DamageKind
from imager.card.receipt.receipt import ReceiptResult, decode_receipt
from imager.card.receipt.store import by_disk_id, find_receipt, load_receipt
from imager.config.load import load_rack
from imager.node.keys.identity import identity_of
from imager.node.keys.signing import rack_key
from imager.node.stamp.stamp import STAMP_AREA, encode_stamp, parse_stamp
from imager.rack.history.events import Assigned, BatchBegun, BatchEnded, CardFinished, Standing
from imager.rack.history.ledger import encode_event, read_ledger
from imager.rack.master.presence import Presence, load_presence, save_presence
from imager.rack.plan.slots import load_slots, name_slot
from imager.release.archive import Archive, parse_record
from imager.release.lock import Pin, encode_lock, parse_lock
from tests.support.mirror import serving
from tests.support.usedcard import UsedCard
from tests.support.workplace import ROOT, Workplace

pytestmark = pytest.mark.image

ARCHIVE = ROOT / "tests/data/before_rooms/written.tar.xz"
MAX_STREAM_BYTES, MAX_UNPACKED_BYTES = 4 << 20, 8 << 30
RELEASE = "5727e8718b2a52de703a66709d43994d9568d2bfdf6c8590eae98932bb926b1c"
GOLDEN = "eb1bedf884d76d209ac63f856d47d4d7"
KEY = "SHA256:sLOle+MLj3JBOyKJucnHchWps8IyC1Ukbe55QMQhzWY"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """The folders as they were left. The network is gone."""
    unpack(tmp_path)
    tools = tools_of_the_day(tmp_path)
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.fspath(ROOT),
        "LANG": "C.UTF-8",
        "HOME": os.fspath(tmp_path / "home"),
        "XDG_DATA_HOME": os.fspath(tmp_path / "data"),
        "PICLOUD_RACK": os.fspath(tmp_path / "rack"),
        "PICLOUD_CACHE": os.fspath(tmp_path / "cache"),
    }
    with serving() as nothing:
        yield Workplace(tmp_path, nothing, environment)


@pytest.fixture
def card(place: Workplace) -> UsedCard:
    return UsedCard(place.folder / "pi1.img")


def unpack(folder: Path) -> None:
    """Unpack the archive, if it is no larger than it should be. tar keeps nanoseconds and holes,
    where tarfile does not."""
    unpacker = lzma.LZMADecompressor()
    stream = unpacker.decompress(ARCHIVE.read_bytes(), MAX_STREAM_BYTES)
    assert unpacker.eof, "it unpacks to more than it should"
    with tarfile.open(fileobj=BytesIO(stream)) as archive:
        assert sum(member.size for member in archive) <= MAX_UNPACKED_BYTES
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", folder], input=stream, check=True)


def tools_of_the_day(folder: Path) -> Path:
    """A folder of tools that say the version they had when the image was composed, which is a
    part of its name, and otherwise are this computer's."""
    tools = folder / "tools"
    tools.mkdir()
    for name, said in json.loads((folder / "tools.json").read_text()).items():
        (tools / f"{name}.said").write_text(said + "\n")
        (tools / name).write_text(
            f'#!/bin/sh\ncase "$*" in -V|--help) exec cat "$0.said" ;; esac\n'
            f'exec "{find_tool(name)}" "$@"\n'
        )
        (tools / name).chmod(0o755)
    return tools


def receipt_of(place: Workplace, node: str) -> Path:
    """The only receipt of ``node`` that the earlier version left."""
    [path] = place.rack.glob(f".picloud/receipts/20261128T1805*-{node}.json")
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def shape_of(value: Any) -> Any:
    """What a JSON value is made of: the keys, and the types of what they hold."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape_of(inner) for inner in value]
        return [shape for number, shape in enumerate(shapes) if shape not in shapes[:number]]
    return type(value).__name__


# ── the command opens it ────────────────────────────────────────────────────────────────────


def test_rack_show_knows_every_node_and_its_card(place: Workplace) -> None:
    result = place.json("rack", "show").result
    assert (result["master"], result["key"]) == ("pi0", KEY)
    nodes = {node["node"]: node for node in result["nodes"]}
    standing = {name: node["card"]["standing"] for name, node in nodes.items()}
    # "stale": today's first boot has more to do, so a card made now would be another one.
    assert standing == {"pi0": "cut short", "pi1": "stale", "pi2": "failed"}
    assert [node["presence"] for node in nodes.values()] == ["silent", "joined", None]
    assert nodes["pi1"]["card"]["receipt"] == os.fspath(receipt_of(place, "pi1"))
    assert "/boot/kernel7.img: 1 flipped bit" in nodes["pi2"]["card"]["reason"]


def test_rack_plan_knows_the_card_that_is_there(place: Workplace) -> None:
    assert place.json("rack", "plan").result["done"] == []
    result = place.json("rack", "plan", "--images", place.folder).result
    steps = {step["node"]: (step["action"], step["holds"]) for step in result["steps"]}
    assert steps == {
        "pi0": ("write", "blank"), "pi1": ("write", "ours"), "pi2": ("write", "blank"),
    }  # fmt: skip


def test_rack_known_hosts_are_those_of_the_kept_keys(place: Workplace) -> None:
    said = place.run("rack", "known-hosts")
    assert said.code == 0, said.err
    public = place.rack.glob(".picloud/keys/*/ssh/*.pub")
    kept = {path.read_text().split()[1] for path in public}
    assert {line.split()[2] for line in said.out.splitlines()} == kept
    assert len(kept) == 9


def test_rack_keys_export_gives_the_kept_keys(place: Workplace, tmp_path: Path) -> None:
    said = place.run("rack", "keys", "export", "--pki", tmp_path / "pki")
    assert said.code == 0, said.err
    for node in ("pi0", "pi1", "pi2"):
        kept = place.rack / f".picloud/keys/{node}/salt/minion.pub"
        assert (tmp_path / "pki/minions" / node).read_bytes() == kept.read_bytes()


def test_rack_report_tells_of_all_cards(place: Workplace) -> None:
    said = place.json("rack", "report")
    assert said.code == 0, said.err
    page = Path(said.result["report"]).read_text()
    for told in ("pi0", "pi1", "pi2", "1 flipped bit", "A2"):
        assert told in page


@pytest.mark.parametrize(("node", "result"), [("pi1", "verified"), ("pi2", "faulty")])
def test_a_receipt_is_found_and_shown(place: Workplace, node: str, result: str) -> None:
    path = receipt_of(place, node)
    said = place.run("receipt", "--node", node)
    assert said.code == 0, said.err
    assert f"{node}: {result}, 2026-11-28T18:05" in said.out
    shown = place.json("receipt", path).result["receipt"]
    kept = json.loads(path.read_bytes())
    del kept["manifest"]
    assert shown == kept


def test_the_card_is_verified_by_its_stamp_and_by_its_receipt(
    place: Workplace, card: UsedCard
) -> None:
    said = place.json("verify", card.path)
    assert said.code == 0, said.err
    result = said.result
    assert (result["proof"], result["node"], result["matches"]) == ("stamp", "pi1", True)
    assert (result["stamp"]["key"], result["stamp"]["key_known"]) == (KEY, True)
    said = place.json("verify", card.path, "--receipt", receipt_of(place, "pi1"))
    assert (said.code, said.result["proof"], said.result["matches"]) == (0, "receipt", True)


def test_damage_of_the_card_is_still_found_by_both(place: Workplace, card: UsedCard) -> None:
    card.flip_in("/boot/kernel7.img")
    assert place.run("verify", card.path).code == 23
    said = place.run("verify", card.path, "--receipt", receipt_of(place, "pi1"))
    assert said.code == 23
    assert "kernel7.img" in said.err


def test_the_card_is_inspected(place: Workplace, card: UsedCard) -> None:
    said = place.json("inspect", card.path)
    assert said.code == 0, said.err
    result = said.result
    assert (result["bootable"], result["node"], result["findings"]) == (True, "pi1", [])
    assert (result["stamp"]["state"], result["stamp"]["golden_key"]) == ("signed", GOLDEN)
    assert (result["card"]["release_sha256"], result["card"]["master"]) == (RELEASE, "pi0")


def test_the_image_is_taken_from_the_cache(place: Workplace) -> None:
    image = place.cache / "golden" / GOLDEN / "image"
    before = image.stat()
    said = place.json("compose", "--offline")
    assert said.code == 0, said.err
    assert (said.result["key"], said.result["image"]) == (GOLDEN, os.fspath(image))
    assert [event["event"] for event in said.events] == ["result"], "it was composed again"
    assert image.stat().st_ino == before.st_ino
    assert [path.name for path in (place.cache / "golden").glob("*/")] == [GOLDEN]


def test_the_archived_release_and_salt_are_used(place: Workplace) -> None:
    toml = place.rack / "rack.toml"
    toml.write_text(toml.read_text().replace("[salt]\n", '[salt]\nversion = "3008.3"\n'))
    lock = (place.rack / "rack.lock").read_bytes()
    said = place.json("fetch", "--offline")
    assert said.code == 0, said.err
    assert said.result["sha256"] == RELEASE
    assert len(said.result["packages"]) == 2
    assert (place.rack / "rack.lock").read_bytes() == lock


def test_the_same_node_again_has_the_same_keys_and_one_more_receipt(
    place: Workplace, card: UsedCard
) -> None:
    state = place.rack / ".picloud"
    keys, ledger = files_below(state / "keys"), (state / "ledger.jsonl").read_bytes()
    written = place.folder / "again.img"
    words = ("write", written, "--node", "pi1", "--size", "2GiB", "--offline")
    said = place.json(*words)
    assert said.code == 0, said.err
    phases = {event["phase"] for event in said.events if event["event"] == "progress"}
    assert phases == {"prepare pi1", "write", "table", "read back"}
    assert files_below(state / "keys") == keys
    new = UsedCard(written)
    for path in (
        "/etc/machine-id", "/etc/fstab", "/etc/motd", "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/salt/pki/minion/minion.pem",
        "/etc/salt/pki/minion/minion_master.pub",
    ):  # fmt: skip
        assert new.root.read_file(path) == card.root.read_file(path), path
    assert new.read(0, 512) == card.read(0, 512), "another disk id"

    assert (state / "ledger.jsonl").read_bytes().startswith(ledger)
    now = read_ledger(place.rack)
    assert (len(now.events), now.unread) == (9, 0)
    assert now.state_of("pi1").last == now.events[-1]
    receipt = Path(said.result["receipt"])
    lines = [json.loads(line) for line in (state / "ledger.jsonl").read_text().splitlines()]
    added = {"recipe": "str", "release_sha256": "str"}  # to what was assigned, since then
    began, ended = (shape_of(line) for line in lines[:2])
    assert [shape_of(line) for line in lines[-2:]] == [began | added, ended]
    old = json.loads(receipt_of(place, "pi1").read_bytes())
    assert shape_of(json.loads(receipt.read_bytes())) == shape_of(old)


CHANGING_MEANWHILE = """
import sys
from imager.cli.card import write_node
from imager.cli.main import main
overlay, text = sys.argv.pop(1), sys.argv.pop(1)
make = write_node.personalise_one
def make_then_change(*given):
    image = make(*given)
    with open(overlay, "w") as file:
        file.write(text)
    return image
write_node.personalise_one = make_then_change
main()
"""


@pytest.mark.parametrize(("then", "standing"), [("as it was", "current"), ("changed", "stale")])
def test_a_card_whose_overlay_is_changed_while_it_is_made_is_stale(
    place: Workplace, then: str, standing: str
) -> None:
    overlay = place.rack / "overlays/base/root/etc/issue"
    overlay.write_text("as it was")
    words = ("write", "new.img", "--node", "pi1", "--size", "2GiB", "--offline")
    subprocess.run(
        [sys.executable, "-c", CHANGING_MEANWHILE, overlay, then, *words],
        cwd=place.folder,
        env=place.environment,
        check=True,
    )
    nodes = {node["node"]: node for node in place.json("rack", "show").result["nodes"]}
    assert nodes["pi1"]["card"]["standing"] == standing


def test_an_image_composed_now_is_described_alike(place: Workplace, tmp_path: Path) -> None:
    described = place.cache / "golden" / GOLDEN / "golden.json"
    old = json.loads(described.read_bytes())
    described.unlink()
    assert place.run("compose", "--offline").code == 0
    new = json.loads(described.read_bytes())
    assert new.pop("kernels").keys() <= set(old["boot_files"].values()), "not recorded before"
    assert shape_of(new) == shape_of(old)
    for key in ("format", "key", "release_sha256", "models", "layout", "boot_files"):
        assert new[key] == old[key]


# ── each file is read, and would be written as the same bytes ───────────────────────────────


def test_receipts(place: Workplace) -> None:
    for node in ("pi1", "pi2"):
        data = receipt_of(place, node).read_bytes()
        assert decode_receipt(data).encode() == data
    good, bad = (load_receipt(receipt_of(place, node)) for node in ("pi1", "pi2"))
    assert (good.node, good.result, good.trouble) == ("pi1", ReceiptResult.VERIFIED, None)
    assert (good.image.golden_key, good.image.release_sha256) == (GOLDEN, RELEASE)
    assert good.image.layout is not None
    assert (good.image.disk_id, good.image.layout.size_bytes) == (0xB814A38E, 2 << 30)
    assert [phase.name for phase in good.phases] == ["write", "table", "read back"]
    assert (good.options.block_bytes, good.options.depth) == (4 << 20, 2)
    assert (bad.result, bad.target.bus, bad.target.diskseq) == (ReceiptResult.FAULTY, "loop", 2426)
    assert bad.trouble is not None
    [damage] = bad.trouble.found
    assert (damage.kind, damage.bits, damage.first_byte) == (DamageKind.FLIPPED, 1, 12546048)


def test_the_receipt_is_found_by_the_disk_id(place: Workplace) -> None:
    found = find_receipt(TrustedFolder(place.rack / ".picloud/receipts"), by_disk_id(0xB814A38E))
    assert found is not None
    assert found[0] == receipt_of(place, "pi1")


def test_ledger(place: Workplace) -> None:
    ledger = read_ledger(place.rack)
    kinds = [type(event) for event in ledger.events]
    assert kinds == [
        Assigned, CardFinished, BatchBegun, Assigned, CardFinished, BatchEnded, Assigned,
    ]  # fmt: skip
    assert ledger.unread == 0
    data = (place.rack / ".picloud/ledger.jsonl").read_bytes()
    assert b"".join(encode_event(event) for event in ledger.events) == data
    standing = [ledger.state_of(f"pi{number}").standing() for number in range(3)]
    assert standing == [Standing.CUT_SHORT, Standing.VERIFIED, Standing.FAILED]


def test_stamp(place: Workplace, card: UsedCard) -> None:
    area = card.read(STAMP_AREA.offset, STAMP_AREA.length)
    stamp = parse_stamp(area)
    facts = stamp.facts
    assert (facts.rack, facts.node, facts.model) == ("picloud", "pi1", "pi2")
    assert (facts.release_sha256, facts.golden_key) == (RELEASE, GOLDEN)
    assert (facts.disk_id, facts.imaged_at) == (0xB814A38E, 1_795_889_103)
    receipt = load_receipt(receipt_of(place, "pi1"))
    assert facts.image_id == receipt.image.image_id
    assert facts.layout == receipt.image.layout
    assert facts.encode() in area
    key = rack_key(load_rack(place.rack))
    again = encode_stamp(facts, stamp.manifest, stamp.files, key.public, key.sign)
    assert area.startswith(again)


def test_release_record(place: Workplace) -> None:
    entry = Archive(Cache(place.cache)).find(RELEASE)
    assert entry is not None
    assert (entry.record.name, entry.record.size_bytes) == ("StandIn-rpi-armv7-latest", 4076)
    path = entry.folder / "release.json"
    data = path.read_bytes()
    fields = {name: getattr(entry.record, name) for name in json.loads(data)}
    assert parse_record(data) == entry.record
    assert (json.dumps(fields, indent=2) + "\n").encode() == data


def test_lock(place: Workplace) -> None:
    text = (place.rack / "rack.lock").read_text()
    pins, faults = parse_lock(text.encode())
    assert faults == []
    assert [key for key in pins if key[0] == "release"] == [("release", "StandIn-rpi-armv7-latest")]
    assert {name for section, name in pins if section == "package"} == {"salt", "looseversion"}
    pinned = pins["release", "StandIn-rpi-armv7-latest"]
    assert isinstance(pinned, Pin)
    assert pinned.sha256 == RELEASE
    assert encode_lock(pins) == text


def test_identity(place: Workplace) -> None:
    rack = load_rack(place.rack)
    for node in rack.nodes:
        path = rack.keys.path / node.name / "card/identity.json"
        kept = json.loads(path.read_bytes())
        identity = identity_of(rack, node)
        numbers = {name: getattr(identity.numbers, name) for name in kept}
        assert (json.dumps(numbers, indent=2) + "\n").encode() == path.read_bytes()
    assert identity_of(rack, rack.node("pi1")).numbers.disk_id == 0xB814A38E


def test_presence(place: Workplace) -> None:
    path = place.rack / ".picloud/presence.json"
    before, seen = path.read_bytes(), load_presence(place.rack)
    assert seen["pi0"].presence is Presence.SILENT
    assert (seen["pi0"].step, seen["pi0"].note, seen["pi0"].hint) == ("swap", "no room", "a hint")
    path.unlink()
    save_presence(place.rack, seen)
    assert path.read_bytes() == before


def test_slots(place: Workplace) -> None:
    path = place.rack / "slots.toml"
    before, slots = path.read_bytes(), load_slots(place.rack)
    assert slots.names == {"A2": "pci-0000:00:14.0-usb-0:2.1:1.0-scsi-0:0:0:0"}
    path.unlink()
    name_slot(place.rack, "A2", slots.names["A2"])
    assert path.read_bytes() == before
