"""Every hint with a command or a setting is followed, in the situation in which it is printed.

A row makes the situation by the real command line, finds what it is told to type in what was
printed, and types it. A hint that is added without a row fails the first test.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imager.disk.bmap import Bmap, encode_bmap
from imager.disk.extents import Extent
from imager.disk.layout import Layout
from imager.disk.mbr import encode
from tests.hints.collected import texts_to_follow
from tests.hints.not_followed import NOT_FOLLOWED
from tests.image.test_command_line import flip_byte_of
from tests.support.rackhistory import rack_with_history
from tests.support.signing import make_key, sign_detached
from tests.support.starter import run_command
from tests.support.workplace import Said, Workplace, workplace

PROGRAM = "picloud-image "
KEY = "SHA256:" + "A" * 43


@dataclass(frozen=True, slots=True)
class Row:
    """``line`` ends with ``code`` and prints what the pattern ``said`` finds, in which the words
    of ``fill`` are replaced by what a person means. ``then`` is typed with it, and ends with
    ``ends``. Where ``section`` is given, what was said is a setting, and is written there.

    ``before`` are lines, or changes to the folder, that make the situation. ``rack`` is what
    PICLOUD_RACK names; without one the folder ``empty`` is the current one.
    """

    line: str
    said: str
    then: str = "{said}"
    code: int = 2
    ends: int = 0
    fill: dict[str, str] = field(default_factory=dict)
    before: tuple[str | Callable[[Path], object], ...] = ()
    rack: str = "rack"
    section: str = ""


def _not_a_cache(folder: Path) -> None:
    (folder / "full/work/poetry").mkdir(parents=True)


def _zeros(folder: Path) -> None:
    (folder / "zeros.img").write_bytes(bytes(1 << 20))


def _two_images(folder: Path) -> None:
    for name in ("a.img", "b.img"):
        (folder / name).touch()


def _broken(folder: Path) -> None:
    (folder / "rack/rack.toml").write_text("nodes = 3\n")


def _any_image(folder: Path) -> None:
    table = encode(Layout(2 << 20, Extent(1 << 20, 1 << 19), Extent(3 << 19, 1 << 19)), 7)
    (folder / "any.img").write_bytes(table.ljust(2 << 20, b"\0"))
    for beside in folder.glob("any.img.*"):
        beside.unlink()


def _no_bmap(folder: Path) -> None:
    _any_image(folder)
    (folder / "any.img.bmap").write_text("<bmap/>")


def _other_bmap(folder: Path) -> None:
    _any_image(folder)
    (folder / "any.img.bmap").write_bytes(encode_bmap(Bmap(1 << 20, ())))


def _signed(folder: Path) -> None:
    _any_image(folder)
    key = make_key()
    sums = f"{hashlib.sha256((folder / 'any.img').read_bytes()).hexdigest()}\n".encode()
    (folder / "any.img.sha256").write_bytes(sums)
    (folder / "any.img.sha256.sig").write_bytes(sign_detached(key, sums))
    (folder / "key.asc").write_bytes(key.certificate)


def _unsigned(folder: Path) -> None:
    _any_image(folder)
    (folder / "key.asc").write_bytes(make_key().certificate)


BARE = {
    "--node pi7 makes the card of a node of a rack, --image FILE writes any image": Row(
        "write a.img",
        "--image FILE",
        "write a.img {said}",
        fill={"FILE": "any.img"},
        before=(_any_image,),
    ),
    "say --size {} or more, or leave it out": Row(
        "write b.img --image any.img --size 1MiB",
        r"--size [0-9]{3,}(?= or)",
        "write b.img --image any.img {said}",
        20,
        before=(_any_image,),
    ),
    "fetch it again, or say --no-bmap": Row(
        "write c.img --image any.img",
        "--no-bmap",
        "write c.img --image any.img {said}",
        13,
        before=(_no_bmap,),
    ),
    "fetch both again, or say --no-bmap": Row(
        "write d.img --image any.img",
        "--no-bmap",
        "write d.img --image any.img {said}",
        13,
        before=(_other_bmap,),
    ),
    "{}{} signs {}, which is believed to nobody: name the publisher's key with --signing-key "
    "FILE": Row(
        "write e.img --image any.img --dry-run",
        "--signing-key FILE",
        "write e.img --image any.img {said}",
        code=0,
        fill={"FILE": "key.asc"},
        before=(_signed,),
    ),
    "leave --signing-key out if you trust it by other means, as --sha256": Row(
        "write f.img --image any.img --signing-key key.asc",
        "leave --signing-key out",
        "write f.img --image any.img",
        12,
        before=(_unsigned,),
    ),
    "fetch it first and give its path, or leave --offline out": Row(
        "write g.img --image https://127.0.0.1/any.img --offline",
        "give its path",
        "write g.img --image any.img --offline",
        11,
        before=(_any_image,),
    ),
    "give an https URL, or fetch it first: {}": Row(
        "write h.img --image ftp://127.0.0.1/any.img",
        "curl -LO ftp://127.0.0.1/any.img",
        "write h.img --image any.img",
        before=(_any_image,),
    ),
    "Exit codes and what to do about each: picloud-image docs exit-codes.": Row(
        "help", "picloud-image docs exit-codes", code=0
    ),
    "none here or above; picloud-image rack init makes one": Row(
        "doctor --offline", "picloud-image rack init", code=0, rack=""
    ),
    "name an empty folder, or a new one, with --cache DIR": Row(
        "archive list --cache full",
        "--cache DIR",
        "archive list {said}",
        10,
        fill={"DIR": "new"},
        before=(_not_a_cache,),
    ),
    "read the card: 'picloud-image inspect /dev/sdX' in a laptop names a wrong file": Row(
        "explain --rainbow",
        "picloud-image inspect /dev/sdX",
        code=0,
        ends=25,
        fill={"/dev/sdX": "card.img"},
    ),
    "picloud-image devices lists the disks of this computer": Row(
        "write /dev/no-such --node pi1 --dry-run", "picloud-image devices", code=20
    ),
    "put cards in; picloud-image devices lists every disk and says what is on it": Row(
        "rack save saves", "picloud-image devices", code=20
    ),
    "say --blinks N, --rainbow or --blank": Row("explain", "--rainbow", "explain {said}"),
    "give a disk; picloud-image devices lists those of this computer": Row(
        "probe card.img", "picloud-image devices"
    ),
    "name the rack it was written for with --rack DIR": Row(
        "receipt --node pi3",
        "--rack DIR",
        "receipt --node pi3 {said}",
        10,
        fill={"DIR": "used"},
    ),
    "no rack.toml here or above: this is the default rack, which will be made in {} when it is "
    "used (picloud-image rack init makes one of your own)": Row(
        "rack show", "picloud-image rack init", code=0, rack=""
    ),
    "no rack.toml here or above: using the default rack in {} (picloud-image rack init makes one "
    "of your own)": Row("compose --offline", "picloud-image rack init", code=11, rack=""),
    "read it without --shrink": Row(
        "read zeros.img saved.img --shrink",
        "read it without --shrink",
        "read zeros.img saved.img",
        before=(_zeros,),
    ),
    "name each card once; picloud-image devices lists them": Row(
        "clone zeros.img zeros.img", "picloud-image devices", before=(_zeros,)
    ),
    "say --yes if they are the right ones": Row(
        "clone zeros.img a.img b.img",
        "--yes",
        "clone zeros.img a.img b.img {said}",
        before=(_zeros, _two_images),
    ),
    "name its rack with --rack DIR, or make a new card: {}": Row(
        "clone zeros.img new.img --node pi1",
        "picloud-image write TARGET --node pi1",
        "{said} --dry-run",
        code=23,
        fill={"TARGET": "new.img"},
        before=(_zeros,),
    ),
    "make one with picloud-image rack init, or name its folder with --rack DIR": Row(
        "rack report", "picloud-image rack init", code=10, rack=""
    ),
    "say --size {}": Row(
        "write a.img --node pi1 --size 100 --dry-run",
        r"(?<=say )--size \d+",
        "write a.img --node pi1 {said} --dry-run",
    ),
    "    {}": Row(
        "rack init --yes --rack 'my rack'",
        "picloud-image --rack 'my rack' write /dev/sdX --node pi0",
        "{said} --dry-run",
        0,
        fill={"/dev/sdX": "a.img"},
    ),
    "The old one is kept until the next rotation; --undo puts it back. Now:": Row(
        "rack keys rotate pi1 --ssh",
        "--undo",
        "rack keys rotate pi1 --ssh {said}",
        0,
        before=("rack keys rotate pi1 --ssh",),
    ),
    "leave it out, or give --images": Row(
        "rack plan --size 8GiB", "--images", "rack plan --size 8GiB {said} images"
    ),
    "name a file with --out FILE": Row(
        "rack report --out - --json",
        "--out FILE",
        "rack report --json {said}",
        fill={"FILE": "a.html"},
        rack="used",
    ),
    "make one with {}": Row(
        "rack show --rack 'not yet'", "picloud-image rack init --rack 'not yet'", code=10
    ),
    "choose again: picloud-image rack init --help says what can be chosen": Row(
        "rack init --yes --addresses 10.0.0.1 --rack new",
        r"picloud-image.* rack init --help",
        code=10,
    ),
    "edit it, or name another folder with --rack DIR": Row(
        "rack init --yes", "--rack DIR", "rack init --yes {said}", 10, fill={"DIR": "new"}
    ),
    "mend what is named here; picloud-image rack init --rack NEW writes a commented example": Row(
        "rack show",
        "picloud-image rack init --rack NEW",
        code=10,
        fill={"NEW": "new"},
        before=(_broken,),
    ),
    "the master made it itself; leave out --master-key": Row(
        "rack keys export --pki pki --master-key --rack elsewhere",
        "leave out --master-key",
        "rack keys export --pki pki --rack elsewhere",
        10,
        before=("rack init --nodes pi1 --master salt.example.org --rack elsewhere",),
    ),
    'write canary = ["pi3"] there; the next picloud-image lock --update goes to that node '
    "first": Row(
        "lock promote",
        r'canary = \["pi3"\]',
        "lock promote",
        10,
        fill={"pi3": "pi1"},
        section="packages",
    ),
    "for example --user alarm": Row(
        "rack status --user 'a b'",
        "--user alarm",
        "rack status --ssh --host 127.0.0.1 --port 1 {said}",
        ends=11,
        before=("rack keys rotate pi0 --ssh",),
    ),
    "write its card first: {}": Row(
        "rack status --ssh --host 127.0.0.1 --port 1",
        "picloud-image write /dev/sdX --node pi0",
        "{said} --dry-run",
        10,
        fill={"/dev/sdX": "a.img"},
    ),
    "for image files say --images DIR, one for each node": Row(
        "rack plan --target card.img",
        "--images DIR",
        "rack plan {said}",
        fill={"DIR": "images"},
    ),
}


def _damaged(folder: Path) -> None:
    """The archived release, with its last byte changed."""
    (tarball,) = (folder / "cache/releases").glob("*/*.tar.gz")
    tarball.chmod(0o644)
    data = tarball.read_bytes()
    tarball.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _flipped(folder: Path) -> None:
    """A byte of pi7's kernel, changed."""
    flip_byte_of(folder / "pi7.img", "kernel7.img")


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
    "run picloud-image fetch once without --offline": Row(
        "compose --offline --cache new", "picloud-image --cache new fetch", code=11
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
        "archive export a.tar", "--replace", "archive export a.tar {said}", 20
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
}
"""In a workplace with a release, and the card of pi7."""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small rack, one with a history, and files that are no cards."""
    folder = tmp_path_factory.mktemp("hints")
    for name in ("empty", "images", "used", "home"):
        (folder / name).mkdir()
    rack_with_history(folder / "used", 14)
    (folder / "card.img").write_bytes(bytes(1 << 20))
    made = typed(folder, "rack init --nodes pi[0-1] --rack rack", "")
    assert made.code == 0, made.err
    return folder


@pytest.fixture
def bare(furnished: Path, tmp_path: Path) -> Path:
    """A copy of it, for one row."""
    return shutil.copytree(furnished, tmp_path / "here")


def typed(folder: Path, line: str, rack: str) -> Said:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "PICLOUD_CACHE": str(folder / "cache"),
    }
    if rack:
        environment["PICLOUD_RACK"] = str(folder / rack)
    where = folder if rack or "--rack" in line else folder / "empty"
    return Said(*run_command(shlex.split(line), cwd=where, env=environment, stdin="", seconds=60))


def follow(row: Row, folder: Path, run: Callable[[str], Said]) -> None:
    for step in row.before:
        if callable(step):
            step(folder)
        else:
            before = run(step)
            assert before.code == 0, before.err
    told = run(row.line)
    assert told.code == row.code, told.err
    found = re.search(row.said, told.out + told.err)
    assert found is not None, told.out + told.err
    said = found[0]
    for word, meant in row.fill.items():
        assert word in said
        said = said.replace(word, meant)
    if row.section:
        toml, head = folder / row.rack / "rack.toml", f"[{row.section}]\n"
        before_it, after_it = toml.read_text().split(head)
        toml.write_text(f"{before_it}{head}{said}\n{after_it}")
    done = run(row.then.replace("{said}", said).removeprefix(PROGRAM))
    assert done.code == row.ends, done.err


@pytest.mark.parametrize("text", BARE)
def test_it_works_when_typed(bare: Path, text: str) -> None:
    row = BARE[text]
    follow(row, bare, lambda line: typed(bare, line, row.rack))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("shop")) as place:
        place.pi7()
        yield place


@pytest.mark.image
@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("text", SHOP)
def test_it_works_beside_a_release(shop: Workplace, text: str) -> None:
    follow(SHOP[text], shop.folder, lambda line: shop.run(*shlex.split(line)))


def test_every_hint_has_a_row() -> None:
    found = texts_to_follow()
    rows = {*BARE, *SHOP, *NOT_FOLLOWED}
    missing = {text: place for text, place in found.items() if text not in rows}
    assert not missing, "give each a row, or say in NOT_FOLLOWED who follows it"
    assert not rows - set(found), "is said nowhere"
    assert not set(NOT_FOLLOWED) & {*BARE, *SHOP}
