"""Runs scripts on the rack's Salt master: over ssh, or directly when this computer is the master.

In: a rack, and what a person said of how to reach the master. Out: a Door, which runs a script for
``sh`` on the master. This rack made the master's host key, so the key is known before the first
connection and nobody is asked whether it is right. A host with another key is not the master.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import write_all
from imager.base.errors import (
    ConfigurationError,
    NetworkError,
    NotAuthentic,
    PicloudError,
    UsageError,
)
from imager.base.run import CompletedCommand, TooMuch, find_tool, run_bounded
from imager.base.text import command_line
from imager.config.rack import Rack
from imager.node.keys.store import LARGEST_KEY, folders_of

_KNOWN_HOSTS = "known_hosts"
_SSH_FAILED = 255
_CONNECT_SECONDS = 10
_ALIVE_SECONDS = 10
_MOST_BYTES = 4 << 20
"""An honest master of 1,000 nodes says 1 MiB."""
_MOST_SECONDS = 900
ROOT = "root"
_LOGIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?\Z")
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*\Z")


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach the master, as far as a person said it; what is None is found out.

    ``host`` is a name or address to use instead of the one in rack.toml, ``identity`` the file of
    a private key for ssh. For the rest ssh reads ~/.ssh/config.
    """

    user: str = ROOT
    host: str | None = None
    port: int | None = None
    identity: Path | None = None
    local: bool | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """A shell on the master. ``words`` is the command that starts it; it reads a script from
    standard input."""

    name: str
    words: tuple[str, ...]
    is_local: bool

    def run(self, script: str) -> str:
        """What ``script`` prints. Raises NetworkError when the master cannot be reached,
        NotAuthentic when another host answers in its place, and ConfigurationError when it does
        not let us in."""
        agent = {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}
        try:
            done = run_bounded(
                self.words,
                script.encode(),
                most_bytes=_MOST_BYTES,
                seconds=_MOST_SECONDS,
                env=agent,
            )
        except TooMuch as error:
            raise NetworkError(
                f"{self.name} {error}", hint="look at the master itself: is it the rack's own?"
            ) from error
        if done.returncode == _SSH_FAILED and not self.is_local:
            raise _why(self.name, done)
        if done.returncode:
            last = done.output().splitlines()[-1:] or ["it said nothing"]
            raise ConfigurationError(
                f"{self.name}: no shell of an administrator: {last[0]}",
                hint="log in as root, or as a user whom sudo -n lets do everything",
            )
        return done.stdout.decode(errors="replace")

    def command(self, script: str) -> tuple[str, ...]:
        """The command that runs ``script`` there and leaves its standard input to the caller."""
        return (*self.words[:-1], "-c", script if self.is_local else shlex.quote(script))


def door_to_master(rack: Rack, way: Way) -> Door:
    """The door to the master of ``rack``.

    Raises ConfigurationError when the rack never made the master's host key: then there is no
    card from which it could have started.
    """
    master = rack.master
    shell = ("sh", "-s") if way.user == ROOT else ("sudo", "-n", "sh", "-s")
    local = way.local if way.local is not None else _is_here(master.name)
    if local:
        here = ("sh", "-s") if os.geteuid() == 0 else ("sudo", "-n", "sh", "-s")
        return Door("this computer", here, is_local=True)
    host = way.host or (str(master.address) if master.address else master.name)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(_CONNECT_SECONDS),
        "ServerAliveInterval": str(_ALIVE_SECONDS),
        "StrictHostKeyChecking": "yes",
        # A person's own known_hosts is theirs: who only looks writes nothing.
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
    }
    if master.is_node:
        # ssh looks the host key up by the node's name, whatever address or port is used.
        options |= {"HostKeyAlias": master.name, "GlobalKnownHostsFile": "/dev/null"}
        options["UserKnownHostsFile"] = _known_hosts(rack)
        options["CheckHostIP"] = "no"
    _require_names(way.user, host)
    words = ["ssh", *(f"-o{name}={value}" for name, value in options.items())]
    if way.port is not None:
        words += ["-p", str(way.port)]
    if way.identity is not None:
        words += ["-i", str(way.identity)]
    return Door(f"{way.user}@{host}", (*words, "--", f"{way.user}@{host}", *shell), is_local=False)


def _require_names(user: str, host: str) -> None:
    """Raise UsageError for what ssh would take for an option or for more than one word: an option
    of ssh can name a program to run."""
    if not _LOGIN_NAME.match(user):
        raise UsageError(f"--user {user!r} is no login name", hint="for example --user alarm")
    if not _HOST.match(host):
        raise UsageError(
            f"{host!r} is neither a host name nor an address", hint="for example --host 10.0.0.10"
        )


def _is_here(name: str) -> bool:
    """Whether this computer has the name ``name`` and a Salt master."""
    own = socket.gethostname()
    return name in (own, own.partition(".")[0]) and find_tool("salt-run") is not None


def _known_hosts(rack: Rack) -> str:
    """The path of a known_hosts file of the master's keys, from their public halves. It lies in
    memory, for as long as this process runs: many only look at a rack, and may not write there."""
    name = rack.master.name
    ssh = folders_of(rack.keys, name).ssh.folder
    lines = [
        " ".join([name, *ssh.read(file, LARGEST_KEY).decode(errors="replace").split()[:2]])
        for file in ssh.names()
        if file.startswith("ssh_host_") and file.endswith("_key.pub")
    ]
    if not lines:
        raise ConfigurationError(
            f"{name} has no host key yet, so no card of it was ever made",
            hint=f"write its card first: {command_line('write', '/dev/sdX', '--node', name)}",
        )
    descriptor = os.memfd_create(_KNOWN_HOSTS)
    write_all(descriptor, "".join(f"{line}\n" for line in lines).encode())
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _why(name: str, done: CompletedCommand) -> PicloudError:
    said = done.stderr.decode(errors="replace").strip()
    last = said.splitlines()[-1] if said else "ssh gave no reason"
    if "REMOTE HOST IDENTIFICATION" in said or "Host key verification failed" in said:
        return NotAuthentic(
            f"{name} is not the master of this rack: it has another host key",
            hint="see who has its address; a master imaged from another folder has other keys",
            details=said.splitlines()[-3:],
        )
    if "Permission denied" in said:
        return ConfigurationError(
            f"{name} does not let you in: {last}",
            hint="name your key with --identity FILE, or put its public half under [login] in "
            "rack.toml and write the master's card again",
        )
    return NetworkError(
        f"{name} cannot be reached: {last}",
        hint="see that the master is switched on and on this network; picloud-image rack status "
        "--wait waits for it",
    )
