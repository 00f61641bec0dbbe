"""config.txt read twice: what the program that loads start*.elf sees, and what start*.elf sees."""

from __future__ import annotations

import pytest

from imager.base.units import KiB, MiB
from imager.bootcheck.formats import firmware
from imager.bootcheck.formats.firmware import known_filters
from imager.disk.budget import Budget, OverBudget, ReadLimits
from tests.support import bootfiles
from tests.support.bootfiles import CONFIG_TXT, minimal_boot_files
from tests.support.bootmemory import errors_of, found, judged

PI3, CM4 = minimal_boot_files("pi3"), minimal_boot_files("cm4")
CUT_DOWN = {
    name: bootfiles.start_elf() if name.startswith("start") else bootfiles.fixup_dat()
    for name in ("start_cd.elf", "fixup_cd.dat", "start4cd.elf", "fixup4cd.dat")
}


def with_config(files: dict[str, bytes], more: bytes, **others: bytes) -> dict[str, bytes]:
    included = {f"{name}.txt": content for name, content in others.items()}
    return files | {"config.txt": CONFIG_TXT + more} | included


@pytest.mark.parametrize("files", [PI3, CM4], ids=["pi3", "cm4"])
@pytest.mark.parametrize(
    "line",
    [b"start_x=1", b"start_debug=1", b"start_file=nope.elf", b"fixup_file=nope.dat", b"gpu_mem=16",
     b"gpu_mem_1024=16", b"boot_ramdisk=1"],
)  # fmt: skip
def test_an_included_file_chooses_no_firmware(files: dict[str, bytes], line: bytes) -> None:
    model = "pi3" if files is PI3 else "cm4"
    (finding,) = found(with_config(files, b"include extra.txt\n", extra=line + b"\n"), model)
    assert (finding.code, finding.severity) == ("config-included", "warning")
    assert finding.path == "extra.txt"
    assert line.split(b"=")[0].decode() in finding.what


def test_an_included_file_does_not_put_right_what_config_txt_says() -> None:
    extra = b"start_file=start.elf\nfixup_file=fixup.dat\n"
    files = with_config(PI3, b"start_file=mystart.elf\ninclude extra.txt\n", extra=extra)
    assert errors_of(files, "pi3") == ["start"]


def test_an_included_file_counts_for_what_start_elf_reads() -> None:
    files = with_config(PI3, b"include extra.txt\n", extra=b"kernel=other.img\n")
    assert errors_of(files, "pi3") == ["kernel"]
    assert errors_of(files | {"other.img": bootfiles.zimage()}, "pi3") == []


@pytest.mark.parametrize(
    ("files", "model", "pair"),
    [(PI3, "pi3", ("start_cd.elf", "fixup_cd.dat")), (CM4, "cm4", ("start4cd.elf", "fixup4cd.dat")),
     (CM4, "cm4", ("start_cd.elf", "fixup_cd.dat")), (CM4, "cm4", ("START4CD.ELF", "fixup4cd.dat")),
     (CM4, "cm4", ("/start4cd.elf", "fixup4cd.dat"))],
)  # fmt: skip
def test_the_cut_down_firmware_is_not_chosen_by_its_name(
    files: dict[str, bytes], model: str, pair: tuple[str, str]
) -> None:
    lines = f"start_file={pair[0]}\nfixup_file={pair[1]}\n".encode()
    assert errors_of(with_config(files | CUT_DOWN, lines), model) == ["firmware-cut-down"]
    by_memory = with_config(files | CUT_DOWN, lines + b"gpu_mem=16\n")
    assert errors_of(by_memory, model) == []


def test_the_cut_down_firmware_under_another_name_is_found_by_what_it_says() -> None:
    renamed = bootfiles.start_elf(filler=b"VC_BUILD_ID_VARIANT: start_cd\0")
    files = with_config(PI3 | {"small.elf": renamed}, b"start_file=small.elf\n")
    assert errors_of(files, "pi3") == ["firmware-cut-down"]


@pytest.mark.parametrize(
    "line", [b"fixup_file=fixup_cd.dat", b"start_file=start_x.elf", b"fixup_file=fixup4.dat"]
)
def test_files_of_two_pairs_are_none_by_their_names(line: bytes) -> None:
    others = {"start_x.elf": bootfiles.start_elf(), "fixup4.dat": bootfiles.fixup_dat()}
    assert errors_of(with_config(PI3 | CUT_DOWN | others, line + b"\n"), "pi3") == ["firmware-pair"]


@pytest.mark.parametrize("line", [b"gpu_mem=16", b"gpu_mem_1024=16", b"gpu_mem=8"])
def test_little_memory_chooses_the_cut_down_firmware(line: bytes) -> None:
    files = with_config(PI3, line + b"\n")
    assert errors_of(files, "pi3") == ["start", "fixup"]
    assert errors_of(files | CUT_DOWN, "pi3") == []


def knowing(*names: str) -> bytes:
    """A start4.elf that knows these filters."""
    words = b"\0".join([b"", b"all", *(name.encode() for name in names), b""])
    return bootfiles.start_elf(filler=words)


@pytest.mark.parametrize("section", ["pi5", "pi500", "cm5", "tryboot", "board-type=0x17"])
def test_a_filter_newer_than_the_firmware_filters_nothing(section: str) -> None:
    line = f"[{section}]\nkernel=kernel_2712.img\n".encode()
    old = knowing("pi0", "pi1", "pi2", "pi3", "pi4", "cm4", "gpio", "edid")
    files = with_config(CM4 | {"start4.elf": old}, line)
    assert errors_of(files, "cm4") == ["kernel"]
    assert "config-filter" in {one.code.value for one in found(files, "cm4")}
    new = knowing("pi3", "pi4", "pi5", "pi500", "cm5", "tryboot", "board-type")
    assert errors_of(files | {"start4.elf": new}, "cm4") == []
    assert errors_of(files | {"start4.elf": CM4["start4.elf"]}, "cm4") == [], "it lists none"


@pytest.mark.parametrize("words", [b"\0pi4\0", b"[pi4]\0[cm4]\0", b" pi3 pi4 pi400 \n"])
def test_a_list_of_filters_is_seen_in_each_form(words: bytes) -> None:
    files = with_config(CM4 | {"start4.elf": bootfiles.start_elf(filler=words)}, b"[pi5]\n")
    files["config.txt"] += b"kernel=kernel_2712.img\n"
    assert errors_of(files, "cm4") == ["kernel"]


def test_a_word_in_another_one_is_no_filter() -> None:
    words = b"\0copi4\0pi4x-overlay\0/pi4\0"
    files = with_config(CM4 | {"start4.elf": bootfiles.start_elf(filler=words)}, b"[pi5]\n")
    files["config.txt"] += b"kernel=kernel_2712.img\n"
    assert errors_of(files, "cm4") == []


def test_a_board_named_elsewhere_in_the_firmware_is_no_filter() -> None:
    """As cm3 in that of 2022: among the models, far from the list of filters."""
    models = b"\0pi0\0rev2\0\0\0\0pi02w\0\0cm5\0400\0cm4s\0"
    filters = b"\0all\0pi0\0pi1\0pi3\0pi4\0N/A\0pi0w\0\0\0\0edid\0\0\0\0gpio\0\0\0\0pi400\0"
    for words in (models + bytes(70) + filters, filters + bytes(70) + models):
        elf = bootfiles.start_elf(filler=words)
        names = {"pi0", "pi1", "pi400", "cm5", "gpio", "tryboot"}
        assert known_filters(elf, names, Budget()) == frozenset(names - {"cm5", "tryboot"})
        files = with_config(CM4 | {"start4.elf": elf}, b"[cm5]\nkernel=kernel_2712.img\n")
        assert errors_of(files, "cm4") == ["kernel"]


def test_to_look_for_filters_costs_what_it_takes() -> None:
    with pytest.raises(OverBudget):
        known_filters(bytes(MiB), {"pi4"}, Budget(ReadLimits(steps=MiB // 64 - 1)))
    budget = Budget()
    assert known_filters(b"p" * MiB + b"\0pi4\0", {"pi4"}, budget) == frozenset({"pi4"})
    assert budget.spent[0] >= MiB // 64


def test_in_a_file_too_large_for_a_firmware_no_filters_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(firmware, "known_filters", lambda data, *_: lengths.append(len(data)))
    for name, most in (("bootcode.bin", 128 * KiB), ("start.elf", 16 * MiB)):
        for size in (most, most + 1):
            errors_of(PI3 | {name: PI3[name].ljust(size, b"\0")}, "pi3")
        assert most in lengths and most + 1 not in lengths


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\0console=tty1 root=/dev/mmcblk0p2 rw\0", b"console=tty1 root=/dev/mmcblk0p2 rw"),
        (b"xroot=/dev/sda1\0\nroot=/dev/sda2\0", b"root=/dev/sda2"),
        (b"\0" + b"p" * 499 + b" root=/dev/a\0", b"p" * 499 + b" root=/dev/a"),
        (b"\0" + b"p" * 500 + b" root=/dev/a\0", None),
        (b"\0root=/dev/" + b"a" * 500 + b"\0", b"root=/dev/" + b"a" * 500),
        (b"\0root=/dev/" + b"a" * 501 + b"\0", None),
        (b"\0root=/dev/a\n\0root=/dev/", None),
        (b"xroot=/dev/a\0" * 2100 + b"root=/dev/b\0", None),
    ],
)
def test_the_command_line_in_the_firmware_is_one_text_around_its_root(
    data: bytes, line: bytes | None
) -> None:
    assert firmware.built_in_cmdline(data) == line


def test_bootcode_bin_has_a_list_of_filters_of_its_own() -> None:
    bootcode = PI3["bootcode.bin"] + b"\0pi1\0pi2\0pi3\0"
    files = with_config(PI3, b"[pi4]\nstart_file=nope.elf\n")
    assert errors_of(files, "pi3") == []
    assert errors_of(files | {"bootcode.bin": bootcode}, "pi3") == ["start"]


@pytest.mark.parametrize("section", ["rpi1", "pi 2", "raspberrypi4", "pi2b"])
def test_a_filter_that_nobody_knows_filters_nothing(section: str) -> None:
    files = with_config(CM4, f"[{section}]\nkernel=vmlinuz-\n".encode())
    assert errors_of(files, "cm4") == ["kernel"]
    assert "config-line" in {one.code.value for one in found(files, "cm4")}


def test_a_setting_that_only_one_board_can_decide_is_told_for_both_programs() -> None:
    files = with_config(PI3, b"[0x1234]\nstart_file=a.elf\n[all]\n[gpio4=1]\nkernel=b.img\n")
    assert [one.what for one in found(files, "pi3")] == [
        "config.txt, line 5: a.elf is missing",
        "config.txt, line 8: b.img is missing",
    ]


def test_the_route_is_told() -> None:
    assert str(judged(PI3, "pi3").route) == "bootcode.bin → start.elf → kernel7.img"
    assert str(judged(minimal_boot_files("pi5"), "pi5").route) == "EEPROM → kernel8.img"
