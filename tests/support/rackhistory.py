"""A rack with a past: receipts, a ledger, a lock and a master's answers, as runs would leave them.

In: how many nodes. Out: a rack folder in which every kind of card and of presence occurs, written
by the same functions the program writes with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from imager.base.units import MiB
from imager.card.diagnosis.damage import Damage, DamageKind
from imager.card.diagnosis.places import CardPlace
from imager.card.diagnosis.trouble import Trouble
from imager.card.host.target import TargetFacts
from imager.card.medium.meter import PhaseFigures
from imager.card.receipt.receipt import ImageFacts, Receipt, ReceiptResult
from imager.card.receipt.store import save_receipt
from imager.card.stages import WriteOptions
from imager.config.rack import Rack
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest
from imager.node.keys.identity import identity_of
from imager.node.keys.signing import rack_key
from imager.rack.history.events import Assigned, CardFinished
from imager.rack.history.ledger import append
from imager.rack.master.presence import Presence, Seen, save_presence
from imager.release.lock import Pin, RackLock
from tests.support.racks import KEY, rack_in

PINNED, OLDER = "ef" * 32, "0d" * 32
DAY = "2026-11-23"


def receipt_of(
    node: str,
    number: int,
    *,
    result: ReceiptResult = ReceiptResult.VERIFIED,
    failure: str = "",
    release: str = PINNED,
    trouble: Trouble | None = None,
) -> Receipt:
    """What a 32 GB card in a USB reader leaves: some 600 MiB at 20 and 40 MB/s, unevenly."""
    written = _samples(30.6, 20e6, number)
    read = _samples(15.4, 40e6, number + 5)
    return Receipt(
        node=node,
        result=result,
        failure=failure,
        finished_at=f"{DAY}T{6 + number // 60:02}:{number % 60:02}:04.123Z",
        tool_version="0.1.0",
        target=TargetFacts(
            f"/dev/sd{chr(ord('b') + number % 14)}",
            31_914_983_424,
            "usb",
            slot=f"/dev/disk/by-path/pci-0000:00:14.0-usb-0:2.{number}:1.0-scsi-0:0:0:0",
            vendor="Generic",
            model="STORAGE DEVICE",
            serial=f"0815{number:04}",
            diskseq=number + 9,
        ),
        image=ImageFacts(
            "ab" * 32,
            "cd" * 32,
            "alarm-rpi-armv7",
            release,
            0x00ABCDEF + number,
            Layout(16 * MiB, Extent(2 * MiB, MiB), Extent(4 * MiB, 12 * MiB)),
        ),
        options=WriteOptions(4 * MiB, 2),
        cache_bypassed=result is ReceiptResult.VERIFIED,
        fallbacks=("no flock: the filesystem of /dev knows none",) if number == 2 else (),
        phases=(
            PhaseFigures("write", sum(written), 30.6, written),
            PhaseFigures("read back", sum(read), 15.4, read),
        ),
        boot_files={},
        manifest=Manifest(16 * MiB, ExtentMap([Extent(0, 4096)]), (b"1" * 32,)),
        trouble=trouble,
    )


def _samples(seconds: float, rate: float, phase: int) -> tuple[int, ...]:
    whole = math.ceil(seconds)
    dip = (phase * 7) % whole
    return tuple(
        int(
            rate
            * min(1, seconds - second)
            * (0.35 if second == dip else 1 + 0.08 * math.sin(second * 1.7 + phase))
        )
        for second in range(whole)
    )


def rack_with_history(
    folder: Path, count: int = 14, *, hostile: str = "", keys: bool = False
) -> Rack:
    """A rack of towers of seven. By the last digit of its number a node's card is: 3 faulty, 4 of
    an older release, 5 cut short, 6 never made, the others verified. pi7 is silent, pi8 denied.

    With ``keys`` the nodes have theirs, which takes a second for each. ``hostile`` is put
    wherever outside text may stand, to see what becomes of it.
    """
    towers = ",".join(f"{chr(ord('A') + index)}[1-7]" for index in range(count // 7))
    rack = rack_in(
        folder,
        f'[rack]\nnodes = "pi[0-{count - 1}]"\nmaster = "pi0"\nslots = "{towers}"\n'
        f'[network]\naddresses = "10.0.0.[10-{count + 9}]"\ngateway = "10.0.0.1"\n'
        f'[login]\nauthorized_keys = ["{KEY}"]\n',
    )
    rack_key(rack)
    pin = Pin(PINNED, 600 * MiB, "https://example.org/a.tar.gz", "68" * 20, f"{DAY}T05:00:00Z")
    RackLock.load(rack.lock_file).with_pin("alarm-rpi-armv7", pin)
    seen = {}
    for number, node in enumerate(rack.nodes):
        if keys and number % 10 != 6:
            identity_of(rack, node)
        _card_of(rack, node.name, number, hostile)
        seen[node.name] = _seen(node.name, number, hostile)
    save_presence(rack.folder, seen)
    return rack


def _card_of(rack: Rack, node: str, number: int, hostile: str) -> None:
    kind = number % 10
    if kind == 6:
        return
    receipt = receipt_of(node, number)
    if kind == 3:
        damage = Damage(
            Extent(200 * MiB, 8192),
            DamageKind.FLIPPED,
            first_byte=200 * MiB + 17,
            bits=3,
            places=(CardPlace("root: /usr/lib/libcrypto.so.3" + hostile),),
        )
        meaning = "it keeps returning other bits than were written: throw this card away"
        receipt = receipt_of(
            node,
            number,
            result=ReceiptResult.FAULTY,
            failure="byte 209715217 differs after 2 attempts" + hostile,
            trouble=Trouble((damage,), (damage,), (), 2, meaning),
        )
    if kind == 4:
        receipt = receipt_of(node, number, release=OLDER)
    if hostile:
        receipt = replace(receipt, target=replace(receipt.target, model="SD" + hostile))
    path = save_receipt(receipt, rack.receipts)
    target = receipt.target
    began = Assigned(
        receipt.finished_at[:-5] + "0Z", "b1", node, target.path, rack.node(node).slot or "",
        target.size_bytes, target.model, target.serial, "", target.diskseq,
    )  # fmt: skip
    append(rack.folder, began)
    hint = "throw this card away; nothing else is wrong" if kind == 3 else ""
    append(
        rack.folder,
        CardFinished(
            receipt.finished_at, "b1", node, target.path, rack.node(node).slot or "",
            receipt.result.value, receipt.failure, hint, path.name, receipt.image.image_id,
            "recipe", receipt.image.release_sha256,
        ),
    )  # fmt: skip
    if kind == 5:
        append(rack.folder, replace(began, at=f"{DAY}T23:00:00Z"))


def _seen(node: str, number: int, hostile: str) -> Seen:
    asked = f"{DAY}T09:00:00Z"
    if number % 10 in (3, 5, 6):
        return Seen(Presence.UNKNOWN, asked)
    if number == 7:
        return Seen(
            Presence.SILENT, asked, f"{DAY}T08:40:00Z", "failed", "30-swap", "no room" + hostile
        )
    if number == 8:
        return Seen(Presence.DENIED, asked)
    return Seen(
        Presence.JOINED, asked, asked, "complete", release_sha256=PINNED,
        imaged_at=f"{DAY}T06:00:00Z",
    )  # fmt: skip
