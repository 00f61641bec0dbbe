"""Which golden images a station is told the making of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.image.compose.golden import GoldenImage
from imager.image.compose.ingredients import Ingredients
from imager.packages.verified import PackageSet, VerifiedPacman
from imager.release.verified import PackageFile, VerifiedPackage, VerifiedRelease, VerifiedSalt
from imager.stations.wire.made_of import MOST_BYTES, made_of

HERE = Path("/nowhere")
RELEASE = VerifiedRelease("r", ("pi2",), "a" * 64, HERE, 5, "F" * 40, "http://x", "now")
SALT = VerifiedSalt(
    VerifiedPackage("salt", "3008.3", "b" * 64, HERE, 5),
    (VerifiedPackage("looseversion", "1.3.0", "c" * 64, HERE, 5),),
)


def package(number: int) -> VerifiedPacman:
    return VerifiedPacman(
        f"p{number}", "1-1", "any", "f", f"{number:064x}", 5, "F" * 40, HERE, HERE
    )


def golden(its: Ingredients | None) -> GoldenImage:
    layout = Layout(1 << 20, Extent(4096, 4096), Extent(8192, 4096))
    manifest = build_manifest(1 << 20, ExtentMap([]), lambda _, length: bytes(length))
    return GoldenImage(HERE, "5" * 32, "r", "a" * 64, ("pi2",), layout, manifest, {}, made_of=its)


def test_all_that_it_is_made_of_in_its_order() -> None:
    packages = PackageSet(
        tuple(map(package, (3, 1, 2))), ("nano",), frozenset({"p1", "p2"}), ("x.service",)
    )
    found = made_of(golden(Ingredients(RELEASE, SALT, packages)))
    assert found is not None
    assert found.salt == ("b" * 64, "c" * 64)
    assert found.packages == tuple(f"{number:064x}" for number in (3, 1, 2))
    assert (found.explicit, found.remove, found.enable) == (("p1", "p2"), ("nano",), ("x.service",))
    assert found.size_bytes == 5 * 32 + 3 + 3 + 5 + 10
    plain = made_of(golden(Ingredients(RELEASE, None, None)))
    assert plain is not None
    assert (plain.release, plain.models, plain.size_bytes) == ("a" * 64, ("pi2",), 0)


@pytest.mark.parametrize("count", [MOST_BYTES // 32, MOST_BYTES // 32 + 1])
def test_one_of_too_many_packages_is_sent(count: int) -> None:
    many = PackageSet(tuple(map(package, range(count))))
    told = made_of(golden(Ingredients(RELEASE, None, many)))
    assert (told is not None) is (count <= MOST_BYTES // 32)


def test_what_is_in_no_archive_is_sent() -> None:
    bundle = (PackageFile("x.pkg.tar", "d" * 64, HERE, 5),)
    assert made_of(golden(Ingredients(RELEASE, replace(SALT, bundle=bundle), None))) is None
    assert made_of(golden(None)) is None, "it came here from elsewhere"
