"""Golden images in the cache: found, checked before use, and added whole or not at all.

In: a release, and a folder with a finished image. Out: a GoldenImage, or None when the cache has
none that can be trusted. An entry is a folder named by the hash of everything that went into it.
It appears by one rename. It is used later only if its description is whole and the image was not
touched since.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import fsync_folder, host_storage, write_atomically
from imager.base.json_fields import JsonObject, read_object
from imager.base.run import run
from imager.bootcheck.contents import Heard
from imager.bootcheck.formats.kernel import KernelFile
from imager.disk.extents import Extent
from imager.disk.layout import ALIGNMENT, BOOT_DEFAULT, Layout
from imager.disk.manifest import Manifest
from imager.image.compose.file_digests import FileDigests
from imager.image.compose.golden import GoldenImage
from imager.image.salt.bytecode import versions
from imager.packages.verified import PackageSet
from imager.release.verified import VerifiedRelease, VerifiedSalt

COMPOSER_VERSION = 3
"""Part of every key: raise it whenever a change here makes other bytes of the same release."""
_PACKAGES_VERSION = 2
"""The same for images that have packages beyond the release's; part of the keys of these alone."""
IMAGE = "image"
DESCRIPTION = "golden.json"
_FORMAT = 2
LIMIT_BYTES = 1 << 30
"""No description is larger."""
_VERSION_QUESTIONS = (("mke2fs", "-V"), ("mkfs.vfat", "--help"), ("mcopy", "-V"))


class UnusableEntry(ValueError):
    """A cache entry that is there and must not be used; the text says why."""


def golden_key(
    release: VerifiedRelease,
    salt: VerifiedSalt | None = None,
    packages: PackageSet | None = None,
) -> str:
    """The name in the cache of the golden image that this computer's programs would make of
    ``release``, ``salt`` and ``packages``."""
    parts = [
        f"composer {COMPOSER_VERSION} format {_FORMAT}",
        f"release {release.sha256} models {' '.join(sorted(release.models))}",
        f"layout {ALIGNMENT} {BOOT_DEFAULT}",
        *(f"{package.name} {package.sha256}" for package in (salt.packages if salt else ())),
        *(f"{package.name} {package.sha256}" for package in (salt.bundle if salt else ())),
        *(_version(*question) for question in _VERSION_QUESTIONS),
        *(versions() if salt else ()),
        *(_lines_of(packages) if packages else ()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _lines_of(packages: PackageSet) -> list[str]:
    """All that decides what the set makes of a release; nothing where it changes nothing."""
    lines = [
        f"install {package.name} {package.version} {package.sha256} "
        f"{package.name in packages.explicit}"
        for package in packages.install
    ]
    lines += [f"remove {name}" for name in packages.remove]
    lines += [f"enable {unit}" for unit in packages.enable]
    return [f"packages {_PACKAGES_VERSION}", *lines] if lines else []


def _version(tool: str, question: str) -> str:
    said = run([tool, question], ok=(0, 1)).output().splitlines()
    return next((line for line in said if line[:1].isalpha() and any(map(str.isdigit, line))), tool)


def load(release_sha256: str, cache: Cache, key: str) -> GoldenImage | None:
    """The cached image under ``key`` of the release with this SHA-256 (hex), or None when there is
    none.

    Raises UnusableEntry for one that is damaged, truncated or altered, ConfigurationError for one
    that is a link or a stranger's, and HostStorage when it may not be read.
    """
    entry = cache.looked_at("golden") / key
    if not entry.exists():
        return None
    folder = entry.path
    try:
        with entry.open(IMAGE) as descriptor:
            status = os.fstat(descriptor)
        golden = decode_golden(entry.read(DESCRIPTION, LIMIT_BYTES), folder / IMAGE)
    except FileNotFoundError as error:
        raise UnusableEntry(f"{folder / str(error.filename)}: {error.strerror}") from error
    except ValueError as error:
        raise UnusableEntry(f"{folder / DESCRIPTION} is damaged ({error})") from error
    if golden.key != key or golden.release_sha256 != release_sha256:
        raise UnusableEntry(f"{folder} describes another image")
    if status.st_size != golden.layout.size_bytes:
        raise UnusableEntry(f"{folder / IMAGE} has {status.st_size} bytes, not what it was made of")
    if status.st_mtime_ns != golden.mtime_ns:
        raise UnusableEntry(f"{folder / IMAGE} was changed after it was made")
    return golden


@dataclass(frozen=True, slots=True)
class Composed:
    """A finished image in a private working folder, not yet published."""

    image: Path
    release: VerifiedRelease
    key: str
    layout: Layout
    manifest: Manifest
    boot_files: Mapping[str, str]
    files: FileDigests
    kernels: Mapping[str, Heard[KernelFile]]
    first_boot: tuple[str, ...]


def publish(composed: Composed, cache: Cache) -> GoldenImage:
    """Add the image to the cache; an unusable entry of the same key is removed.

    The caller holds the lock of this key. Both files are on disk before the entry appears.
    """
    golden = GoldenImage(
        path=composed.image,
        key=composed.key,
        release_name=composed.release.name,
        release_sha256=composed.release.sha256,
        models=composed.release.models,
        layout=composed.layout,
        manifest=composed.manifest,
        boot_files=composed.boot_files,
        files=composed.files,
        first_boot=composed.first_boot,
        kernels=composed.kernels,
    )
    return add(golden, cache)


def add(golden: GoldenImage, cache: Cache) -> GoldenImage:
    """Move the image of ``golden`` from its working folder into the cache, with its description;
    else as ``publish``."""
    place, work = cache.golden / golden.key, golden.path.parent
    folder, image = work / "golden", golden.path
    with host_storage(place):
        folder.mkdir(0o755)
        golden = replace(golden, path=place / IMAGE, mtime_ns=image.stat().st_mtime_ns)
        image.chmod(0o444)
        write_atomically(folder / DESCRIPTION, encode_golden(golden))
        with image.open("rb") as file:
            os.fsync(file.fileno())
        image.rename(folder / IMAGE)
        fsync_folder(folder)
        kept = cache.looked_at("golden")
        kept.remove_folder(golden.key)
        kept.adopt(folder, golden.key)
    return golden


def encode_golden(golden: GoldenImage) -> bytes:
    """The description of ``golden``, which lies beside its image."""
    document: dict[str, object] = {
        "format": _FORMAT,
        "key": golden.key,
        "release_name": golden.release_name,
        "release_sha256": golden.release_sha256,
        "models": list(golden.models),
        "layout": {
            "size_bytes": golden.layout.size_bytes,
            "boot": [golden.layout.boot.offset, golden.layout.boot.length],
            "root": [golden.layout.root.offset, golden.layout.root.length],
        },
        "image_mtime_ns": golden.mtime_ns,
        "boot_files": dict(sorted(golden.boot_files.items())),
        "files": base64.b64encode(golden.files.pack()).decode(),
        "kernels": {digest: _of_kernel(answer) for digest, answer in golden.kernels.items()},
        "manifest": golden.manifest.to_json(),
        **({"first_boot": list(golden.first_boot)} if golden.first_boot else {}),
    }
    return json.dumps(document | {"sha256": _digest(document)}, indent=1).encode() + b"\n"


def decode_golden(data: bytes, path: Path) -> GoldenImage:
    """The image at ``path`` that a description speaks of; raises ValueError."""
    read = read_object(data)
    document = dict(read.values)
    claimed = document.pop("sha256", None)
    if document.get("format") != _FORMAT:
        raise ValueError("not a description this version wrote")
    if claimed != _digest(document):
        raise ValueError("it does not match its own SHA-256")
    layout, boot_files = read.child("layout"), read.child("boot_files")
    return GoldenImage(
        path=path,
        key=read.text("key"),
        release_name=read.text("release_name"),
        release_sha256=read.text("release_sha256"),
        models=read.texts("models"),
        layout=Layout(
            layout.integer("size_bytes"), Extent(*layout.pair("boot")), Extent(*layout.pair("root"))
        ),
        manifest=Manifest.from_json(read.child("manifest")),
        boot_files={name: boot_files.text(name) for name in boot_files.values},
        files=FileDigests.unpack(base64.b64decode(read.text("files"), validate=True)),
        first_boot=read.texts("first_boot") if "first_boot" in read else (),
        kernels=_kernels(read.child("kernels")) if "kernels" in read else {},
        mtime_ns=read.integer("image_mtime_ns"),
    )


def _of_kernel(answer: Heard[KernelFile]) -> dict[str, object]:
    return asdict(answer.verdict) | {
        "steps": answer.steps,
        "unpacked_bytes": answer.unpacked_bytes,
    }


def _kernels(read: JsonObject) -> dict[str, Heard[KernelFile]]:
    """What was seen of kernels; not what an earlier version saw, which did not look at pages."""
    return {
        digest: Heard(
            KernelFile(
                kernel.optional("bits", kernel.integer),
                kernel.optional("fault", kernel.text),
                kernel.text("loader"),
                kernel.text("release"),
                kernel.boolean("own_init"),
                kernel.optional("page_kib", kernel.integer),
            ),
            kernel.integer("steps"),
            kernel.integer("unpacked_bytes"),
        )
        for digest in read.values
        for kernel in (read.child(digest),)
        if "page_kib" in kernel
    }


def _digest(document: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
