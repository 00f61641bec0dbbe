"""All that a person or a program sees: bars, lines, JSON. Nothing else in the package prints.

In: phases, notes and results as values. Out: on a terminal, bars on standard error and the
result on standard output; without one, a line per phase; with ``--json``, one object per line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from imager.base.errors import HostStorage, PicloudError
from imager.base.progress import FindingData, Phase
from imager.base.text import json_line, printable
from imager.cli.pasting import Pasting, as_it_stands
from imager.cli.terminal.colour import ColourChoice, Tint, coloured, has_colour
from imager.cli.terminal.folding import folded, table
from imager.cli.terminal.phases import BarCounter, JsonCounter, PhaseCounter
from imager.cli.terminal.streams import carries_unicode, columns_of, silence, spoken

_ALMOST_YES = ("y", "ye", "yes")


def output_lost(error: OSError) -> HostStorage:
    """The error for an answer that could not be written to standard output."""
    return HostStorage(
        f"standard output cannot be written: {error.strerror}",
        hint="send it to another place and run the command again; what it did before is done",
    )


class Console:
    """Shows everything that a command has to say; implements ``imager.base.progress.Progress``."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        colour: ColourChoice = ColourChoice.AUTO,
        pasted: Pasting = as_it_stands,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.colour = colour
        self.pasted = pasted
        """Gives the commands in a text what this person has to type beside them."""
        self._deaf = False
        self.on_terminal = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")

    # ── work in progress ────────────────────────────────────────────────────────────────────

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        """Show one phase while it lasts and one line when it is over."""
        yield from self._phase(name, total_bytes, 0)

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        """The same, for ``count`` steps."""
        yield from self._phase(name, None, count)

    def _phase(self, name: str, total_bytes: int | None, steps: int) -> Iterator[Phase]:
        if self.as_json:
            yield from self._json_phase(JsonCounter(name, total_bytes, self.event, steps))
        elif self.quiet:
            yield PhaseCounter(name, total_bytes, steps)
        elif self.on_terminal:
            yield from self._bar_phase(BarCounter(name, total_bytes, steps))
        else:
            counter = PhaseCounter(name, total_bytes, steps)
            yield counter
            self._err(counter.summary())

    def _json_phase(self, counter: JsonCounter) -> Iterator[Phase]:
        try:
            yield counter
        except BaseException:
            counter.tell("failed")
            raise
        counter.tell("done")

    def _bar_phase(self, counter: BarCounter) -> Iterator[Phase]:
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
            line = json_line({"event": event, **fields})
            # JSON has an escape of its own for what an ASCII stream cannot carry.
            self.data(line if carries_unicode(sys.stdout) else json.dumps(json.loads(line)))

    def lines(self, *lines: str) -> None:
        """The answer of a command, on standard output; silent with ``--json``."""
        if not self.as_json:
            for line in lines:
                self._out(self.pasted(line))

    def verdict(self, line: str, *, good: bool) -> None:
        """The line of an answer that says how it came out; silent with ``--json``."""
        if not self.as_json:
            self._out(self.pasted(line), Tint.GOOD if good else Tint.BAD)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, its columns as wide as their widest cell or as the terminal allows."""
        shown = [[spoken(printable(cell), sys.stdout) for cell in row] for row in (head, *rows)]
        self.lines(*table(shown[0], shown[1:], self.columns))

    def result(self, exit_code: int, fields: Mapping[str, object]) -> None:
        """The last JSON line of every command."""
        self.event("result", ok=exit_code == 0, exit_code=exit_code, **fields)

    def error(self, error: PicloudError) -> None:
        """One line says what is wrong and one what to do; the details are between them."""
        if self.as_json and not self._deaf:
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

    def failure(self, error: PicloudError) -> int:
        """End a command with ``error``; return its exit code."""
        self.error(error)
        self.result(error.exit_code, {})
        return error.exit_code

    def say(self, line: str) -> None:
        """A line for the person, on standard error; silent with ``--json`` and ``--quiet``."""
        if not (self.as_json or self.quiet):
            self._err(self.pasted(line))

    @property
    def columns(self) -> int | None:
        """Columns of the terminal that standard output is; None where it is none."""
        return columns_of(sys.stdout)

    @property
    def width(self) -> int:
        """As ``columns``; 80 where there is no terminal."""
        return self.columns or 80

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
        return self._answer(f"{question} [{default}]:")

    def confirm(self, lines: Sequence[str], expected: str) -> bool:
        """Show ``lines`` and ask the person to type ``expected``; anything else is no, but who
        means "yes" and types something like it is told so, and asked once more."""
        for line in lines:
            self._err(line)
        question = f"Type {expected} to go on, anything else to stop:"
        answer = self._answer(question)
        if expected == "yes" and answer != expected and (answer or "").lower() in _ALMOST_YES:
            answer = self._answer("That is for good, so the whole word is wanted. " + question)
        return answer == expected

    def _answer(self, question: str) -> str | None:
        self._err(question, end=" ")
        line = sys.stdin.readline()
        return line.strip() if line else None

    def _err(self, line: str, end: str = "\n") -> None:
        try:
            self._print(line, sys.stderr, end=end)
        except OSError:
            # Nobody can be told anything any more; that is no reason to leave a card half written.
            silence(sys.stderr)

    def _out(self, line: str, tint: Tint | None = None) -> None:
        with self._answering():
            self._print(line, sys.stdout, tint)

    def data(self, line: str) -> None:
        """A line for a program, on standard output: it is not folded, not coloured, and UTF-8."""
        with self._answering(), tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.flush()
            sys.stdout.buffer.write(f"{printable(line)}\n".encode())
            sys.stdout.buffer.flush()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise HostStorage where standard output cannot be written, and BrokenPipeError where its
        reader is gone (``| head``)."""
        try:
            yield
        except OSError as error:
            silence(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise
            self._deaf = True
            raise output_lost(error) from error

    def _print(self, line: str, stream: TextIO, tint: Tint | None = None, end: str = "\n") -> None:
        # Whatever a card, a mirror or a master put into the line cannot become a second one.
        shown = folded(spoken(printable(line), stream), columns_of(stream))
        if has_colour(self.colour, stream):
            shown = coloured(shown, tint)
        with tqdm.external_write_mode(file=stream):
            print("\n".join(shown), file=stream, end=end, flush=True)
