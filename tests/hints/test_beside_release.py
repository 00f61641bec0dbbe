"""Hints that can be followed beside a release and the card of pi7."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imager.base.units import SECTOR_BYTES, GiB, MiB
from imager.node.stamp.stamp import STAMP_AREA
from imager.release.openpgp import fingerprints_in
from tests.hints.following import Row, follow, words_of
from tests.hints.test_without_release import master
from tests.image.test_command_line import flip_byte_of
from tests.support.fusing import fuse_process, why_no_fuse
from tests.support.loop import loop_over, missing_abilities, sized_file, udevd_running
from tests.support.signing import gnupg
from tests.support.usedcard import UsedCard, copied
from tests.support.workplace import TARBALL, Said, Workplace, workplace

KEY = "SHA256:" + "A" * 43
NODES = [f"pi{number}" for number in range(14)]
LATER = 1_900_000_000
_OTHER = "/os/Other-rpi-armv7-latest.tar.gz"


@dataclass
class Shop:
    """A workplace, and the card that is in its reader; ``held`` is what is undone at the end."""

    workplace: Workplace
    held: ExitStack = field(default_factory=ExitStack)
    card: Path = Path("no card is in")

    @property
    def folder(self) -> Path:
        return self.workplace.folder

    def typed(self, line: str) -> Said:
        """Type ``line``; its card is called ``CARD`` there, and in what is said."""
        given, words = words_of(line.replace("CARD", str(self.card)))
        place = replace(self.workplace, environment=self.workplace.environment | given)
        said = place.run(*words)
        named = [text.replace(str(self.card), "CARD") for text in (said.out, said.err)]
        return Said(said.code, *named)

    def put_in(self, path: Path) -> None:
        self.card = self.held.enter_context(loop_over(path)).node


def _damaged(place: Shop) -> None:
    """The archived release, with its last byte changed."""
    (tarball,) = (place.folder / "cache/releases").glob("*/*.tar.gz")
    tarball.chmod(0o644)
    data = tarball.read_bytes()
    tarball.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _signed_as_text(place: Shop) -> None:
    """A rack, ``theirs``, whose release was signed by GnuPG, in the folder ``signer``, as lines of
    text and not as bytes."""
    gpg = place.held.enter_context(gnupg())
    (place.folder / "signer").symlink_to(gpg.home)
    gpg("--quick-gen-key", "gpg <g@localhost>", "ed25519", "sign", "never")
    certificate = gpg("--export")
    (place.folder / "gpg.asc").write_bytes(certificate)
    toml = (place.workplace.rack / "rack.toml").read_text().replace(TARBALL, _OTHER)
    key = f'\nsigning_key = "{fingerprints_in(certificate)[0].upper()}"'
    (place.folder / "theirs").mkdir()
    (place.folder / "theirs/rack.toml").write_text(re.sub('\nsigning_key = "[^"]+"', key, toml))
    files = place.workplace.mirror.files
    files[_OTHER] = files[TARBALL]
    files[f"{_OTHER}.sig"] = gpg("--textmode", "--detach-sign", stdin=files[TARBALL])
    (place.folder / "other.tar.gz").write_bytes(files[TARBALL])


def _published(place: Shop) -> None:
    signature = (place.folder / "other.tar.gz.sig").read_bytes()
    place.workplace.mirror.files[f"{_OTHER}.sig"] = signature


def _flipped(place: Shop) -> None:
    """A byte of pi7's kernel, changed."""
    flip_byte_of(place.folder / "pi7.img", "kernel7.img")


def _copy(place: Shop, name: str) -> UsedCard:
    return place.held.enter_context(copied(place.folder / "pi7.img", place.folder / name))


def _torn(place: Shop) -> None:
    """A copy of pi7's card that has lost its stamp."""
    _copy(place, "torn.img").write(STAMP_AREA.offset, bytes(SECTOR_BYTES))


def _pulled(place: Shop) -> None:
    """A copy of pi7's card that was pulled out while its node ran."""
    _copy(place, "torn.img").debugfs("feature needs_recovery", at=LATER)


def _without_files(place: Shop) -> None:
    """A copy of pi7's card whose boot partition is no filesystem any more."""
    card = _copy(place, "torn.img")
    card.write(card.layout.boot.offset, bytes(SECTOR_BYTES))


def _of_linux(place: Shop) -> None:
    """A copy of pi7's card whose boot partition has the type of Linux."""
    card = _copy(place, "torn.img")
    subprocess.run(["sfdisk", "-q", "--part-type", str(card.path), "1", "83"], check=True)


def _of_gpt(place: Shop) -> None:
    """A copy of pi7's card with a third entry that says that there is a GPT."""
    entry = bytes.fromhex("00000200ee00020001000000ff070000")
    _copy(place, "torn.img").write(446 + 2 * len(entry), entry)


def _wanting_utf8(place: Shop) -> None:
    """Have the folder ``odd`` on a filesystem that takes no name but UTF-8."""
    if why := why_no_fuse():
        pytest.skip(why)
    odd, store = place.folder / "odd", place.folder / "store"
    odd.mkdir()
    store.mkdir()
    place.held.enter_context(fuse_process("tests.support.utf8fs", odd, store))


def _blank(place: Shop) -> None:
    place.put_in(sized_file(place.folder / "blank.raw", 2 * GiB))


def _used(place: Shop) -> None:
    """The card of pi8."""
    image = place.folder / "pi8.img"
    if not image.exists():
        assert place.typed("write pi8.img --node pi8 --size 2GiB").code == 0
    place.put_in(image)


def _smaller(place: Shop) -> None:
    """A card that holds the image, but not the card of pi7."""
    place.put_in(sized_file(place.folder / "blank.raw", 1900 * MiB))


def _damaged_card(place: Shop) -> None:
    card = _copy(place, "card.raw")
    card.flip_in("/boot/kernel7.img")
    place.put_in(card.path)


def _with_another_kernel(place: Shop) -> None:
    """pi7's card after a node has run from it, which got another kernel."""
    card = _copy(place, "card.raw")
    card.mark_mounted(LATER)
    (place.folder / "kernel7.img").write_bytes(b"a newer kernel")
    drive = f"{card.path}@@{card.layout.boot.offset}"
    words = ["mcopy", "-o", "-i", drive, str(place.folder / "kernel7.img"), "::"]
    subprocess.run(words, check=True)
    place.put_in(card.path)


SHOP = {
    "look whose they are; --replace puts this rack's in their place": Row(
        "rack keys export --pki pki",
        "--replace",
        "rack keys export --pki pki {said}",
        20,
        before=(
            "rack init --nodes pi7 --rack other",
            "rack keys export --pki pki --rack other",
        ),
    ),
    "move them elsewhere (--cache DIR, --rack DIR), or choose another target": Row(
        "write cache/golden/a.img --node pi1 --dry-run",
        "--cache DIR",
        "write cache/golden/a.img --node pi1 --dry-run {said}",
        20,
        fill={"DIR": "new"},
    ),
    "put the cache on an ordinary ext4, xfs or btrfs filesystem with --cache DIR": Row(
        "compose --cache odd/cache",
        "--cache DIR",
        "compose {said}",
        41,
        fill={"DIR": "cache"},
        before=(_wanting_utf8,),
    ),
    "run picloud-image fetch once without --offline": Row(
        "compose --offline --cache new", "picloud-image --cache new fetch", code=11
    ),
    "whoever signs this release must sign it again with gpg --detach-sign": Row(
        "fetch --rack theirs --cache new --signing-key gpg.asc",
        "gpg --detach-sign",
        "fetch --rack theirs --cache new --signing-key gpg.asc",
        12,
        before=(_signed_as_text,),
        between=("$ {said} --batch --homedir signer other.tar.gz", _published),
    ),
    "if it is another rack's card, name that rack with --rack DIR, or its key with --key {}; if "
    "not, somebody altered it: write it again": Row(
        f"verify pi7.img --key {KEY}", r"--key SHA256:[\w+/]{43}(?=;)", "verify pi7.img {said}", 23
    ),
    "take it elsewhere with the folder of the rack; there: picloud-image archive import FILE": Row(
        "archive export a.tar",
        "picloud-image archive import FILE",
        "{said} --cache elsewhere",
        0,
        fill={"FILE": "a.tar"},
    ),
    "name another file, or say --replace": Row(
        "archive export a.tar",
        "--replace",
        "archive export a.tar {said}",
        20,
        before=("$ touch a.tar",),
    ),
    "run picloud-image fetch without --offline: it sets this aside and fetches it anew": Row(
        "fetch --offline", "picloud-image fetch", code=12, before=(_damaged,)
    ),
    "write it again: {}": Row(
        "verify pi7.img --repair --yes",
        "picloud-image write pi7.img --node pi7",
        "{said} --size 2GiB --yes",
        20,
        before=(_flipped,),
    ),
    "say --yes if it is the right one": Row(
        "write pi7.img --node pi7 --size 2GiB",
        "--yes",
        "write pi7.img --node pi7 --size 2GiB {said}",
    ),
    "say --size {} or more": Row(
        "write a.img --node pi1 --size 512MiB",
        r"--size \d+GiB",
        "write a.img --node pi1 {said}",
        20,
    ),
    "leave --key and --receipt out, or write the card again": Row(
        f"verify pi7.img --receipt receipt.json --key {KEY}",
        "leave --key and --receipt out",
        "verify pi7.img",
        23,
        before=("$ cp $(ls -t rack/.picloud/receipts/*pi7* | head -n 1) receipt.json",),
    ),
    "name the rack it was written for with --rack DIR, give --receipt FILE, or write it again": Row(
        "verify torn.img --rack second",
        "--rack DIR",
        "verify torn.img {said}",
        23,
        23,
        fill={"DIR": "rack"},
        before=("rack init --nodes pi7 --rack second", _torn),
    ),
    "use a larger card, or a larger --size for an image file": Row(
        "write a.img --node pi7 --size 512MiB --dry-run",
        "--size",
        "write a.img --node pi7 {said} 2GiB --dry-run",
        20,
    ),
    "{} ({}) is done with another card; --again makes one more": Row(
        "rack plan pi7 --images images",
        "--again",
        "rack plan pi7 --images images {said}",
        0,
        before=("$ mkdir images",),
    ),
    "command_line('read', name, 'saved.img', '--replay')": Row(
        "clone torn.img new.img --node pi8",
        "picloud-image read .*torn.img saved.img --replay",
        "clone saved.img new.img --node pi8",
        23,
        before=(_pulled,),
        between=("{said}",),
    ),
    "command_line('write', 'TARGET', '--node', 'NAME')": Row(
        "clone torn.img copy.img --node pi8",
        "picloud-image write TARGET --node NAME",
        "{said} --dry-run",
        23,
        fill={"TARGET": "copy.img", "NAME": "pi8"},
        before=(_without_files,),
    ),
    "Set the type to 0c: 'sfdisk --part-type DISK 1 c'.": Row(
        "inspect torn.img",
        "sfdisk --part-type DISK 1 c",
        "inspect torn.img",
        25,
        fill={"DISK": "torn.img"},
        before=(_of_linux,),
        between=("$ {said} >sfdisk.log",),
    ),
    "Take that entry out ('sfdisk --delete DISK N'), or write the card again.": Row(
        "inspect torn.img",
        "sfdisk --delete DISK N",
        "inspect torn.img",
        25,
        fill={"DISK": "torn.img", "N": "3"},
        before=(_of_gpt,),
        between=("$ {said} >sfdisk.log",),
    ),
}


CARDS = {
    "say --yes; it takes the rack's own slots, blank cards and cards of this rack": Row(
        "rack flash pi8 --target CARD",
        "--yes",
        "rack flash pi8 --target CARD {said}",
        before=(_blank,),
    ),
    "  → put each in its Pi and switch on, then: picloud-image rack status --wait": Row(
        "rack flash pi8 --target CARD --yes --again",
        "picloud-image rack status --wait",
        "{said} --local",
        code=0,
        before=(_used, lambda place: master(place.folder, minions=NODES)),
    ),
    "put cards in; picloud-image devices lists every disk and says which may be written": Row(
        "rack flash pi9 --target CARD", "picloud-image devices", code=20, before=(_used,)
    ),
    "command_line('verify', target, '--repair', *where)": Row(
        "verify CARD",
        "picloud-image verify CARD --repair",
        "{said} --yes",
        23,
        before=(_damaged_card,),
    ),
    "command_line('read', original.name, 'smaller.img', '--shrink')": Row(
        "clone pi7.img CARD --yes",
        "picloud-image read .*pi7.img smaller.img --shrink",
        code=20,
        before=(_smaller,),
    ),
    "command_line('write', target.node, '--image', 'smaller.img')": Row(
        "clone pi7.img CARD --yes",
        "picloud-image write CARD --image smaller.img",
        "PICLOUD_SIGNING_KEY= {said} --yes",
        20,
        before=(_smaller, "$ rm -f smaller.img", "read pi7.img smaller.img --shrink"),
    ),
    "write the card again: {}": Row(
        "verify CARD --repair --yes",
        "picloud-image write .*",
        "{said} --yes",
        23,
        before=(_with_another_kernel,),
    ),
}
"""Cards in readers: loop devices."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("shop")) as place:
        place.pi7()
        place.environment["PATH"] = f"{place.folder}/programs:{place.environment['PATH']}"
        yield place


@pytest.fixture
def shop(workshop: Workplace) -> Iterator[Shop]:
    place = Shop(workshop)
    with place.held:
        yield place


@pytest.mark.image
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", SHOP)
def test_it_works_beside_a_release(shop: Shop, text: str) -> None:
    follow(SHOP[text], shop, shop.folder, shop.typed)


@pytest.mark.device
@pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities())
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", CARDS)
def test_it_works_with_a_card_in_the_reader(shop: Shop, text: str) -> None:
    follow(CARDS[text], shop, shop.folder, shop.typed)
