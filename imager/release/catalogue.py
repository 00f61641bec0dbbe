"""Which releases there are, what signs them, and which boards they boot.

In: a built-in name or a URL, with the key and the board a URL needs. Out: a ReleaseSpec.
A board a release cannot boot is refused here, before anything is fetched, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from imager.base.boards import (
    ALARM_AARCH64,
    ALARM_ARMV7,
    ARMV6_NAMES,
    AS_IT_IS,
    BOARDS,
    MODELS,
    NO_ARMV6,
    board_named,
    kernel_among,
)
from imager.base.errors import ConfigurationError

ALARM_KEY = "68B3537F39A313B3E574D06777193F152BDBE6A6"
"""Arch Linux ARM Build System, the distribution's only package signing key, which also signs the
tarballs (https://archlinuxarm.org/about/package-signing)."""

# The geo redirector has no certificate for its own name, so it is asked over http; what makes a
# download trustworthy is the signature. The country mirrors are from the distribution's package
# pacman-mirrorlist (2026-04) and are asked in turn when the redirector's choice fails.
_GEO = "http://os.archlinuxarm.org/os/"
_COUNTRY_MIRRORS = (
    "https://ca.us.mirror.archlinuxarm.org/os/",
    "http://de3.mirror.archlinuxarm.org/os/",
    "http://dk.mirror.archlinuxarm.org/os/",
    "http://fl.us.mirror.archlinuxarm.org/os/",
    "http://hu.mirror.archlinuxarm.org/os/",
    "http://tw.mirror.archlinuxarm.org/os/",
)

_FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z|[0-9A-F]{64}\Z")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}\.(tar\.gz|tgz)\Z")


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """Which release is wanted; its bytes are not known yet.

    ``url`` is tried first, then ``mirrors`` in turn; each is the full URL of the tarball, whose
    signature and checksum lie beside it as ``.sig`` and ``.md5``. ``signing_key`` is the
    fingerprint of the OpenPGP primary key, upper case. ``models`` are the boards it boots.
    """

    name: str
    url: str
    signing_key: str
    models: tuple[str, ...]
    mirrors: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Every place to ask, in order."""
        return (self.url, *self.mirrors)

    @property
    def file_name(self) -> str:
        """The tarball's own name."""
        return self.url.rpartition("/")[2]


def _alarm(name: str, file_name: str) -> ReleaseSpec:
    mirrors = tuple(mirror + file_name for mirror in _COUNTRY_MIRRORS)
    return ReleaseSpec(name, _GEO + file_name, ALARM_KEY, _booted(name), mirrors)


def _booted(release: str, kernel: str = AS_IT_IS) -> tuple[str, ...]:
    return tuple(board.name for board in BOARDS if board.boots(release, kernel))


RELEASES: Mapping[str, ReleaseSpec] = {
    spec.name: spec
    for spec in (
        _alarm(ALARM_ARMV7, "ArchLinuxARM-rpi-armv7-latest.tar.gz"),
        _alarm(ALARM_AARCH64, "ArchLinuxARM-rpi-aarch64-latest.tar.gz"),
    )
}


def parse_fingerprint(text: str) -> str:
    """``text`` as an OpenPGP fingerprint: 40 hex digits (64 for a version 6 key), upper case.

    Blanks and a leading ``0x`` are allowed. Raises ValueError with a message that can be shown. A
    short key id is refused because anyone can make another key with the same one.
    """
    digits = "".join(text.split()).upper().removeprefix("0X")
    if _FINGERPRINT.match(digits):
        return digits
    if re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{16}", digits):
        raise ValueError(f"{text!r} is a key id, which can be forged; give all 40 hex digits")
    raise ValueError(f"{text!r} is not an OpenPGP fingerprint of 40 hex digits")


def spec_for(
    name_or_url: str,
    signing_key: str | None,
    model: str | None,
    packages: Collection[str] = (),
) -> ReleaseSpec:
    """The release called ``name_or_url``; when ``model`` is given, it must boot that board.

    ``packages`` are the names of those that a built-in release gets: with another kernel among them
    it boots other boards. A URL needs ``signing_key`` (a fingerprint) and ``model``; its release is
    called by the tarball's name without the ending. Raises ConfigurationError for an unknown name,
    a URL that cannot be used, a key that is none, and a board the release does not boot.
    """
    key = _checked_key(signing_key)
    if "://" in name_or_url:
        return _custom(name_or_url, key, model)
    spec = RELEASES.get(name_or_url)
    if spec is None:
        raise ConfigurationError(
            f"release {name_or_url!r} is not known",
            hint=f"use {' or '.join(RELEASES)}, or the http(s) URL of a .tar.gz",
        )
    if key not in (None, spec.signing_key):
        raise ConfigurationError(
            f"signing_key {key} is not the key of {spec.name}",
            hint="leave signing_key out: a built-in release knows its key",
        )
    kernel = kernel_among(packages)
    if kernel != AS_IT_IS:
        spec = replace(spec, models=_booted(spec.name, kernel))
    if model is not None and model not in spec.models:
        raise _cannot_boot(spec, model, kernel)
    return spec


def _checked_key(signing_key: str | None) -> str | None:
    if signing_key is None:
        return None
    try:
        return parse_fingerprint(signing_key)
    except ValueError as error:
        raise ConfigurationError(
            f"signing_key: {error}", hint="gpg --show-keys FILE prints the fingerprint of a key"
        ) from None


def _cannot_boot(spec: ReleaseSpec, model: str, kernel: str) -> ConfigurationError:
    if model in ARMV6_NAMES:
        hint = f"it {NO_ARMV6}; use a Pi 2 or newer, or a Zero 2 W"
    elif model not in MODELS:
        hint = f"it boots {', '.join(spec.models)}"
    elif board_named(model).boots(spec.name):
        hint = f"leave {kernel} out for this board, or put it on the boards that it starts only"
    else:
        hint = board_named(model).why_not(spec.name)
    release = f"{spec.name} with {kernel}" if kernel else spec.name
    return ConfigurationError(f"{release} cannot boot {model}", hint=hint)


def _custom(url: str, key: str | None, model: str | None) -> ReleaseSpec:
    file_name = _checked_file_name(url)
    if key is None or model is None:
        absent = "signing_key" if key is None else "model"
        raise ConfigurationError(
            f"release {url} comes without {absent}",
            hint="a release by URL needs url, signing_key (a fingerprint) and model in rack.toml",
        )
    name = file_name.removesuffix(".tar.gz").removesuffix(".tgz")
    if name in RELEASES:
        raise ConfigurationError(
            f"release {url} would be called like the built-in {name}",
            hint="rename the tarball on the server",
        )
    if model not in MODELS:
        raise ConfigurationError(
            f"model {model!r} is not a board this program knows", hint=f"use {', '.join(MODELS)}"
        )
    return ReleaseSpec(name, url, key, (model,))


def _checked_file_name(url: str) -> str:
    """The tarball's name at the end of ``url``; raises ConfigurationError for a URL that cannot
    be fetched, or whose name cannot be a file's name."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"release {url!r} is not a URL: {error}", hint="write it like http://host/os/x.tar.gz"
        ) from None
    file_name = parts.path.rpartition("/")[2]
    fault = None
    if parts.scheme not in ("http", "https") or not host:
        fault = "is not an http or https URL"
    elif parts.username or parts.password:
        fault = "holds a password, which would end up in rack.lock"
    elif parts.query or parts.fragment:
        fault = "has a ? or #, so no .sig can lie beside it"
    elif not _FILE_NAME.match(file_name):
        fault = "does not end in a plain file name with .tar.gz"
    elif not url.isascii() or not url.isprintable() or " " in url:
        fault = "holds a character that must be %-encoded"
    if fault:
        raise ConfigurationError(
            f"release {url!r} {fault}", hint="write it like http://host/os/x.tar.gz"
        )
    return file_name
