"""Salt runs this on the minions that are stations: it is ``picloud_image`` among their modules.

In: one word, the base64 of zlib of what is asked. Out: what ``picloud-image station ACTION`` said.
It is a file of its own that Salt loads on any minion from Python 3.9 on, so it imports nothing of
ours.

Any minion can send events and answers in the name of another one, because the master passes on
what it is told. Therefore each text is signed with a token that lies in the pillar of this minion
only. Secrets come from that pillar, too, sealed; they go on to the program's standard input, and
nowhere else: not to the arguments of a job, which every minion sees, not to what it returns, which
the master keeps, and not to a log.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import os
import selectors
import shutil
import subprocess
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

__virtualname__ = "picloud_image"

PILLAR = "picloud-image"
PLACE = "/opt/picloud-image"
"""Where the program is that the head has put there."""
EVERY_SECONDS = 1.0
MOST_BYTES = 512 << 10
"""An event carries no more than this, and what is said of work no more than one a second."""
MOST_ANSWER_BYTES = 4 << 20
LONGEST_LINE_BYTES = MOST_ANSWER_BYTES
BRING = b'{"event": "bring"'
"""How a line begins by which the program asks for a file of the master's."""

__opts__: dict[str, Any]
__grains__: Any
__salt__: Any


def __virtual__() -> str:
    return __virtualname__


def act(word: str) -> dict[str, Any]:
    """Do what ``word`` asks and return what came of it, signed.

    CLI Example: this is for ``picloud-image rack flash --stations``, not for people.
    """
    asked = json.loads(zlib.decompress(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))))
    own = _own_pillar(asked["session"])
    token = own.pop("token", "").encode()
    if not token:
        return {"fault": "its pillar has nothing for it from the head"}
    signer = _Signer(asked, token)
    program = shutil.which("picloud-image", path=_path())
    if program is None:
        return signer.end("picloud-image is not installed there")
    lines = [json.dumps({**asked["arguments"], **asked["own"].get(__opts__["id"], {})})]
    for name in asked["secrets"]:
        if name in own:
            lines.append(json.dumps({"secret": name, "base64": own[name]}))
    words = [program, "--json", "station", asked["action"]]
    with os.fdopen(os.memfd_create("errors"), "w+b") as errors:
        process = subprocess.Popen(
            _scope() + words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={"PATH": _path(), "HOME": "/root", "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        _converse(process, "\n".join(lines) + "\n\n", signer)
        status = process.wait()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
        said = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return signer.end("" if status == 0 else f"it ended with {status}: {said}", status)


def _path() -> str:
    inherited = os.environ.get("PATH", "/usr/bin:/bin")
    return f"{PLACE}/bin:{inherited}:/usr/local/bin:/usr/sbin:/sbin"


def _scope() -> list[str]:
    """Words that let the program outlive the minion, which systemd would end with it."""
    tool = shutil.which("systemd-run")
    if tool is None or not Path("/run/systemd/system").is_dir():
        return []
    return [tool, "--scope", "--quiet", "--collect"]


def _own_pillar(session: str) -> dict[str, str]:
    """What the head handed to this minion, fresh from the master."""
    # By its name, because it is the minion's own: it is only there when Salt runs this.
    pillar = importlib.import_module("salt.pillar")
    # Salt 3006 asks in a thread of its own, where ``__grains__`` itself is empty.
    compiled = pillar.get_pillar(
        __opts__, dict(__grains__), __opts__["id"], pillarenv=__opts__.get("pillarenv")
    ).compile_pillar()
    found = compiled.get(PILLAR, {}).get(session, {})
    return {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in found.items()
    }


class _Signer:
    """Collects what the program says and signs it."""

    def __init__(self, asked: dict[str, Any], token: bytes) -> None:
        self._asked = asked
        self._token = token
        self._lines: list[str] = []
        self._bytes = 0
        self._number = 0
        self._told_at = 0.0
        self.is_too_much = False

    def add(self, line: bytes) -> None:
        most = MOST_BYTES if self._asked["streams"] else MOST_ANSWER_BYTES
        if self._asked["streams"] and self._bytes + len(line) > most:
            self.tell()
        if self._bytes + len(line) > most:
            self.is_too_much = True
            return
        self._lines.append(line.decode(errors="replace"))
        self._bytes += len(line)

    @property
    def due(self) -> float | None:
        """Seconds until what was said is to be told; None while there is nothing."""
        if not (self._lines and self._asked["streams"]):
            return None
        return max(0.0, self._told_at + EVERY_SECONDS - time.monotonic())

    def tell(self) -> None:
        """Send the event."""
        __salt__["event.fire_master"](self._signed(), f"{PILLAR}/{self._asked['session']}")
        self._told_at = time.monotonic()

    def end(self, fault: str, status: int = -1) -> dict[str, Any]:
        """What the job returns; the same goes out as the last event of work."""
        if self.is_too_much:
            fault = fault or "it said too much"
        returned = self._signed(fault=fault, status=status, is_last=True)
        if self._asked["streams"]:
            __salt__["event.fire_master"](returned, f"{PILLAR}/{self._asked['session']}")
            return {"status": status}
        return returned

    def _signed(self, **more: Any) -> dict[str, str]:
        self._number += 1
        said = {
            "station": __opts__["id"],
            "request": self._asked["request"],
            "number": self._number,
            "lines": self._lines,
            **more,
        }
        self._lines, self._bytes = [], 0
        text = json.dumps(said)
        mac = hmac.new(self._token, text.encode(), hashlib.sha256).hexdigest()
        return {"text": text, "mac": mac}


def _converse(process: subprocess.Popen[bytes], request: str, signer: _Signer) -> None:
    """Write ``request``, and pass on what the program says until it closes its end."""
    to, of = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    _write(to, request.encode())
    rest, files = b"", _Files()
    with selectors.DefaultSelector() as ready:
        ready.register(of, selectors.EVENT_READ)
        while True:
            due = signer.due
            if due == 0.0:
                signer.tell()
            elif ready.select(due):
                piece = os.read(of.fileno(), 1 << 16)
                if not piece:
                    break
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.startswith(BRING):
                        reply = files.bring(json.loads(line)["name"])
                        _write(to, json.dumps(reply).encode() + b"\n")
                    else:
                        signer.add(line)
                if len(rest) > LONGEST_LINE_BYTES:
                    rest, signer.is_too_much = b"", True
    with suppress(BrokenPipeError):
        to.close()


def _write(to: IO[bytes], data: bytes) -> None:
    """Write ``data`` to a program. One that has ended takes it no more; its status says why."""
    with suppress(BrokenPipeError):
        to.write(data)
        to.flush()


class _Files:
    """The master's files. One client fetches them all: a new one for each, as ``cp.cache_file``
    makes it, reads and proves the minion's key again before its first byte."""

    def __init__(self) -> None:
        self._client: Any = None

    def bring(self, name: str) -> dict[str, str]:
        """The published file ``name`` in this minion's cache of files, or why it is not there."""
        if self._client is None:
            self._client = importlib.import_module("salt.fileclient").get_file_client(__opts__)
        environment = __opts__.get("saltenv") or "base"
        path = self._client.cache_file(f"salt://{PILLAR}/{name}", environment)
        return {"path": path} if path else {"fault": f"the master does not offer {name}"}
