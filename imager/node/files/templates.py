"""Renders the ``*.j2`` files of overlays with Jinja2; an unknown name is an error.

In: a template's path and text, and the values it may use. Out: the text for the card, or one
line that names file and line. Overlays come from strangers' repositories, so a template is
rendered in a process of its own that may not do anything else (``imager.node.files.sandbox``),
and what it costs is limited (``imager.node.files.template_limits``).
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from threading import Lock
from types import TracebackType
from typing import Self

from imager.base.errors import ToolFailed
from imager.base.run import running
from imager.config.rack import Node, Rack
from imager.node.files.card_values import CardValues
from imager.node.files.template_limits import (
    OUTPUT_BYTES,
    SECONDS,
    SECONDS_MORE,
    SOURCE_BYTES,
    MiB,
)
from imager.node.files.template_values import Plain, card_plain, node_values, rack_values

SUFFIX = ".j2"
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from imager.node.files.sandbox import main; main()"
)
_START_SECONDS = 60
_LONGEST_ANSWER = 12 * OUTPUT_BYTES + 4096
"""JSON spells a character of four bytes in twelve, and one of one byte in six."""


class TemplateFault(ValueError):
    """A template that cannot be rendered; the message names file and line."""


class TemplateOverLimit(ValueError):
    """A template that costs too much; the message names the file. Nothing more is rendered for
    its card: who can spend one limit would spend it again."""


class Renderer:
    """The process that renders, started with the first template and ended with the block. Safe to
    share between threads; one template is rendered at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stack = ExitStack()
        self._link: _Link | None = None
        self._rack: Rack | None = None
        self._values: Mapping[str, Plain] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._end()

    def render(
        self, path: Path, text: str, rack: Rack, values: Mapping[str, Plain], seconds: float
    ) -> tuple[str, float]:
        """``text`` (of the file ``path``) with its expressions replaced, in ``seconds`` at most,
        and the seconds it took. To wait for another card's template, or for the process to start,
        is not this one's fault and takes none of them.

        Raises TemplateFault, TemplateOverLimit, and ToolFailed where no process can be started.
        """
        with self._lock:
            link = self._link or self._start()
            # A large rack is told once and not with every template of each of its nodes, and so
            # is a node.
            given = {} if self._rack is rack else {"rack": rack_values(rack)}
            given |= {} if self._values is values else values
            began = time.monotonic()
            try:
                answer = link.ask({"values": given, "template": text}, seconds)
            except BaseException as error:
                self._end()
                if isinstance(error, TimeoutError):
                    raise TemplateOverLimit(
                        f"{path}: the templates of one card have {SECONDS} s to render"
                    ) from None
                if isinstance(error, EOFError | OSError | ValueError | RecursionError):
                    raise TemplateOverLimit(f"{path}: ends the process that renders it") from None
                raise
            took = time.monotonic() - began
            self._rack, self._values = rack, values
            if "limit" in answer:
                self._end()
                raise TemplateOverLimit(f"{path}: {answer['limit']}")
        if "fault" in answer:
            raise TemplateFault(f"{path}:{answer['line']}: {answer['fault']}")
        return str(answer["text"]), took

    def _start(self) -> _Link:
        ours, theirs = socket.socketpair()
        self._stack.enter_context(ours)
        # Isolated (-I -S): neither the folder we stand in nor the environment says what is run.
        command = (sys.executable, "-I", "-S", "-c", _START, *filter(None, sys.path))
        with theirs:
            process = self._stack.enter_context(running(command, stdin=theirs.fileno()))
        self._link = _Link(ours)
        try:
            self._link.hear(time.monotonic() + _START_SECONDS)
        except (EOFError, OSError) as error:
            said = _last_words(process)
            self._end()
            raise ToolFailed(
                f"the process that renders templates did not start: {said or error}",
                hint="install picloud-image again",
            ) from None
        return self._link

    def _end(self) -> None:
        self._stack.close()
        self._link = self._rack = self._values = None


class Allowance:
    """The seconds in which the templates of ``cards`` cards are to be rendered together, for who
    only looks: a stranger's rack may say that it has as many good cards as it has nodes."""

    def __init__(self, cards: int) -> None:
        self.seconds = SECONDS + cards * SECONDS_MORE


class Templates:
    """Renders the templates of one card; what that takes is taken from ``together``, too."""

    def __init__(
        self,
        renderer: Renderer,
        rack: Rack,
        node: Node,
        card: CardValues,
        together: Allowance | None = None,
    ) -> None:
        self._renderer = renderer
        self._rack = rack
        self._values = {"node": node_values(node), "card": card_plain(card)}
        self._seconds = float(SECONDS)
        self._together = together

    def render(self, path: Path, text: str) -> str:
        """``text`` (of the file ``path``) with its expressions replaced; raises as Renderer."""
        if len(text) > SOURCE_BYTES:
            raise TemplateOverLimit(f"{path}: is larger than {SOURCE_BYTES // MiB} MiB")
        if self._together is not None and self._together.seconds <= 0:
            raise TemplateOverLimit(f"{path}: the templates of all cards take too long to look at")
        made, took = self._renderer.render(path, text, self._rack, self._values, self._seconds)
        self._seconds = max(0.0, self._seconds - took)
        if self._together is not None:
            self._together.seconds -= took
        return made


class _Link:
    """A socket on which each side says one JSON object a line."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours

    def ask(self, question: Mapping[str, object], seconds: float) -> dict[str, object]:
        """The answer; TimeoutError after ``seconds``, EOFError or OSError where none comes."""
        until = time.monotonic() + seconds
        self._wait(until)
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        return self.hear(until)

    def hear(self, until: float) -> dict[str, object]:
        """The next line, waited for ``until`` then (of time.monotonic)."""
        pieces: list[bytes] = []
        size = 0
        while not (pieces and pieces[-1].endswith(b"\n")):
            self._wait(until)
            piece = self._socket.recv(1 << 16)
            size += len(piece)
            if not piece or size > _LONGEST_ANSWER:
                raise EOFError("no answer")
            pieces.append(piece)
        answer = json.loads(b"".join(pieces))
        if not isinstance(answer, dict):
            raise EOFError("no answer")
        return answer

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _last_words(process: Popen[bytes]) -> str:
    process.kill()
    _, stderr = process.communicate()
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
