"""What Salt needs of a release is found, or named with its package."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.image.salt.needs import (
    NEEDS,
    absent_needs,
    distribution_of,
    python_fault,
    python_minor,
)
from imager.image.unpack.members import EntryKind, TreeEntry
from tests.support.pypi import PYTHON_FILES, source_files

REQUIRES = source_files()["salt.egg-info/requires.txt"]
FILE = TreeEntry(EntryKind.FILE, 0o644, 0, 0, 0)


def link(target: str) -> TreeEntry:
    return TreeEntry(EntryKind.SYMLINK, 0o777, 0, 0, 0, target=target)


def release(*, without: str = "\0", arch: bool = False) -> dict[str, TreeEntry]:
    """The names of a release that lacks nothing but what holds ``without``."""
    entries = {f"usr/lib/{name}": FILE for name in PYTHON_FILES if without not in name}
    if arch:
        entries = {
            name.replace("python3/dist-packages", "python3.11/site-packages"): entry
            for name, entry in entries.items()
        }
    return entries | {"usr/bin/python3": link("python3.11"), "usr/bin/python3.11": FILE}


def absent(entries: Mapping[str, TreeEntry], requires: str = REQUIRES) -> dict[str, str]:
    found = absent_needs(entries, requires, ">=3.8")
    return {missing.need.module: missing.why for missing in found}


@pytest.mark.parametrize("arch", [False, True])
def test_a_release_with_all_of_it_lacks_nothing(arch: bool) -> None:
    assert absent(release(arch=arch)) == {}


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.module)
def test_each_module_is_missed(need: object) -> None:
    module = need.module  # type: ignore[attr-defined]
    assert absent(release(without=f"/{module}/")) == {module: "no such module"}


def test_a_module_this_salt_does_not_name_is_not_asked_for() -> None:
    assert absent(release(without="/xxhash/"), REQUIRES.replace("xxhash>=3.7.0\n", "")) == {}


def test_a_compiled_module_without_its_compiled_part() -> None:
    assert absent(release(without="_zmq.")) == {"zmq": "its compiled part is missing"}


def test_a_module_compiled_for_another_python() -> None:
    entries = release(without="_zmq.")
    entries["usr/lib/python3/dist-packages/zmq/_zmq.cpython-313-arm-linux-gnueabihf.so"] = FILE
    assert absent(entries) == {"zmq": "it is compiled for Python 3.13, not for 3.11"}


@pytest.mark.parametrize("tag", ["abi3", "abi3-arm-linux-gnueabihf", "abi3t-arm-linux-gnueabihf"])
def test_a_module_compiled_for_every_later_python(tag: str) -> None:
    entries = release(without="_zmq.")
    entries[f"usr/lib/python3/dist-packages/zmq/_zmq.{tag}.so"] = FILE
    assert absent(entries) == {}


def test_a_module_of_another_python_is_not_found() -> None:
    entries = {
        name.replace("python3.11/site-packages/yaml", "python3.10/site-packages/yaml"): entry
        for name, entry in release(arch=True).items()
    }
    assert absent(entries) == {"yaml": "no such module"}


def test_without_python_everything_is_named_at_once() -> None:
    entries = {name: entry for name, entry in release().items() if name != "usr/bin/python3"}
    assert list(absent(entries)) == ["python3", *(need.module for need in NEEDS)]


def test_libcrypto_is_loaded_by_name() -> None:
    assert absent(release(without="libcrypto")) == {"libcrypto": "no libcrypto.so"}


def test_an_absent_need_is_told_in_the_words_of_its_distribution() -> None:
    (zmq,) = absent_needs(release(without="/zmq/"), REQUIRES, None)
    assert zmq.line("arch") == "zmq: no such module; package python-pyzmq"
    assert zmq.line("debian") == "zmq: no such module; package python3-zmq"
    assert "python-pyzmq on Arch, python3-zmq on Debian" in zmq.line(None)


@pytest.mark.parametrize(
    ("entries", "minor"),
    [
        ({"usr/bin/python3": link("python3.11"), "usr/lib/python3.11/os.py": FILE}, 11),
        ({"usr/bin/python3": link("/usr/bin/python3.14"), "usr/lib/python3.14/os.py": FILE}, 14),
        ({"usr/bin/python3": FILE, "usr/lib/python3.9/os.py": FILE}, 9),
        ({"usr/bin/python3": link("python3.11"), "usr/lib/python3.9/os.py": FILE}, 9),
        ({"usr/bin/python3": link("python3.11")}, None),
        ({"usr/lib/python3.11/os.py": FILE}, None),
        (
            {
                "usr/bin/python3": link("python3.13"),
                "usr/lib/python3.13/os.py": FILE,
                "usr/lib/python3.12/os.py": FILE,
            },
            13,
        ),
    ],
)
def test_which_python_a_release_has(entries: dict[str, TreeEntry], minor: int | None) -> None:
    assert python_minor(entries) == minor


@pytest.mark.parametrize("wanted", [">=3.8", ">=3.8,<3.12", "~=3.8", "!=3.10", None, "", ">3.9"])
def test_a_python_that_will_do(wanted: str | None) -> None:
    assert python_fault(11, wanted) is None


@pytest.mark.parametrize("wanted", [">=3.12", "<3.11", ">=3.8, != 3.11", "==3.10", ">=3.8,<=3.10"])
def test_a_python_that_will_not(wanted: str) -> None:
    fault = python_fault(11, wanted) or ""
    assert "has Python 3.11" in fault
    assert wanted in fault


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_metadata_is_read(requires: str, python: str) -> None:
    absent_needs(release(), requires, python)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('NAME="Arch Linux ARM"\nID=archarm\nID_LIKE=arch\n', "arch"),
        ("ID=raspbian\nID_LIKE=debian\n", "debian"),
        ('ID="debian"\n', "debian"),
        ("ID=fedora\n", None),
        ("", None),
    ],
)
def test_the_family_of_a_distribution(text: str, family: str | None) -> None:
    assert distribution_of(text) == family
