"""config.txt, read as the firmware of each model reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.boards import BOARDS, board_named
from imager.bootcheck.formats.config import (
    LINE_LIMIT,
    LOADER_KEYS,
    MODEL_FILTERS,
    Config,
    NoteKind,
    Program,
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
    "name",
    [
        "gpio4=1",
        "EDID=VSC-TD2220",
        "0x12345678",
        "HDMI:1",
        "board-type=0x14",
        "pi3+",
        "boot_arg1=42",
        "boot_count>3",
    ],
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


@pytest.mark.parametrize("name", ["pi 2", "rpi1", "pi6", "gpio", "all ", "everything"])
def test_an_unknown_filter_is_noted_and_filters_nothing(name: str) -> None:
    read = config(f"[{name}]\nkernel=a\n")
    assert read.value("kernel") == "a"
    assert read.undecided == ()
    noted = [] if name.strip() == "all" else [(NoteKind.SYNTAX, "config.txt")]
    assert [(note.kind, note.path) for note in read.notes] == noted
    assert all("line 1" in note.what for note in read.notes)


def test_an_unknown_filter_leaves_the_ones_before_it_in_force() -> None:
    assert kernel("[pi4]\n[rpi1]\nkernel=a\n") == "default"
    assert kernel("[none]\n[rpi1]\nkernel=a\n") == "default"
    assert kernel("[pi2]\n[rpi1]\nkernel=a\n") == "a"


OLD = Program(known=frozenset({"pi1", "pi2", "pi3", "pi4", "gpio"}))


@pytest.mark.parametrize("name", ["pi5", "cm5", "tryboot", "board-type=0x17", "EDID=X", "HDMI:1"])
def test_a_filter_that_this_firmware_does_not_know_filters_nothing(name: str) -> None:
    text = f"[{name}]\nkernel=a\n".encode()
    read = read_config({"config.txt": text}.get, board_named("pi4"), OLD)
    assert read.value("kernel") == "a"
    (note,) = read.notes
    assert note.kind is NoteKind.FILTER_UNKNOWN
    assert f"[{name}]" in note.what
    harmless = text.replace(b"kernel=a", b"otg_mode=1")
    assert read_config({"config.txt": harmless}.get, board_named("pi4"), OLD).notes == ()
    assert kernel(text.decode(), "pi2") == "default" or name[0] in "bEH"


def test_the_loader_reads_no_included_file() -> None:
    files = {"config.txt": b"include more.txt\ngpu_mem=16\n", "more.txt": b"start_x=1\n"}
    read = read_config(files.get, board_named("pi3"), Program(includes=False))
    assert set(read.settings) == {"gpu_mem"}
    assert read.notes == ()


@pytest.mark.parametrize("key", sorted(LOADER_KEYS))
def test_a_setting_of_the_loader_in_an_included_file_is_noted(key: str) -> None:
    (note,) = config("include a.txt\n", a=f"{key}=1\n").notes
    assert (note.kind, note.path) == (NoteKind.TOO_LATE, "a.txt")
    assert key in note.what
    assert config(f"{key}=1\n").notes == ()
    assert config("include a.txt\n", a=f"[none]\n{key}=1\n").notes == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xef\xbb\xbfkernel=a\n", "byte order mark"),
        ("kernel=a\n".encode("utf-16"), "UTF-16"),
        ("kernel=a\n".encode("utf-16-be"), "UTF-16"),
        (b"\0kernel=a\n", "zero byte"),
        (b"ker\0nel=a\n", "zero byte"),
    ],
)
def test_what_is_no_text_sets_nothing_and_is_named(data: bytes, said: str) -> None:
    read = config(data)
    assert read.value("kernel") == ""
    assert [note.kind for note in read.notes][:1] == [NoteKind.NO_TEXT]
    assert said in read.notes[0].what


def test_what_stands_before_a_zero_byte_counts() -> None:
    assert config(b"kernel=a\0b\n").value("kernel") == "a"
    assert config(b"kernel=a\n" + bytes(400)).value("kernel") == "a"


@pytest.mark.parametrize(
    ("value", "number"),
    [("16", 16), ("0x10", 16), ("016", 16), ("16M", 16), ("1 # one", 1), ("-1", -1), ("on", None)],
)
def test_a_number_is_read_as_far_as_it_is_one(value: str, number: int | None) -> None:
    assert config(f"a={value}\n").number("a") == number


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
    assert len(read.notes) == 1


@pytest.mark.parametrize("lines", [1, 300])
def test_a_file_that_is_included_over_and_over_is_read_so_often_and_no_more(lines: int) -> None:
    """10,000 lines that include a file in many pieces took half a minute."""
    asked: list[str] = []
    files = {"config.txt": b"include a.txt\n" * 5000, "a.txt": b"\n" * lines}

    def read(path: str) -> bytes | None:
        asked.append(path)
        return files.get(path)

    read_config(read, BOARDS[0])
    assert asked == ["config.txt", *["a.txt"] * 32]


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
