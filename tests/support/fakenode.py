"""A fake root on which the real first boot runs, under a real shell, and where power can fail.

In: a folder. Out: what a boot did. Tools that would touch this machine (the clock, swap, systemd)
are small programs on PATH that act on the fake root; all others are the real ones. Every tool that
changes something counts its calls, and at a given call the whole runner is killed. ``sync`` takes a
copy of the root: after a cut, either everything survives or only what the last copy holds, which
are the two extremes of what an SD card keeps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imager.base.run import search_path

FIRSTBOOT = Path(__file__).resolve().parents[2] / "firstboot"
STEPS = sorted(path.name for path in (FIRSTBOOT / "steps").iterdir())
IMAGED_AT = 1_780_000_000
JOINED = "   0: 1100000A:C350 0A00000A:1199 01 00000000:00000000"
"""proc/net/tcp of a minion that its master has taken in: a connection to port 4505."""
MIB = 1 << 20
JOINS = f'mkdir -p "$PICLOUD_ROOT/proc/net" && echo "{JOINED}" >"$PICLOUD_ROOT/proc/net/tcp"'
CHANGING = ("mkdir", "mv", "cp", "rm", "touch", "fallocate", "mkswap")
"""Real tools whose calls are counted."""
READING = (
    *("awk", "basename", "cat", "chmod", "cut", "dd", "df", "dirname", "findmnt", "gpg", "gpgconf"),
    *("grep", "ln", "mktemp", "partx", "readlink", "resize2fs", "sed", "sfdisk", "sleep", "stat"),
    *("tail", "tr", "truncate", "wc"),
)
"""The other real tools a node's first boot may use: no others are on its PATH."""

_COUNT = """#!/bin/dash
echo "${0##*/} $*" >>"$FAKE/calls"
read -r left <"$FAKE/left"
[ "$left" -ne 1 ] || kill -9 0
echo $((left - 1)) >"$FAKE/left"
"""
_FAKES = {
    # Only where the power is to fail is anything lost.
    "sync": """[ "$left" -le 0 ] || {
/bin/rm -rf "$FAKE/kept" && /bin/cp -a "$PICLOUD_ROOT" "$FAKE/kept"
}
""",
    "date": """case $1 in
-s) echo "${2#@}" >"$FAKE/clock" && echo "date $*" >>"$FAKE/calls" ;;
+%s) cat "$FAKE/clock" ;;
-u) exec "$FAKE_REAL/date" -u -d "@$(cat "$FAKE/clock")" "$2" ;;
esac
""",
    "swapon": 'echo "$1 file 1024 0 -2" >>"$PICLOUD_ROOT/proc/swaps"\n',
    "swapoff": ': >"$PICLOUD_ROOT/proc/swaps"\n',
    "systemctl": """case $1 in
cat) [ -e "$PICLOUD_ROOT/usr/lib/systemd/system/$2" ] ;;
enable) mkdir -p "$PICLOUD_ROOT/enabled" && : >"$PICLOUD_ROOT/enabled/$2" ;;
is-enabled) [ -e "$PICLOUD_ROOT/enabled/$3" ] ;;
start) [ "$2" = --no-block ] && . "$FAKE/minion-starts" ;;
stop) [ "$2" != --no-block ] || . "$FAKE/minion-stops" ;;
esac
""",
    "systemd-run": "",
    # A network that is well, and a master that answers.
    "ip": "echo 2: eth0 inet 10.0.0.17/24 scope global eth0\n",
    "getent": 'echo "10.0.0.10       STREAM $2"\n',
    "timeout": '[ "$1" != -k ] || shift 2; shift; exec "$@"\n',
    "bash": "",
}


@dataclass(frozen=True, slots=True)
class Boot:
    """What one run of the runner did; ``calls`` are those of the changing tools, in order."""

    status: int
    output: str
    calls: tuple[str, ...]


class FakeNode:
    """A node called pi7 whose disk is a folder."""

    def __init__(self, folder: Path, *, salt: bool = True, **settings: str) -> None:
        self.root = folder / "root"
        self.shell = "dash"
        self.wait_s = 0
        self.entering: tuple[str, ...] = ()  # words before the runner: another namespace
        self._fake = folder / "fake"
        self._tools = self._fake / "tools"
        self.firstboot = self.root / "usr/lib/picloud/firstboot"
        shutil.copytree(FIRSTBOOT, self.firstboot)
        for name in ("etc/picloud", "proc", "boot/picloud", "var/lib/systemd/timesync"):
            (self.root / name).mkdir(parents=True)
        self.settings = {
            "NODE": "pi7",
            "MASTER": "pi0",
            "MINION": "yes",
            "HIGHSTATE": "never",
            "SWAP_BYTES": str(MIB),
            "GROW_ROOT": "no",
            "IMAGED_AT": str(IMAGED_AT),
        } | settings
        self.configure()
        self.write("proc/cmdline", "root=PARTUUID=1234abcd-02 rw rootwait\n")
        self.write("etc/fstab", "PARTUUID=1234abcd-01 /boot vfat defaults 0 0")
        clock = self.write("var/lib/systemd/timesync/clock", "")
        os.utime(clock, (IMAGED_AT, IMAGED_AT))
        if salt:
            self.write("usr/lib/systemd/system/salt-minion.service", "[Service]\n")
        self._make_tools()
        self.minion_does(JOINS)

    def configure(self, **settings: str) -> None:
        """Write firstboot.conf anew."""
        self.settings |= settings
        lines = (f"{key}={value}\n" for key, value in self.settings.items())
        self.write("etc/picloud/firstboot.conf", "# for first boot\n" + "".join(lines))

    def write(self, path: str, text: str) -> Path:
        """Write one file of the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def fake_tool(self, name: str, script: str) -> None:
        """Put a program of this name before the real one on PATH."""
        tool = self._tools / name
        tool.unlink(missing_ok=True)
        tool.write_text(("#!/bin/dash\n" if name == "date" else _COUNT) + script)
        tool.chmod(0o755)

    def minion_does(self, starts: str, stops: str = ":") -> None:
        """What happens when systemd is told to start the minion, and to stop it."""
        (self._fake / "minion-starts").write_text(f"{starts}\n")
        (self._fake / "minion-stops").write_text(f"{stops}\n")

    def boot(self, *, cut_at: int = 0, clock: int = 0) -> Boot:
        """Power on: no swap, no connection, the clock is what systemd would make of ``clock``.

        ``cut_at``: the power fails when the changing tools are called for the so-manieth time.
        """
        remembered = (self.root / "var/lib/systemd/timesync/clock").stat().st_mtime
        (self._fake / "clock").write_text(f"{max(clock, int(remembered))}\n")
        for gone in ("proc/net", "run"):
            shutil.rmtree(self.root / gone, ignore_errors=True)
        return self.run(cut_at=cut_at)

    def run(self, *, cut_at: int = 0) -> Boot:
        """Start the runner once more without a power cycle, as systemd does after a failure."""
        self.write("proc/swaps", "Filename Type Size Used Priority\n")
        shell = self._tools / "sh"
        shell.unlink(missing_ok=True)
        shell.symlink_to(shutil.which(self.shell) or self.shell)
        (self._fake / "calls").write_text("")
        (self._fake / "left").write_text(f"{cut_at}\n")
        kept = self._fake / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        if cut_at:
            subprocess.run(["/bin/cp", "-a", self.root, kept], check=True)
        process = subprocess.Popen(
            [*self._entering(), shell, self.firstboot / "picloud-firstboot"],
            env={
                "PATH": str(self._tools),
                "PICLOUD_ROOT": str(self.root),
                "PICLOUD_SYS": str(self.root / "sys"),
                "PICLOUD_WAIT_S": str(self.wait_s),
                "FAKE": str(self._fake),
                "FAKE_REAL": str(Path(shutil.which("date") or "/bin/date").parent),
                "LC_ALL": "C",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            restore_signals=False,  # systemd(1) ignores SIGPIPE, as Python does
        )
        output, _ = process.communicate(timeout=180 + 2 * self.wait_s)
        calls = tuple((self._fake / "calls").read_text().splitlines())
        assert cut_at == 0 or process.returncode == -signal.SIGKILL, output
        return Boot(process.returncode, output, calls)

    def _entering(self) -> tuple[str, ...]:
        # Absolute: the PATH given is already that of the node.
        return (_real(self.entering[0]), *self.entering[1:]) if self.entering else ()

    def lose_what_was_not_synced(self) -> None:
        """After a cut: the card holds what it held at the last sync and nothing later."""
        shutil.rmtree(self.root)
        shutil.copytree(self._fake / "kept", self.root, symlinks=True)

    @property
    def state(self) -> dict[str, str]:
        """The node's own marks: file name -> content."""
        folder = self.root / "var/lib/picloud/firstboot"
        return {path.name: path.read_text().strip() for path in sorted(folder.glob("*"))}

    def forget(self, step: str) -> None:
        """Let a step that was done run again, as the documentation says."""
        for mark in (f"{step}.done", "complete"):
            (self.root / "var/lib/picloud/firstboot" / mark).unlink()

    def note(self, step: str) -> str:
        """What the report says of one step."""
        return self._of(step, "note")

    def hint(self, step: str) -> str:
        """What the report says is to be done about one step."""
        return self._of(step, "hint")

    def _of(self, step: str, key: str) -> str:
        return next(str(s[key]) for s in self.report["steps"] if s["name"] == step)

    @property
    def report(self) -> dict[str, Any]:
        """What a laptop reads on the boot partition."""
        loaded: dict[str, Any] = json.loads(self.read("boot/picloud/firstboot.json"))
        return loaded

    def _make_tools(self) -> None:
        self._tools.mkdir(parents=True)
        for name, script in _FAKES.items():
            self.fake_tool(name, script)
        for name in CHANGING:
            self.fake_tool(name, f'exec {_real(name)} "$@"\n')
        for name in READING:
            (self._tools / name).symlink_to(_real(name))

    def remove_tool(self, name: str) -> None:
        """Let there be no program of this name."""
        (self._tools / name).unlink()

    def real_tool(self, *names: str) -> None:
        """Give the node the real program instead of a fake one, or of none."""
        for name in names:
            (self._tools / name).unlink(missing_ok=True)
            (self._tools / name).symlink_to(_real(name))


def _real(name: str) -> str:
    found = shutil.which(name, path=search_path())
    assert found, f"{name} is not installed: scripts/setup --dev"
    return found
