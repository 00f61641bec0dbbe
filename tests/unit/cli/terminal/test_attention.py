"""``--notify``: what the real notify-send says to a desktop, on a bus of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.cli.terminal.attention import call_back

PYTHON = "/usr/bin/python3"
"""The distribution's, which has the module gi."""
DESKTOP = """
from gi.repository import Gio, GLib

def called(bus, sender, path, interface, method, given, answer):
    if method == "Notify":
        app, _, _, summary, body, *_ = given.unpack()
        print(app, summary, body, sep="|", flush=True)
        answer.return_value(GLib.Variant("(u)", (1,)))
    else:
        answer.return_value(GLib.Variant("(ssss)", ("desktop", "test", "1", "1.2")))

def arguments(direction, types):
    return "".join(f'<arg type="{one}" direction="{direction}"/>' for one in types)

XML = f'''<node><interface name="org.freedesktop.Notifications">
<method name="Notify">
{arguments("in", ["s", "u", "s", "s", "s", "as", "a{sv}", "i"])}{arguments("out", "u")}
</method>
<method name="GetServerInformation">{arguments("out", "ssss")}</method>
</interface></node>'''
bus = Gio.bus_get_sync(Gio.BusType.SESSION)
interface = Gio.DBusNodeInfo.new_for_xml(XML).interfaces[0]
bus.register_object("/org/freedesktop/Notifications", interface, called, None, None)
Gio.bus_own_name_on_connection(
    bus, interface.name, 0, lambda *_: print("ready", flush=True), None)
loop = GLib.MainLoop()
GLib.timeout_add_seconds(30, loop.quit)
loop.run()
"""


pytestmark = [
    pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    for name in ("notify-send", "dbus-daemon")
]


@contextmanager
def running(*words: str | Path, address: str = "") -> Iterator[Iterator[str]]:
    """What a program says, line by line, until the block ends it."""
    env = {"DBUS_SESSION_BUS_ADDRESS": address}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        yield (line.rstrip("\n") for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


def test_the_end_of_long_work_reaches_the_desktop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    bus = f"--address=unix:path={tmp_path}/bus"
    with running("dbus-daemon", "--session", "--nofork", "--print-address", bus) as said:
        address = next(said)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        with running(PYTHON, "-c", DESKTOP, address=address) as heard:
            assert next(heard) == "ready"
            call_back("write: done & <b>well</b>")
            assert next(heard) == "picloud-image|picloud-image|write: done & <b>well</b>"


def test_that_nobody_hears_it_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    call_back("write: done")
