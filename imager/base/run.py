"""Other programs are run here and nowhere else.

In: an argument vector. Out: what the program printed, or an error that names the program, the
package it comes from, and the last lines it printed. There is no shell, stdin is empty unless
given, and the environment is made here, so that a program behaves the same on every computer. Each
has a process group of its own: a terminal sends Ctrl-C to a whole group, and this program decides
whether to end the other one or to wait for it.
"""

from __future__ import annotations

import logging
import math
import os
import select
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import HostStorage, MissingTool, ToolFailed
from imager.base.programs import install_words

_LOG = logging.getLogger(__name__)

# Debian keeps mkfs and similar programs in sbin, which is not in an ordinary user's PATH.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path() -> str:
    """PATH with the sbin directories at its end."""
    given = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(os.pathsep)
    return os.pathsep.join([*given, *(folder for folder in _SBIN if folder not in given)])


def find_tool(name: str) -> str | None:
    """The absolute path of ``name``, or None when it is not installed."""
    return shutil.which(name, path=search_path())


def require_tools(*names: str) -> None:
    """Raise one MissingTool that names every absent tool and its package on Debian and Arch."""
    missing = [name for name in names if find_tool(name) is None]
    if not missing:
        return
    raise MissingTool(f"not installed: {', '.join(missing)}", hint=install_words(*missing))


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """How a program ended and what it printed."""

    words: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    def output(self) -> str:
        """Both streams as text, for messages."""
        return (self.stdout + self.stderr).decode(errors="replace").strip()


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    base = {"PATH": search_path(), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    for name in ("HOME", "TMPDIR"):
        if name in os.environ:
            base[name] = os.environ[name]
    return base | dict(extra or {})


def run(
    words: Sequence[str | os.PathLike[str]],
    *,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
    inherit: Sequence[int] = (),
) -> CompletedCommand:
    """Run ``words`` to its end and return what it printed; ``env`` is added to its environment.

    The program gets the descriptors ``inherit`` under the same numbers: ``/dev/fd/N`` in
    ``words`` is then a file that needs no name (memfd_create(2)).
    Raises MissingTool when the program is absent, HostStorage when it ran out of disk, ToolFailed
    for any exit status not in ``ok``, and KeyboardInterrupt when Ctrl-C ended it after all.
    """
    argv = tuple(os.fspath(word) for word in words)
    require_tools(argv[0])
    _LOG.debug("+ %s", shlex.join(argv))
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=cwd,
        env=_environment(env),
        pass_fds=tuple(inherit),
        process_group=0,
        check=False,
    )
    if done.returncode == -signal.SIGINT:
        # Ctrl-C came after the program was started and before it had its own process group.
        raise KeyboardInterrupt
    finished = CompletedCommand(argv, done.returncode, done.stdout, done.stderr)
    if done.returncode not in ok:
        raise tool_error(finished)
    return finished


_PIECE_BYTES = 1 << 16
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 5.0
"""How long a program that was ended may take to be gone."""


class TooMuch(Exception):
    """A program was ended because it said or wrote more, or took longer, than it may; the message
    says which."""


def run_bounded(
    words: Sequence[str],
    stdin: bytes,
    *,
    most_bytes: int,
    seconds: float = math.inf,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> CompletedCommand:
    """``run`` for a program that carries what a stranger says: it is ended after ``most_bytes`` on
    either stream, after ``seconds``, or once ``watch``, which is called a few times a second,
    raises. Raises MissingTool, TooMuch and what ``watch`` raises; any exit status is good."""
    require_tools(words[0])
    _LOG.debug("+ %s", shlex.join(words))
    pipe, end, looked = subprocess.PIPE, time.monotonic() + seconds, -math.inf
    process = subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=_environment(env), process_group=0
    )

    def patience() -> float:
        """How many seconds to wait at most until this is asked again."""
        nonlocal looked
        now = time.monotonic()
        if now > end:
            raise subprocess.TimeoutExpired(words, seconds)
        if now >= looked + _LOOK_SECONDS:
            watch()
            looked = now
        return min(end - now, _LOOK_SECONDS)

    try:
        out, err = _converse(process, stdin, most_bytes, patience)
        while process.poll() is None:
            wait_seconds = patience()
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait_seconds)
    except subprocess.TimeoutExpired as error:
        raise TooMuch(f"does not end within {seconds:.0f} s") from error
    finally:
        # Its children hold the streams open as well. Those of timeout(1) are in a group of their
        # own, and sudo's cannot be ended by everybody: these find the streams closed.
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    if process.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return CompletedCommand(tuple(words), process.returncode, out, err)


def _converse(
    process: subprocess.Popen[bytes], stdin: bytes, most_bytes: int, patience: Callable[[], float]
) -> tuple[bytes, bytes]:
    """Write ``stdin`` to ``process`` and return what it says on both streams until it closes them.
    Raises TooMuch, and what ``patience`` raises, which is asked for how long to wait."""
    said = {one.fileno(): bytearray() for one in (process.stdout, process.stderr) if one}
    left = memoryview(stdin)
    with selectors.DefaultSelector() as streams:
        if process.stdin:
            streams.register(process.stdin, selectors.EVENT_WRITE)
        for stream in said:
            streams.register(stream, selectors.EVENT_READ)
        while streams.get_map():
            for key, _ in streams.select(patience()):
                if key.fd not in said:
                    try:
                        left = left[os.write(key.fd, left[: select.PIPE_BUF]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left and process.stdin:
                        streams.unregister(key.fileobj)
                        process.stdin.close()
                elif piece := os.read(key.fd, _PIECE_BYTES):
                    said[key.fd] += piece
                    if len(said[key.fd]) > most_bytes:
                        raise TooMuch(f"says more than {most_bytes >> 20} MiB")
                else:
                    streams.unregister(key.fileobj)
    out, err = said.values()
    return bytes(out), bytes(err)


def tool_error(finished: CompletedCommand) -> Exception:
    """The error that says why ``finished`` failed."""
    said = finished.output()
    last = said.splitlines()[-1] if said else "it said nothing"
    if "No space left on device" in said:
        return HostStorage(
            f"{finished.words[0]}: no space left on this computer's disk",
            hint="free some space, or put the cache elsewhere with --cache DIR",
        )
    return ToolFailed(
        f"{finished.words[0]} failed with status {finished.returncode}: {last}",
        hint=f"the command was: {shlex.join(finished.words)}",
        details=said.splitlines()[-20:],
    )


@contextmanager
def running(
    words: Sequence[str | os.PathLike[str]],
    *,
    stdin: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``words`` in the background with its standard output as a pipe, until the block ends.

    ``stdin`` is a file descriptor to read from. The caller checks ``returncode`` after the pipe
    is drained and ``wait()`` was called; leaving early kills the program.
    """
    argv = tuple(os.fspath(word) for word in words)
    require_tools(argv[0])
    _LOG.debug("+ %s", shlex.join(argv))
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(env),
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
