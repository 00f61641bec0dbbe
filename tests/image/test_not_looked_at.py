"""Cards that cost more than is looked at: what was not seen makes them neither good nor bad."""

from __future__ import annotations

import bz2
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.errors import WouldNotBoot
from imager.bootcheck.check import BootReport
from imager.card.make.boot_check import require_bootable
from imager.cli.views.inspect import scope_lines, verdict
from imager.disk import budget
from imager.disk.ext4.filesystem import Ext4
from tests.support import bootfiles
from tests.support.bootdisk import INIT, Disk, make_disk, make_root, reading
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.hostile import measured

pytestmark = pytest.mark.image

PI2 = minimal_boot_files("pi2")
COMMENTS = b"# nothing but a comment, though one of fifty letters\n" * 1500
UNDECIDED = "not all of it was looked at, so it cannot be said whether it boots on a Raspberry Pi 2"


@dataclass(frozen=True)
class Node:
    name: str = "pi7"
    model: str = "pi2"


@pytest.fixture
def disk(good_pi2: Path, tmp_path: Path) -> Disk:
    return Disk.copy_of(good_pi2, tmp_path)


def require(disk: Disk) -> None:
    with reading(disk.image) as read:
        require_bootable(Node(), {}, read, disk.image.stat().st_size)


def undecided(disk: Disk) -> BootReport:
    """The report of a card on which nothing is wrong as far as it was looked at: it is not said to
    boot, and does not pass for a card of ours."""
    for model in (None, "pi2"):
        report = disk.check(model)
        assert not report.errors, report.errors[0].what
        assert report.models == ()
        assert report.undecided is not None
        assert report.undecided.code.value == "not-looked-at"
        assert report.to_json()["bootable"] is None
        assert verdict(report) == f"{UNDECIDED}: {report.undecided.what}"
        assert "what the warnings [not-looked-at] name" in scope_lines(report)[1]
    with pytest.raises(WouldNotBoot, match="it cannot be said whether pi7 would boot") as caught:
        require(disk)
    assert caught.value.exit_code == 25
    return report


def limited(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    monkeypatch.setattr(budget, "DEFAULT_LIMITS", replace(budget.DEFAULT_LIMITS, **limits))


def test_an_initramfs_that_takes_too_long(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bz2.compress(bootfiles.cpio({"init": random.Random(1).randbytes(500_000)}))
    disk.write("initramfs-linux.img", packed)
    assert disk.check("pi2").models == ("pi2",)
    limited(monkeypatch, steps=60_000)
    report = undecided(disk)
    assert "initramfs-linux.img" in {one.path for one in report.findings}


def _long(disk: Disk) -> None:
    disk.write("config.txt", CONFIG_TXT + COMMENTS + b"kernel=custom.img\n")


def _lines(disk: Disk) -> None:
    disk.write("config.txt", CONFIG_TXT + b"#\n" * 10_001 + b"kernel=custom.img\n")


def _includes(disk: Disk) -> None:
    includes = b"".join(b"include %d.txt\n" % n for n in range(34))
    disk.write("config.txt", CONFIG_TXT + includes)
    for number in range(34):
        disk.write(f"{number}.txt", b"kernel=custom.img\n" if number == 33 else b"#\n")


@pytest.mark.parametrize("spoil", [_long, _lines, _includes])
def test_a_config_that_is_longer_than_any(disk: Disk, spoil: Callable[[Disk], None]) -> None:
    disk.write("custom.img", PI2["kernel7.img"])
    disk.remove("kernel7.img")
    disk.write("config.txt", CONFIG_TXT + b"kernel=custom.img\n")
    assert disk.check("pi2").models == ("pi2",)
    require(disk)
    spoil(disk)
    undecided(disk)


def test_a_kernel_that_only_the_unread_part_names(disk: Disk) -> None:
    """Without the comments it is an error; with them it passed for a card that boots."""
    disk.write("config.txt", CONFIG_TXT + b"kernel=nope.img\n")
    with pytest.raises(WouldNotBoot, match=r"nope\.img is missing"):
        require(disk)
    disk.write("config.txt", CONFIG_TXT + COMMENTS + b"kernel=nope.img\n")
    undecided(disk)


def test_a_thousand_other_warnings_do_not_hide_it(disk: Disk) -> None:
    disk.write("config.txt", CONFIG_TXT + b"no setting\n" * 11_000)
    report = undecided(disk)
    assert report.left_out
    assert report.undecided in report.findings


def test_a_walk_that_ends_before_the_folder_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ("bootcode.bin", "start.elf", "fixup.dat", "config.txt")
    files = {name if name in first else f"a/{name}": data for name, data in PI2.items()}
    files["config.txt"] = b"os_prefix=a/\n" + CONFIG_TXT
    for folder in ("x", "y"):
        files |= {f"{folder}/{number}": b"" for number in range(30)}
    make_disk(tmp_path / "card.img", files)
    disk = Disk(tmp_path / "card.img")
    assert disk.check("pi2").models == ("pi2",)
    limited(monkeypatch, names=50)
    undecided(disk)
    disk.remove("start.elf")
    assert "start.elf is missing" in [one.what for one in disk.check("pi2").errors]


def test_a_file_that_the_list_has_is_not_lost_where_its_folder_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_disk(tmp_path / "card.img", PI2 | {f"x/{number}": b"" for number in range(60)})
    limited(monkeypatch, names=40)
    report = Disk(tmp_path / "card.img").check("pi2", {"x/59": "0" * 64, "gone": "0" * 64})
    assert {one.path for one in report.findings if one.code.value == "file-lost"} == {"gone"}


def test_what_no_boot_needs_is_told_and_does_not_decide(disk: Disk) -> None:
    """A person's own folders, say: more of them within each other than are read."""
    disk.write("/".join(["d"] * 70) + "/x", b"")
    report = disk.check("pi2")
    assert "not-looked-at" in {one.code.value for one in report.findings}
    assert (report.models, report.undecided) == (("pi2",), None)
    require(disk)


def test_an_fstab_that_is_longer_than_any(disk: Disk) -> None:
    lost = b"UUID=0f0f0f0f-0000-4000-8000-000000000009 / ext4 defaults 0 1\n"
    for text in (b"#" * 65_536 + b"\n" + lost, b"\n" * 2000 + lost):
        make_root(disk.image, "pi7", {**INIT, "etc/fstab": (text, 0o644)})
        report = undecided(disk)
        assert report.undecided is not None
        assert "/etc/fstab has" in report.undecided.what
    make_root(
        disk.image, "pi7", {**INIT, "etc/fstab": (lost.replace(b"/ ext4", b"/x ext4") * 200, 0o644)}
    )
    assert disk.check("pi2").undecided is None
    make_root(disk.image, "pi7", {**INIT, "etc/fstab": (b"\n" + lost, 0o644)})
    assert "fstab" in {one.code.value for one in disk.check("pi2").findings}


def test_modules_that_were_not_listed_are_not_said_to_be_others(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(*_: object) -> None:
        raise budget.OverBudget("there are too many")

    monkeypatch.setattr(Ext4, "list_directory", too_many)
    assert undecided(disk).root is None


def test_what_a_person_is_told_and_the_exit_code(disk: Disk) -> None:
    disk.write("config.txt", CONFIG_TXT + COMMENTS + b"kernel=nope.img\n")
    cost = measured("inspect", disk.image, "--json")
    assert cost.code == 0, cost.err
    result = json.loads(cost.out.splitlines()[-1])
    assert (result["bootable"], result["models"], result["route"]) == (None, [], None)
    cost = measured("explain", disk.image, "--blinks", "7")
    assert "[not-looked-at]" in cost.out
