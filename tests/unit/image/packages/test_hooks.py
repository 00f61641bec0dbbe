"""Which hooks a change of packages asks for, as pacman would decide it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.image.packages.changes import PackageChange, PackageOperation
from imager.image.packages.database import Installed
from imager.image.packages.hooks import Hook, hooks_to_run
from imager.image.packages.queue import queued
from imager.image.unpack.stager import Stager
from imager.packages.metadata import PacmanPackage

INSTALL, UPGRADE, REMOVE = PackageOperation
SHIPPED, OWN = "usr/share/libalpm/hooks", "etc/pacman.d/hooks"


def installed(name: str, version: str, *files: str, script: str = "") -> Installed:
    package = PacmanPackage(name, version, "any")
    return Installed(package, frozenset(files), script=script)


ADDED = PackageChange(INSTALL, installed("new", "1-1", "usr/", "usr/new", "usr/old"))
UPGRADED = PackageChange(
    UPGRADE,
    installed("lib", "2-1", "usr/", "usr/lib.so.2", "usr/lib.so"),
    installed("lib", "1-1", "usr/", "usr/lib.so.1", "usr/lib.so"),
)
GONE = PackageChange(REMOVE, installed("gone", "1-1", "usr/", "usr/gone"))
CHANGES = (ADDED, UPGRADED, GONE)


@pytest.fixture
def stager(tmp_path: Path) -> Iterator[Stager]:
    with Stager.opened(tmp_path) as stager:
        yield stager


def hook(*trigger: str, action: str = "", when: str = "PostTransaction") -> bytes:
    lines = "\n".join(trigger)
    rest = f"When = {when}\nExec = /bin/x 'a b'\n{action}"
    return f"# why\n[Trigger]\n{lines}\n[Action]\n{rest}".encode()


def found(stager: Stager, text: bytes) -> tuple[Hook, ...]:
    stager.put(f"{SHIPPED}/a.hook", text, mode=0o644, mtime_ns=0)
    return hooks_to_run(stager, CHANGES, frozenset({"lib", "new"}))


@pytest.mark.parametrize(
    ("trigger", "targets"),
    [
        ("Type = Path|Operation = Install|Target = usr/*", "usr/lib.so.2 usr/new usr/old"),
        ("Type = File|Operation = Upgrade|Target = *.so", "usr/lib.so"),
        ("Type = Path|Operation = Remove|Target = usr/*", "usr/gone usr/lib.so.1"),
        ("Type = Path|Operation = Install|Target = usr/*|Target = !usr/lib*", "usr/new usr/old"),
        ("Type = Path|Operation = Install|Target = !usr/lib*|Target = usr/*.2", "usr/lib.so.2"),
        ("Type = Package|Operation = Install|Operation = Remove|Target = *", "gone new"),
        ("Type = Package|Operation = Upgrade|Target = lib", "lib"),
        ("Type = Path|Operation = Install|Target = usr/ne[vw]", "usr/new"),
        ("Type = Package|Operation = Upgrade|Target = usr/*", ""),
        ("Type = Path|Operation = Remove|Target = usr", ""),
    ],
)
def test_what_triggers_it(stager: Stager, trigger: str, targets: str) -> None:
    wanted = Hook("a.hook", ("/bin/x", "a b"), tuple(targets.split()))
    text = hook(*trigger.split("|"), action="NeedsTargets\n")
    assert found(stager, text) == ((wanted,) if targets else ())


ANY = ("Type = Package", "Operation = Install", "Target = *")


@pytest.mark.parametrize(
    "text",
    [
        hook(*ANY, when="PreTransaction"),
        hook(*ANY, action="Depends = absent\n"),
        hook(*ANY).replace(b"Exec", b"Exce"),
        hook(*ANY).replace(b"'a b'", b"'a b"),
        b"\xff[Trigger",
        b"",
    ],
)
def test_what_is_left_out(stager: Stager, text: bytes) -> None:
    assert found(stager, text) == ()


def test_targets_are_given_only_to_one_that_asks(stager: Stager) -> None:
    text = hook(*ANY, action="Depends = lib>=1\n")
    assert found(stager, text) == (Hook("a.hook", ("/bin/x", "a b"), ()),)


def test_a_hook_of_the_administrator_is_in_the_place_of_its_namesake(stager: Stager) -> None:
    stager.link(f"{OWN}/a.hook", "/dev/null", mtime_ns=0)
    stager.put(f"{OWN}/z.hook", hook(*ANY), mode=0o644, mtime_ns=0)
    stager.put(f"{OWN}/y.text", hook(*ANY), mode=0o644, mtime_ns=0)
    stager.put(f"{OWN}/b c.hook", hook(*ANY), mode=0o644, mtime_ns=0)
    assert [each.name for each in found(stager, hook(*ANY))] == ["z.hook"]


def test_what_is_left_for_first_boot_in_its_order(stager: Stager) -> None:
    stager.put("usr/bin/mkinitcpio", b"", mode=0o755, mtime_ns=0)
    script = "post_install() { :; }\npre_upgrade() { :; }\npost_remove() { :; }\n"
    brought = ("usr/lib/modules/6.18-rpi/a.ko", "usr/lib/a.so.1", "usr/lib/sysusers.d/a.conf")
    changes = (
        PackageChange(REMOVE, installed("gone", "1-1", script=script)),
        PackageChange(
            INSTALL, installed("a", "1-1", *brought, "usr/lib/tmpfiles.d/a", script=script)
        ),
        PackageChange(UPGRADE, installed("b", "2-1", script=script), installed("b", "1-1")),
        PackageChange(INSTALL, installed("c", "2-1", script="post_upgrade() { :; }\n")),
    )
    hooks = (
        Hook("20-systemd-sysusers.hook", ("/usr/share/libalpm/scripts/systemd-hook", "x"), ()),
        Hook("90-linux-rpi.hook", ("/usr/bin/mkinitcpio", "-p", "linux-rpi"), ()),
        Hook("fonts.hook", ("/bin/fc", "it's"), ("a", "b")),
    )
    assert queued(stager, changes, hooks) == (
        "modules 6.18-rpi",
        "users",
        "libraries",
        "scriptlet post_remove gone 1-1",
        "scriptlet post_install a 1-1",
        "scriptlet pre_upgrade b 2-1 1-1",
        "folders",
        "hook fonts.hook",
        "initramfs",
    )
    place = "var/lib/picloud/packages"
    assert stager.text_of_root(f"{place}/queue").startswith("modules 6.18-rpi\nusers\n")
    assert stager.text_of_root(f"{place}/removed/gone-1-1") == script
    early = stager.text_of_root("etc/systemd/system/systemd-sysusers.service.d/picloud.conf")
    assert "\nConditionNeedsUpdate=\n" in early, "or docker.socket is started before its group is"
    assert stager.text_of_root(f"{place}/hooks/fonts.hook") == "exec /bin/fc 'it'\"'\"'s'\n"
    assert stager.text_of_root(f"{place}/hooks/fonts.hook.targets") == "a\nb\n"


def test_nothing_to_do_leaves_nothing(stager: Stager) -> None:
    assert queued(stager, (PackageChange(INSTALL, installed("a", "1-1", "usr/a")),), ()) == ()
    assert stager.entry("var") is None


def test_a_folder_of_hooks_that_is_a_link_does_not_lead_into_this_computer(
    stager: Stager, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.hook").write_bytes(hook("Type = Path", "Operation = Install", "Target = *"))
    stager.link(OWN, str(tmp_path / "here"), mtime_ns=0)
    stager.put(SHIPPED, b"a file", mode=0o644, mtime_ns=0)
    assert hooks_to_run(stager, CHANGES, frozenset({"lib", "new"})) == ()
