"""``clone --node``: the card of pi7, which a Pi has run from, becomes pi8's."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.run import run
from imager.disk.ext4.filesystem import Ext4
from imager.disk.mbr import parse
from tests.support.racks import tool
from tests.support.usedcard import UsedCard, copied
from tests.support.workplace import Said, Workplace, workplace

pytestmark = [pytest.mark.image, pytest.mark.long(minutes=1)]

DONE = "/var/lib/picloud/firstboot/complete"
WHOLE_OWN = ("/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/fstab", "/etc/salt/minion_id")


@dataclass(frozen=True)
class Made:
    place: Workplace
    used: UsedCard
    copy: UsedCard
    new: UsedCard
    said: Said


def lived_in(place: Workplace, folder: Path) -> UsedCard:
    """pi7's card after its first boot, and a file that somebody put there."""
    card = UsedCard(place.pi7())
    # In the second in which its image was made, nobody could tell the node's files from ours.
    now = int(time.time()) + 3600
    card.live_on(now, folder / "written")
    card.debugfs(
        "mkdir /var/lib/picloud",
        "mkdir /var/lib/picloud/firstboot",
        f"write {folder / 'written'} {DONE}",
        f"write {folder / 'written'} /var/lib/picloud/firstboot/50-salt.done",
        f"write {folder / 'written'} /home/program",
        at=now,
    )
    report = folder / "firstboot.json"
    report.write_text("{}")
    at = card.layout.boot.offset
    tool("mcopy", "-i", f"{card.path}@@{at}", report, "::/picloud/firstboot.json")
    return card


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("place")
    with workplace(folder) as place:
        used = lived_in(place, folder)
        copy, new = folder / "copy.img", folder / "new.img"
        before = place.json("write", new, "--node", "pi8", "--size", "2GiB")
        assert before.code == 0, before.err
        said = place.json("clone", used.path, copy, "--node", "pi8")
        assert said.code == 0, said.err
        yield Made(place, used, UsedCard(copy), UsedCard(new), said)


def test_it_is_sound_and_pi8s_by_its_own_stamp(made: Made) -> None:
    said = made.place.json("verify", made.copy.path)
    assert said.code == 0, said.err
    result = said.result
    assert (result["node"], result["proof"], result["used"]) == ("pi8", "stamp", False)
    assert (result["matches"], result["stamp"]["key_known"]) == (True, True)


def test_it_boots_as_far_as_can_be_seen(made: Made) -> None:
    said = made.place.json("inspect", made.copy.path)
    assert said.code == 0, said.err


def test_both_filesystems_are_without_fault(made: Made) -> None:
    root, boot = made.copy.layout.root, made.copy.layout.boot
    tool("e2fsck", "-fn", f"{made.copy.path}?offset={root.offset}")
    fat = made.copy.path.with_name("fat")
    fat.write_bytes(made.copy.read(boot.offset, boot.length))
    said = tool("fsck.vfat", "-n", "-v", fat)
    assert "differ" not in said


def test_what_is_a_nodes_own_is_as_on_a_new_card_of_pi8(made: Made) -> None:
    copy, new = made.copy.root, made.new.root
    own = [path for path, inode in new.walk() if inode.is_file and is_own(path)]
    assert len(own) > len(WHOLE_OWN)
    for path in own:
        assert told(copy, path) == told(new, path), path
    assert (copy.uuid, copy.read_file("/etc/hostname")) == (new.uuid, b"pi8\n")
    first, second = (parse(card.read(0, 512)).disk_id for card in (made.copy, made.new))
    assert first == second != parse(made.used.read(0, 512)).disk_id
    assert made.copy.boot.read_file("cmdline.txt") == made.new.boot.read_file("cmdline.txt")
    node = json.loads(made.copy.boot.read_file("picloud/node.json"))
    assert node["node"] == "pi8"


def is_own(path: str) -> bool:
    return path in WHOLE_OWN or path.startswith(("/etc/ssh/ssh_host", "/etc/salt/pki/minion"))


def told(root: Ext4, path: str) -> tuple[bytes, int, int, int]:
    inode = root.lookup(path)
    assert inode is not None, path
    return root.content(inode), inode.mode, inode.uid, inode.gid


def test_nothing_is_left_of_pi7_but_what_was_put_on_its_card(made: Made) -> None:
    copy, used = made.copy.root, made.used.root
    assert copy.list_directory("/var/lib/picloud/firstboot") == ()
    assert made.copy.boot.find("picloud/firstboot.json") is None
    for path in ("/home/program", "/var/journal"):
        assert copy.read_file(path) == used.read_file(path)
    keys = used.read_file("/etc/ssh/ssh_host_ed25519_key"), used.read_file("/etc/machine-id")
    found = [
        path
        for path, inode in copy.walk()
        if inode.is_file and any(key in copy.content(inode) for key in keys)
    ]
    assert found == []


def test_receipt_and_ledger_say_what_it_is_a_copy_of(made: Made) -> None:
    result = made.said.result
    assert (result["node"], result["copy_of"], result["verified"]) == ("pi8", "pi7", True)
    receipt = json.loads(Path(result["receipt"]).read_text())
    assert receipt["node"] == "pi8"
    assert receipt["image"]["name"] == f"pi7's card {made.used.path}"
    lines = (made.place.rack / ".picloud/ledger.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["node"], last["outcome"], last["recipe"]) == ("pi8", "verified", "copy-of-pi7")


def test_a_plain_copy_is_pi7_once_more_and_says_so(made: Made, tmp_path: Path) -> None:
    copy = tmp_path / "twin.img"
    said = made.place.run("clone", made.used.path, copy)
    assert said.code == 0, said.err
    assert "is pi7 of rack" in said.err
    assert "switch on only one of them" in said.err
    whole = made.place.json("verify", copy).result
    assert (whole["node"], whole["sound"], whole["used"]) == ("pi7", True, True)


def test_a_card_that_was_not_unmounted_is_refused(made: Made, tmp_path: Path) -> None:
    with copied(made.used.path, tmp_path / "dirty.img") as dirty:
        dirty.debugfs("feature needs_recovery", at=0)
        said = made.place.run("clone", dirty.path, tmp_path / "no.img", "--node", "pi8")
    assert said.code == 23, said.err
    assert "was not unmounted" in said.err
    assert not (tmp_path / "no.img").exists()


def test_a_card_of_nobody_becomes_no_node(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    subprocess.run(["truncate", "-s", "8M", other], check=True)
    said = made.place.run("clone", other, tmp_path / "no.img", "--node", "pi8")
    assert said.code == 23
    assert "is no card of the rack" in said.err
    assert not (tmp_path / "no.img").exists()


@pytest.mark.parametrize("odd", [b"50-salt\ndone", b"50-salt\xffdone"])
def test_a_name_that_debugfs_cannot_be_told_is_no_mistake_of_ours(
    made: Made, tmp_path: Path, odd: bytes
) -> None:
    """Whoever was root on the node gives files any name, and debugfs takes one command a line."""
    with copied(made.used.path, tmp_path / "odd.img") as card:
        folder = card.root.lookup("/var/lib/picloud/firstboot")
        assert folder is not None
        place = folder.extents[0]
        names = card.read(place.offset, place.length)
        assert b"50-salt.done" in names
        card.write(place.offset, names.replace(b"50-salt.done", odd))
        mend = ["e2fsck", "-fy", f"{card.path}?offset={card.layout.root.offset}"]
        assert run(mend, ok=(1,)).returncode == 1  # the checksum of the changed names
        said = made.place.run("clone", card.path, tmp_path / "no.img", "--node", "pi8")
    assert said.code == 23, said.err
    assert "cannot become another node's card" in said.err
    assert "in its name" in said.err or "not UTF-8" in said.err
    assert not (tmp_path / "no.img").exists()


def test_a_damaged_root_filesystem_becomes_no_node(made: Made, tmp_path: Path) -> None:
    with copied(made.used.path, tmp_path / "bad.img") as card:
        card.debugfs("sif /home/program links_count 9", "sif /etc/hostname mode 0", at=0)
        said = made.place.run("clone", card.path, tmp_path / "no.img", "--node", "pi8")
    assert said.code == 23, said.err
    assert "its filesystems cannot be" in said.err
    assert not (tmp_path / "no.img").exists()


def test_a_folder_where_our_file_belongs_is_said_of_the_card(made: Made, tmp_path: Path) -> None:
    with copied(made.used.path, tmp_path / "odd.img") as card:
        drive = f"{card.path}@@{card.layout.boot.offset}"
        tool("mdel", "-i", drive, "::/cmdline.txt")
        tool("mmd", "-i", drive, "::/cmdline.txt")
        said = made.place.run("clone", card.path, tmp_path / "no.img", "--node", "pi8")
    assert said.code == 23, said.err
    assert "cmdline.txt on its boot partition is a folder" in said.err
    assert not (tmp_path / "no.img").exists()


def test_files_that_somebody_spelt_anew_are_on_the_copy_once(made: Made, tmp_path: Path) -> None:
    with copied(made.used.path, tmp_path / "odd.img") as card:
        drive = f"{card.path}@@{card.layout.boot.offset}"
        tool("mren", "-i", drive, "::/picloud", "::/was")
        tool("mren", "-i", drive, "::/was", "::/PiCloud")
        said = made.place.run("clone", card.path, tmp_path / "copy.img", "--node", "pi8")
    assert said.code == 0, said.err
    boot = UsedCard(tmp_path / "copy.img").boot
    assert boot.find("picloud/firstboot.json") is None
    assert json.loads(boot.read_file("picloud/node.json"))["node"] == "pi8"
    sums = boot.read_file("picloud/SHA256SUMS").decode().casefold()
    assert sums.count("picloud/") == sums.count("picloud/node.json") == 1
    verified = made.place.run("verify", tmp_path / "copy.img")
    assert verified.code == 0, verified.err
