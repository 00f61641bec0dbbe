"""picloud-image started at once: forked from a process that has read all of its modules.

A start reads some two hundred modules, which is most of what a short command costs, and the tests
run a thousand of them. So one process reads them, for each process of the tests, and each command
is forked from it: a process of its own, with the folder, environment and standard files it was
given, which ends as every process does. What a start itself does is tested without this.
"""

from __future__ import annotations

import atexit
import codecs
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).resolve().parents[2]
_LARGEST_REQUEST = 1 << 17
_STANDARD_FILES = 3


def run_command(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str,
    seconds: float,
    user: int | None = None,
    groups: Sequence[int] = (),
) -> tuple[int, str, str]:
    """Run ``picloud-image`` with ``words`` to its end: its exit code, output and errors.

    It runs as who runs the tests, or as ``user``, a user and a group, who is also in ``groups``.
    Raises subprocess.TimeoutExpired after ``seconds``; it is killed then.
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        files = [given.fileno(), out.fileno(), err.fileno()]
        with started(words, files, cwd=cwd, env=env, user=user, groups=groups) as ended:
            code = ended(seconds)
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()


@contextmanager
def started(
    words: Sequence[str],
    files: Sequence[int],
    *,
    cwd: Path,
    env: Mapping[str, str],
    user: int | None = None,
    groups: Sequence[int] = (),
) -> Iterator[Callable[[float], int]]:
    """Start ``picloud-image`` on the standard files ``files``, as ``run_command`` does. What is
    given waits for its end, at most so many seconds, and returns its exit code."""
    told, tells = os.pipe()
    try:
        asked = {"words": list(words), "cwd": str(cwd), "env": dict(env)}
        request = json.dumps(asked | {"user": user, "groups": list(groups)})
        socket.send_fds(_starter(), [request.encode()], [*files, tells])
    finally:
        os.close(tells)
    with open(told, encoding="ascii") as answers:
        yield lambda seconds: _code(answers, list(words), seconds)


def _code(answers: IO[str], words: list[str], seconds: float) -> int:
    """The process says its number first, and how it ended at its end."""
    process = int(answers.readline())
    ended, _, _ = select.select([answers], [], [], seconds)
    if not ended:
        os.kill(process, signal.SIGKILL)
        raise subprocess.TimeoutExpired(words, seconds)
    return os.waitstatus_to_exitcode(int(answers.readline()))


@cache
def _starter() -> socket.socket:
    """This process's, which ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LARGEST_REQUEST)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.starter", str(theirs.fileno())],
            cwd=_ROOT,
            env=os.environ | {"LANG": "C.UTF-8", "LC_ALL": ""},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request. Returns its words in the process that is to carry it out, and None
    when nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the tests
    while True:
        request, files, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, _STANDARD_FILES + 1)
        if not request:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupted)
            requests.close()
            return _forked(json.loads(request), files)
        for file in files:
            os.close(file)


def _forked(asked: Mapping[str, object], files: Sequence[int]) -> list[str]:
    """The words, in the process that is to carry them out; the one that waits for it tells how it
    ended and never returns."""
    *standard, tells = files
    process = os.fork()
    if process:
        for file in standard:
            os.close(file)
        os.write(tells, f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        os.write(tells, f"{status}\n".encode())
        os._exit(0)
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.close(tells)
    # Whether a stream can be sought in, and how it is buffered, was found out for the old files.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
    words, cwd, env = asked["words"], asked["cwd"], asked["env"]
    assert isinstance(words, list)
    assert isinstance(cwd, str)
    assert isinstance(env, dict)
    if asked["user"] is not None:
        _become(asked["user"], asked["groups"])
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["picloud-image", *words]
    return words


def _become(user: object, groups: object) -> None:
    assert isinstance(user, int)
    assert isinstance(groups, list)
    os.setgroups(groups)
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


if __name__ == "__main__":
    import imager

    for found in pkgutil.walk_packages(imager.__path__, "imager."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    from imager.image.salt.bytecode import versions

    for encoding in ("utf-8-sig", "utf-16-be", "idna", "unicode_escape"):
        codecs.lookup(encoding)  # another user may not be able to read this Python's files
    versions()  # where Python comes from pyenv its shims take longer than most commands
    gc.freeze()
    if _serve(socket.socket(fileno=int(sys.argv[1]))) is not None:
        from imager.cli.main import main

        main()
