"""Hints about images that are none of ours: written, read, copied."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.hints.following import Row, follow, typed
from tests.support.signing import make_key, sign_detached

WRITE = "write a.img --image card.img"


def _signed(folder: Path) -> None:
    """Its sums lie beside it, and are signed by the key in the file key.asc."""
    key = make_key()
    sums = f"{hashlib.sha256(bytes(1 << 20)).hexdigest()}  card.img\n".encode()
    (folder / "key.asc").write_bytes(key.certificate)
    (folder / "SHA256SUMS").write_bytes(sums)
    (folder / "SHA256SUMS.asc").write_bytes(sign_detached(key, sums))


def _key(folder: Path) -> None:
    (folder / "key.asc").write_bytes(make_key().certificate)


IMAGES = {
    "--node pi7 makes the card of a node of a rack, --image FILE writes any image": Row(
        "write a.img", "--image FILE", "write a.img {said}", fill={"FILE": "card.img"}
    ),
    "say --size {} or more, or leave it out": Row(
        f"{WRITE} --size 1024", r"--size \d+(?= or)", f"{WRITE} {{said}}", 20
    ),
    "give the right sum with --sha256, or have the image in a folder without that file": Row(
        WRITE,
        "--sha256",
        f"{WRITE} {{said}} {hashlib.sha256(bytes(1 << 20)).hexdigest()}",
        13,
        before=("$ echo nonsense > card.img.sha256",),
    ),
    "fetch it again, or say --no-bmap": Row(
        WRITE, "--no-bmap", f"{WRITE} {{said}}", 13, before=("$ echo nonsense > card.img.bmap",)
    ),
    "fetch both again, or say --no-bmap": Row(
        "write a.img --image saved.img",
        "--no-bmap",
        "write a.img --image saved.img {said}",
        13,
        before=("read card.img saved.img", "$ truncate -s 2M saved.img"),
    ),
    "{}{} signs {}, which is believed to nobody: name the publisher's key with --signing-key "
    "FILE": Row(
        WRITE,
        "--signing-key FILE",
        "write b.img --image card.img {said}",
        0,
        fill={"FILE": "key.asc"},
        before=(_signed,),
    ),
    "leave --signing-key and PICLOUD_SIGNING_KEY out if you trust it by other means, as "
    "--sha256": Row(
        f"{WRITE} --signing-key key.asc",
        "--sha256",
        f"{WRITE} {{said}} {hashlib.sha256(bytes(1 << 20)).hexdigest()}",
        12,
        before=(_key,),
    ),
    "fetch it first and give its path, or leave --offline out": Row(
        "write a.img --image http://127.0.0.1:1/x.img --offline",
        "--offline",
        f"{WRITE} {{said}}",
        11,
    ),
    "put cards in; picloud-image devices lists every disk and says what is on it": Row(
        "rack save saves", "picloud-image devices", code=20, before=("$ mkdir saves",)
    ),
    "command_line('read', candidate.target.node, 'FILE.img.zst')": Row(
        "rack save saves --target odd.img",
        "picloud-image read .* FILE.img.zst",
        code=20,
        fill={"FILE": "odd-saved"},
        before=("$ mkdir saves; echo odd > odd.img; truncate -s 1M odd.img",),
    ),
    "command_line('write', 'TARGET', '--image', path)": Row(
        "rack restore saves --nodes pi1 --dry-run",
        r"picloud-image write TARGET --image .*\.img",
        code=0,
        fill={"TARGET": "a.img"},
        before=("$ mkdir saves; truncate -s 1M saves/pi1.img",),
    ),
    "name its rack with --rack DIR, or make a new card: {}": Row(
        "clone card.img new.img --node pi1",
        "--rack DIR",
        "rack show {said}",
        23,
        fill={"DIR": "rack"},
    ),
    "command_line('write', 'TARGET', '--node', node.name)": Row(
        "clone card.img new.img --node pi1",
        "picloud-image write TARGET --node pi1",
        "{said} --dry-run",
        23,
        fill={"TARGET": "new.img"},
    ),
    "name each card once; picloud-image devices lists them": Row(
        "clone card.img a.img a.img", "picloud-image devices"
    ),
    "say --yes if they are the right ones": Row(
        "clone card.img a.img b.img",
        "--yes",
        "clone card.img a.img b.img {said}",
        before=("$ cp card.img a.img; cp card.img b.img",),
    ),
    "command_line('verify', request.target.node, '--receipt', made.receipt_path)": Row(
        WRITE, "picloud-image verify .* --receipt .*json", code=0
    ),
}


@pytest.mark.parametrize("text", IMAGES)
def test_it_works_with_an_image(here: Path, text: str) -> None:
    follow(IMAGES[text], here, here, lambda line: typed(here, line, "rack"))
