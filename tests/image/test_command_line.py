"""The command as a person types it, against a real mirror on loopback, on image files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imager.config.load import load_rack
from imager.disk.fat.volume import FatVolume
from imager.disk.mbr import parse
from imager.rack.page import feed
from tests.support.mirror import Manners
from tests.support.racks import KEY
from tests.support.served import ask, served
from tests.support.workplace import TARBALL, Said, Workplace, workplace

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("workplace")) as found:
        yield found


@pytest.fixture(scope="module")
def card(place: Workplace) -> Path:
    """The image of pi7, written once by the command for all tests that only look at one."""
    return place.pi7()


@pytest.fixture
def own_card(card: Path, tmp_path: Path) -> Path:
    """A copy to be damaged; its receipt is found by the disk id all the same."""
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", card, copy], check=True)
    return copy


def two_lines(said: Said, code: int) -> tuple[str, str]:
    """The what and the hint of an error, and nothing like a traceback."""
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    what = next(line for line in lines if line.startswith("picloud-image: "))
    assert lines[-1].startswith("  → ")
    return what, lines[-1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("€.txt", "the name has '€' in it and is so short"),
        ("picloud", "picloud is a file, and picloud-image writes into a folder of that name"),
        ("KERNEL7.IMG/x", "KERNEL7.IMG is a file in the release"),
    ],
)
def test_a_boot_file_that_would_land_elsewhere_is_named_and_nothing_is_written(
    place: Workplace, tmp_path: Path, name: str, says: str
) -> None:
    boot = place.rack / "overlays/base/boot"
    file = boot / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    try:
        said = place.run("write", tmp_path / "new.img", "--node", "pi7", "--size", "2GiB")
    finally:
        shutil.rmtree(boot)
    two_lines(said, 10)
    assert any(f"{file}: " in line and says in line for line in said.err.splitlines())
    assert not (tmp_path / "new.img").exists()


def flip_byte_of(image: Path, name: str) -> None:
    """Flip one bit in the middle of a boot file."""
    with image.open("r+b") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        boot = parse(read(0, 512)).partitions[0].extent
        entry = FatVolume.parse(read, boot.offset, boot.length).find(name)
        assert entry is not None
        position = entry.extents[0].offset + entry.size_bytes // 2
        byte = read(position, 1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def test_write_tells_plan_progress_receipt_and_result(place: Workplace, tmp_path: Path) -> None:
    said = place.json("write", tmp_path / "a.img", "--node", "pi3", "--size", "2GiB")
    kinds = [event["event"] for event in said.events]
    assert kinds[-2:] == ["receipt", "result"]
    assert kinds.index("plan") < kinds.index("progress")
    phases = {event["phase"] for event in said.events if event["event"] == "progress"}
    assert {"write", "read back"} <= phases
    receipt = json.loads(Path(said.result["receipt"]).read_text())
    assert receipt["node"] == "pi3"
    assert receipt["result"] == "verified"


def test_verify_agrees_with_the_receipt(place: Workplace, card: Path) -> None:
    said = place.json("verify", card)
    assert said.code == 0
    assert said.result["matches"] is True
    assert said.result["node"] == "pi7"


def test_inspect_ends_in_a_bootable_pi7(place: Workplace, card: Path) -> None:
    said = place.json("inspect", card)
    assert said.code == 0, said.out
    assert said.result["bootable"] is True
    assert said.result["node"] == "pi7"
    assert said.result["findings"] == []


@pytest.mark.parametrize("name", ["kernel7.img", "start.elf", "cmdline.txt"])
def test_one_flipped_bit_in_a_boot_file_is_found_and_named(
    place: Workplace, own_card: Path, name: str
) -> None:
    flip_byte_of(own_card, name)
    verified = place.run("verify", own_card)
    two_lines(verified, 23)
    assert name in verified.err
    inspected = place.json("inspect", own_card)
    assert name in {finding["path"] for finding in inspected.result["findings"]}


def test_a_saved_card_made_smaller_boots_as_the_card_does(
    place: Workplace, card: Path, tmp_path: Path
) -> None:
    image = tmp_path / "saved.img"
    said = place.json("read", card, image, "--shrink")
    assert said.code == 0, said.err
    assert image.stat().st_size < card.stat().st_size // 4
    inspected, before = place.json("inspect", image), place.json("inspect", card)
    assert inspected.code == 0
    assert inspected.result["card"] == before.result["card"]
    assert inspected.result["findings"] == before.result["findings"]


def test_inspect_works_with_no_rack_and_no_cache(place: Workplace, own_card: Path) -> None:
    flip_byte_of(own_card, "kernel7.img")
    environment = {
        name: value for name, value in place.environment.items() if "PICLOUD" not in name
    }
    stranger = Workplace(place.folder / "home", place.mirror, environment)
    stranger.folder.mkdir(exist_ok=True)
    said = stranger.run("inspect", own_card)
    assert said.code == 25
    assert "kernel7.img" in said.out


def test_a_second_node_shares_release_and_golden_image(
    place: Workplace, card: Path, tmp_path: Path
) -> None:
    asked = len(place.mirror.log)
    said = place.json("write", tmp_path / "b.img", "--node", "pi8", "--size", "2GiB")
    phases = {event["phase"] for event in said.events if event["event"] == "progress"}
    assert said.code == 0
    assert len(place.mirror.log) == asked, "the network was used again"
    assert "unpack" not in phases
    first, second = place.json("inspect", card), place.json("inspect", tmp_path / "b.img")
    assert second.result["node"] == "pi8"
    assert first.result["partuuid"] != second.result["partuuid"]


def test_dry_run_touches_nothing(place: Workplace, card: Path, tmp_path: Path) -> None:
    before = sorted(path for path in place.folder.rglob("*") if "pycache" not in str(path))
    said = place.json("write", tmp_path / "c.img", "--node", "pi9", "--dry-run")
    assert said.code == 0
    assert said.result["dry_run"] is True
    assert said.result["node"] == "pi9"
    assert said.result["image_composed"] is True
    assert 0 < said.result["image_bytes"] < said.result["needs_bytes"]
    assert not (tmp_path / "c.img").exists()
    assert before == sorted(p for p in place.folder.rglob("*") if "pycache" not in str(p))


def test_dry_run_refuses_what_is_too_small(place: Workplace, card: Path, tmp_path: Path) -> None:
    words = ("write", tmp_path / "c.img", "--node", "pi9", "--size", "512MiB", "--dry-run")
    said = place.json(*words)
    assert said.code == 20
    assert "the target has 536.9 MB" in said.events[-2]["what"]


def test_fetch_and_compose_say_what_they_have(place: Workplace, card: Path) -> None:
    fetched = place.json("fetch")
    assert fetched.code == 0
    assert len(fetched.result["sha256"]) == 64
    composed = place.json("compose")
    assert composed.result["release_sha256"] == fetched.result["sha256"]
    assert Path(composed.result["image"]).is_file()
    offline = place.json("compose", "--offline")
    assert offline.result["key"] == composed.result["key"]


def test_verbose_shows_each_command_that_is_run(place: Workplace, tmp_path: Path) -> None:
    words = ("write", tmp_path / "v.img", "--node", "pi5")
    assert "+ resize2fs" not in place.run(*words).err
    said = place.run(*words, "--yes", "-v")
    assert said.code == 0
    assert "\n+ " in said.err
    assert "debugfs -w" in said.err


def test_common_options_work_before_and_after_the_command(place: Workplace) -> None:
    after = place.run("rack", "show", "--json")
    before = place.run("--json", "rack", "show")
    between = place.run("rack", "--json", "show")
    assert after.result == before.result == between.result
    assert [node["node"] for node in after.result["nodes"]] == [f"pi{n}" for n in range(14)]


def test_rack_show_names_the_last_card(place: Workplace, card: Path) -> None:
    nodes = {node["node"]: node for node in place.json("rack", "show").result["nodes"]}
    assert nodes["pi7"]["last_card"].startswith("verified ")
    assert nodes["pi13"]["last_card"] is None


def test_an_image_file_that_exists_is_replaced_only_on_a_yes(
    place: Workplace, own_card: Path
) -> None:
    before = own_card.stat()
    what, hint = two_lines(place.run("write", own_card, "--node", "pi1"), 2)
    assert "nobody to ask" in what
    assert "--yes" in hint
    assert own_card.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["write", "x.img", "--node", "pi99"], 10, "pi99"),
        (["write", "x.bin", "--node", "pi7"], 20, "x.bin"),
        (["write", "/dev/no-such-disk", "--node", "pi7"], 20, "/dev/no-such-disk"),
        (["write", "x.img", "--node", "pi7", "--size", "64MiB"], 20, "--size 64 MiB is too small"),
        (["write", "x.img", "--node", "pi7", "--size", "many"], 2, "many"),
        (["write", "x.img", "--node", "pi7", "--block-size", "64KiB"], 2, "64 KiB"),
        (["write", "x.img"], 2, "--node"),
        (["verify", "no-such.img"], 20, "no-such.img"),
        (["inspect", "no-such.img"], 20, "no-such.img"),
        (["inspect", "no-such.img", "--model", "pi7"], 2, "--model"),
        (["wriet"], 2, "wriet"),
        (["fetch", "--offline", "--update"], 2, "--offline"),
        (["fetch", "--release", "alarm-rpi"], 10, "alarm-rpi"),
        (["rack", "init"], 10, "rack.toml"),
        (["verify", "rack/rack.toml"], 23, "rack.toml"),
    ],
)
def test_a_mistake_is_two_lines_and_its_code(
    place: Workplace, card: Path, words: list[str], code: int, named: str
) -> None:
    what, _ = two_lines(place.run(*words), code)
    assert named in what
    said = place.json(*words)
    assert said.code == code
    assert said.result["ok"] is False
    assert said.events[-2]["event"] == "error"
    assert said.events[-2]["exit_code"] == code
    assert not (place.folder / "x.img").exists()


def test_every_fault_of_a_rack_is_told_at_once(place: Workplace, tmp_path: Path) -> None:
    shutil.copytree(place.rack, tmp_path / "rack", ignore=shutil.ignore_patterns(".picloud"))
    toml = tmp_path / "rack" / "rack.toml"
    toml.write_text(toml.read_text().replace('"pi[0-13]"', '"pi_1,pi2,pi2"') + "\n[sawp]\n")
    said = place.run("rack", "show", "--rack", tmp_path / "rack")
    two_lines(said, 10)
    for named in ("pi_1", "pi2", "sawp"):
        assert named in said.err


@pytest.mark.parametrize("damage", ["truncated", "altered", "unreadable record"])
def test_a_damaged_archive_entry_is_fetched_anew_and_said(
    place: Workplace, card: Path, tmp_path: Path, damage: str
) -> None:
    cache = tmp_path / "cache"
    assert place.run("fetch", "--cache", cache).code == 0
    entry = next((cache / "releases").glob("*/release.json")).parent
    tarball = entry / "release.tar.gz"
    if damage == "truncated":
        os.truncate(tarball, tarball.stat().st_size - 1)
    elif damage == "altered":
        data = bytearray(tarball.read_bytes())
        data[len(data) // 2] ^= 1
        tarball.chmod(0o644)
        tarball.write_bytes(data)
    else:
        (entry / "release.json").chmod(0o644)
        (entry / "release.json").write_text("{")
    words = ("write", tmp_path / "e.img", "--node", "pi4", "--cache", cache)
    first = place.run(*words)
    if damage == "altered":
        # Its size is right, so only composing, which reads every byte, can see it.
        two_lines(first, 12)
        first = place.run(*words)
    assert first.code == 0, first.err
    assert (tmp_path / "e.img").is_file()


def test_a_release_signed_by_somebody_else_is_not_used(place: Workplace, tmp_path: Path) -> None:
    shutil.copytree(place.rack, tmp_path / "rack", ignore=shutil.ignore_patterns(".picloud"))
    (tmp_path / "rack" / "rack.lock").unlink(missing_ok=True)
    good = place.mirror.files[f"{TARBALL}.sig"]
    tarball = place.mirror.files[TARBALL]
    place.mirror.files[TARBALL] = tarball[:-1] + bytes([tarball[-1] ^ 1])
    try:
        words = ("fetch", "--rack", tmp_path / "rack", "--cache", tmp_path / "cache")
        two_lines(place.run(*words), 12)
    finally:
        place.mirror.files[TARBALL], place.mirror.files[f"{TARBALL}.sig"] = tarball, good
    assert not list((tmp_path / "cache").glob("releases/*/*.tar.gz"))


def test_a_mirror_that_is_gone_is_a_network_error(place: Workplace, tmp_path: Path) -> None:
    shutil.copytree(place.rack, tmp_path / "rack", ignore=shutil.ignore_patterns(".picloud"))
    (tmp_path / "rack" / "rack.lock").unlink(missing_ok=True)
    place.mirror.misbehave(TARBALL, Manners(status=404))
    try:
        words = ("fetch", "--rack", tmp_path / "rack", "--cache", tmp_path / "cache")
        what, _ = two_lines(place.run(*words), 11)
    finally:
        place.mirror.misbehave(TARBALL, Manners())
    assert "404" in what or TARBALL.rpartition("/")[2] in what


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_with_130_and_leaves_nothing_half_made(
    place: Workplace, tmp_path: Path, stop: signal.Signals
) -> None:
    process = subprocess.Popen(
        place.command("write", tmp_path / "d.img", "--node", "pi2", "--cache", tmp_path / "c"),
        cwd=place.folder,
        env=place.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "c").glob("work/compose-*")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "d.img").exists()
    assert [p.name for p in (tmp_path / "c" / "work").iterdir() if p.name != ".guard"] == []
    again = place.run("write", tmp_path / "d.img", "--node", "pi2", "--cache", tmp_path / "c")
    assert again.code == 0, again.err


def test_without_a_rack_the_default_one_is_used_and_said(place: Workplace) -> None:
    environment = {k: v for k, v in place.environment.items() if k != "PICLOUD_RACK"}
    homeless = Workplace(place.folder / "home", place.mirror, environment)
    homeless.folder.mkdir(exist_ok=True)
    said = homeless.run("rack", "show")
    assert said.code == 0
    assert "default rack" in said.err
    assert "Salt master salt" in said.out


def test_help_and_version_cost_no_stage(place: Workplace) -> None:
    assert "write" in place.run("--help").out
    listed = subprocess.run(
        [place.command()[0], "-X", "importtime", "-m", "imager", "--help"],
        env=place.environment,
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    for heavy in ("requests", "cryptography", "pysequoia", "pyudev", "jinja2", "ClusterShell"):
        assert f" {heavy}\n" not in listed, f"--help imports {heavy}"


def test_rack_show_tells_a_card_the_rack_would_make_otherwise_now(
    place: Workplace, tmp_path: Path
) -> None:
    toml = place.rack / "rack.toml"
    before = toml.read_text()
    words = ("rack", "flash", "pi[11-12]", "--images", tmp_path, "--size", "2GiB", "--yes")
    said = place.json(*words)
    assert said.code == 0, said.out

    def standing() -> dict[str, str]:
        nodes = place.json("rack", "show").result["nodes"]
        return {node["node"]: node["card"]["standing"] for node in nodes}

    assert standing()["pi11"] == "current"
    try:
        toml.write_text(before + f'\n[nodes.pi12]\nauthorized_keys = ["{KEY}"]\n')
        now = standing()
    finally:
        toml.write_text(before)
    assert (now["pi11"], now["pi12"]) == ("current", "stale")


def test_rack_flash_is_seen_from_outside_while_it_works(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SECONDS", 0.05)
    words = (
        "rack",
        "flash",
        "pi[4-7]",
        "--images",
        tmp_path,
        "--size",
        "2GiB",
        "--again",
        "--jobs",
        "1",
    )
    with served(load_rack(place.rack)) as port, ThreadPoolExecutor() as beside:
        work = beside.submit(place.json, *words)
        seen = []
        while not work.done():
            seen.append(ask(port, "/").body)
            time.sleep(0.05)
        after = ask(port, "/").body
    assert work.result().code == 0, work.result().out
    # A run says once a second what it does: of four cards one at a time, some are seen at work.
    pages = [page for page in seen if re.search("rack flash: [0-3] of 4 done", page)]
    found = [re.findall('<progress aria-label="[^"]*"', page) for page in pages]
    assert any("pi" in bar for bars in found for bar in bars), found
    assert "Nothing is at work." in after
    for name in ("pi4", "pi7"):
        its = after.partition(f'<li id="node-{name}">')[2].partition("</li>")[0]
        assert "card verified" in its
    assert not (place.rack / ".picloud/live.json").exists()
