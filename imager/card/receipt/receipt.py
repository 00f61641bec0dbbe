"""The receipt: one JSON object per card that says what was written, how fast, and with what result.

In: what was measured and proven while the card was made. Out: JSON. When it is read again, every
field is checked, because ``verify`` relies on it. It holds hashes, no secrets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from imager.base.json_fields import JsonFault, JsonObject, read_object, shown
from imager.card.diagnosis.trouble import Trouble
from imager.card.host.target import TargetFacts
from imager.card.medium.meter import PhaseFigures
from imager.card.stages import WriteOptions
from imager.disk.extents import Extent
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Chunk, Manifest

FORMAT = "picloud-image receipt"
VERSION = 1
"""Of a node's card. Programs that know nothing of other cards read only these."""
SOURCE_VERSION = 2
"""Of a card that holds an image from elsewhere."""


class ReceiptError(ValueError):
    """A file is no receipt this version can read; the message says which key is wrong."""


class ReceiptResult(StrEnum):
    """How it ended."""

    VERIFIED = "verified"
    FAULTY = "faulty"
    IO_ERROR = "io-error"
    FAKE_CAPACITY = "fake-capacity"
    WOULD_NOT_BOOT = "would-not-boot"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """The card is not to blame: this computer's disk, a tool, or the golden image was."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Where an image that is none of ours came from. ``sha256`` (hex) is of the source as it was
    packed, empty where it was not read to its end; ``size_bytes`` is the image's, 0 likewise."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What was written. ``disk_id`` is the MBR's; by it the receipt of a card is found. ``salt`` is
    the version of Salt, empty if the image has none and in receipts of earlier versions. An image
    from elsewhere has a ``source``, and neither golden image, release nor layout."""

    image_id: str
    golden_key: str
    release_name: str
    release_sha256: str
    disk_id: int
    layout: Layout | None
    salt: str = ""
    source: SourceFacts | None = None

    def to_json(self) -> dict[str, object]:
        """The object in a receipt."""
        disk_id = f"{self.disk_id:08x}"
        if self.source is not None:
            return {"image_id": self.image_id, "disk_id": disk_id, **asdict(self.source)}
        layout = self.layout
        return {
            "image_id": self.image_id,
            "golden_key": self.golden_key,
            "release_name": self.release_name,
            "release_sha256": self.release_sha256,
            "disk_id": disk_id,
            **(
                {
                    "size_bytes": layout.size_bytes,
                    "boot": [layout.boot.offset, layout.boot.length],
                    "root": [layout.root.offset, layout.root.length],
                }
                if layout
                else {}
            ),
            "salt": self.salt,
        }


@dataclass(frozen=True, slots=True)
class Receipt:
    """One card, finished or failed; ``finished_at`` is UTC in ISO 8601. ``node`` is the name of the
    source where the image is none of ours."""

    node: str
    result: ReceiptResult
    failure: str
    finished_at: str
    tool_version: str
    target: TargetFacts
    image: ImageFacts
    options: WriteOptions
    cache_bypassed: bool
    fallbacks: tuple[str, ...]
    phases: tuple[PhaseFigures, ...]
    boot_files: Mapping[str, str]
    manifest: Manifest
    trouble: Trouble | None = None

    @property
    def kind(self) -> str:
        """What to call a record of this kind."""
        return "receipt"

    @property
    def layout(self) -> Layout | None:
        """Where the card's partitions were put; None where its table says so."""
        return self.image.layout

    @property
    def golden_key(self) -> str:
        """The key of the card's golden image."""
        return self.image.golden_key

    @property
    def image_id(self) -> str:
        """The digest that names all bytes that were written, without the stamp."""
        return self.image.image_id

    @property
    def imaged_at(self) -> None:
        """A receipt does not say when the image was made."""
        return

    @property
    def stamp(self) -> None:
        """A receipt is not a stamp."""
        return

    @property
    def is_hearsay(self) -> bool:
        """Whether it is a station's, which nobody proved: the card's path begins with its name."""
        return not self.target.path.startswith("/")

    def boot_digests(self, volume: FatVolume) -> Mapping[str, str]:
        """Path -> SHA-256 (hex) of every boot file, in the order of their names."""
        del volume
        return dict(sorted(self.boot_files.items()))

    def without_itself(self, chunk: Chunk, data: memoryview) -> None:
        """A receipt is not on the card, so its digests leave nothing out."""

    @property
    def bytes_per_second(self) -> float:
        """All bytes written and read back, divided by the seconds of all phases."""
        seconds = sum(phase.seconds for phase in self.phases)
        return sum(phase.size_bytes for phase in self.phases) / seconds if seconds else 0.0

    def brief(self) -> dict[str, object]:
        """What a program is told at the end of the command that made the card."""
        return {
            "target": self.target.path,
            "verified": self.result is ReceiptResult.VERIFIED,
            "image_id": self.image.image_id,
            "size_bytes": self.target.size_bytes,
            "mapped_bytes": self.manifest.extents.total_bytes,
            "cache_bypassed": self.cache_bypassed,
            "fallbacks": list(self.fallbacks),
            "phases": {
                phase.name: {"bytes": phase.size_bytes, "seconds": round(phase.seconds, 3)}
                for phase in self.phases
            },
            "trouble": self.trouble.to_json() if self.trouble else None,
        }

    def to_json(self) -> dict[str, object]:
        """The object a receipt file holds."""
        return {
            "format": FORMAT,
            "version": SOURCE_VERSION if self.image.source else VERSION,
            "node": self.node,
            "result": self.result.value,
            "failure": self.failure,
            "finished_at": self.finished_at,
            "tool_version": self.tool_version,
            "target": asdict(self.target),
            "image": self.image.to_json(),
            "options": asdict(self.options),
            "cache_bypassed": self.cache_bypassed,
            "fallbacks": list(self.fallbacks),
            "phases": [
                {
                    **asdict(phase),
                    "mb_per_second": round(phase.bytes_per_second / 1e6, 2),
                }
                for phase in self.phases
            ],
            "boot_files": dict(self.boot_files),
            "manifest": self.manifest.to_json(),
            "trouble": self.trouble.to_json() if self.trouble else None,
        }

    def encode(self) -> bytes:
        """The text of a receipt file. Of a path that is not UTF-8 an escape of JSON says so."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1)
        return text.encode(errors="backslashreplace") + b"\n"


def decode_receipt(data: bytes) -> Receipt:
    """The receipt in a file's bytes; raises ReceiptError that names the key which is wrong."""
    try:
        return _receipt(read_object(data))
    except JsonFault as error:
        raise ReceiptError(str(error)) from error


def _receipt(whole: JsonObject) -> Receipt:
    if whole.text("format") != FORMAT:
        raise whole.fault("format", f"is not {FORMAT!r}")
    version = whole.integer("version")
    if version not in (VERSION, SOURCE_VERSION):
        raise whole.fault("version", f"version {version} is not one this program reads")
    boot_files = whole.child("boot_files")
    return Receipt(
        node=whole.text("node"),
        result=whole.choice("result", ReceiptResult),
        failure=whole.text("failure"),
        finished_at=whole.text("finished_at"),
        tool_version=whole.text("tool_version"),
        target=TargetFacts.from_json(whole.child("target")),
        image=_image(whole.child("image"), from_source=version == SOURCE_VERSION),
        options=_options(whole.child("options")),
        cache_bypassed=whole.boolean("cache_bypassed"),
        fallbacks=whole.texts("fallbacks"),
        phases=tuple(_phase(phase) for phase in whole.children("phases")),
        boot_files={path: boot_files.text(path) for path in boot_files.values},
        manifest=Manifest.from_json(whole.child("manifest")),
        trouble=_trouble(whole.optional("trouble", whole.child)),
    )


def _later(read: JsonObject, key: str) -> str:
    """A text, empty if the field is missing, as it is in the first receipts."""
    return read.text(key) if key in read else ""


def _image(read: JsonObject, *, from_source: bool) -> ImageFacts:
    disk_id = read.text("disk_id")
    try:
        number = int(disk_id, 16)
    except ValueError as error:
        raise read.fault("disk_id", f"{shown(disk_id)} is not hexadecimal") from error
    if from_source:
        source = SourceFacts(read.text("name"), read.text("sha256"), read.integer("size_bytes"))
        return ImageFacts(read.text("image_id"), "", "", "", number, None, source=source)
    return ImageFacts(
        image_id=read.text("image_id"),
        golden_key=read.text("golden_key"),
        release_name=read.text("release_name"),
        release_sha256=read.text("release_sha256"),
        disk_id=number,
        layout=Layout(
            read.integer("size_bytes"), Extent(*read.pair("boot")), Extent(*read.pair("root"))
        ),
        salt=_later(read, "salt"),
    )


def _options(read: JsonObject) -> WriteOptions:
    return WriteOptions(read.integer("block_bytes"), read.integer("depth"), _later(read, "why"))


def _phase(read: JsonObject) -> PhaseFigures:
    return PhaseFigures(
        read.text("name"),
        read.integer("size_bytes"),
        read.number("seconds", 1e12),
        read.integers("samples"),
    )


def _trouble(read: JsonObject | None) -> Trouble | None:
    return None if read is None else Trouble.from_json(read)
