"""The receipt: one JSON object per card that says what was written, how fast, and with what result.

In: what the engine measured and proved. Out: JSON that is checked field by field when it is read
again, because ``verify`` believes it. It holds hashes, no secrets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import cast

from imager.card.diagnosis.trouble import Trouble
from imager.card.medium.meter import PhaseFigures
from imager.card.stages import WriteOptions
from imager.disk.extents import Extent
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest

FORMAT = "picloud-image receipt"
VERSION = 1


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
class TargetFacts:
    """The card, its reader and its slot, as far as the computer can see them."""

    path: str
    size_bytes: int
    bus: str
    slot: str = ""
    by_id: str = ""
    vendor: str = ""
    model: str = ""
    serial: str = ""
    cid: str = ""
    diskseq: int = 0
    logical_bytes: int = 0
    physical_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What was written. ``disk_id`` is the MBR's, by which a card finds its receipt; ``salt`` is
    empty where there is none in the image, and in receipts of earlier versions."""

    image_id: str
    golden_key: str
    release_name: str
    release_sha256: str
    disk_id: int
    layout: Layout
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One card, finished or failed; ``finished_at`` is UTC in ISO 8601."""

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
    def bytes_per_second(self) -> float:
        """Bytes written and read back over the seconds all phases took."""
        seconds = sum(phase.seconds for phase in self.phases)
        return sum(phase.size_bytes for phase in self.phases) / seconds if seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """The object a receipt file holds."""
        layout = self.image.layout
        return {
            "format": FORMAT,
            "version": VERSION,
            "node": self.node,
            "result": self.result.value,
            "failure": self.failure,
            "finished_at": self.finished_at,
            "tool_version": self.tool_version,
            "target": asdict(self.target),
            "image": {
                "image_id": self.image.image_id,
                "golden_key": self.image.golden_key,
                "release_name": self.image.release_name,
                "release_sha256": self.image.release_sha256,
                "disk_id": f"{self.image.disk_id:08x}",
                "size_bytes": layout.size_bytes,
                "boot": [layout.boot.offset, layout.boot.length],
                "root": [layout.root.offset, layout.root.length],
                "salt": self.image.salt,
            },
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
        """The text of a receipt file."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1).encode() + b"\n"


def decode_receipt(data: bytes) -> Receipt:
    """The receipt in a file's bytes; raises ReceiptError that names the key which is wrong."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"it is not JSON: {error}") from error
    whole = _Fields.of(value, "the receipt")
    if whole.text("format") != FORMAT:
        raise ReceiptError(f"format is not {FORMAT!r}")
    if whole.integer("version") != VERSION:
        raise ReceiptError(f"version {whole.integer('version')} is not one this program reads")
    result = whole.text("result")
    if result not in list(ReceiptResult):
        raise ReceiptError(f"result {result!r} is none of {', '.join(ReceiptResult)}")
    return Receipt(
        node=whole.text("node"),
        result=ReceiptResult(result),
        failure=whole.text("failure"),
        finished_at=whole.text("finished_at"),
        tool_version=whole.text("tool_version"),
        target=_target(whole.inner("target")),
        image=_image(whole.inner("image")),
        options=_options(whole.inner("options")),
        cache_bypassed=whole.truth("cache_bypassed"),
        fallbacks=tuple(_text(item, "fallbacks") for item in whole.items("fallbacks")),
        phases=tuple(_phase(_Fields.of(item, "phases")) for item in whole.items("phases")),
        boot_files=_boot_files(whole.inner("boot_files")),
        manifest=_manifest(whole.inner("manifest")),
        trouble=_trouble(whole.values.get("trouble")),
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """A JSON object whose values are taken out with their type checked."""

    values: Mapping[str, object]
    where: str

    @classmethod
    def of(cls, value: object, where: str) -> _Fields:
        if not isinstance(value, dict):
            raise ReceiptError(f"{where} is not an object")
        return cls(cast("Mapping[str, object]", value), where)

    def _value(self, key: str) -> object:
        if key not in self.values:
            raise ReceiptError(f"{key} is missing in {self.where}")
        return self.values[key]

    def text(self, key: str) -> str:
        return _text(self._value(key), key)

    def later(self, key: str) -> str:
        """Text that the first receipts did not have."""
        return self.text(key) if key in self.values else ""

    def integer(self, key: str) -> int:
        return _integer(self._value(key), key)

    def number(self, key: str) -> float:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise ReceiptError(f"{key} in {self.where} is not a number that can be")
        return float(value)

    def truth(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise ReceiptError(f"{key} in {self.where} is neither true nor false")
        return value

    def items(self, key: str) -> list[object]:
        value = self._value(key)
        if not isinstance(value, list):
            raise ReceiptError(f"{key} in {self.where} is not a list")
        return value

    def inner(self, key: str) -> _Fields:
        return _Fields.of(self._value(key), key)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ReceiptError(f"{key} is not text")
    return value


def _integer(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ReceiptError(f"{key} is not a whole number that can be")
    return value


def _target(fields: _Fields) -> TargetFacts:
    return TargetFacts(
        path=fields.text("path"),
        size_bytes=fields.integer("size_bytes"),
        bus=fields.text("bus"),
        slot=fields.text("slot"),
        by_id=fields.text("by_id"),
        vendor=fields.text("vendor"),
        model=fields.text("model"),
        serial=fields.text("serial"),
        cid=fields.text("cid"),
        diskseq=fields.integer("diskseq"),
        logical_bytes=fields.integer("logical_bytes"),
        physical_bytes=fields.integer("physical_bytes"),
    )


def _image(fields: _Fields) -> ImageFacts:
    disk_id = fields.text("disk_id")
    try:
        number = int(disk_id, 16)
    except ValueError as error:
        raise ReceiptError(f"disk_id {disk_id!r} is not hexadecimal") from error
    return ImageFacts(
        image_id=fields.text("image_id"),
        golden_key=fields.text("golden_key"),
        release_name=fields.text("release_name"),
        release_sha256=fields.text("release_sha256"),
        disk_id=number,
        layout=Layout(
            fields.integer("size_bytes"), _extent(fields, "boot"), _extent(fields, "root")
        ),
        salt=fields.later("salt"),
    )


def _extent(fields: _Fields, key: str) -> Extent:
    pair = [_integer(item, key) for item in fields.items(key)]
    if len(pair) != 2:
        raise ReceiptError(f"{key} is not [offset, length]")
    return Extent(*pair)


def _options(fields: _Fields) -> WriteOptions:
    return WriteOptions(fields.integer("block_bytes"), fields.integer("depth"), fields.later("why"))


def _phase(fields: _Fields) -> PhaseFigures:
    return PhaseFigures(
        fields.text("name"),
        fields.integer("size_bytes"),
        fields.number("seconds"),
        tuple(_integer(item, "samples") for item in fields.items("samples")),
    )


def _boot_files(fields: _Fields) -> Mapping[str, str]:
    return {path: fields.text(path) for path in fields.values}


def _manifest(fields: _Fields) -> Manifest:
    try:
        return Manifest.from_json(dict(fields.values))
    except (ValueError, TypeError) as error:
        raise ReceiptError(f"the manifest is malformed: {error}") from error


def _trouble(value: object) -> Trouble | None:
    if value is None:
        return None
    try:
        return Trouble.from_json(value)
    except ValueError as error:
        raise ReceiptError(f"trouble is malformed: {error}") from error
