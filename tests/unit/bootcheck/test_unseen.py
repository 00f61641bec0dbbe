"""What was not looked at proves nothing: no error comes of it, and no board is said to boot."""

from __future__ import annotations

import bz2
import random

import pytest

from imager.bootcheck.findings import Finding, Severity
from imager.disk.budget import Budget, ReadLimits
from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import judged

PI2 = minimal_boot_files("pi2")
COMMENTS = b"# nothing but a comment, though one of fifty letters\n" * 1500
OTHER_KERNEL = {
    **{name: data for name, data in PI2.items() if name != "kernel7.img"},
    "custom.img": PI2["kernel7.img"],
}


def errors_among(findings: list[Finding]) -> list[str]:
    return [one.what for one in findings if one.severity is Severity.ERROR]


LONG_CONFIGS: dict[str, dict[str, bytes]] = {
    "many bytes": {"config.txt": COMMENTS},
    "many lines": {"config.txt": b"#\n" * 10_001},
    "many includes": {"config.txt": b"include a.txt\n" * 33, "a.txt": b"#\n"},
    "a long include": {"config.txt": b"include a.txt\n", "a.txt": COMMENTS},
    "lines of an include": {"config.txt": b"include a.txt\n" * 2, "a.txt": b"#\n" * 6000},
}


@pytest.mark.parametrize("name", LONG_CONFIGS)
def test_a_config_that_was_not_read_to_its_end_says_nothing_of_the_kernel(name: str) -> None:
    files = {**OTHER_KERNEL, **LONG_CONFIGS[name]}
    files["config.txt"] = CONFIG_TXT + files["config.txt"] + b"kernel=custom.img\n"
    seen = judged(files, "pi2")
    assert not errors_among(list(seen.findings()))
    assert not seen.is_sure
    assert seen.settings.is_cut or seen.contents.unseen
    short = judged({**files, "config.txt": CONFIG_TXT + b"kernel=custom.img\n"}, "pi2")
    assert not errors_among(list(short.findings()))
    assert short.is_sure


def test_what_does_not_depend_on_the_rest_of_config_is_still_said() -> None:
    files = {**PI2, "config.txt": COMMENTS, "bootcode.bin": bytes(100)}
    (what,) = errors_among(list(judged(files, "pi2").findings()))
    assert what.startswith("bootcode.bin")


@pytest.mark.parametrize(
    ("prefix", "unread"), [(b"os_prefix=a/\n", "a"), (b"os_prefix=a/b/\n", "a"), (b"", "")]
)
def test_a_folder_that_was_not_read_may_have_every_file(prefix: bytes, unread: str) -> None:
    files = {name: PI2[name] for name in ("bootcode.bin", "start.elf", "fixup.dat")}
    files["config.txt"] = prefix + CONFIG_TXT
    files["a/x"] = b""
    seen = judged(files, "pi2", unseen={unread: "too many names"})
    assert not errors_among(list(seen.findings()))
    assert not seen.is_sure
    assert "too many names" in seen.contents.unseen.values()
    gone = {name: data for name, data in files.items() if name != "start.elf"}
    told = errors_among(list(judged(gone, "pi2", unseen={unread: "too many names"}).findings()))
    assert told == (["start.elf is missing"] if unread else [])


def test_an_overlay_is_not_missing_where_overlays_were_not_read() -> None:
    config = CONFIG_TXT + b"dtoverlay=none\ndtoverlay=/other/none.dtbo\n"
    files = {**PI2, "config.txt": config, "overlays/x.dtbo": bootfiles.overlay()}
    told = [one.what for one in judged(files, "pi2").findings()]
    assert len([what for what in told if "none.dtbo is missing" in what]) == 2
    told = [one.what for one in judged(files, "pi2", unseen={"overlays": "why"}).findings()]
    assert [what for what in told if "missing" in what] == [
        f"config.txt, line {len(config.splitlines())}: other/none.dtbo is missing"
    ]


def test_a_command_line_in_a_folder_that_was_not_read_is_not_empty() -> None:
    files = {**PI2, "config.txt": CONFIG_TXT + b"cmdline=b/line.txt\n", "b/x": b""}
    assert errors_among(list(judged(files, "pi2").findings())) == ["b/line.txt is missing"]
    seen = judged(files, "pi2", unseen={"b": "why"})
    assert not list(seen.findings())
    assert seen.contents.unseen == {"b/line.txt": "why"}


def test_an_initramfs_without_init_may_be_all_there_is_to_a_line_that_was_not_read() -> None:
    files = {**PI2, "initramfs-linux.img": bootfiles.cpio({"other": b"x"})}
    files["config.txt"] = CONFIG_TXT + b"cmdline=b/line.txt\n"
    files["b/x"] = b""
    (what,) = errors_among(
        list(judged({**files, "b/line.txt": PI2["cmdline.txt"]}, "pi2").findings())
    )
    assert "there is no init in it" in what
    assert not list(judged(files, "pi2", unseen={"b": "why"}).findings())


def test_an_initramfs_that_costs_all_there_is_leaves_the_command_line_read() -> None:
    costly = bz2.compress(bootfiles.cpio({"init": random.Random(1).randbytes(300_000)}))
    files = {**PI2, "initramfs-linux.img": costly}
    enough = Budget()
    assert not errors_among(list(judged(files, "pi2", budget=enough).findings()))
    steps = enough.spent[0] // 2
    seen = judged(files, "pi2", budget=Budget(ReadLimits(steps=steps)))
    assert not errors_among(list(seen.findings()))
    assert list(seen.contents.unseen) == ["initramfs-linux.img"]


def test_of_a_kernel_that_was_not_looked_at_nothing_that_it_starts_is_said() -> None:
    """It may be no Linux at all, and need neither device tree nor command line."""
    files = {name: PI2[name] for name in ("bootcode.bin", "start.elf", "fixup.dat", "config.txt")}
    files["kernel7.img"] = bootfiles.zimage(size=1_000_000)
    before = judged(files, "pi2", budget=(whole := Budget()))
    assert len(errors_among(list(before.findings()))) > 1
    seen = judged(files, "pi2", budget=Budget(ReadLimits(steps=whole.spent[0] // 2)))
    assert list(seen.contents.unseen) == ["kernel7.img"]
    assert not errors_among(list(seen.findings()))
    assert "kernel7.img" in seen.needed
