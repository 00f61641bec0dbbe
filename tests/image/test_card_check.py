"""The boot check of one card: what was said of its image is not asked again of the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import WouldNotBoot
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.bootcheck.formats.kernel import inspect_kernel
from imager.card.make.boot_check import BootCheck
from imager.config.rack import Node
from imager.disk.extents import ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import Manifest
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.image import NodeImage
from imager.node.personalise import personalise
from tests.support.racks import rack_in
from tests.support.release import build_release

pytestmark = pytest.mark.image

SIZE = 1400 * MiB


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    """As a later run finds it: read from the cache."""
    folder = tmp_path_factory.mktemp("golden")
    release, cache = build_release(folder), Cache(folder / "cache")
    compose(release, cache, Quiet())
    return compose(release, cache, Quiet())


@pytest.fixture(scope="module")
def made_for(
    golden: GoldenImage, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Node, NodeImage]:
    rack = rack_in(tmp_path_factory.mktemp("rack") / "rack", '[rack]\nnodes = "pi[0-2]"\n')
    node = rack.node("pi1")
    return node, personalise(golden, rack, node, SIZE, Quiet())


def nothing(offset: int, length: int) -> bytes:
    """A card of zeros, which would not boot."""
    del offset
    return bytes(length)


def test_a_golden_image_keeps_what_was_seen_of_its_kernels(golden: GoldenImage) -> None:
    with golden.open() as file:

        def read(offset: int, length: int) -> bytes:
            buffer = bytearray(length)
            file.read_into(offset, memoryview(buffer))
            return bytes(buffer)

        boot = golden.layout.boot
        kernel = FatVolume.parse(read, boot.offset, boot.length).read_file("kernel7.img")
    kept = golden.kernels[golden.boot_files["kernel7.img"]]
    assert kept.verdict == inspect_kernel(kernel)
    assert kept.steps > 0


def test_a_proven_card_is_what_its_image_was(made_for: tuple[Node, NodeImage]) -> None:
    node, image = made_for
    check = BootCheck(node, image)
    check.of_image()
    check(nothing, SIZE)


def test_a_card_is_asked_itself_where_its_image_was_not(made_for: tuple[Node, NodeImage]) -> None:
    with pytest.raises(WouldNotBoot, match="pi1 would not boot"):
        BootCheck(*made_for)(nothing, SIZE)


def test_a_card_of_another_size_is_asked_itself(made_for: tuple[Node, NodeImage]) -> None:
    check = BootCheck(*made_for)
    check.of_image()
    with pytest.raises(WouldNotBoot):
        check(nothing, SIZE + MiB)


def test_a_card_is_asked_itself_for_what_its_map_leaves_out(
    made_for: tuple[Node, NodeImage],
) -> None:
    node, image = made_for
    first = next(iter(image.manifest.extents))
    shorter = Manifest(SIZE, image.manifest.extents - ExtentMap([first]), ())
    check = BootCheck(node, replace(image, manifest=shorter))
    check.of_image()
    with pytest.raises(WouldNotBoot):
        check(nothing, SIZE)


def test_an_image_that_would_not_boot_is_refused(
    made_for: tuple[Node, NodeImage], tmp_path: Path
) -> None:
    node, image = made_for
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-2]"\n')
    config = rack.overlays / "base" / "boot" / "config.txt"
    config.parent.mkdir(parents=True)
    config.write_text("kernel=missing.img\n")
    broken = personalise(image.golden, rack, node, SIZE, Quiet())
    with pytest.raises(WouldNotBoot, match=r"missing\.img"):
        BootCheck(node, broken).of_image()


@pytest.mark.parametrize("kernel", ["missing.img", "kernel7.img"])
def test_an_image_whose_config_was_not_read_to_its_end_is_refused(
    made_for: tuple[Node, NodeImage], tmp_path: Path, kernel: str
) -> None:
    """Whatever its last line says: no boot check passes that did not read it."""
    node, image = made_for
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-2]"\n')
    config = rack.overlays / "base" / "boot" / "config.txt"
    config.parent.mkdir(parents=True)
    comments = "# a comment of about fifty letters, as many have them\n" * 1500
    config.write_text(f"initramfs initramfs-linux.img followkernel\n{comments}kernel={kernel}\n")
    made = personalise(image.golden, rack, node, SIZE, Quiet())
    with pytest.raises(WouldNotBoot, match=r"it cannot be said .*: config\.txt: it has") as caught:
        BootCheck(node, made).of_image()
    (told,) = caught.value.details
    size = config.stat().st_size
    assert told == (
        f"not-looked-at: config.txt: it has {size} bytes; the first 65536 were read: not looked at "
        "further"
    )
