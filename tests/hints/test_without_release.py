"""Hints that can be followed where nothing was fetched: racks, keys, slots, plans."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.hints.following import Row, follow, typed
from tests.support.pacman import python_package
from tests.support.signing import make_key


def _not_a_cache(folder: Path) -> None:
    (folder / "full/work/poetry").mkdir(parents=True)


def _zeros(folder: Path) -> None:
    (folder / "zeros.img").write_bytes(bytes(1 << 20))


def _broken(folder: Path) -> None:
    (folder / "rack/rack.toml").write_text("nodes = 3\n")


def _salt_packages(folder: Path) -> None:
    """What Salt needs is taken from the folder ``packages``, in which there is nothing."""
    (folder / "packages").mkdir()
    toml = folder / "rack/rack.toml"
    named = f'packages = "{folder}/packages"'
    toml.write_text(re.sub("^# packages = .*", named, toml.read_text(), flags=re.MULTILINE))


def _mirror_at_home(folder: Path) -> None:
    """The release is on a mirror of this computer, which is off."""
    toml = folder / "rack/rack.toml"
    url = 'url = "http://127.0.0.1:1/x.tar.gz"\nsigning_key = "' + "A" * 40 + '"'
    toml.write_text(toml.read_text().replace('name = "alarm-rpi-armv7"', url))


def master(folder: Path, **keys: list[str]) -> None:
    """Make this computer a Salt master that has these ``keys``, by their state, and hears all that
    it accepted; without any, those of pi0 and pi1."""
    keys = keys or {"minions": ["pi0", "pi1"]}
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    answers = {"salt-key": keys, "salt-run": {"up": keys["minions"]}, "salt": {}}
    for name, answer in answers.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps(answer))}\n")
        program.chmod(0o755)


def _packed(folder: Path) -> None:
    package = python_package(folder / "packages")
    call = f"xz -dc {package} | zstd -q > {package.with_suffix('.zst')}; rm {package}"
    subprocess.run(call, shell=True, check=True)


def _with_key(folder: Path) -> None:
    """Who has the key in key.pub may log in."""
    toml = folder / "rack/rack.toml"
    key = (folder / "key.pub").read_text().strip()
    toml.write_text(
        toml.read_text().replace("[login]\n", f'[login]\nauthorized_keys = ["{key}"]\n')
    )


def _without_key(folder: Path) -> None:
    toml = folder / "rack/rack.toml"
    toml.write_text(re.sub("^authorized_keys = .*", "", toml.read_text(), flags=re.MULTILINE))


def _known(folder: Path) -> None:
    """This computer's user knows pi1."""
    (folder / "known_hosts").write_text(typed(folder, "rack known-hosts pi1", "rack").out)


def _certificate(folder: Path) -> None:
    """The key that signs the release is in the file key.asc."""
    key = make_key()
    (folder / "key.asc").write_bytes(key.certificate)
    toml = folder / "rack/rack.toml"
    toml.write_text(toml.read_text().replace("A" * 40, key.fingerprint))


BARE = {
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
    "make one with picloud-image rack init, or name its folder with --rack DIR": Row(
        "rack report", "picloud-image rack init", code=10, rack=""
    ),
    "a number alone counts bytes: say --size {}GiB": Row(
        "write a.img --node pi1 --size 8 --dry-run",
        "(?<=say )--size 8GiB",
        "write a.img --node pi1 {said} --dry-run",
    ),
    "say --size {}": Row(
        "write a.img --node pi1 --size 4100 --dry-run",
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
    "name a folder of your own, as a copy of it (--rack DIR, --cache DIR, --images DIR)": Row(
        "rack show",
        "--rack DIR",
        "rack show {said}",
        10,
        fill={"DIR": "copy"},
        before=("$ chmod 1777 rack",),
        between=("$ cp -r rack copy",),
    ),
    "chmod -R go-w {}": Row(
        "rack show",
        "chmod -R .*",
        "rack show",
        10,
        before=("$ chmod 777 rack",),
        between=("$ {said}",),
    ),
    "zstd -d FILE": Row(
        "inspect card.img.zst",
        "zstd -d FILE",
        "inspect card.img",
        25,
        ends=25,
        fill={"FILE": "card.img.zst"},
        before=("$ zstd -q --rm card.img",),
        between=("$ {said}",),
    ),
    "a package is as good unpacked: for zst, zstd -d --rm FILE": Row(
        "write a.img --node pi0 --dry-run",
        "zstd -d --rm FILE",
        code=10,
        then="write a.img --node pi0 --dry-run",
        fill={"FILE": "packages/*.zst"},
        before=(_salt_packages, _packed),
        between=("$ {said}",),
    ),
    "is a DSA key, which sshd no longer takes; make a key with ssh-keygen -t ed25519": Row(
        "rack show",
        "ssh-keygen -t ed25519",
        "rack show",
        10,
        before=("$ echo ssh-dss AAAAB3NzaC1kc3MAAAA= > key.pub", _with_key),
        between=("$ rm key.pub; {said} -q -N '' -f key", _without_key, _with_key),
    ),
    "    ssh-keygen -R {}": Row(
        "rack keys rotate pi1 --ssh",
        "ssh-keygen -R pi1",
        "rack known-hosts pi1",
        0,
        before=("rack keys rotate pi1 --ssh", _known),
        between=("$ {said} -f known_hosts 2>&1 | grep -q 'pi1 found'",),
    ),
    "restore it from a backup; or have it made anew (rm -r {}) and make the others forget the old "
    "one (salt-key -d NODE, ssh-keygen -R NODE)": Row(
        "rack known-hosts",
        r"rm -r [^)]*",
        "rack keys rotate pi1 --ssh",
        10,
        before=(
            "rack keys rotate pi1 --ssh",
            "$ : > rack/.picloud/keys/pi1/ssh/ssh_host_rsa_key.pub",
        ),
        between=("$ {said}",),
    ),
    "gpg --show-keys FILE prints the fingerprint of a key": Row(
        "rack show",
        "gpg --show-keys FILE",
        "rack show",
        10,
        fill={"FILE": "key.asc"},
        before=(
            _mirror_at_home,
            "$ sed -i 's/^signing_key = .*/signing_key = \"me\"/' rack/rack.toml",
            _certificate,
        ),
        between=(
            "$ {said} | sed -n 's/^ *\\([0-9A-F]\\{40\\}\\)$/\\1/p' > print",
            "$ sed -i \"s/^signing_key = .*/signing_key = '$(cat print)'/\" rack/rack.toml",
        ),
    ),
    "export it with gpg --armor --export {}": Row(
        "fetch --signing-key card.img",
        "gpg --armor --export .*",
        "fetch --signing-key exported.asc",
        10,
        ends=11,
        before=(
            _mirror_at_home,
            _certificate,
            "$ chmod 700 home; gpg -q --no-autostart --homedir home --import key.asc",
        ),
        between=("$ GNUPGHOME=home {said} > exported.asc",),
    ),
    "give what rack show, or ssh-keygen -l, prints of the key: SHA256: and 43 letters": Row(
        "verify card.img --key no-key", "rack show", rack="used"
    ),
    "say --yes if that is wanted": Row(
        "rack keys rotate pi0 --master",
        "--yes",
        "rack keys rotate pi0 --master {said}",
    ),
    "put NAME-VERSION-RELEASE-ARCH.pkg.tar.xz files there (picloud-image docs salt)": Row(
        "write a.img --node pi0 --dry-run",
        "picloud-image docs salt",
        code=10,
        before=(_salt_packages,),
        between=(lambda folder: python_package(folder / "packages"),),
        again=0,
    ),
    "see what is said of each above; picloud-image rack status asks again": Row(
        "rack status --local --wait 0",
        "picloud-image rack status",
        "{said} --local",
        30,
        before=(partial(master, minions=["pi0"]),),
        between=(master,),
    ),
    "nodes stand before it: picloud-image rack status pi1 --wait 600": Row(
        "rack status --wait pi1",
        "picloud-image rack status pi1 --wait 600",
        "{said} --local",
        before=(master,),
    ),
    "its key is not the one this rack made, or the master was never given it: "
    "picloud-image rack keys export --pki DIR": Row(
        "rack status --local",
        "picloud-image rack keys export --pki DIR",
        code=0,
        fill={"DIR": "pki"},
        before=(partial(master, minions=["pi0"], minions_pre=["pi1"]),),
    ),
    "for example --host 10.0.0.10": Row(
        "rack status --ssh --host 'a b'",
        "--host 10.0.0.10",
        "rack status --ssh {said} --port 1",
        ends=11,
        fill={"10.0.0.10": "127.0.0.1"},
        before=("rack keys rotate pi0 --ssh",),
    ),
    "for image files say --images DIR, one for each node": Row(
        "rack plan --target card.img",
        "--images DIR",
        "rack plan {said}",
        fill={"DIR": "images"},
    ),
}


SLOW = "export it with gpg --armor --export {}"
"""gpg takes fifteen seconds."""


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=[pytest.mark.long(minutes=1)] * (text == SLOW)) for text in BARE],
)
def test_it_works_when_typed(here: Path, text: str) -> None:
    row = BARE[text]
    follow(row, here, here, lambda line: typed(here, line, row.rack))
