"""What packages of the image left for first boot: done once, in order, and told where it failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.base.run import find_tool
from imager.image.compose.staging import stage
from tests.support.fakenode import FakeNode
from tests.support.makepkg import built, set_of
from tests.support.pacman import with_pacman
from tests.support.release import build_release, plain_tree
from tests.support.svc import LIBSVC, MARK, SVC_2

STEP = "45-packages"
FOLDER = "var/lib/picloud/packages"
SYNCED = "the new mark is synced"
SCRIPTLET = (
    'post_install() { echo "$1" >>"$PICLOUD_ROOT/ran"; }\nfailing() { echo no >&2; false; }\n'
)


def with_queue(folder: Path, *lines: str) -> FakeNode:
    """A node with this queue, and the package svc 1-1."""
    node = FakeNode(folder, MINION="no")
    node.real_tool("bash")
    node.write("var/lib/pacman/local/svc-1-1/install", SCRIPTLET)
    node.write(f"{FOLDER}/queue", "".join(f"{line}\n" for line in lines))
    return node


@pytest.mark.skipif(find_tool("makepkg") is None, reason="makepkg is not installed")
def test_what_the_image_left_is_done_in_its_order(tmp_path: Path) -> None:
    """The queue of a real compose: the programs of the node get it, and the package's own words."""
    release = build_release(tmp_path, with_pacman(plain_tree()))
    (tmp_path / "staged").mkdir()
    packages = set_of(built(LIBSVC), built(SVC_2))
    staged = stage(release, tmp_path / "staged", Quiet(), None, packages)
    node = FakeNode(tmp_path / "pi7", MINION="no")
    node.real_tool("bash")
    for path in ("lib/picloud/packages", "lib/pacman/local"):
        for file in sorted((staged.root_folder / "var" / path).rglob("*")):
            if file.is_file():
                place = file.relative_to(staged.root_folder)
                node.write(str(place), file.read_text(errors="replace"))
    node.write("var/log/svc", "")
    for tool in ("systemd-sysusers", "systemd-tmpfiles", "ldconfig"):
        node.fake_tool(tool, f'echo "{tool} $1" >>"$PICLOUD_ROOT/var/log/svc"\n')
    node.fake_tool("touch", f'[ "$1" = {MARK} ] || exec /bin/touch "$@"\n')
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert node.note(STEP) == "5 things done"
    assert node.read("var/log/svc").splitlines() == [
        f"systemd-sysusers --root={node.root}",
        "ldconfig -r",
        "installed 2.0-1",
        "systemd-tmpfiles --create",
        "usr/lib/svc/",
        "usr/lib/svc/data",
        "usr/lib/svc/second-name",
    ]
    assert node.boot().status == 0
    assert node.read("var/log/svc").count("installed") == 1


def test_an_image_without_packages_has_nothing_to_do(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    assert node.boot().status == 0
    assert node.note(STEP) == "no package left anything to do"


def test_what_fails_stops_nothing_and_is_told(tmp_path: Path) -> None:
    node = with_queue(
        tmp_path,
        "scriptlet failing svc 1-1",
        "libraries",
        "scriptlet post_install svc 1-1",
    )
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert node.read("ran") == "1-1\n"
    assert node.note(STEP) == (
        "3 things done, of which failed: failing svc 1-1: status 1; libraries: status 127"
    )
    assert node.report["state"] == "complete"


def test_one_that_does_not_end_when_told_to_is_killed(tmp_path: Path) -> None:
    node = with_queue(tmp_path, "scriptlet post_install svc 1-1", "scriptlet next svc 1-1")
    deaf = "post_install() { trap '' TERM; while :; do sleep 0.1; done; }\n"
    node.write(
        "var/lib/pacman/local/svc-1-1/install", f'{deaf}next() {{ : >"$PICLOUD_ROOT/next"; }}\n'
    )
    node.fake_tool(
        "timeout",
        f"""[ "$1" = -k ] || exit
shift 3
case "$*" in *post_install*) exec {find_tool("timeout")} -k 0.2 0.2 "$@" ;; esac
exec "$@"
""",
    )
    assert node.boot().status == 0
    assert node.note(STEP).endswith("of which failed: post_install svc 1-1: status 137")
    assert (node.root / "next").exists()


def test_a_removed_package_is_told_goodbye(tmp_path: Path) -> None:
    node = with_queue(tmp_path, "scriptlet post_install gone 3-1")
    node.write(f"{FOLDER}/removed/gone-3-1", SCRIPTLET)
    assert node.boot().status == 0
    assert node.read("ran") == "3-1\n"


def test_a_kernel_of_a_package_gets_its_modules(tmp_path: Path) -> None:
    node = with_queue(tmp_path, "modules 6.18-rpi", "modules 6.19-rpi", "initramfs")
    node.fake_tool("depmod", "[ $3 = 6.19-rpi ]\n")
    node.fake_tool("udevadm", "")
    node.fake_tool("mkinitcpio", "")
    node.fake_tool("uname", "echo 6.19-rpi\n")
    tools = ("depmod", "udevadm", "mkinitcpio")
    assert [call for call in node.boot().calls if call.split()[0] in tools] == [
        f"depmod -b {node.root} 6.18-rpi",
        f"depmod -b {node.root} 6.19-rpi",
        "udevadm trigger --action=add",
        "mkinitcpio -P",
    ]
    assert node.note(STEP) == "3 things done, of which failed: modules 6.18-rpi: status 1"


@pytest.mark.parametrize("done", ["", "\n", "1", "x\n", "1x\n"])
def test_a_mark_that_tells_nothing_counts_as_none(tmp_path: Path, done: str) -> None:
    """As a loss of power leaves it that took the data and kept the name."""
    node = with_queue(tmp_path, "scriptlet post_install svc 1-1")
    node.write(f"{FOLDER}/done", done)
    boot = node.boot()
    assert boot.status == 0, boot.output
    assert node.note(STEP) == "1 things done"
    assert node.read(f"{FOLDER}/done") == "1\n"
    assert node.read("ran") == "1-1\n"


def test_a_mark_has_reached_the_card_before_it_takes_the_old_ones_place(tmp_path: Path) -> None:
    node = with_queue(tmp_path, "scriptlet post_install svc 1-1")
    new = f"$PICLOUD_ROOT/{FOLDER}/done.new"
    node.fake_tool("sync", f'[ ! -s "{new}" ] || echo "{SYNCED}" >>"$FAKE/calls"\n')
    calls = node.boot().calls
    mark = next(n for n, call in enumerate(calls) if call.endswith(f"{FOLDER}/done"))
    assert calls[mark - 2 : mark] == ("sync ", SYNCED)
    assert calls[mark + 1] == "sync "


@pytest.mark.long(minutes=1)
def test_a_cut_repeats_one_at_most(tmp_path: Path) -> None:
    def node_at(name: str) -> FakeNode:
        lines = ("scriptlet post_install svc-a 1-1", "scriptlet post_install svc-b 1-1")
        node = with_queue(tmp_path / name, *lines)
        node.configure(SWAP_BYTES="0")
        for letter in "ab":
            text = SCRIPTLET.replace("$1", letter)
            node.write(f"var/lib/pacman/local/svc-{letter}-1-1/install", text)
        return node

    calls = node_at("whole").boot().calls
    mine = [n for n, call in enumerate(calls, 1) if FOLDER in call]
    assert len(mine) == 2, "each line is marked"
    for cut in range(mine[0] - 1, mine[-1] + 2):
        node = node_at(f"cut-{cut}")
        node.boot(cut_at=cut)
        node.lose_what_was_not_synced()
        assert node.boot().status == 0
        assert node.note(STEP) == "2 things done"
        ran = node.read("ran").split()
        assert ran in (["a", "b"], ["a", "a", "b"], ["a", "b", "b"]), calls[cut - 1]
