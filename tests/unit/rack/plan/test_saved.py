"""Which files of a folder are whole cards of their nodes; their stamps are signed by a real key."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.target import Limits
from imager.config.rack import Rack
from imager.disk.bmap import Bmap, BmapRange, encode_bmap
from imager.disk.extents import Extent
from imager.node.keys.signing import rack_key
from imager.node.stamp.stamp import STAMP_AREA
from imager.rack.history.events import CardFinished, CardSaved
from imager.rack.history.ledger import Ledger
from imager.rack.plan.candidates import Candidate, Holds
from imager.rack.plan.plan import Want, make_plan
from imager.rack.plan.saved import SavedNode, restore_plan, saved_nodes
from tests.support.racks import rack_in
from tests.support.stamps import DOCUMENT, FACTS, by_hand

_SIGNED_AND_KEY = 64 + 32
AT = "2026-11-25T03:20:00.000Z"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_in(tmp_path_factory.mktemp("rack"), '[rack]\nnodes = "pi[6-8]"\n')


def save(rack: Rack, path: Path, node: str = "pi7", *, strangers: bool = False) -> Path:
    """An image of 2 MiB whose stamp this rack's key signed, or a stranger's."""
    path.parent.mkdir(exist_ok=True)
    stamp = by_hand({**DOCUMENT, "node": node})
    if not strangers:
        key = rack_key(rack)
        body = stamp[:-_SIGNED_AND_KEY] + key.public
        stamp = body + key.sign(body)
    path.write_bytes((bytes(STAMP_AREA.offset) + stamp).ljust(2 * MiB, b"\0"))
    return path


def found(
    rack: Rack, folder: Path, ledger: Ledger | None = None, *, named: bool = False
) -> tuple[list[SavedNode], dict[str, str]]:
    good, bad = saved_nodes(
        TrustedFolder(folder), rack.nodes, rack, ledger or Ledger(), named=named
    )
    return good, {node.name: error.what for node, error in bad}


def test_a_card_of_this_rack_is_its_nodes(rack: Rack, tmp_path: Path) -> None:
    path = save(rack, tmp_path / "pi7.img")
    os.utime(path, (1_790_000_000, 1_790_000_000))
    (one,), bad = found(rack, tmp_path)
    assert (one.node.name, one.path, one.size_bytes, one.recipe) == ("pi7", path, 2 * MiB, "")
    assert one.saved_at == "2026-09-21T14:13:20Z", "when the file was written"
    assert not bad, "of the others there is no file, and they were not named"
    assert set(found(rack, tmp_path, named=True)[1]) == {"pi6", "pi8"}


def test_the_ledger_knows_when_it_was_saved_and_what_it_was_made_from(
    rack: Rack, tmp_path: Path
) -> None:
    """By the block map, wherever the file is now; by the image that the stamp names."""
    path = save(rack, tmp_path / "pi7.img")
    whole = BmapRange(Extent(0, 2 * MiB), hashlib.sha256(path.read_bytes()).digest())
    bmap = encode_bmap(Bmap(2 * MiB, (whole,)))
    Path(f"{path}.bmap").write_bytes(bmap)
    sha256 = hashlib.sha256(bmap).hexdigest()
    made = CardFinished(AT, "", "pi7", "", "", "verified", "", "", "", FACTS.image_id, "r1", "")
    saved = CardSaved(AT, "pi7", "/dev/sdb", "", "/elsewhere/old.img", "saved", "", "", sha256)
    (one,), _ = found(rack, tmp_path, Ledger((made, saved)))
    assert (one.saved_at, one.recipe) == (AT, "r1")


def test_a_name_proves_nothing(rack: Rack, tmp_path: Path) -> None:
    save(rack, tmp_path / "pi6.img", "pi7")
    save(rack, tmp_path / "pi7.img", strangers=True)
    (tmp_path / "pi8.img").write_bytes(bytes(2 * MiB))
    good, bad = found(rack, tmp_path)
    assert not good
    assert bad == {
        "pi6": f"{tmp_path}/pi6.img is pi7's card, not pi6's",
        "pi7": f"{tmp_path}/pi7.img was saved from a card of another rack: pi7 of rack attic",
        "pi8": f"{tmp_path}/pi8.img is no card of ours: it has no stamp",
    }


def test_a_card_that_is_too_small_gets_nothing(rack: Rack, tmp_path: Path) -> None:
    save(rack, tmp_path / "pi7.img")
    good, _ = found(rack, tmp_path)
    small = Disk("/dev/sdx", "8:0", MiB, Bus.USB, removable=True)
    wants = [Want(one.node, Ledger().state_of("pi7")) for one in good]
    plan = make_plan(wants, [Candidate(small, Holds.BLANK, "blank")], rack.nodes)
    told = restore_plan(plan, [], good, [], Limits())
    assert plan.steps and not told.cards.steps
    ((node, error),) = told.against
    assert node.name == "pi7" and "too small" in error.what


def test_no_link_in_the_folder_is_followed(rack: Rack, tmp_path: Path) -> None:
    save(rack, tmp_path / "elsewhere/pi7.img")
    (tmp_path / "saves").mkdir()
    (tmp_path / "saves/pi7.img").symlink_to(tmp_path / "elsewhere/pi7.img")
    (tmp_path / "saves/pi8.img").symlink_to("/dev/zero")
    good, bad = found(rack, tmp_path / "saves")
    assert not good
    assert {name: "is a symbolic link" in what for name, what in bad.items()} == {
        "pi7": True,
        "pi8": True,
    }
