"""A stand-in for the program of a station, so that what Salt carries is tested without cards.

In: a folder. Out: ``picloud-image`` in it: ``survey`` says its arguments back, ``work`` says ten
lines a second, thirty or as many as are asked for, and what its secrets are, ``fetch`` how large a
brought file is, ``fail`` fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = f"""\
#!{sys.executable}
import hashlib, json, sys, time
sys.path.insert(0, {str(ROOT)!r})
from imager.stations.salt.conversation import conversation

def say(document):
    print(json.dumps(document), flush=True)

talk = conversation(sys.stdin.buffer)
say({{"event": "key", "key": talk.key}})
action = sys.argv[3]
if action == "survey":
    say({{"event": "note"}})
    say({{"arguments": dict(talk.arguments.values)}})
elif action == "work":
    for number in range(talk.arguments.integer("lines") if "lines" in talk.arguments else 30):
        say({{"number": number}})
        time.sleep(0.1)
    digests = {{name: hashlib.sha256(it).hexdigest() for name, it in talk.secrets.items()}}
    say({{"secrets": digests}})
elif action == "fetch":
    path = talk.bring(say, talk.arguments.text("name"))
    say({{"bytes": path.stat().st_size}})
    path.unlink()
elif action == "much":
    print("x" * 5_000_000)
elif action == "fail":
    sys.exit("it is broken")
"""


def fake_desk(folder: Path) -> Path:
    """Make the program; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "picloud-image"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    return folder
