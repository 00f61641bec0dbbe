"""Takes README's tour in a Debian that has nothing yet, and says what came otherwise.

    python -m tests.support.tourguide ROOT PACKAGE [TERMINAL]

mmdebstrap runs it (``tests.support.cleandebian``) when ROOT holds a Debian with sudo. PACKAGE, a
.deb or a wheel, is installed by what README or docs/install.md say to type, then the tour is typed.
What comes is also shown on TERMINAL, for a recording. What nobody can be told to type is done
beside it: the release is the stand-in, and files stand in for cards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.image.test_command_line import flip_byte_of
from tests.support.loop import Loop, loop_over
from tests.support.standin import StandIn
from tests.support.tour import CARDS, README, difference, install_line, renamed, steps_of
from tests.support.typing import USER, Shell, shell_in

CARD_BYTES = 6_400_000_000
_APT = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "true";\n'
"""As everywhere, mmdebstrap's own being that nothing is recommended; and nobody is asked."""
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def furnish(root: Path, package: Path, release: StandIn) -> None:
    """What a person has before: an account that may use sudo, a key for ssh, the package, and the
    network of this computer."""
    subprocess.run(["chroot", root, "useradd", "-m", "-u", str(USER), "me"], check=True)
    (root / "etc/sudoers.d/me").write_text("me ALL=(ALL) NOPASSWD: ALL\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")
    (root / "etc/apt/apt.conf.d/zz-usual").write_text(_APT)
    if _CERTIFICATES.exists():
        shutil.copy(_CERTIFICATES, root / "etc/certificates-of-this-network")
        (root / "etc/pip.conf").write_text("[global]\ncert = /etc/certificates-of-this-network\n")
    # Where the distribution's keyring is looked for.
    (root / "usr/share/keyrings").mkdir(parents=True, exist_ok=True)
    shutil.copy(release.signing_key, root / "usr/share/keyrings/archlinuxarm.gpg")
    home = root / "home/me"
    shutil.copy(package, home)
    (home / ".ssh").mkdir()
    key = home / ".ssh/id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for path in home.rglob("*"):
        os.chown(path, USER, USER)


@contextmanager
def cards_in(root: Path) -> Iterator[list[Loop]]:
    """Files that stand in for cards, attached: the first has the lowest number, and so on, whatever
    numbers others gave back meanwhile."""
    home = root / "home/me"
    with ExitStack() as stack:
        loops = []
        for number in range(len(CARDS)):
            file = home / f"blank{number}.raw"
            with file.open("xb") as card:
                card.truncate(CARD_BYTES)
            loops.append(stack.enter_context(loop_over(file)))
        loops.sort(key=lambda loop: int(loop.name.removeprefix("loop")))
        cards = []
        for number, loop in enumerate(loops, 1):
            os.mknod(root / "dev" / loop.name, 0o060660, loop.node.stat().st_rdev)
            file = loop.backing.rename(home / f"card{number}.raw")  # which the kernel shows
            stack.callback(file.rename, loop.backing)
            cards.append(replace(loop, backing=file))
        yield cards


@contextmanager
def only_these_loops(root: Path, loops: list[Loop]) -> Iterator[None]:
    """Hide the loop devices of everybody else: what others test beside this is no part of the tour,
    nor of a recording."""
    disks = root / "sys/class/block"
    ours = {loop.name for loop in loops}
    links = {
        path.name: path.readlink()
        for path in disks.iterdir()
        if not path.name.startswith("loop") or path.name in ours
    }
    subprocess.run(["mount", "-t", "tmpfs", "disks", disks], check=True)
    try:
        for name, link in links.items():
            (disks / name).symlink_to(link)
        yield
    finally:
        subprocess.run(["umount", disks], check=True)


def install(shell: Shell, package: Path) -> None:
    """Type what README says, or for a wheel docs/install.md; each names the file its own way."""
    readme = README.read_text()
    if package.suffix == ".deb":
        number = "13" if "+deb13" in package.name else "12"
        lines = [install_line(readme, "Install", "+deb12").replace("+deb12", f"+deb{number}")]
    else:
        page = (README.parent / "docs/install.md").read_text()
        lines = [install_line(page, "With pipx", word) for word in ("dosfstools", "PIPX_HOME")]
        lines = [line.replace("install .", f"install ./{package.name}") for line in lines]
    for line in lines:
        said, status = shell.type(line)
        assert status == 0, f"{line}\n{said[-4000:]}"


def use_the_stand_in(root: Path, url: str, fingerprint: str) -> None:
    """The two lines of rack.toml that any other release takes, in place of the name of one."""
    path = root / "home/me/rack/rack.toml"
    text = path.read_text()
    for old, new in (
        ('\nname = "alarm-rpi-armv7"', ""),
        ('\n# url = "https://example.org/os/MyOS-rpi.tar.gz"', f'\nurl = "{url}"'),
        ('\n# signing_key = "68B3537F39A3', f'\nsigning_key = "{fingerprint}" # "'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def take_the_tour(root: Path, package: Path, terminal: str | None) -> str:
    """Install ``package`` and take the tour, until something else comes than README shows."""
    release = StandIn(README.parent / "build/stand-in")
    furnish(root, package, release)
    with (
        release.served() as url,
        cards_in(root) as cards,
        only_these_loops(root, cards),
        shell_in(root) as shell,
        open(terminal or os.devnull, "wb") as shown,
    ):
        install(shell, package)
        beside: dict[str, Callable[[], None]] = {
            "picloud-image doctor": partial(use_the_stand_in, root, url, release.fingerprint),
            f"sudo picloud-image verify {CARDS[0]}": partial(
                flip_byte_of, cards[0].backing, "start.elf"
            ),
        }
        here = {name: str(card.node) for card, name in zip(cards, CARDS, strict=True)}
        names = {node: name for name, node in here.items()}
        shell = replace(shell, shown=shown)
        shown.write(b"\033]2;0\a$ ")
        for step in steps_of(README.read_text(), compiles=(root / "usr/bin/python3.11").exists()):
            beside.pop(step.typed, lambda: None)()
            said, status = shell.type(renamed(step.typed, here), step.answers)
            if wrong := difference(step, said, names):
                return wrong
            if (status != 0) != step.fails:
                return f"$ {step.typed}\nended with {status}"
    assert not beside, f"README does not say: {', '.join(beside)}"
    return "" if _one_cache(root) else "sudo and who called it have not one cache"


def _one_cache(root: Path) -> bool:
    """Whether all that sudo fetched and composed is in the person's own cache, and theirs."""
    cache = root / "home/me/.cache/picloud-image"
    whose = {path.lstat().st_uid for path in (cache, *cache.rglob("*"))}
    return (
        whose == {USER}
        and any(cache.glob("golden/*/golden.json"))
        and not (root / "root/.cache/picloud-image").exists()
    )


if __name__ == "__main__":
    where, what, *terminals = sys.argv[1:]
    raise SystemExit(
        take_the_tour(Path(where), Path(what), terminals[0] if terminals else None) or 0
    )
