"""rack.lock: written as it is read, every fault named, only what was asked for moved."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError, HostStorage
from imager.release.lock import (
    AnyPin,
    PackagePin,
    PacmanPin,
    Pin,
    RackLock,
    SetPin,
    encode_lock,
    parse_lock,
    pin_faults,
)

PIN = Pin("ab" * 32, 612, "http://m/os/x.tar.gz", "AB" * 20, "2026-11-02T10:00:00+00:00")

hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
pins = st.builds(
    Pin,
    sha256=hexes,
    size_bytes=st.integers(0, 2**60),
    url=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(
        lambda path: f"http://h/{path}"
    ),
    fingerprint=hexes.map(lambda text: text[:40].upper()),
    fetched_at=st.just("2026-11-02T10:00:00+00:00"),
)
packages = st.builds(
    PackagePin,
    version=st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,3}){0,3}\Z"),
    sha256=hexes,
    size_bytes=st.integers(0, 2**60),
    fetched_at=st.just("2026-11-02T10:00:00+00:00"),
)
package_names = st.from_regex(r"\A[a-z0-9@_+][a-z0-9@._+-]{0,10}\Z")
pacman_pins = st.builds(
    PacmanPin,
    version=st.from_regex(r"\A([0-9]:)?[0-9a-z][0-9a-z._+~]{0,9}-[0-9]{1,2}\Z"),
    arch=st.sampled_from(["armv7h", "aarch64", "any"]),
    file=package_names.map(lambda name: f"{name}-1:1-1-any.pkg.tar.xz"),
    sha256=hexes,
    size_bytes=st.integers(0, 2**60),
    signer=hexes.map(lambda text: text[:40].upper()),
    url=st.just("https://h/armv7h/core/x-1:1-1-any.pkg.tar.xz"),
    fetched_at=st.just("2026-11-02T10:00:00+00:00"),
)
set_pins = st.builds(
    SetPin,
    release=hexes,
    wanted=st.lists(package_names.map(lambda name: f"{name}>=1"), max_size=3).map(tuple),
    packages=st.just(()),
    remove=st.lists(package_names, max_size=3, unique=True).map(tuple),
)
names = st.text(st.characters(exclude_categories=["Cs"]))
section_pins = st.dictionaries(st.tuples(st.just("release"), names), pins, max_size=3)
section_packages = st.dictionaries(st.tuples(st.just("package"), names), packages, max_size=3)


section_pacman = st.dictionaries(
    st.tuples(st.just("pacman"), package_names), pacman_pins, max_size=3
)
section_sets = st.dictionaries(st.tuples(st.just("set"), hexes), set_pins, max_size=3)
sections = st.tuples(section_pins, section_packages, section_pacman, section_sets)


@given(sections.map(lambda each: {key: pin for section in each for key, pin in section.items()}))
def test_what_is_written_is_what_is_read(pinned: dict[tuple[str, str], AnyPin]) -> None:
    assert parse_lock(encode_lock(pinned).encode()) == (pinned, [])


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode(errors="replace")))
def test_any_bytes_are_pins_or_faults(data: bytes) -> None:
    parse_lock(data)


def test_a_missing_file_has_no_pins(tmp_path: Path) -> None:
    assert RackLock.load(tmp_path / "rack.lock").pin("alarm-rpi-armv7") is None


def test_an_unreadable_file_is_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "rack.lock").mkdir()
    with pytest.raises(ConfigurationError, match=r"rack\.lock"):
        RackLock.load(tmp_path / "rack.lock")


def test_a_file_of_4_mib_is_read_and_no_larger_one(tmp_path: Path) -> None:
    path = tmp_path / "rack.lock"
    path.write_bytes(b"#" * (4 << 20))
    assert RackLock.load(path).pins == {}
    path.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises((ConfigurationError, HostStorage), match=r"rack\.lock"):
        RackLock.load(path)


def test_one_pin_moves_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rack.lock"
    RackLock.load(path).with_pin("b", PIN)
    stale = RackLock.load(path)
    RackLock.load(path).with_pin("c", PIN)
    written = stale.with_pin("a", PIN)
    assert set(written.pins) == {"a", "b", "c"}
    assert RackLock.load(path).pins == written.pins
    assert path.read_text().startswith("# rack.lock")


def test_a_package_and_a_release_of_one_name_are_two_pins(tmp_path: Path) -> None:
    package = PackagePin("3008.3", "cd" * 32, 15_684_553, "2026-11-02T10:00:00+00:00")
    lock = RackLock.load(tmp_path / "rack.lock").with_pin("salt", PIN)
    written = lock.with_pin("salt", package)
    assert (written.pin("salt"), written.package("salt")) == (PIN, package)
    assert RackLock.load(lock.path) == written
    assert written.package("looseversion") is None


def test_writers_at_once_lose_no_pin(tmp_path: Path) -> None:
    lock = RackLock.load(tmp_path / "rack.lock")
    names = [f"r{number}" for number in range(12)]
    threads = [threading.Thread(target=lock.with_pin, args=(name, PIN)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(RackLock.load(lock.path).pins) == set(names)
    assert {path.name for path in tmp_path.iterdir()} == {"rack.lock", ".picloud"}
    assert (tmp_path / ".picloud/.gitignore").read_text().endswith("\n*\n"), "nothing else for git"


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rack.lock"
    path.write_text(
        'version = 2\n[release.a]\nsha256 = "AB"\nsize_bytes = true\nurl = "file:///x"\n'
        f'fingerprint = "{"AB" * 20}"\nfetched_at = 2026-11-02\nextra = 1\n[release]\nb = 3\n'
        '[package.salt]\nversion = "newest"\nurl = "http://h/x"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        RackLock.load(path)
    said = "\n".join(caught.value.details)
    for key in ("version", "release.a.sha256", "a.size_bytes", "a.url", "a.fetched_at", "a.extra"):
        assert key in said
    assert "release.b: must be a table" in said
    assert "package.salt.version: 'newest' is not a version" in said
    assert "package.salt.url: not a key of a pin" in said
    assert "salt.fingerprint" not in said
    assert "a.fingerprint" not in said


def test_a_file_that_is_not_toml_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "rack.lock"
    path.write_bytes(b"<<<<<<< HEAD\n")
    with pytest.raises(ConfigurationError, match="not TOML") as caught:
        RackLock.load(path)
    assert "git" in caught.value.hint


RUNC = PacmanPin(
    "1:1.2-1", "armv7h", "runc-1:1.2-1-armv7h.pkg.tar.xz", "ab" * 32, 7, "AB" * 20,
    "http://m/armv7h/core/runc-1:1.2-1-armv7h.pkg.tar.xz", "2026-11-02T10:00:00+00:00",
)  # fmt: skip


def test_packages_take_the_place_of_all_that_were_there(tmp_path: Path) -> None:
    path = tmp_path / "rack.lock"
    lock = RackLock.load(path).with_pin("a", PIN)
    of_runc = SetPin("cd" * 32, ("runc>=1",), ("runc",), ("nano",))
    lock.with_packages({"runc": RUNC, "x": RUNC}, {"k1": of_runc, "k2": of_runc})
    assert "lock --update" in path.read_text()
    written = lock.with_packages({"runc": RUNC}, {"k3": of_runc})
    assert RackLock.load(path) == written
    assert (dict(written.pacman), dict(written.sets)) == ({"runc": RUNC}, {"k3": of_runc})
    assert written.pin("a") == PIN


def test_what_packages_are_is_told_in_a_rack_lock_that_has_some() -> None:
    sets: dict[tuple[str, str], AnyPin] = {("set", "k"): SetPin("cd" * 32, (), (), ())}
    told = "# What lies beyond the release"
    assert told in encode_lock(sets)
    assert told not in encode_lock({("release", "a"): PIN})
    assert told not in encode_lock(sets, "# canary.lock\n")


def test_a_lock_without_pins_is_filled_and_no_other_one(tmp_path: Path) -> None:
    carried = RackLock.of(tmp_path / "carried", {("release", "a"): PIN, ("pacman", "runc"): RUNC})
    lock = RackLock.load(tmp_path / "rack.lock")
    assert lock.filled(carried).all_pins() == carried.all_pins()
    assert RackLock.load(lock.path).all_pins() == carried.all_pins()
    lock.filled(RackLock.of(carried.path, {("release", "b"): PIN}))
    assert RackLock.load(lock.path).all_pins() == carried.all_pins()


def test_a_pin_from_elsewhere_is_held_against_the_same_rules() -> None:
    assert pin_faults(RUNC) == []
    for file in ("../x", "package.json", f"{RUNC.file}.sig", f"{RUNC.signer}.json", ".pkg.tar"):
        fault = f"pin.file: {file!r} is not the name of a package's file"
        assert pin_faults(replace(RUNC, file=file)) == [fault]
    for file in ("a.pkg.tar", "a.pkg.tar.zst"):
        assert pin_faults(replace(RUNC, file=file)) == []
    assert pin_faults(replace(PIN, size_bytes=-1)) == [
        "pin.size_bytes: -1 is not a number of bytes"
    ]


PACKAGE_FAULTS = {
    '[pacman."../x"]\n': "pacman.../x: is not the name of a package",
    '[set.k]\nrelease = "x"\n': "set.k.release: 'x' is not 64 lower-case hex digits",
    f'[set.k]\nrelease = "{"ab" * 32}"\nwanted = ["a b"]\npackages = []\nremove = []\n':
        "set.k.wanted: is not a list of names of packages",
    f'[set.k]\nrelease = "{"ab" * 32}"\nwanted = []\npackages = ["runc"]\nremove = []\n':
        "set.k.packages: there is no [pacman.runc]",
    f'[set.k]\nrelease = "{"ab" * 32}"\nwanted = []\npackages = ["b", "a", "b"]\nremove = []\n':
        "set.k.packages: has b more than once",
    f'[set.k]\nrelease = "{"ab" * 32}"\nwanted = []\npackages = []\nremove = ["a", "a"]\n':
        "set.k.remove: has a more than once",
}  # fmt: skip


@pytest.mark.parametrize("text", PACKAGE_FAULTS)
def test_a_fault_of_packages_is_named_by_its_key(text: str) -> None:
    assert PACKAGE_FAULTS[text] in parse_lock(text.encode())[1]


@pytest.mark.parametrize("key", ["wanted", "packages", "remove"])
def test_a_list_of_very_many_names_costs_little(key: str) -> None:
    names = [f"n{number}" for number in range(20_000)]
    lists: dict[str, list[str]] = {"wanted": [], "packages": [], "remove": []} | {key: names}
    text = f'[set.k]\nrelease = "{"ab" * 32}"\n'
    text += "".join(f"{name} = {words}\n" for name, words in lists.items())
    began = time.process_time()
    faults = parse_lock(text.encode())[1]
    assert time.process_time() - began < 2
    assert faults == [f"set.k.{key}: has 20000 names; at most 10000 can be given"]


def test_names_that_stand_twice_are_found_at_once() -> None:
    names = [f"n{number // 2}" for number in range(10_000)]
    text = f'[set.k]\nrelease = "{"ab" * 32}"\nwanted = []\npackages = []\nremove = {names}\n'
    began = time.process_time()
    assert len(parse_lock(text.encode())[1]) == 5_000
    assert time.process_time() - began < 2
