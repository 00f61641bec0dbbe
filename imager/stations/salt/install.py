"""Makes minions stations: program, udev rule and our module, by a Salt state.

In: a Door to the master, names of minions. Out: the same program as here on each of them, by the
master's file server: they need no internet. What is put there is described in docs/stations.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.json_fields import JsonObject
from imager.base.text import printable
from imager.config.shipped_trees import udev_rule
from imager.rack.master.answers import PRELUDE
from imager.rack.master.connection import Door
from imager.stations.salt import on_minion
from imager.stations.salt.answers import LONGEST_FAULT, SILENT, answers_in, is_silent
from imager.stations.salt.offering import files_root, send
from imager.stations.salt.on_minion import PILLAR, PLACE
from imager.stations.salt.program import PackedProgram, pack_program
from imager.stations.salt.salt_bus import opened_bus
from imager.stations.salt.scripts import AS_OWNER, END, PILLAR_FOLDER, listed
from imager.stations.wire.survey import NO_KEY

MASTER_FILE = "picloud-image.conf"
"""In /etc/salt/master.d."""
RULES_FILE = "/etc/udev/rules.d/70-picloud-image.rules"
MODULE = "_modules/picloud_image.py"
STATE = f"{PILLAR}.station"
_ANSWER_SECONDS, _APPLY_SECONDS, _MORE_SECONDS = 30, 400, 100
_USER = r"^user: *\([a-z_-]*\) *$"
"""The line of a master's settings that says as whom it runs."""
_OTHER_PYTHON = (
    "it has not the Python of this computer, or is of another kind: install this version's package "
    "there (docs/install.md)"
)


def master_settings() -> str:
    """What the master needs to know: where lies what is for one minion alone."""
    return (
        "# Written by picloud-image rack stations install: what is handed to one station lies in\n"
        "# a folder of its name there.\n"
        "ext_pillar:\n"
        "  - file_tree:\n"
        f"      root_dir: {PILLAR_FOLDER}\n"
    )


_ABOVE = PILLAR_FOLDER.rpartition("/")[0]
# The folder above is root's, so nobody else decides what the pillars' own folder is; what an
# earlier user of the master left in it goes as that user, and with it only what batches handed.
_MAKING = f"""\
mkdir -p {_ABOVE} && chmod 0755 {_ABOVE} && (umask 077; mkdir -p {PILLAR_FOLDER}) &&
if [ "$(stat -c %u {PILLAR_FOLDER})" != "$(id -u "${{user:-root}}")" ]
then as_owner rm -rf {PILLAR_FOLDER}/hosts; fi &&
chown "${{user:-root}}:" {PILLAR_FOLDER} &&
as_owner sh -c 'umask 077 && mkdir -p {PILLAR_FOLDER}/hosts' &&
"""
_SETTING = (
    f"mkdir -p master.d && cat >master.d/{MASTER_FILE} <<'{END}' &&\n{master_settings()}{END}\n"
)


def is_prepared(door: Door) -> bool:
    """Whether the master knows of the pillars of stations, by its settings. Changes nothing. Raises
    as ``Door.run``, and ConfigurationError when it has pillars of its own to be added to."""
    said = door.run(
        "cd /etc/salt || exit 0\n"
        "own=$(cat master master.d/*.conf 2>/dev/null)\n"
        f"if printf '%s\\n' \"$own\" | grep -q '^[^#]*root_dir: *{PILLAR_FOLDER}'\n"
        "then echo known\n"
        "elif printf '%s\\n' \"$own\" | grep -q '^ext_pillar:'; then echo other\n"
        "else echo new\nfi\n"
    ).strip()
    if said == "other":
        raise ConfigurationError(
            f"{door.name}: it has an ext_pillar already, which only you can add to",
            hint=f"add this to that list: {{file_tree: {{root_dir: {PILLAR_FOLDER}}}}}, and start "
            "salt-master again",
        )
    if said not in ("known", "new"):
        raise ConfigurationError(
            f"{door.name}: there is no /etc/salt", hint="see that the Salt master is that computer"
        )
    return said == "known"


def prepare_master(door: Door) -> None:
    """Make the master know of the pillars of stations. Raises as ``is_prepared``, and
    ConfigurationError when it has to be started again."""
    known = is_prepared(door)
    setting = "" if known else _SETTING
    said = door.run(
        "PATH=$PATH:/usr/sbin:/sbin; cd /etc/salt\n"
        f"user=$(cat master master.d/*.conf 2>/dev/null | sed -n 's/{_USER}/\\1/p' | tail -n 1)\n"
        f"{AS_OWNER}{_MAKING}{setting}"
        "echo done || echo failed\n"
    )
    if said.strip() != "done":
        raise ConfigurationError(
            f"{door.name}: /etc/salt/master.d or {PILLAR_FOLDER} cannot be written",
            hint=f"see whether its disk is full: df /etc {PILLAR_FOLDER}",
        )
    if not known:
        raise ConfigurationError(
            f"{door.name}: its Salt master was told of stations, and reads that when it starts",
            hint="systemctl restart salt-master there, then the same command again",
        )


def install(door: Door, stations: Sequence[str]) -> Mapping[str, str]:
    """Make ``stations`` what their name says; returns for each why it is none, empty where it is
    and has answered as one.

    Raises as ``prepare_master`` and ``offer``.
    """
    prepare_master(door)
    send(door, files_root(door), _files(pack_program()))
    # Who is silent is known from this question; who answers it may take minutes for the next one.
    here = _told(door, stations, "saltutil.sync_modules", _ANSWER_SECONDS)
    answering = [name for name in stations if name in here]
    found = _told(door, answering, f"state.apply {STATE}", _APPLY_SECONDS)
    faults = {name: _fault_in(found.values.get(name, False)) for name in stations}
    return faults | _tried(door, [name for name in stations if not faults[name]])


def _tried(door: Door, stations: Sequence[str]) -> dict[str, str]:
    """Ask ``stations`` something as a head does: what keeps each from answering, or empty."""
    with opened_bus(door) as bus:
        nothing = {"rack": NO_KEY, "done": []}
        answers = bus.ask(stations, "reports", nothing, seconds=_ANSWER_SECONDS)
    return {name: answer.fault for name, answer in answers.items()}


def _told(door: Door, stations: Sequence[str], words: str, seconds: int) -> JsonObject:
    """What each of ``stations`` says when it is told to do what ``words`` say."""
    if not stations:
        return JsonObject({})
    salt = f"salt --out=json --static --log-level=quiet --timeout={seconds} -L {listed(stations)}"
    script = f"{PRELUDE}limit={seconds + _MORE_SECONDS}\nask said {salt} {words}\n"
    return answers_in(door, door.run(script), seconds + _MORE_SECONDS)


def state_of(program: PackedProgram) -> str:
    """The Salt state that puts ``program`` on a minion; YAML without a template."""
    folder = _folder(program)
    has_it = f'test "$(uname -m)" = {program.machine} && {program.python} -V'
    return f"""\
#!yaml
picloud-image python:
  cmd.run:
    - name: {has_it}
    - unless: {has_it}
picloud-image program:
  archive.extracted:
    - name: {folder}
    - source: salt://{PILLAR}/program.tar.gz
    - source_hash: sha256={program.sha256}
    - enforce_toplevel: False
    - require:
      - cmd: picloud-image python
picloud-image command:
  file.managed:
    - name: {PLACE}/bin/picloud-image
    - source: salt://{PILLAR}/picloud-image
    - mode: '0755'
    - makedirs: True
    - require:
      - archive: picloud-image program
picloud-image rule:
  file.managed:
    - name: {RULES_FILE}
    - source: salt://{PILLAR}/70-picloud-image.rules
    - mode: '0644'
    - makedirs: True
picloud-image before:
  cmd.run:
    - name: find {PLACE} -maxdepth 1 -name 'lib-*' ! -path {folder} -exec rm -rf {{}} +
    - onchanges:
      - file: picloud-image command
"""


def _files(program: PackedProgram) -> Mapping[str, bytes]:
    return {
        f"{PILLAR}/station.sls": state_of(program).encode(),
        f"{PILLAR}/program.tar.gz": program.data,
        f"{PILLAR}/picloud-image": program.launcher(_folder(program)).encode(),
        f"{PILLAR}/70-picloud-image.rules": udev_rule(),
        MODULE: Path(on_minion.__file__).read_bytes(),
    }


def _folder(program: PackedProgram) -> str:
    return f"{PLACE}/lib-{program.sha256[:16]}"


def _fault_in(found: object) -> str:
    """Why a state was not reached on a minion, in one line; empty where it was."""
    if is_silent(found):
        return SILENT
    if not isinstance(found, dict):
        said = found[0] if isinstance(found, list) and found else found
        return printable(str(said).strip().rpartition("\n")[2])[:LONGEST_FAULT]
    for name, state in found.items():
        if isinstance(state, dict) and state.get("result") is True:
            continue
        if "picloud-image python" in name:
            return _OTHER_PYTHON
        said = state.get("comment") if isinstance(state, dict) else state
        return printable(str(said).strip())[:LONGEST_FAULT]
    return ""
