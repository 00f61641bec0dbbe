"""The scripts for ``sh`` on the master, by which stations are asked and secrets handed to them.

In: names of stations, a session, and words. Out: texts for ``Door.run``. Nothing in them is secret
but the tokens and what is sealed, which stand in their input and never among the arguments of a
program. Pure.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence

from imager.base.errors import UsageError
from imager.rack.master.answers import NODE_ID, PRELUDE
from imager.stations.salt.on_minion import PILLAR

PILLAR_FOLDER = "/srv/picloud-image/pillar"
"""Where the master looks for what is handed to minions; ``rack stations install`` makes it."""

AS_OWNER = f"""\
as_owner() {{
    owner=$(stat -c %u {PILLAR_FOLDER} 2>/dev/null || id -u)
    if [ "$owner" = "$(id -u)" ]; then "$@"; return; fi
    (cd / && exec setpriv --reuid="$owner" --regid="$(stat -c %g {PILLAR_FOLDER})" \\
        --clear-groups "$@")
}}
"""
"""``as_owner PROGRAM …`` runs it as who owns the pillars, as whom the master runs: what that user
puts in the place of a folder would lead root anywhere."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:+._-]{0,200}\Z")
END = "==picloud-end=="
"""What ends a text within a script; no line of such a text is it."""
_OLD_MINUTES = 24 * 60
ACT = "picloud_image.act"
LISTENING = "listening"


def word_of(asked: Mapping[str, object]) -> str:
    """``asked`` as one word in which neither a shell nor Salt finds a meaning of their own. Linux
    takes no word of 128 KiB or more; packed, an order of as many cards as a station may have is
    shorter, whatever its texts are."""
    text = zlib.compress(json.dumps(asked).encode(), 9)
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def asking(stations: Sequence[str], word: str, seconds: int) -> str:
    """Ask all ``stations``; the answers are the part ``said``."""
    return (
        f"{PRELUDE}limit={seconds + 60}\n"
        f"ask said salt --out=json --static --log-level=quiet --timeout={seconds} "
        f"-L {listed(stations)} {ACT} {word}\n"
    )


def beginning(station: str, word: str) -> str:
    """Have ``station`` begin; the part ``begun`` is how that went."""
    return (
        f"{PRELUDE}ask begun salt --async --log-level=quiet -L {listed([station])} {ACT} {word}\n"
    )


def handing(station: str, session: str, name: str, text: str) -> str:
    """Put ``text`` into the pillar of ``station`` alone."""
    folder = _folder(station, session)
    writing = f"umask 077 && mkdir -p {folder} && cat >{folder}/{_plain(name, _NAME)}"
    return f"{AS_OWNER}as_owner sh -c '{writing}' <<'{END}' || exit 3\n{text}\n{END}\n"


def taking_back(station: str, session: str, name: str | None = None) -> str:
    """Remove what was handed as ``name``, or all that ``station`` has of this session."""
    folder = _folder(station, session)
    what = f"-f {folder}/{_plain(name, _NAME)}" if name else f"-rf {folder}"
    return f"{AS_OWNER}as_owner rm {what}\n"


def forgetting_old() -> str:
    """Remove what runs that were killed left, after a day."""
    return (
        f"{AS_OWNER}as_owner find {PILLAR_FOLDER}/hosts -mindepth 3 -maxdepth 3 -type d "
        f"-mmin +{_OLD_MINUTES} -exec rm -rf {{}} + 2>/dev/null\n"
    )


def listening(session: str) -> str:
    """Print the events of this session until the input ends, as it does when the head is gone. The
    output ends when the listener does.

    A listener takes seconds to begin, so events are sent to it until a line comes in: whoever
    reads has seen one, and knows that from now on all are heard.
    """
    tag = f"{PILLAR}/{session}"
    quiet = "--log-level=quiet"
    return (
        "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "exec 2>/dev/null\n"
        f"salt-run {quiet} state.event '{tag}*' pretty=False </dev/null & listener=$!\n"
        "exec >/dev/null\n"
        "(while sleep 1; do\n"
        f"    salt-run {quiet} event.send {tag}/{LISTENING} </dev/null\n"
        "done) & caller=$!\n"
        "read -r _; kill $caller; cat; kill -9 $listener\n"
    )


def _folder(station: str, session: str) -> str:
    return f"{PILLAR_FOLDER}/hosts/{_plain(station)}/{PILLAR}/{session}"


def listed(stations: Sequence[str]) -> str:
    """``stations`` as the option -L of salt wants them; raises UsageError."""
    return ",".join(_plain(name) for name in stations)


def require_id(name: str) -> None:
    """Raise UsageError for what cannot be the id of a minion."""
    _plain(name)


def _plain(name: str, allowed: re.Pattern[str] = NODE_ID) -> str:
    """``name`` if it means only itself to a shell and in a path; raises UsageError."""
    if not allowed.match(name):
        raise UsageError(
            f"{name!r} is no id of a minion", hint="an id has letters, digits, and . _ - in between"
        )
    return name
