"""A release is known, or comes with its key and board; a board it cannot boot is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.release.catalogue import ALARM_KEY, RELEASES, parse_fingerprint, spec_for

URL = "https://example.org/os/Own-rpi.tar.gz"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("alarm-rpi-armv7", "pi2"),
        ("alarm-rpi-armv7", "pi3"),
        ("alarm-rpi-armv7", "zero2w"),
        ("alarm-rpi-aarch64", "pi3"),
        ("alarm-rpi-aarch64", "zero2w"),
        ("alarm-rpi-aarch64", "pi4"),
        ("alarm-rpi-aarch64", "pi400"),
        ("alarm-rpi-armv7", None),
    ],
)
def test_a_built_in_release_boots_its_boards(name: str, model: str | None) -> None:
    spec = spec_for(name, None, model)
    assert spec.name == name
    assert spec.signing_key == ALARM_KEY


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("alarm-rpi-armv7", "pi1", "ARMv6"),
        ("alarm-rpi-armv7", "zero", "ARMv6"),
        ("alarm-rpi-aarch64", "pi1", "ARMv6"),
        ("alarm-rpi-armv7", "pi4", "alarm-rpi-aarch64"),
        ("alarm-rpi-aarch64", "pi2", "no 64-bit mode"),
        ("alarm-rpi-armv7", "pi400", "alarm-rpi-aarch64"),
        ("alarm-rpi-armv7", "cm4", 'alarm-rpi-aarch64" under [release] with linux-rpi '),
        ("alarm-rpi-armv7", "pi5", 'alarm-rpi-aarch64" under [release] with linux-rpi-16k '),
        ("alarm-rpi-aarch64", "cm4", '{ linux-aarch64 = "linux-rpi" } and remove = ["uboot-'),
        ("alarm-rpi-aarch64", "cm4s", '{ linux-aarch64 = "linux-rpi" } and remove = ["uboot-'),
        ("alarm-rpi-aarch64", "pi5", '{ linux-aarch64 = "linux-rpi-16k" } and remove'),
        ("alarm-rpi-aarch64", "pi500", '{ linux-aarch64 = "linux-rpi-16k" } and remove'),
        ("alarm-rpi-aarch64", "cm5", '{ linux-aarch64 = "linux-rpi-16k" } and remove'),
        ("alarm-rpi-aarch64", "pi9", "it boots pi3, zero2w, pi4, pi400"),
    ],
)
def test_a_board_it_cannot_boot_is_refused_with_the_reason(
    name: str, model: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        spec_for(name, None, model)
    assert model in caught.value.what
    assert reason in caught.value.hint
    assert caught.value.exit_code == 10


@pytest.mark.parametrize(
    ("name", "packages", "models"),
    [
        ("alarm-rpi-aarch64", ["python", "linux-rpi-16k"], ("pi5", "pi500", "cm5")),
        ("alarm-rpi-armv7", ["linux-rpi"], ("pi2", "pi3", "zero2w")),
        ("alarm-rpi-armv7", ["python"], ("pi2", "pi3", "zero2w")),
    ],
)
def test_another_kernel_boots_other_boards(
    name: str, packages: list[str], models: tuple[str, ...]
) -> None:
    assert spec_for(name, None, models[0], packages).models == models


def test_the_kernel_for_the_pi_5_on_another_board_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        spec_for("alarm-rpi-aarch64", None, "pi4", ["linux-rpi-16k"])
    assert caught.value.what == "alarm-rpi-aarch64 with linux-rpi-16k cannot boot pi4"
    assert caught.value.hint.startswith("leave linux-rpi-16k out for this board")


def test_the_geo_redirector_is_asked_first_and_every_mirror_has_the_same_file() -> None:
    for spec in RELEASES.values():
        if spec.signing_key != ALARM_KEY:
            continue
        assert spec.urls[0].startswith("http://os.archlinuxarm.org/os/")
        assert len(spec.urls) >= 4
        assert len(set(spec.urls)) == len(spec.urls)
        assert all(url.endswith("/os/" + spec.file_name) for url in spec.urls)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        spec_for("raspbian", None, None)
    assert "alarm-rpi-armv7" in caught.value.hint


def test_a_built_in_release_takes_no_other_key() -> None:
    assert spec_for("alarm-rpi-armv7", ALARM_KEY.lower(), "pi2").signing_key == ALARM_KEY
    with pytest.raises(ConfigurationError, match="is not the key of"):
        spec_for("alarm-rpi-armv7", "0" * 40, "pi2")


def test_a_url_is_called_by_its_file() -> None:
    spec = spec_for(URL, "ab" * 20, "pi2")
    assert (spec.name, spec.file_name, spec.urls) == ("Own-rpi", "Own-rpi.tar.gz", (URL,))
    assert (spec.signing_key, spec.models) == ("AB" * 20, ("pi2",))


@pytest.mark.parametrize(
    ("key", "model", "absent"), [(None, "pi2", "signing_key"), ("ab" * 20, None, "model")]
)
def test_a_url_needs_key_and_board(key: str | None, model: str | None, absent: str) -> None:
    with pytest.raises(ConfigurationError, match=f"comes without {absent}"):
        spec_for(URL, key, model)


def test_a_url_for_an_unknown_board_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pi1"):
        spec_for(URL, "ab" * 20, "pi1")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x.tar.gz",
        "http:///x.tar.gz",
        "http://[::1/x.tar.gz",
        "http://host:port/x.tar.gz",
        "http://me:secret@example.org/x.tar.gz",
        "http://me@example.org/x.tar.gz",
        "http://:secret@example.org/x.tar.gz",
        "http://example.org/x.tar.gz?token=1",
        "http://example.org/x.zip",
        "http://example.org/",
        "http://example.org/%2e%2e.tar.gz",
        "http://example.org/.tar.gz",
        "http://example.org/grö ße/x.tar.gz",
        "http://example.org/alarm-rpi-armv7.tar.gz",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        spec_for(url, "ab" * 20, "pi2")


def test_a_key_id_is_no_fingerprint() -> None:
    for key_id in ("2BDBE6A6", "0x77193F152BDBE6A6"):
        with pytest.raises(ValueError, match="can be forged"):
            parse_fingerprint(key_id)
    with pytest.raises(ConfigurationError, match="signing_key"):
        spec_for(URL, "2BDBE6A6", "pi2")


def test_a_fingerprint_may_be_written_as_gpg_prints_it() -> None:
    printed = "68B3 537F 39A3 13B3 E574  D067 7719 3F15 2BDB E6A6"
    assert parse_fingerprint(printed) == ALARM_KEY


@given(st.text(max_size=80))
def test_any_text_is_a_release_or_a_configuration_error(text: str) -> None:
    try:
        spec = spec_for("http://" + text, "ab" * 20, "pi2")
    except ConfigurationError:
        return
    assert "/" not in spec.name


@given(st.text(max_size=70))
def test_any_text_is_a_fingerprint_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert len(parse_fingerprint(text)) in (40, 64)
