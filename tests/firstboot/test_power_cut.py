"""The power fails between any two changes of any file; the next boot completes.

An ordinary run boots one of 48 of the cards there can be then, drawn by chance; ``--all`` all.
"""

from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cutting import boot_and_gather, cards_in
from tests.support.fakenode import CHANGING, IMAGED_AT, STEPS, FakeNode
from tests.support.fusing import why_no_fuse
from tests.support.sampling import a_part_of

SWAP_LINE = "/swapfile none swap defaults 0 0"
IN_MEMORY = ("proc", "run")
STORIES = ("firstboot.json", "firstboot.log", "log", "out", "tries")
"""Files that tell of all boots, not only of the last."""


def whole_node(folder: Path) -> FakeNode:
    """A node on which every step has something to do."""
    node = FakeNode(folder, HIGHSTATE="once")
    node.fake_tool(
        "pacman-key",
        'mkdir -p "$2" && echo "$3" >>"$2/trustdb.gpg"\n'
        '[ "$3" = --init ] || echo pub:f: >"$2/pubring"\n',
    )
    node.fake_tool("gpg", '[ ! -e "$2/pubring" ] || cat "$2/pubring"\n')
    node.fake_tool("gpgconf", "")
    node.fake_tool("salt-call", "echo 'Succeeded: 3 (changed=3)'\n")
    return node


def differs(path: Path) -> bool:
    """Each swap file has a UUID of its own, and a note tells what was found done already."""
    return path.name == "swapfile" or path.suffix == ".done"


def what_is_on(node: FakeNode) -> dict[str, tuple[int, bytes]]:
    """Path -> mode and content, of what must be the same whatever happened on the way."""
    return {
        str(path.relative_to(node.root)): (
            stat.S_IMODE(path.lstat().st_mode),
            b"" if path.is_dir() or differs(path) else path.read_bytes(),
        )
        for path in sorted(node.root.rglob("*"))
        if path.name not in STORIES and path.relative_to(node.root).parts[0] not in IN_MEMORY
    }


@pytest.mark.skipif(bool(why_no_fuse()), reason=why_no_fuse())
def test_after_a_cut_between_any_two_changes_the_next_boot_completes(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    whole = whole_node(tmp_path / "whole")
    boot = boot_and_gather(whole, tmp_path / "states")
    assert boot.status == 0, boot.output
    the_node_is_whole(whole)
    wanted = what_is_on(whole)
    cards = list(cards_in(tmp_path / "states"))
    assert len(cards) > 200
    assert len([card for card in cards if card.name.endswith("-less")]) > 100
    if not pytestconfig.getoption("--all"):
        cards = a_part_of(cards, 1 / 48)

    def boot_again(card: Path) -> None:
        node = whole_node(tmp_path / f"again-{card.name}")
        node.fake_tool("sync", "")
        node.real_tool(*CHANGING)
        shutil.rmtree(node.root)
        shutil.move(card, node.root)
        done = {n: text for n, text in node.state.items() if n.endswith(".done")}
        again = node.boot()
        assert again.status == 0, f"{card.name}: {again.output}"
        the_node_is_whole(node)
        assert what_is_on(node) == wanted, card.name
        for name, note in done.items():
            step = name.removesuffix(".done")
            assert f" {step}: " not in again.output, f"{card.name}: {step} ran twice"
            assert note, f"{card.name}: {step} was marked and its note lost"
        shutil.rmtree(node.root.parent)

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(boot_again, cards):
            pass


def the_node_is_whole(node: FakeNode) -> None:
    assert "complete" in node.state
    assert [name for name in node.state if name.endswith(".done")] == [f"{s}.done" for s in STEPS]
    assert node.report["state"] == "complete"
    assert node.read("etc/fstab").splitlines().count(SWAP_LINE) == 1
    swap = node.root / "swapfile"
    assert swap.stat().st_mode & 0o777 == 0o600
    assert swap.read_bytes()[4086:4096] == b"SWAPSPACE2"
    assert (node.root / "enabled/salt-minion.service").exists()
    assert not list(node.root.rglob("*.new"))


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
    assert len(marks) == len(STEPS)
    for mark in marks:
        assert calls[mark - 1] == "sync ", "the effect is on the card before its mark is made"
        assert "sync " in calls[mark : mark + 4], "the mark is on the card before the next step"


def test_every_report_reaches_the_card_at_once(tmp_path: Path) -> None:
    calls = FakeNode(tmp_path).boot().calls
    reports = [n for n, call in enumerate(calls) if call.endswith("/firstboot.log")]
    assert len([n for n in reports if calls[n].startswith("mv ")]) == len(STEPS) + 1
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
