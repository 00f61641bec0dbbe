"""Small FAT filesystems made by the real tools: mkfs.vfat and mcopy."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from imager.base.run import search_path
from imager.disk.manifest import Reader


def tool(*words: str | Path) -> str:
    """Run a host tool with sbin on the PATH; its output, or an AssertionError with it."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        env={"PATH": search_path(), "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{words[0]}: {said}"
    return said


def make_fat(
    image: Path,
    files: Mapping[str, bytes],
    *,
    size_kib: int,
    kind: int = 32,
    sectors_per_cluster: int = 1,
    offset_bytes: int = 0,
) -> None:
    """Put a FAT with ``files`` at byte ``offset_bytes`` of ``image``, made longer where needed."""
    end = offset_bytes + size_kib * 1024
    image.touch()
    if image.stat().st_size < end:
        with image.open("r+b") as file:
            file.truncate(end)
    tool(
        "mkfs.vfat", "--invariant", "-F", str(kind), "-s", str(sectors_per_cluster),
        "-i", "1234abcd", "-n", "BOOT", "--offset", str(offset_bytes // 512), image, str(size_kib),
    )  # fmt: skip
    put_files(image, offset_bytes, files)


def put_files(image: Path, offset_bytes: int, files: Mapping[str, bytes]) -> None:
    """Copy ``files`` onto the FAT at byte ``offset_bytes``, one mcopy per directory."""
    staging = image.with_name(image.name + ".files")
    for name, content in files.items():
        place = staging / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    if files:
        target = f"{image}@@{offset_bytes}"
        tool("mcopy", "-o", "-s", "-m", "-i", target, *sorted(staging.iterdir()), "::")
        tool("rm", "-r", staging)


def reader(image: Path | bytes) -> Reader:
    """A Reader of a file as it is now, or of bytes."""
    data = image if isinstance(image, bytes) else image.read_bytes()
    return lambda offset, length: data[offset : offset + length]
