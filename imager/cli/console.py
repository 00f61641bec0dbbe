"""All that a person or a program sees: bars, lines, JSON. Nothing else in the package prints.

In: phases, notes and results as values. Out: on a terminal, bars on standard error and the
result on standard output; without one, a line per phase; with ``--json``, one object per line.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from tqdm import tqdm

from imager.base.errors import PicloudError
from imager.base.progress import FindingData, Phase
from imager.base.text import json_line, printable
from imager.base.units import format_rate, format_size
from imager.cli.pasting import Pasting, as_it_stands

_BAR = "{desc:<12} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}  {rate_fmt}  {remaining} left"
_BAR_UNSIZED = "{desc} …"
_JSON_INTERVAL_SECONDS = 0.5


def phase_summary(name: str, done_bytes: int, seconds: float) -> str:
    """``write: 612 MiB in 31.0 s, 20.7 MB/s``"""
    if not done_bytes:
        return f"{name}: {seconds:.1f} s"
    rate = format_rate(done_bytes / max(seconds, 1e-6))
    return f"{name}: {format_size(done_bytes)} in {seconds:.1f} s, {rate}"


class _PhaseCounter:
    """A phase's bytes and time, counted from any thread."""

    def __init__(self, name: str, total_bytes: int | None) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.began = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, size_bytes: int) -> None:
        with self._lock:
            self.done_bytes += size_bytes
            self.changed(size_bytes)

    def changed(self, size_bytes: int) -> None:
        """Called after every step, while the lock is held."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        return self.done_bytes / max(self.seconds, 1e-6)

    def summary(self) -> str:
        """One line that says how far it is."""
        return phase_summary(self.name, self.done_bytes, self.seconds)


class _BarCounter(_PhaseCounter):
    def __init__(self, name: str, total_bytes: int | None) -> None:
        super().__init__(name, total_bytes)
        self._bar: tqdm[Any] = tqdm(
            desc=printable(name),
            total=total_bytes,
            unit="B",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format=_BAR if total_bytes else _BAR_UNSIZED,
            miniters=1,
        )

    def changed(self, size_bytes: int) -> None:
        self._bar.update(size_bytes)

    def close(self) -> None:
        self._bar.close()


class _JsonCounter(_PhaseCounter):
    def __init__(self, name: str, total_bytes: int | None, console: Console) -> None:
        super().__init__(name, total_bytes)
        self._console = console
        self._told = 0.0
        self.tell("begin")

    def changed(self, size_bytes: int) -> None:
        if time.monotonic() - self._told >= _JSON_INTERVAL_SECONDS:
            self.tell("running")

    def tell(self, state: str) -> None:
        self._told = time.monotonic()
        self._console.event(
            "progress",
            phase=self.name,
            state=state,
            done_bytes=self.done_bytes,
            total_bytes=self.total_bytes,
            seconds=round(self.seconds, 3),
            bytes_per_second=round(self.rate),
        )


class Console:
    """Shows everything that a command has to say; implements ``imager.base.progress.Progress``."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, pasted: Pasting = as_it_stands
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.pasted = pasted
        """Gives the commands in a text what this person has to type beside them."""
        self.on_terminal = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")

    # ── work in progress ────────────────────────────────────────────────────────────────────

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        """Show one phase while it lasts and one line when it is over."""
        if self.as_json:
            yield from self._json_phase(name, total_bytes)
        elif self.quiet:
            yield _PhaseCounter(name, total_bytes)
        elif self.on_terminal:
            yield from self._bar_phase(name, total_bytes)
        else:
            counter = _PhaseCounter(name, total_bytes)
            yield counter
            self._err(counter.summary())

    def _json_phase(self, name: str, total_bytes: int | None) -> Iterator[Phase]:
        counter = _JsonCounter(name, total_bytes, self)
        try:
            yield counter
        except BaseException:
            counter.tell("failed")
            raise
        counter.tell("done")

    def _bar_phase(self, name: str, total_bytes: int | None) -> Iterator[Phase]:
        counter = _BarCounter(name, total_bytes)
        try:
            yield counter
        except BaseException:
            counter.close()
            # Parentheses: the step was met while unwinding, so the last one without is to blame.
            self._err(f"({counter.summary()})")
            raise
        counter.close()
        self._err(counter.summary())

    def note(self, message: str) -> None:
        """Tell the person something worth knowing."""
        if self.as_json:
            self.event("note", message=message)
        else:
            self.say(message)

    def warn(self, message: str) -> None:
        """Tell the person something to act on."""
        if self.as_json:
            self.event("warning", message=message)
        else:
            self._err(f"warning: {self.pasted(message)}")

    def finding(self, finding: FindingData) -> None:
        """A fault as a JSON object; silent unless ``--json``."""
        self.event("finding", **finding.to_json())

    # ── results ─────────────────────────────────────────────────────────────────────────────

    def event(self, event: str, **fields: object) -> None:
        """One JSON object on one line; silent unless ``--json``."""
        if self.as_json:
            self._out(json_line({"event": event, **fields}))

    def lines(self, *lines: str) -> None:
        """The answer of a command, on standard output; silent with ``--json``."""
        if not self.as_json:
            for line in lines:
                self._out(self.pasted(line))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, its columns as wide as their widest cell."""
        shown = [[printable(cell) for cell in row] for row in [head, *rows]]
        widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
        for row in shown:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.lines("  ".join(cells).rstrip())

    def result(self, exit_code: int, fields: Mapping[str, object]) -> None:
        """The last JSON line of every command."""
        self.event("result", ok=exit_code == 0, exit_code=exit_code, **fields)

    def error(self, error: PicloudError) -> None:
        """One line says what is wrong and one what to do; the details are between them."""
        if self.as_json:
            self.event(
                "error",
                exit_code=error.exit_code,
                kind=type(error).__name__,
                what=error.what,
                hint=self.pasted(error.hint),
                details=list(error.details),
            )
            return
        self._err(f"picloud-image: {error.what}")
        for line in error.details:
            self._err(f"    {line}")
        self._err(f"  → {self.pasted(error.hint)}")

    def say(self, line: str) -> None:
        """A line for the person, on standard error; silent with ``--json`` and ``--quiet``."""
        if not (self.as_json or self.quiet):
            self._err(self.pasted(line))

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none."""
        return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80

    @property
    def screen(self) -> os.terminal_size:
        """The size of the terminal on which bars are drawn; standard output may be another, or a
        file."""
        try:
            size = os.get_terminal_size(sys.stderr.fileno())
        except (OSError, ValueError):
            return shutil.get_terminal_size()
        # A serial console often does not know its size.
        return size if size.columns and size.lines else shutil.get_terminal_size()

    @property
    def can_ask(self) -> bool:
        """Whether somebody can answer a question."""
        return sys.stdin.isatty()

    def ask(self, question: str, default: str) -> str | None:
        """The person's answer, empty for Enter; None if the input has ended."""
        sys.stderr.write(f"{printable(question)} [{printable(default)}]: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        return line.strip() if line else None

    def confirm(self, lines: Sequence[str], expected: str) -> bool:
        """Show ``lines`` and ask the person to type ``expected``; anything else is no, but who
        means "yes" and types something like it is told so, and asked once more."""
        for line in lines:
            self._err(line)
        typed = self._typed(f"Type {printable(expected)} to go on, anything else to stop: ")
        if expected == "yes" and typed != expected and typed.lower() in ("y", "ye", "yes"):
            typed = self._typed(f"{printable(typed)} is not enough: type yes, all three letters: ")
        return typed == expected

    @staticmethod
    def _typed(question: str) -> str:
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    def _err(self, line: str) -> None:
        self._print(line, sys.stderr)

    def _out(self, line: str) -> None:
        self._print(line, sys.stdout)

    @staticmethod
    def _print(line: str, stream: IO[str]) -> None:
        # Whatever a card, a mirror or a master put into the line cannot become a second one.
        with tqdm.external_write_mode(file=stream):
            print(printable(line), file=stream, flush=True)
