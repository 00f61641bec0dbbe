"""config.txt, read as the firmware of each model reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.boards import BOARDS, board_named
from imager.bootcheck.formats.config import (
    LINE_LIMIT,
    MODEL_FILTERS,
    Config,
    NoteKind,
    read_config,
)


def config(text: str | bytes, model: str = "pi2", **files: str) -> Config:
    data = text.encode() if isinstance(text, str) else text
    known = {"config.txt": data} | {f"{n}.txt": t.encode() for n, t in files.items()}
    return read_config(known.get, board_named(model))


def kernel(text: str, model: str = "pi2") -> str:
    return config(text, model).value("kernel", "default")


def test_the_last_setting_counts() -> None:
    assert kernel("kernel=a\nkernel=b\n") == "b"
    assert kernel("  kernel = a  \n") == "a"
    assert kernel("#kernel=a\n") == "default"


def test_a_missing_file_means_no_settings() -> None:
    assert read_config(lambda _: None, BOARDS[0]).settings == {}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(end: str) -> None:
    assert kernel(f"a=1{end}kernel=x{end}b=2") == "x"


@pytest.mark.parametrize(
    ("model", "expected"),
    [("pi2", "two"), ("pi3", "three"), ("zero2w", "default"), ("pi4", "four")],
)
def test_a_section_holds_on_its_model_only(model: str, expected: str) -> None:
    text = "[pi2]\nkernel=two\n[pi3]\nkernel=three\n[pi4]\nkernel=four\n[pi5]\nkernel=five\n"
    assert kernel(text, model) == expected


def test_all_ends_a_section_and_none_hides_one() -> None:
    assert kernel("[pi4]\n[all]\nkernel=a\n") == "a"
    assert kernel("[none]\nkernel=a\n") == "default"
    assert kernel("[none]\nkernel=a\n[pi2]\nkernel=b\n") == "b"


@pytest.mark.parametrize("name", ["pi0", "pi0w", "pi02", "PI02"])
def test_a_zero_2_w_is_a_zero_too(name: str) -> None:
    assert kernel(f"[{name}]\nkernel=a\n", "zero2w") == "a"


@pytest.mark.parametrize(
    "name", ["gpio4=1", "EDID=VSC-TD2220", "0x12345678", "HDMI:1", "board-type=0x14", "pi3+"]
)
def test_what_only_the_board_can_decide_is_neither_taken_nor_lost(name: str) -> None:
    read = config(f"[{name}]\nkernel=a\n[all]\nkernel=b\n", "pi3")
    assert read.value("kernel") == "b"
    assert [setting.value for setting in read.undecided] == ["a"]
    assert read.notes == ()


def test_filters_of_different_kinds_are_all_required() -> None:
    assert config("[gpio4=1]\n[pi4]\nkernel=a\n").undecided == ()
    assert [s.value for s in config("[gpio4=1]\n[pi2]\nkernel=a\n").undecided] == ["a"]


def test_tryboot_is_no_normal_boot() -> None:
    assert kernel("[tryboot]\nkernel=a\n") == "default"


def test_an_unknown_filter_is_noted_and_its_lines_are_undecided() -> None:
    read = config("[pi 2]\nkernel=a\n")
    assert [s.value for s in read.undecided] == ["a"]
    (note,) = read.notes
    assert (note.kind, note.path) == (NoteKind.SYNTAX, "config.txt")
    assert "line 1" in note.what


def test_initramfs_stands_without_an_equals_sign() -> None:
    assert config("initramfs a.img followkernel\n").value("initramfs") == "a.img"
    assert config("initramfs a.img 0x00800000\n").value("initramfs") == "a.img"
    wrong = config("initramfs=a.img\n")
    assert wrong.value("initramfs") == ""
    assert "write 'initramfs a.img followkernel'" in wrong.notes[0].what


def test_overlays_add_up() -> None:
    read = config("dtoverlay=a\ndtoverlay=b,x=1\ndtoverlay=\n[pi4]\ndtoverlay=c\n")
    assert [setting.value for setting in read.overlays] == ["a", "b,x=1"]


def test_the_distributions_own_file_reads_without_a_note() -> None:
    text = (
        "initramfs initramfs-linux.img followkernel\ndtparam=audio=on\ncamera_auto_detect=1\n"
        "display_auto_detect=1\ndtoverlay=vc4-kms-v3d\nmax_framebuffers=2\n"
        "disable_fw_kms_setup=1\ndisable_overscan=1\narm_boost=1\n\n[cm4]\notg_mode=1\n\n"
        "[cm5]\ndtoverlay=dwc2,dr_mode=host\n\n[all]\n"
    )
    read = config(text)
    assert read.notes == ()
    assert read.value("dtparam") == "audio=on"
    assert "otg_mode" not in read.settings


def test_column_98_is_the_last_one() -> None:
    fits = "kernel=" + "k" * (LINE_LIMIT - 7)
    assert config(fits + "\n").notes == ()
    read = config(fits + "ostentation\n")
    assert read.value("kernel") == "k" * (LINE_LIMIT - 7)
    assert read.notes[0].kind is NoteKind.LINE_TOO_LONG
    assert "column 99" in read.notes[0].what
    assert "'ostentation'" in read.notes[0].what


def test_long_comments_are_nobodys_business() -> None:
    assert config("# " + "x" * 200 + "\n").notes == ()


def test_include_inserts_a_file_with_the_filters_in_force() -> None:
    assert config("include a.txt\n", a="kernel=x\n").value("kernel") == "x"
    assert config("[pi4]\ninclude a.txt\n", a="kernel=x\n").value("kernel") == ""
    assert config("include a.txt\nkernel=x\n", a="[pi4]\n").value("kernel") == ""
    undecided = config("[gpio4=1]\ninclude a.txt\n", a="kernel=x\n").undecided
    assert [(s.value, s.path) for s in undecided] == [("x", "a.txt")]
    assert config("include a.txt\n").notes[0].kind is NoteKind.INCLUDE_MISSING


def test_a_file_that_includes_itself_comes_to_an_end() -> None:
    read = config("include a.txt\n", a="include a.txt\ninclude a.txt\nkernel=x\n")
    assert read.value("kernel") == "x"
    assert "is it including itself?" in read.notes[0].what


LINES = st.one_of(
    st.sampled_from(sorted(MODEL_FILTERS)).map(lambda name: f"[{name}]"),
    st.sampled_from(["[all]", "[gpio4=1]", "include config.txt", "kernel=a", "initramfs a b"]),
    st.text(max_size=120),
)


@given(st.lists(LINES, max_size=20), st.sampled_from([board.name for board in BOARDS]))
def test_no_text_makes_it_raise_and_every_setting_has_its_line(
    lines: list[str], model: str
) -> None:
    text = "\n".join(lines)
    read = config(text.encode("utf-8", "surrogatepass"), model)
    total = text.count("\n") + text.count("\r") + 1
    for setting in (*read.settings.values(), *read.overlays, *read.undecided):
        assert setting.path == "config.txt"
        assert 1 <= setting.line <= total


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    config(data)
