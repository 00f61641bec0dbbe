"""dtc's own device trees and those of Debian's kernel for a Pi 2, held against dtc.

What dtc takes for a device tree must be one here, with the same names, and what it cannot read must
be refused; so must be whatever chance makes of one.
"""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from imager.bootcheck.formats.device_tree import FdtError, root_compatible
from tests.support.corpora import Package, Tally, ends_in
from tests.support.telling import Tell

pytestmark = pytest.mark.long(minutes=10)
DTC = Package(
    "d/device-tree-compiler/device-tree-compiler_1.7.2.orig.tar.xz",
    "92d8ca769805ae1f176204230438fe52808f4e1c7944053c9eec0e649b237539",
    "531ef5c31a080d7fd25955a75a29c56f0e0f9f97",
)
KERNEL = Package(
    "l/linux/linux-image-6.1.0-50-armmp_6.1.176-1_armhf.deb",
    "ddd1d8dd0c6beabb9eb96bcfab26549eb30c63331bae31de481ffae4af0e982a",
    "ae5950a72772d73d3f2a2b045dbdfaf7c104f8ee",
)
SEED, ROUNDS = 16, 2000
SECONDS = 5
MAGIC = bytes.fromhex("d00dfeed")
DIFFER = {
    "for programs that know version": "the oldest version in the header, at which dtc does not look"
    " and libfdt, which kernel and firmware have, does",
    "its structure breaks off": "dtc reads past the end that the header gives for the structure,"
    " and libfdt does not",
    "older than 17": "forms before 2007, in which nothing for a Pi comes",
    "its parts lie outside": "dtc reads as if a part began inside that does not",
}
"""What is refused here and read by dtc."""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    for name in ("dtc", "fdtget"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every tree of dtc's own tests that dtc makes from its source, and those that its tests spoil
    on purpose, which are written in assembler."""
    folder = tmp_path_factory.mktemp("dtc")
    with tarfile.open(DTC.fetched()) as archive:
        archive.extractall(folder, filter="data")
    (tests,) = folder.glob("*/tests")
    found = {}
    for source in sorted(tests.glob("*.dts")):
        words = ("dtc", "-q", "-I", "dts", "-O", "dtb", "-i", tests, source)
        verdict, tree, _ = ends_in(words, SECONDS)
        if verdict == 0:
            found[source.name] = tree
    if shutil.which("cc"):
        found |= spoiled(tests)
    return found


def spoiled(tests: Path) -> dict[str, bytes]:
    """The trees of trees.S. It is only assembled: nothing of it runs."""
    parts, flat = tests / "trees.o", tests / "trees.bin"
    words = ["cc", "-c", "-D__ASSEMBLY__", f"-I{tests}", f"-I{tests.parent}/libfdt"]
    subprocess.run([*words, tests / "trees.S", "-o", parts], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".data", parts, flat], check=True)
    data = flat.read_bytes()
    places = [match.start() for match in re.finditer(MAGIC, data)] + [len(data)]
    return {
        f"trees.S {number}": data[start:end] for number, (start, end) in enumerate(pairwise(places))
    }


def compare(name: str, tree: bytes, tally: Tally) -> None:
    """Count whether both read ``tree``, to the same names of its board, or both refuse it."""
    # -f: what dtc dislikes about the meaning of a tree is no damage.
    verdict, _, said = ends_in(["dtc", "-q", "-f", "-I", "dtb", "-O", "dts", "-"], SECONDS,
                               stdin=tree)  # fmt: skip
    try:
        names, fault = root_compatible(tree), ""
    except FdtError as error:
        names, fault = (), str(error)
    same = (verdict == 0) == (not fault)
    if same and not fault:
        same = names == compatible_by_fdtget(tree)
    why = next((why for part, why in DIFFER.items() if part in fault), None)
    tally.count(same=same, what=f"{name}: {said[-200:]} / {fault or names}", reason=why)


def compatible_by_fdtget(tree: bytes) -> tuple[str, ...]:
    words = ["fdtget", "-t", "bx", "-", "/", "compatible"]
    verdict, digits, _ = ends_in(words, SECONDS, stdin=tree)
    if verdict != 0:
        return ()
    value = bytes(int(byte, 16) for byte in digits.split())
    return tuple(value.rstrip(b"\0").decode("ascii", errors="replace").split("\0"))


def test_the_trees_of_dtc(trees: dict[str, bytes], tell: Tell) -> None:
    tally = Tally()
    for name, tree in trees.items():
        compare(name, tree, tally)
    tell(f"dtc's device trees: {tally}")
    assert tally.tried > 80
    assert not tally.unexplained


def test_trees_that_chance_has_changed(trees: dict[str, bytes], tell: Tell) -> None:
    chance, tally = random.Random(SEED), Tally()
    names = [name for name, tree in trees.items() if len(tree) < 4096]
    for _ in range(ROUNDS):
        name = chance.choice(names)
        compare(name, changed(trees[name], chance), tally)
    tell(f"device trees changed by chance: {tally}")
    assert not tally.unexplained, tally.unexplained[:5]


def changed(tree: bytes, chance: random.Random) -> bytes:
    """``tree`` cut short, with one bit or one word other than it was."""
    kind = chance.randrange(3)
    if kind == 0:
        return tree[: chance.randrange(len(tree))]
    spoilt = bytearray(tree)
    if kind == 1:
        spoilt[chance.randrange(len(tree))] ^= 1 << chance.randrange(8)
        return bytes(spoilt)
    word = chance.choice((0, 1, 2, 3, 4, 9, 1 << 31, (1 << 32) - 1, chance.randrange(len(tree))))
    struct.pack_into(">I", spoilt, chance.randrange(len(tree) - 3) & ~3, word)
    return bytes(spoilt)


def test_the_trees_of_debians_kernel(tmp_path: Path, tell: Tell) -> None:
    package, tally = KERNEL.fetched(), Tally()
    subprocess.run(["ar", "x", package, "data.tar.xz"], cwd=tmp_path, check=True)
    for name, tree in kernel_trees(tmp_path / "data.tar.xz"):
        compare(name, tree, tally)
    tell(f"Debian's device trees for armhf: {tally}")
    assert tally.tried > 500
    assert not tally.unexplained


def kernel_trees(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive, "r|xz") as members:
        for member in members:
            if member.name.endswith(".dtb") and member.isfile():
                file = members.extractfile(member)
                assert file is not None
                yield member.name, file.read()
