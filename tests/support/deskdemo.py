"""``scripts/demo stations``: two desks and a head on this computer make eight cards of one rack.

In: an empty folder. Out: eight image files, made by two stations over the real Salt, and the page
of the rack, which stays open until Enter or Ctrl-C. All that runs is ended then; the files stay.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.deskrack import DeskRack, desk_rack
from tests.support.loop import missing_abilities
from tests.support.salt import ROOT, SaltPrograms

_DESKS = "desk[1-2]"
_CARDS = 4
_WHAT_TO_DO = """\
The page is at the address above: eight cards, each with its desk and slot, none of which changes
anything when it is clicked. Its data is also in
  {folder}/rack/.picloud/   ledger.jsonl (which desk began which card, and how it ended), receipts/
  {folder}/desk1, desk2     the image files that stood in the desks' readers
The same with real desks: docs/stations.md, "Set-up from nothing".
"""


def main(folder: Path) -> None:
    """Run it in ``folder``."""
    if why := missing_abilities():
        sys.exit(f"demo stations: {why}")
    programs = SaltPrograms(ROOT / "build/salt/venv/bin")
    tell("A small signed release, a head with a Salt master, two desks with four readers each")
    with desk_rack(folder, programs, desks=2, cards=_CARDS) as rack:
        say(rack, "rack", "stations", "install", _DESKS)
        say(rack, "rack", "stations")
        with page(rack):
            nodes = f"pi[0-{2 * _CARDS - 1}]"
            say(rack, "rack", "flash", nodes, "--stations", _DESKS, "--yes")
            tell("Done. Enter or Ctrl-C ends the desks, the master and the page")
            sys.stdout.write(_WHAT_TO_DO.format(folder=folder))
            sys.stdout.flush()
            with suppress(KeyboardInterrupt):
                sys.stdin.readline()


def tell(text: str) -> None:
    """A line for the person who looks on."""
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def say(rack: DeskRack, *words: str) -> None:
    """Run a command on the head, shown as it is typed; the demo ends when it fails."""
    tell(f"$ picloud-image {' '.join(words)}")
    done = subprocess.run(rack.command(*words, as_json=False), check=False)
    if done.returncode:
        sys.exit(f"demo stations: ended with {done.returncode}")


@contextmanager
def page(rack: DeskRack) -> Iterator[None]:
    """``rack serve``, as the person at the head would run it beside."""
    tell("$ picloud-image rack serve --listen 127.0.0.1:0")
    words = rack.place.command("rack", "serve", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(words, env=rack.place.environment, cwd=rack.place.folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main(Path(os.path.abspath(sys.argv[1])))
