"""``write --image`` as a person types it, on image files: layouts and ways of packing as they are
found, made by sfdisk, mkfs.vfat and mke2fs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.card.receipt.store import load_receipt
from imager.disk.gpt import read_gpt
from imager.disk.manifest import Reader
from tests.support.bootdisk import SIZE, make_disk
from tests.support.bootfiles import minimal_boot_files
from tests.support.fatdisk import make_fat, tool
from tests.support.starter import run_command
from tests.support.workplace import Said

pytestmark = pytest.mark.image
UNUSED = b"nobody reads this, neither filesystem nor person" * 1000


@dataclass(frozen=True)
class Place:
    """A folder to work in, with a home of its own."""

    folder: Path

    def run(self, *words: str | Path) -> Said:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        env = {"HOME": str(home), "PATH": os.environ["PATH"]}
        line = [str(word) for word in words] + (["--yes"] if "write" in words else [])
        return Said(*run_command(line, cwd=self.folder, env=env, stdin="", seconds=100))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("any-image"))


@pytest.fixture(scope="module")
def image(place: Place) -> Path:
    """An MBR with a FAT and an ext4, as most images for a Pi; what is free holds old bytes."""
    path = place.folder / "any.img"
    make_disk(path, minimal_boot_files("pi2"))
    with path.open("r+b") as file:
        file.seek(30 * MiB)
        assert not any(file.read(len(UNUSED)))
        file.seek(30 * MiB)
        file.write(UNUSED)
    return path


def reader(path: Path) -> Reader:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    return read


def require_sound(path: Path, boot: int, root: int) -> None:
    """Both filesystems, looked at by their own tools."""
    for name, offset in (("boot", boot), ("root", root)):
        part = path.with_name(name)
        tool("dd", f"if={path}", f"of={part}", f"skip={offset}", "iflag=skip_bytes", "bs=1M")
    tool("e2fsck", "-fn", path.with_name("root"))
    tool("fsck.vfat", "-n", path.with_name("boot"))


@pytest.mark.parametrize(
    "packer", ["", "xz -k0", "gzip -k1", "bzip2 -k1", "zstd -q1", "zip -q any.zip"]
)
def test_an_image_packed_in_any_way(place: Place, image: Path, packer: str) -> None:
    names = {"": "any.img", "xz": "any.img.xz", "gzip": "any.img.gz", "bzip2": "any.img.bz2"}
    name = {**names, "zstd": "any.img.zst", "zip": "any.zip"}[packer.partition(" ")[0]]
    if packer:
        subprocess.run([*packer.split(), "any.img"], cwd=place.folder, check=True)
    source, card = place.folder / name, place.folder / "card.img"
    card.unlink(missing_ok=True)
    said = place.run("write", card, "--image", name, "--json")
    assert said.code == 0, said.err
    result = said.result
    assert result["verified"]
    assert result["image_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert result["mapped_bytes"] < 16 * MiB
    written, wanted = card.read_bytes(), image.read_bytes()
    assert written == wanted.replace(UNUSED, bytes(len(UNUSED)))
    assert card.stat().st_blocks * 512 < 16 * MiB, "holes stay holes"
    receipt = Path(result["receipt"])
    assert receipt.is_relative_to(place.folder / "home")
    assert not (place.folder / "home/.local/share/picloud-image/default-rack").exists()
    verified = place.run("verify", card, "--receipt", receipt)
    assert verified.code == 0, verified.err
    with card.open("r+b") as file:
        file.seek(written.index(minimal_boot_files("pi2")["cmdline.txt"]))
        file.write(b"CMD")
    damaged = place.run("verify", card, "--receipt", receipt)
    assert damaged.code == 23
    assert "partition 1: " in damaged.err
    helpless = place.run("verify", card, "--receipt", receipt, "--repair")
    assert helpless.code == 23
    assert f"write it again: picloud-image write {card} --image {source}\n" in helpless.err


NO_UTF_8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("card", "source"), [(f"{NO_UTF_8}.img", "any.img"), ("card.img", f"{NO_UTF_8}/any.img")]
)
def test_a_path_that_is_no_utf_8_gets_its_receipt(
    place: Place, image: Path, card: str, source: str
) -> None:
    (place.folder / NO_UTF_8).mkdir(exist_ok=True)
    if source != image.name:
        (place.folder / source).unlink(missing_ok=True)
        (place.folder / source).hardlink_to(image)
    said = place.run("write", card, "--image", source, "--json")
    assert said.code == 0, said.err
    receipt = load_receipt(Path(said.result["receipt"]))
    assert receipt.target.path == str(place.folder / card)
    verified = place.run("verify", card, "--receipt", said.result["receipt"])
    assert verified.code == 0, verified.err
    (place.folder / card).unlink()


def test_names_that_are_long_get_their_receipt(place: Place, image: Path) -> None:
    card, source = f"{'c' * 130}.img", f"{'s' * 130}.img"
    (place.folder / source).hardlink_to(image)
    said = place.run("write", card, "--image", source, "--json")
    assert said.code == 0, said.err
    assert load_receipt(Path(said.result["receipt"])).target.path == str(place.folder / card)
    (place.folder / card).unlink()


def test_the_plan_and_a_dry_run_that_touches_nothing(place: Place, image: Path) -> None:
    said = place.run("write", "new.img", "--image", image, "--dry-run")
    assert said.code == 0, said.err
    assert "what its filesystems use" in said.err
    assert not (place.folder / "new.img").exists()


def test_an_image_that_would_not_boot_is_written_with_a_warning(place: Place) -> None:
    files = minimal_boot_files("pi2")
    del files["bootcode.bin"]
    make_disk(place.folder / "unbootable.img", files)
    said = place.run("write", "new.img", "--image", "unbootable.img")
    assert said.code == 0, said.err
    assert "warning: a Raspberry Pi would not start from it: " in said.err


def test_an_image_that_was_not_looked_at_to_its_end_is_not_said_to_boot(place: Place) -> None:
    files = minimal_boot_files("pi2")
    files["config.txt"] += b"#" * 65_536
    make_disk(place.folder / "long.img", files)
    said = place.run("write", "new-long.img", "--image", "long.img")
    assert said.code == 0, said.err
    assert "it is not known whether a Raspberry Pi starts from it: config.txt" in said.err


@pytest.fixture(scope="module")
def gpt(place: Place) -> Path:
    """A GPT as genimage makes them: a FAT and an ext4, the second copy at the image's end."""
    path = place.folder / "gpt.img"
    path.touch()
    os.truncate(path, SIZE)
    script = "label: gpt\nstart=2048,size=69632,type=U,name=boot\nstart=73728,type=L,name=root\n"
    subprocess.run(["sfdisk", "-q", path], input=script.encode(), check=True)
    make_fat(path, {"config.txt": b"gpu_mem=16\n"}, size_kib=34 * 1024, offset_bytes=MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-E", f"offset={36 * MiB},nodiscard", "-F", path, "7000k")
    return path


@pytest.mark.parametrize("larger", [0, 512, 8 * MiB, 100 * MiB + 512])
def test_the_second_copy_of_a_gpt_goes_to_the_end(place: Place, gpt: Path, larger: int) -> None:
    card = place.folder / "card.img"
    said = place.run("write", card, "--image", gpt, "--size", str(SIZE + larger))
    assert said.code == 0, said.err
    assert ("goes to the end of the card" in said.err) == bool(larger)
    assert "No errors detected" in tool("sfdisk", "--verify", card)
    first = read_gpt(reader(card), card.stat().st_size)
    assert first.partitions == read_gpt(reader(gpt), SIZE).partitions
    require_sound(card, MiB, 36 * MiB)
    with card.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    second = read_gpt(reader(card), card.stat().st_size)
    assert (second.is_backup, second.partitions, second.guid) == (
        True,
        first.partitions,
        first.guid,
    )


def test_a_block_map_by_bmaptool_itself(place: Place, image: Path) -> None:
    if not Path("/usr/bin/bmaptool").exists():
        pytest.skip("bmaptool is not installed")
    mapped = place.folder / "mapped.img"
    subprocess.run(["cp", "--sparse=always", image, mapped], check=True)
    tool("bmaptool", "create", "-o", f"{mapped}.bmap", mapped)
    said = place.run("write", "card.img", "--image", mapped, "--json")
    assert said.code == 0, said.err
    assert said.events[0]["block_map"]
    assert (place.folder / "card.img").read_bytes() == mapped.read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--image", "any.img", "--node", "pi7"], 2, "either --node NAME or --image FILE"),
        ([], 2, "either --node NAME or --image FILE"),
        (["--node", "pi7", "--no-bmap"], 2, "are for --image"),
        (["--image", "none.img"], 10, "there is no such file"),
        (["--image", "any.img", "--sha256", "0" * 64], 12, "is not what it should be"),
        (["--image", "any.img", "--size", "8MiB"], 20, "--size 8388608 is too small"),
        (["--image", "https://127.0.0.1/any.img", "--offline"], 11, "--offline forbids it"),
    ],
)
def test_what_cannot_be_done(
    place: Place, image: Path, words: list[str], code: int, what: str
) -> None:
    said = place.run("write", "never.img", *words)
    assert said.code == code, said.err
    assert what in said.err
    assert not (place.folder / "never.img").exists()


def test_an_image_of_an_odd_size(place: Place) -> None:
    path = place.folder / "odd.img"
    path.write_bytes(b"\xeb\x3c\x90" + os.urandom(3 * MiB + 100))
    said = place.run("write", "card.img", "--image", path)
    assert said.code == 0, said.err
    assert (place.folder / "card.img").read_bytes() == path.read_bytes()
