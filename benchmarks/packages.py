"""Packages beyond the release: how long planning takes, and what thirty add to an image.

Planning is the real ``lock --dry-run`` with a database as large as the distribution's largest, from
loopback. What packages add is measured with those of today's stand-in, real ones: composing with
them less composing without, beside ``pacman -U`` of the same files on the unpacked release. Ours
also proves what it installs, refuses hostile members and has their files checked and hashed with
the rest.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.compose import fresh_folder
from benchmarks.process import Ran, measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import ROOT, Workshop, command
from imager.base.run import find_tool
from imager.base.units import MiB
from tests.support.mirror import serving
from tests.support.release import everyday_tree
from tests.support.repository import FOLDER, add_pacman
from tests.support.standin import StandIn, as_mirror
from tests.support.workplace import workplace

PLAN_SECONDS = 2
COMPOSE_LIMIT = 1.3
MEMORY_BYTES = 200 * MiB
OFFERED, ASKED = 14_000, 30
_RACK = """\
[rack]
nodes = "pi7"
model = "pi2"
[packages]
install = {install}
[release]
url = "{url}"
signing_key = "{key}"
"""
_PLAN = f"plan {ASKED} names of {OFFERED} packages, once synced"
_ADD = "compose: what {} packages add"
_MEMORY = "peak memory of both"


def packages_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Seconds to plan, seconds that packages add, and the memory of both."""
    if find_tool("pacman") is None:
        yield skipped(_PLAN, f"{PLAN_SECONDS} s", "pacman is not installed")
        return
    planned = list(_plans(place, repetitions))
    # Being told what the mirror has now is the network's time, not ours.
    synced = Sample(tuple(ran.seconds - _spent(ran, "fetch databases") for ran in planned))
    spent = Sample(tuple(ran.cpu_seconds for ran in planned))
    told = f"{synced.text('s')}, CPU {spent.text('s')}"
    yield Row(_PLAN, f"{PLAN_SECONDS} s", told, met=synced.median <= PLAN_SECONDS)
    if os.geteuid() != 0:
        yield skipped(_ADD.format(ASKED), f"{COMPOSE_LIMIT} × pacman -U", "needs root")
        return
    composed: list[Ran] = []
    ours, theirs, our_cpu, their_cpu = [], [], [], []
    with _today(place) as today:
        for number in range(repetitions):
            without, with_them = today.compose(False), today.compose(True)
            pacman = today.pacman()
            composed.append(with_them)
            ours.append(with_them.seconds - without.seconds)
            theirs.append(pacman.seconds)
            our_cpu.append(with_them.cpu_seconds - without.cpu_seconds)
            their_cpu.append(pacman.cpu_seconds)
            tell(
                f"packages {number + 1}: without {without.seconds:.1f} s, with "
                f"{with_them.seconds:.1f} s, pacman -U {pacman.seconds:.1f} s (CPU "
                f"{our_cpu[-1]:.1f} and {their_cpu[-1]:.1f}); {parts(with_them)}"
            )
        count = len(today.files)
    added, alone = Sample(tuple(ours)), Sample(tuple(theirs))
    ratio = added.ratio_to(alone)
    yield Row(
        _ADD.format(count),
        f"{COMPOSE_LIMIT} × pacman -U",
        added.text("s"),
        f"pacman -U: {alone.text('s')}",
        ratio,
        ratio <= COMPOSE_LIMIT,
    )
    cpu, alone = Sample(tuple(our_cpu)), Sample(tuple(their_cpu))
    told = f"pacman -U: {alone.text('s')}"
    yield Row("… processor time", "–", cpu.text("s"), told, cpu.ratio_to(alone))
    own = max(ran.peak_bytes for ran in (*planned, *composed)) / MiB
    tools = max(ran.child_peak_bytes for ran in (*planned, *composed)) / MiB
    limit = f"{MEMORY_BYTES // MiB} MiB"
    told = f"{own:.0f} MiB; the largest tool {tools:.0f} MiB"
    yield Row(_MEMORY, limit, told, met=max(own, tools) <= MEMORY_BYTES / MiB)


def _spent(ran: Ran, name: str) -> float:
    phase = ran.phase(name)
    return phase.ended - phase.began


def _plans(place: Workshop, repetitions: int) -> Iterator[Ran]:
    """``lock --dry-run`` of a rack that nothing is pinned for."""
    names = [_name(group * 100 + 7) for group in range(ASKED)]
    with serving({f"{FOLDER}/core.db": _database()}) as mirror:
        tree = everyday_tree()
        add_pacman(tree, mirror.address)
        folder = place.folder / "plans"
        folder.mkdir()
        with workplace(folder, tree=tree) as work:
            toml = work.rack / "rack.toml"
            asked = f"\n[packages]\ninstall = {json.dumps(names)}\n"
            toml.write_text(toml.read_text().replace("\n[packages]\n", asked))
            work.run("lock", "--dry-run")  # reads the release, once; not counted
            for number in range(repetitions):
                words = [*command(), "lock", "--dry-run", "--json"]
                ran = measure(words, cwd=work.folder, env=work.environment)
                tell(f"plan {number + 1}: CPU {ran.cpu_seconds:.1f} s; {parts(ran)}")
                yield ran


def _name(number: int) -> str:
    return f"package-{number:05d}"


def _database() -> bytes:
    """A database with the fields and about the size of the distribution's ``extra``. Of a hundred
    packages the first is a library that the others need, most need the one before, too."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(OFFERED):
            name = _name(number)
            needs = {number - number % 100, number - 1 if number % 3 else number} - {number}
            facts = {
                "FILENAME": f"{name}-1.0-1-armv7h.pkg.tar.xz",
                "NAME": name,
                "BASE": name,
                "VERSION": "1.0-1",
                "DESC": "As many words as such a description has",
                "CSIZE": "100000",
                "ISIZE": "500000",
                "SHA256SUM": f"{number:064x}",
                "PGPSIG": "iQEzBAAB" * 70,
                "URL": f"https://example.org/{name}",
                "ARCH": "armv7h",
                "DEPENDS": "\n".join(_name(each) for each in sorted(needs)),
            }
            text = "".join(f"%{key}%\n{value}\n\n" for key, value in facts.items() if value)
            about = tarfile.TarInfo(f"{name}-1.0-1/desc")
            about.size = len(text)
            tar.addfile(about, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), 6)


class _Today:
    """Two racks of today's stand-in, one with every package of its repositories."""

    def __init__(self, folder: Path, stand_in: StandIn) -> None:
        self.files = sorted(stand_in.repositories.glob("*/*.pkg.tar.xz"))
        self._folder = folder
        self._stand_in = stand_in

    def fetch(self) -> None:
        """Archive the release and the packages; not measured."""
        names = [path.name.rsplit("-", 3)[0] for path in self.files]
        with self._stand_in.served() as url:
            for rack, install in (("without", []), ("with", names)):
                (self._folder / rack).mkdir()
                (self._folder / rack / "rack.toml").write_text(
                    _RACK.format(
                        install=json.dumps(install), url=url, key=self._stand_in.fingerprint
                    )
                )
                key = ("--signing-key", self._stand_in.signing_key)
                measure([*self._words(rack), *key, "fetch"], cwd=self._folder, env=as_mirror(url))

    def compose(self, with_packages: bool) -> Ran:
        """Compose from the archive; the image is gone afterwards."""
        rack = "with" if with_packages else "without"
        with fresh_folder(self._folder, self._folder / "cache") as fresh:
            cache = ("--cache", fresh / "cache")
            words = [*self._words(rack), *cache, "--offline", "compose"]
            return measure(words, cwd=self._folder)

    def pacman(self) -> Ran:
        """``pacman -U`` of the same files, on the release as tar unpacks it. It runs nothing of
        theirs: their hooks and scriptlets are of another processor."""
        with fresh_folder(self._folder, self._folder / "cache") as fresh:
            root, masked = fresh / "root", fresh / "masked"
            for folder in (root, masked):
                folder.mkdir()
            subprocess.run(["tar", "-xpzf", self._stand_in.tarball, "-C", root], check=True)
            for hook in (root / "usr/share/libalpm/hooks").glob("*"):
                (masked / hook.name).symlink_to(os.devnull)
            config = fresh / "pacman.conf"
            config.write_text("[options]\nArchitecture = armv7h\nSigLevel = Never\n")
            places: dict[str, Path] = {
                "--config": config,
                "--root": root,
                "--dbpath": root / "var/lib/pacman",
                "--logfile": fresh / "log",
                "--cachedir": fresh,
                "--hookdir": masked,
                "--gpgdir": fresh,
            }
            words = [word for place in places.items() for word in place]
            options = ("--noconfirm", "--noscriptlet")
            return measure(["pacman", *words, *options, "-U", *self.files], cwd=fresh)

    def _words(self, rack: str) -> list[str | os.PathLike[str]]:
        folder = self._folder
        return [*command(), "--rack", folder / rack, "--cache", folder / "cache", "--json"]


@contextmanager
def _today(place: Workshop) -> Iterator[_Today]:
    """Today's stand-in beside the other one; building it takes a minute where it never was."""
    built = place.tarball.parent.with_name("stand-in-today")
    subprocess.run([ROOT / "scripts/stand-in", "--today", built], check=True)
    folder = place.folder / "today"
    folder.mkdir()
    today = _Today(folder, StandIn(built))
    today.fetch()
    try:
        yield today
    finally:
        shutil.rmtree(folder)
