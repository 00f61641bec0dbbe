"""Made ``written.tar.xz``: a rack, a cache and a card, written by the program of commit d3f3423.

In: a checkout of that commit, made ready with ``scripts/setup --dev``, and root (one card is a
block device that lies). Out: the archive. How it was made, in that checkout::

    PYTHONPATH=. .venv/bin/python …/tests/data/before_rooms/make.py …/tests/data/before_rooms

Everything on disk is written by the command as a person types it; only ``slots.toml`` and
``presence.json``, for which a person plugs in cards and asks a master, are written by the functions
the command writes them with. Every key in it was made for this and is used nowhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from mmap import PROT_READ, mmap
from pathlib import Path

from imager.base.units import align_down
from tests.support import faultcard
from tests.support.faultcard import Fault, fault_card
from tests.support.pypi import index
from tests.support.rackcards import SIZE, flash_words
from tests.support.racks import KEY
from tests.support.release import ReleaseTree, everyday_tree
from tests.support.workplace import SALT, Workplace, workplace

QUESTIONS = {"mke2fs": "-V", "mkfs.vfat": "--help", "mcopy": "-V"}
"""What the program asks tools of the host; the answers are a part of a golden image's name."""
_extent = vars(faultcard)["Extent"]  # imager.image.extents then, imager.disk.extents now
_BEYOND_THE_COMMAND = """\
from pathlib import Path
from sys import argv
from imager.rack.presence import Presence, Seen, save_presence
from imager.rack.slots import name_slot
rack = Path(argv[1])
name_slot(rack, "A2", "pci-0000:00:14.0-usb-0:2.1:1.0-scsi-0:0:0:0")
save_presence(rack, {
    "pi0": Seen(Presence.SILENT, "2026-11-28T09:00:00Z", "2026-11-28T08:40:00Z", "failed", "swap",
                "no room", "a hint", "ab" * 32, "2026-11-28T06:00:00Z"),
    "pi1": Seen(Presence.JOINED, "2026-11-28T09:00:00Z", "2026-11-28T09:00:00Z", "complete"),
})
"""


def main() -> None:
    """Make the archive in the folder that is the only argument."""
    with tempfile.TemporaryDirectory() as name, index() as pypi:
        folder = Path(name)
        with workplace(folder, tree=_small_tree(), pypi=pypi) as place:
            _write_all(place)
        tools = {tool: _said(tool, question) for tool, question in QUESTIONS.items()}
        (folder / "tools.json").write_text(json.dumps(tools, indent=1) + "\n")
        _pack(folder, Path(sys.argv[1]) / "written.tar.xz")


def _small_tree() -> ReleaseTree:
    """A release without what only tries the unpacking."""
    tree = everyday_tree()
    bulk = ("./usr/odd", "./usr/many", "./boot/large.bin")
    tree.members = [member for member in tree.members if not member[0].name.startswith(bulk)]
    return tree


def _write_all(place: Workplace) -> None:
    toml = place.rack / "rack.toml"
    text = toml.read_text()
    for before, after in (
        ('nodes = "pi[0-13]"', 'nodes = "pi[0-2]"'),
        ('slots = "A[1-7],B[1-7]"', 'slots = "A[1-3]"'),
        ("\ndhcp = true\n", "\n"),
        ('# addresses = "10.0.0.[10-23]"', 'addresses = "10.0.0.[10-12]"'),
        ('# gateway = "10.0.0.1"', 'gateway = "10.0.0.1"'),
        ('# authorized_keys = ["ssh-ed25519 AAAA… you@laptop"]', f'authorized_keys = ["{KEY}"]'),
    ):
        assert before in text, before
        text = text.replace(before, after, 1)
    toml.write_text(text)
    motd = place.rack / "overlays/base/root/etc/motd.j2"
    motd.parent.mkdir(parents=True)
    motd.write_text("{{ node.name }} of {{ rack.name }}\n")
    # Salt is archived and pinned, and not in the image: that one's name would then hold the
    # versions of every Python of the host.
    _expect(0, place, "fetch")
    toml.write_text(text.replace(SALT, "\n"))
    _expect(0, place, "write", place.folder / "pi1.img", "--node", "pi1", "--size", "2GiB")
    _flash_a_bad_card(place)
    _begin_and_kill(place)
    _expect(0, place, "rack", "known-hosts")
    subprocess.run([sys.executable, "-c", _BEYOND_THE_COMMAND, place.rack], check=True)


def _flash_a_bad_card(place: Workplace) -> None:
    """pi2's card keeps a bit of start.elf flipped, whatever is written to it."""
    [image] = place.cache.glob("golden/*/image")
    with image.open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as content:
        block = align_down(content.find(b"VC_BUILD_ID"), 4096)
    with fault_card(place.folder / "bad", SIZE) as card:
        card.phase("always")
        card.arm([Fault("flip", _extent(block, 4096), ("always",))])
        _expect(30, place, *flash_words("pi2", [card.node]))


def _begin_and_kill(place: Workplace) -> None:
    """Of pi0's card the ledger knows no end."""
    ledger = place.rack / ".picloud/ledger.jsonl"
    words = place.command("write", place.folder / "pi0.img", "--node", "pi0", "--size", "2GiB")
    with subprocess.Popen(
        words, cwd=place.folder, env=place.environment, stdin=subprocess.DEVNULL
    ) as process:
        while '"pi0"' not in ledger.read_text():
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert '"event":"assigned"' in ledger.read_text().splitlines()[-1], "killed too late"


def _expect(code: int, place: Workplace, *words: str | os.PathLike[str]) -> None:
    said = place.run(*(Path(word) if isinstance(word, os.PathLike) else word for word in words))
    assert said.code == code, said.err


def _said(tool: str, question: str) -> str:
    done = subprocess.run([tool, question], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def _pack(folder: Path, archive: Path) -> None:
    """The same files give the same archive but for tar's number in the name of a sparse member."""
    names = ("rack", "cache/releases", "cache/packages", "cache/golden",
             "pi1.img", "tools.json", "signing-key.asc")  # fmt: skip
    tar = ("tar", "-c", "--format=pax", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,"
           "delete=ctime", "--sort=name", "--owner=0", "--group=0", "--numeric-owner",
           "--sparse", "--hole-detection=raw", "-C", folder)  # fmt: skip
    packed = subprocess.run([*tar, *names], capture_output=True, check=True).stdout
    squeezed = subprocess.run(
        ["xz", "-9e", "-T1", "-c"], input=packed, capture_output=True, check=True
    )
    archive.write_bytes(squeezed.stdout)
    sys.stderr.write(f"{archive}: {len(squeezed.stdout)} bytes, {len(packed)} unpacked\n")


if __name__ == "__main__":
    main()
