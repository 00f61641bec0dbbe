"""The runner: order, marks, failures, kernel words, and what a laptop reads."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.run import find_tool
from imager.card.inspect.firstboot import parse_firstboot
from tests.support.fakenode import FIRSTBOOT, IMAGED_AT, STEPS, FakeNode


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_step_runs_once_and_complete_is_marked_last(node: FakeNode, shell: str) -> None:
    node.shell = shell  # Arch's sh is bash, Debian's is dash
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert [name for name in node.state if name.endswith(".done")] == [f"{s}.done" for s in STEPS]
    assert "complete" in node.state
    assert not [name for name in node.state if name.endswith((".running", ".failed"))]
    assert boot.output.splitlines()[-1] == "picloud-firstboot: pi7: complete"


def test_the_report_says_what_each_step_did(node: FakeNode) -> None:
    node.boot()
    report = node.report
    assert (report["format"], report["node"], report["state"]) == (1, "pi7", "complete")
    assert report["step"] == ""
    assert [(step["name"], step["state"]) for step in report["steps"]] == [
        (name, "done") for name in STEPS
    ]
    assert node.note("70-start-minion") == "started, to join pi0"
    assert "30-swap: 1 MiB in /swapfile" in node.read("boot/picloud/firstboot.log")


def test_the_console_says_complete_only_when_it_is_true(tmp_path: Path) -> None:
    calls = FakeNode(tmp_path / "whole").boot().calls
    node = FakeNode(tmp_path / "cut")
    boot = node.boot(cut_at=len(calls))
    assert ": complete" not in boot.output


def test_a_second_boot_after_success_changes_nothing(node: FakeNode) -> None:
    node.boot()
    before = node.state, node.read("etc/fstab")
    boot = node.boot()
    assert (boot.status, boot.output, boot.calls) == (0, "", ())
    assert (node.state, node.read("etc/fstab")) == before


def test_a_second_boot_after_success_costs_nothing_to_speak_of(node: FakeNode) -> None:
    """On a node systemd's condition keeps even this from being started."""
    node.boot()
    costs = []
    for _ in range(5):
        began = time.monotonic()
        node.boot()
        costs.append(time.monotonic() - began)
    assert min(costs) < 0.1


def test_the_unit_starts_nothing_once_complete() -> None:
    unit = (FIRSTBOOT / "units/picloud-firstboot.service").read_text()
    assert "ConditionPathExists=!/var/lib/picloud/firstboot/complete\n" in unit
    before = [line for line in unit.splitlines() if line.startswith("Before=")]
    assert before == ["Before=shutdown.target"], "nothing, sshd least of all, may wait for it"
    assert "DefaultDependencies=no\n" in unit, "else multi-user.target waits for it"
    assert "StartLimitIntervalSec=0\n" in unit


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd refuses a whole unit for one line it does not allow."""
    unit = tmp_path / "picloud-firstboot.service"
    text = (FIRSTBOOT / "units/picloud-firstboot.service").read_text()
    unit.write_text(text.replace("=/usr/lib/picloud/firstboot", f"={FIRSTBOOT}"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failed_step_stops_no_other_and_alone_runs_again(node: FakeNode) -> None:
    node.fake_tool("mkswap", "echo mkswap: no such thing >&2; exit 7\n")
    boot = node.boot()
    assert boot.status == 1
    assert "complete" not in node.state
    assert "70-start-minion.done" in node.state, "the minion must start without swap too"
    assert (node.report["state"], node.report["step"]) == ("failed", "30-swap")
    swap = node.report["steps"][2]
    assert (swap["state"], swap["note"]) == (
        "failed",
        "ended with status 7: mkswap: no such thing",
    )
    assert swap["hint"].startswith("read the log"), "it gave no advice of its own"
    assert "mkswap: no such thing" in node.read("boot/picloud/firstboot.log")

    node.fake_tool("mkswap", "exit 0\n")
    again = node.run()
    assert again.status == 0, again.output
    assert not [call for call in again.calls if call.startswith("systemctl start")]
    assert node.report["state"] == "complete"


def test_it_is_tried_again_ever_more_seldom(node: FakeNode) -> None:
    node.fake_tool("mkswap", "exit 7\n")
    delays = []
    for _ in range(7):
        boot = node.run()
        asked = next(call for call in boot.calls if call.startswith("systemd-run"))
        delays.append(int(asked.partition("--on-active=")[2].split()[0]))
        assert asked.endswith("systemctl start --no-block picloud-firstboot.service")
        assert f"will be tried again in {delays[-1]} s" in boot.output
        assert (node.report["tries"], node.report["retry_s"]) == (len(delays), delays[-1])
    assert delays == [30, 60, 120, 240, 480, 600, 600]
    node.boot()
    assert node.report["tries"] == 1, "switched off and on again"


def test_where_systemd_does_not_help_it_waits_itself(node: FakeNode) -> None:
    node.fake_tool("mkswap", "exit 7\n")
    node.fake_tool("systemd-run", "exit 1\n")
    node.fake_tool("sleep", f'ln -sf {find_tool("mkswap")} "${{0%/*}}/mkswap"\n')  # it is mended
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert [call for call in boot.calls if call.startswith("sleep")] == ["sleep 30"]


def test_a_note_of_any_characters_is_valid_json(node: FakeNode) -> None:
    step = node.firstboot / "steps/99-odd"
    step.write_text("printf 'a \"quoted\" back\\\\slash\\tand\\033[1m colour'\n")
    node.boot()
    assert node.report["steps"][-1]["note"] == 'a "quoted" back\\slashand[1m colour'


def test_a_step_of_any_name_is_valid_json(node: FakeNode) -> None:
    node.write('usr/lib/picloud/firstboot/steps/31-my"own', "exit 3\n")
    node.boot()
    assert node.report["step"] == '31-my"own'
    assert node.note('31-my"own') == "ended with status 3"


def test_what_a_step_says_after_a_byte_of_zero_is_heard(node: FakeNode) -> None:
    words = "printf 'all\\0well\\n'\necho 'do: nothing'\necho really well\n"
    node.write("usr/lib/picloud/firstboot/steps/31-odd", words)
    assert "31-odd: really well" in node.boot().output


def test_a_step_that_says_nothing_leaves_no_words_of_the_one_before(node: FakeNode) -> None:
    node.write("usr/lib/picloud/firstboot/steps/31-silent", "exit 3\n")
    assert node.boot().status == 1
    assert node.note("31-silent") == "ended with status 3"


SAYS_ODD = r"""printf '%s\n' 'no C:\new\core' >&2; exit 3"""


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_note_keeps_its_backslashes(node: FakeNode, shell: str) -> None:
    """echo would make a new line of one, and so a hint of half the note, where sh is dash."""
    node.shell = shell
    node.write("usr/lib/picloud/firstboot/steps/31-odd", SAYS_ODD)
    assert r"31-odd: ended with status 3: no C:\new\core" in node.boot().output
    assert node.note("31-odd") == r"ended with status 3: no C:\new\core"
    assert node.hint("31-odd").startswith("read the log")


def test_a_failure_says_what_to_do_and_since_when(node: FakeNode) -> None:
    step = node.firstboot / "steps/35-own"
    step.write_text("echo 'do: turn it off and on'\necho 'it is stuck'\nexit 1\n")
    node.boot()
    report = node.report
    assert (report["step"], report["note"]) == ("35-own", "it is stuck")
    assert report["hint"] == node.hint("35-own") == "turn it off and on"
    assert report["since"] == "2026-05-28T20:26:40Z"
    node.boot(clock=IMAGED_AT + 3600)
    assert node.report["since"] == "2026-05-28T20:26:40Z", "when it was first begun"
    assert node.report["time"] == "2026-05-28T21:26:40Z"
    step.write_text("echo 'it goes'\n")
    node.boot()
    assert (node.report["since"], node.report["note"], node.report["hint"]) == ("", "", "")


def test_what_a_node_writes_is_what_inspect_reads(node: FakeNode) -> None:
    node.fake_tool("mkswap", "exit 7\n")
    node.boot()
    found = parse_firstboot((node.root / "boot/picloud/firstboot.json").read_bytes())
    assert found.to_json() | {"format": 1, "steps": node.report["steps"]} == node.report
    assert [step.name for step in found.steps] == STEPS


@pytest.mark.parametrize("name", ["ACT", "led0"])
def test_the_led_flashes_slowly_when_joined_and_fast_after_a_failure(
    node: FakeNode, name: str
) -> None:
    node.write(f"sys/class/leds/{name}/trigger", "[mmc0] timer")

    def led() -> list[str]:
        files = ("trigger", "delay_on", "delay_off")
        return [node.read(f"sys/class/leds/{name}/{file}").strip() for file in files]

    node.fake_tool("mkswap", "exit 7\n")
    node.boot()
    assert led() == ["timer", "100", "100"]
    node.real_tool("mkswap")
    node.run()
    assert led() == ["timer", "100", "1900"]


def test_the_leds_pattern_is_loaded_where_the_kernel_has_it_as_a_module(node: FakeNode) -> None:
    trigger = "sys/class/leds/ACT/trigger"
    node.write(trigger, "none [heartbeat] cpu")
    node.fake_tool("modprobe", "")
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert "modprobe -q ledtrig-timer" in boot.calls
    assert node.read(trigger).strip() == "timer"


def test_debug_traces_every_command_into_the_log(node: FakeNode) -> None:
    node.write("proc/cmdline", "quiet picloud.firstboot=debug rw\n")
    assert node.boot().status == 0
    assert "+ mkswap" in node.read("boot/picloud/firstboot.log")
    assert node.report["steps"][2]["note"] == "1 MiB in /swapfile"


def test_skip_runs_nothing_and_the_next_boot_runs_all(node: FakeNode) -> None:
    cmdline = node.read("proc/cmdline")
    node.write("proc/cmdline", "quiet picloud.firstboot=skip\n")
    assert node.boot().status == 0
    assert node.report["state"] == "skipped"
    assert {step["state"] for step in node.report["steps"]} == {"pending"}
    assert "complete" not in node.state
    node.write("proc/cmdline", cmdline)
    assert node.boot().status == 0
    assert "complete" in node.state


def test_a_word_that_only_resembles_the_kernel_word_is_ignored(node: FakeNode) -> None:
    node.write("proc/cmdline", "xpicloud.firstboot=skip picloud.firstboot=skipped\n")
    node.boot()
    assert "complete" in node.state


def test_settings_are_read_and_never_executed(node: FakeNode) -> None:
    node.configure(NODE='$(touch "$PICLOUD_ROOT/owned")', PATH="/nowhere")
    assert node.boot().status == 0
    assert not (node.root / "owned").exists()
    assert node.report["node"] == '$(touch "$PICLOUD_ROOT/owned")'


def test_settings_without_a_last_newline_are_all_read(node: FakeNode) -> None:
    settings = node.root / "etc/picloud/firstboot.conf"
    settings.write_text(settings.read_text().rstrip("\n"))
    assert node.boot().status == 0


def test_without_settings_the_node_says_so_and_still_starts_salt(node: FakeNode) -> None:
    (node.root / "etc/picloud/firstboot.conf").unlink()
    boot = node.boot()
    assert boot.status == 1
    assert "firstboot.conf cannot be read" in boot.output
    assert "70-start-minion.done" in node.state
    assert "when the card was made" in node.report["steps"][0]["note"]


@pytest.fixture(params=["absent", "full", "unwritable"])
def bad_fat(node: FakeNode, request: pytest.FixtureRequest) -> Iterator[FakeNode]:
    folder = node.root / "boot/picloud"
    if request.param == "full":
        (folder / "firstboot.new").symlink_to("/dev/full")
    else:
        folder.rmdir()
    if request.param == "unwritable":
        folder.symlink_to("/proc/self")  # not even root can make a file there
    yield node


def test_a_boot_partition_that_takes_nothing_stops_nothing(bad_fat: FakeNode) -> None:
    boot = bad_fat.boot()
    assert boot.status == 0, boot.output
    assert "complete" in bad_fat.state
    assert len(boot.output.splitlines()) == len(STEPS) + 1, "no complaints on the console"


def test_the_log_does_not_grow_for_ever(node: FakeNode) -> None:
    node.fake_tool("mkswap", "exit 1\n")
    node.boot()
    with (node.root / "var/lib/picloud/firstboot/log").open("a") as log:
        log.write("retried for a year\n" * 100_000)
    node.run()
    assert len(node.state["log"]) < 300_000
    assert len(node.read("boot/picloud/firstboot.log")) <= 32768


def test_a_root_that_cannot_be_written_is_a_failure_not_a_success(node: FakeNode) -> None:
    (node.root / "var/lib/picloud").symlink_to("/proc/self")
    boot = node.boot()
    assert boot.status == 1
    assert "the root filesystem cannot be written" in boot.output
    report = node.report
    assert (report["state"], report["step"]) == ("failed", "")
    assert report["note"].startswith("the root filesystem cannot be written")
    assert "make room" in report["hint"]


@pytest.mark.parametrize("name", ["30-swap.done", "complete"])
def test_a_mark_that_cannot_take_its_place_is_a_failure_with_its_reason(
    node: FakeNode, name: str
) -> None:
    says = 'echo "mv: cannot move: Input/output error" >&2; exit 1'
    node.fake_tool("mv", f'case $2 in */{name}) {says} ;; esac\nexec /bin/mv "$@"\n')
    boot = node.boot()
    assert boot.status == 1
    assert "pi7: complete" not in boot.output
    report = node.report
    assert (report["state"], report["step"]) == ("failed", "")
    assert report["note"] == "the root filesystem cannot be written: Input/output error"


def test_everything_a_node_runs_is_clean_posix_shell() -> None:
    scripts = [FIRSTBOOT / "picloud-firstboot", *sorted((FIRSTBOOT / "steps").iterdir())]
    parts = [FIRSTBOOT / "report.sh", FIRSTBOOT / "joining.sh"]
    for script in scripts:
        assert script.read_text().startswith("#!/bin/sh\n")
        assert script.stat().st_mode & 0o111, f"{script} cannot be executed"
    done = subprocess.run(
        ["shellcheck", "--shell=sh", *scripts, *parts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
