"""Words for the kernel get into U-Boot's script, and nothing else of it changes."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.bootcheck.formats.kernel import boot_script_fault
from imager.node.files.boot_script import script_with_words, text_with_words
from tests.support.alarmfiles import BOOT_TXT
from tests.support.bootfiles import boot_script


def test_the_words_stand_at_the_end_of_bootargs() -> None:
    script = script_with_words(boot_script(BOOT_TXT), ["cgroup_enable=memory"])
    assert boot_script_fault(script) is None
    assert script == boot_script(BOOT_TXT.replace(b'addr}"\n', b'addr}" cgroup_enable=memory\n'))


def test_a_word_that_is_there_changes_no_byte() -> None:
    script = boot_script(BOOT_TXT)
    assert script_with_words(script, ["rootwait", "console=tty0"]) == script
    assert script_with_words(script, []) == script


def test_the_time_and_the_name_of_the_script_stay() -> None:
    script = bytearray(boot_script(BOOT_TXT))
    struct.pack_into(">I", script, 8, 1_790_000_000)
    script[32:36] = b"NAME"
    script[4:8] = bytes(4)
    struct.pack_into(">I", script, 4, zlib.crc32(script[:64]))
    changed = script_with_words(bytes(script), ["quiet"])
    assert boot_script_fault(changed) is None
    assert changed[8:12] == script[8:12]
    assert changed[16:24] == script[16:24]
    assert changed[28:64] == script[28:64]


def two_scripts() -> bytes:
    """A script file that holds two."""
    texts = (BOOT_TXT, b"second\n")
    payload = struct.pack(">III", *map(len, texts), 0) + b"".join(texts)
    head = bytearray(boot_script(BOOT_TXT)[:64])
    struct.pack_into(">I", head, 12, len(payload))
    struct.pack_into(">I", head, 24, zlib.crc32(payload))
    struct.pack_into(">I", head, 4, 0)
    struct.pack_into(">I", head, 4, zlib.crc32(head))
    return bytes(head) + payload


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (b"", "no U-Boot script"),
        (boot_script(BOOT_TXT)[:-1], "cut off"),
        (boot_script(b"booti\n"), "0 of its lines begin with 'setenv bootargs'"),
        (boot_script(BOOT_TXT * 2), "2 of its lines begin with 'setenv bootargs'"),
        (two_scripts(), "something else than one script"),
    ],
)
def test_a_script_that_cannot_take_words_is_refused(script: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        script_with_words(script, ["quiet"])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_script_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        script_with_words(data, ["quiet"])


@given(st.text(alphabet="setnvboargs =\n", max_size=60))
def test_every_other_line_stays(text: str) -> None:
    before = f"{text}\nsetenv bootargs rw\n".encode()
    try:
        after = text_with_words(before, ["quiet"])
    except ValueError:
        return
    assert after == f"{text}\nsetenv bootargs rw quiet\n".encode()
