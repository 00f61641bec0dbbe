"""The power fails at every call of a tool that changes something; the next boot completes."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.fakenode import IMAGED_AT, FakeNode

SWAP_LINE = "/swapfile none swap defaults 0 0"


def the_node_is_whole(node: FakeNode) -> None:
    assert "complete" in node.state
    assert node.report["state"] == "complete"
    assert node.read("etc/fstab").splitlines().count(SWAP_LINE) == 1
    swap = node.root / "swapfile"
    assert swap.stat().st_mode & 0o777 == 0o600
    assert swap.read_bytes()[4086:4096] == b"SWAPSPACE2"
    assert not (node.root / "swapfile.new").exists()
    assert not (node.root / "etc/fstab.new").exists()
    assert (node.root / "enabled/salt-minion.service").exists()


def cut_and_boot_again(folder: Path, cut_at: int, keep_everything: bool) -> None:
    node = FakeNode(folder)
    node.boot(cut_at=cut_at)
    if not keep_everything:
        node.lose_what_was_not_synced()
    finished = [name.removesuffix(".done") for name in node.state if name.endswith(".done")]
    assert "complete" not in node.state or len(finished) == 4

    again = node.boot()
    assert again.status == 0, f"cut at call {cut_at}: {again.output}"
    the_node_is_whole(node)
    for step in finished:
        assert f" {step}: " not in again.output, f"cut at call {cut_at}: {step} ran twice"
    shutil.rmtree(folder)


def test_after_a_cut_at_any_point_the_next_boot_completes(tmp_path: Path) -> None:
    whole = FakeNode(tmp_path / "whole")
    calls = whole.boot().calls
    the_node_is_whole(whole)
    assert len(calls) > 40
    cuts = [(cut_at, True) for cut_at in range(1, len(calls) + 1)]
    # Of what was not synced nothing survives: all cuts between two syncs leave the same card.
    cuts += [(n + 1, False) for n, call in enumerate(calls, 1) if call == "sync " and calls[n:]]
    with ThreadPoolExecutor(4) as pool:
        running = [
            pool.submit(cut_and_boot_again, tmp_path / f"{cut_at} {kept}", cut_at, kept)
            for cut_at, kept in cuts
        ]
        for cut in running:
            cut.result()


def test_a_cut_between_effect_and_mark_runs_the_step_again(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    calls = FakeNode(tmp_path / "whole").boot().calls
    effect = next(n for n, call in enumerate(calls, 1) if call.startswith("swapon"))
    node.boot(cut_at=effect + 1)
    assert "30-swap.done" not in node.state
    assert "30-swap.running" in node.state, "a laptop sees where the power failed"
    again = node.boot()
    assert "30-swap: 1 MiB" in again.output
    assert "10-clock" not in again.output
    assert not [call for call in again.calls if call.startswith("mkswap")], "verified, not remade"


def test_three_cuts_in_a_row(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    for cut_at in (30, 12, 20):
        node.boot(cut_at=cut_at)
        node.lose_what_was_not_synced()
    assert node.boot().status == 0
    the_node_is_whole(node)


def test_every_mark_stands_between_two_syncs(tmp_path: Path) -> None:
    calls = FakeNode(tmp_path).boot().calls
    marks = [n for n, call in enumerate(calls) if call.endswith(".done")]
    assert len(marks) == 4
    for mark in marks:
        assert calls[mark - 1] == "sync ", "the effect is on the card before its mark is made"
        assert "sync " in calls[mark : mark + 3], "the mark is on the card before the next step"


def test_every_report_reaches_the_card_at_once(tmp_path: Path) -> None:
    calls = FakeNode(tmp_path).boot().calls
    reports = [n for n, call in enumerate(calls) if call.endswith("/firstboot.log")]
    assert len([n for n in reports if calls[n].startswith("mv ")]) == 5
    for report in reports:
        assert calls[report].startswith("mv "), "never written under its own name"
        assert calls[report + 1] == "sync "


def test_the_clock_is_right_again_after_a_cut_in_1970(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    clock = node.root / "var/lib/systemd/timesync/clock"
    clock.unlink()
    clock.write_text("")
    os.utime(clock, (0, 0))
    calls = node.boot(cut_at=25).calls
    assert f"date -s @{IMAGED_AT}" in calls
    node.lose_what_was_not_synced()
    assert clock.stat().st_mtime == IMAGED_AT, "systemd starts from this file at the next boot"
