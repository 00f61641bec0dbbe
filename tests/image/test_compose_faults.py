"""Composing cut short, twice at once, on a full disk, from a damaged cache: never half an image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, HostStorage, MalformedRelease, MissingTool
from imager.base.progress import Phase, Quiet
from imager.image.compose import compose as compose_module
from imager.image.compose.compose import cached_golden, compose
from imager.image.compose.golden import GoldenImage
from imager.release.verified import VerifiedRelease
from tests.support.release import build_release, everyday_tree
from tests.support.sampling import a_part_of

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parent.parent.parent


class Listener(Quiet):
    """Keeps every note; ``at`` is called when a phase begins."""

    def __init__(self, at: Callable[[str], None] = lambda _: None) -> None:
        self.notes: list[str] = []
        self._at = at

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        self._at(name)
        with super().phase(name, total_bytes) as phase:
            yield phase

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def composed(release: VerifiedRelease, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    cache = Cache(tmp_path_factory.mktemp("composed"))
    compose(release, cache, Quiet())
    return cache


@pytest.fixture
def cache(composed: Cache, tmp_path: Path) -> Cache:
    """A cache of one's own with the composed image in it."""
    done = subprocess.run(
        ["cp", "-a", "--sparse=always", composed.golden, tmp_path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Cache(tmp_path)


def nothing_is_left(cache: Cache) -> bool:
    images = list(cache.golden.glob("*/*")) if cache.golden.exists() else []
    work = [path for path in cache.work.glob("*") if path.name != ".guard"]
    return not images and not work


def test_a_boot_file_that_mtools_write_as_another_after_all_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mtools of another version may know other letters."""
    monkeypatch.setattr("imager.image.unpack.tree.name_fault", lambda _: None)
    tree = everyday_tree()
    tree.file("./boot/€.txt", "x")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(MalformedRelease, match=r"'boot/€\.txt' is written by mtools under another"):
        compose(build_release(tmp_path, tree), cache, Quiet())
    assert nothing_is_left(cache)


@pytest.mark.parametrize("when", ["unpack", "make filesystems", "check filesystems", "hash"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_cut_short_leaves_nothing(
    when: str, error: type[BaseException], release: VerifiedRelease, tmp_path: Path
) -> None:
    def cut(name: str) -> None:
        if name == when:
            raise error

    cache = Cache(tmp_path)
    threads = threading.active_count()
    with pytest.raises(error):
        compose(release, cache, Listener(cut))
    assert nothing_is_left(cache)
    assert threading.active_count() == threads
    assert cached_golden(release, cache) is None


def test_ctrl_c_while_unpacking_leaves_nothing(release: VerifiedRelease, tmp_path: Path) -> None:
    class Advancing:
        def advance(self, size_bytes: int) -> None:
            signal.raise_signal(signal.SIGINT)

    class Interrupting(Quiet):
        @contextmanager
        def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
            yield Advancing()

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        compose(release, Cache(tmp_path), Interrupting())
    assert nothing_is_left(Cache(tmp_path))
    assert threading.active_count() == threads


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose.compose import compose
from imager.release.verified import VerifiedRelease
release = VerifiedRelease({name!r}, ("pi2",), {sha256!r}, Path({tarball!r}), {size}, "", "", "")
print("begin", flush=True)
compose(release, Cache(Path({cache!r})), Quiet())
print("end", flush=True)
"""


def in_a_child(release: VerifiedRelease, cache: Cache) -> subprocess.Popen[bytes]:
    program = CHILD.format(
        root=str(ROOT),
        name=release.name,
        sha256=release.sha256,
        tarball=str(release.tarball),
        size=release.size_bytes,
        cache=str(cache.root),
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"begin\n"
    return child


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert happened()


MOMENTS: dict[str, Callable[[Cache], bool]] = {
    "work begun": lambda cache: any(cache.work.glob("compose-*/files")),
    "unpacking": lambda cache: any(cache.work.glob("compose-*/files/root/etc")),
    "making filesystems": lambda cache: any(cache.work.glob("compose-*/image")),
    "publishing": lambda cache: any(cache.work.glob("compose-*/golden")),
}


def at_work_in(folder: Path) -> bool:
    """Whether a process was started with a path in ``folder``."""
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if os.fsencode(folder) in words.read_bytes():
                return True
    return False


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_kill_9_the_next_run_sweeps_and_composes(
    moment: str, release: VerifiedRelease, composed: Cache, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    child = in_a_child(release, cache)
    try:
        wait_until(lambda: MOMENTS[moment](cache) or child.poll() is not None)
        child.kill()
    finally:
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    wait_until(lambda: not at_work_in(tmp_path))  # a tool of the dead run, at its last write
    golden = compose(release, cache, Quiet())
    assert golden.manifest == whole(composed, release).manifest
    assert [path.name for path in cache.work.glob("*") if path.name != ".guard"] == []


def whole(cache: Cache, release: VerifiedRelease) -> GoldenImage:
    golden = cached_golden(release, cache)
    assert golden is not None
    return golden


def test_of_two_runs_at_once_one_composes_and_the_other_waits(
    release: VerifiedRelease, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    phases: list[str] = []
    listeners = [Listener(phases.append), Listener(phases.append)]
    goldens: list[GoldenImage] = []
    threads = [
        threading.Thread(target=lambda own=own: goldens.append(compose(release, cache, own)))
        for own in listeners
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert phases.count("unpack") == 1
    assert goldens[0] == goldens[1]
    notes = [note for listener in listeners for note in listener.notes]
    assert notes == ["another run is composing this release; waiting for it"]


def test_a_waiting_run_composes_when_the_first_one_dies(
    release: VerifiedRelease, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    child = in_a_child(release, cache)
    listener = Listener()
    result: list[GoldenImage] = []
    waiting = threading.Thread(target=lambda: result.append(compose(release, cache, listener)))
    try:
        wait_until(lambda: any(cache.golden.glob("*.lock")) and any(cache.work.glob("compose-*")))
        waiting.start()
        wait_until(lambda: bool(listener.notes) or child.poll() is not None)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    waiting.join()
    assert len(result) == 1


def entry(cache: Cache) -> Path:
    return next(path for path in cache.golden.iterdir() if path.is_dir())


def cut_image(folder: Path) -> None:
    os.truncate(folder / "image", 1 << 20)


def alter_image(folder: Path) -> None:
    (folder / "image").chmod(0o644)
    with (folder / "image").open("r+b") as file:
        file.seek(300 << 20)
        file.write(b"x")


def put_a_directory(folder: Path) -> None:
    (folder / "image").unlink()
    (folder / "image").mkdir()


def flip_in_description(folder: Path) -> None:
    text = (folder / "golden.json").read_text()
    (folder / "golden.json").write_text(text.replace('"size_bytes": 1', '"size_bytes": 2', 1))


def rewrite_digest(folder: Path) -> None:
    document = json.loads((folder / "golden.json").read_text())
    document["manifest"]["sha256"][3] = "00" * 32
    (folder / "golden.json").write_text(json.dumps(document))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "image cut": (cut_image, "has 1048576 bytes"),
    "image altered": (alter_image, "was changed after it was made"),
    "image gone": (lambda folder: (folder / "image").unlink(), "No such file"),
    "description gone": (lambda folder: (folder / "golden.json").unlink(), "No such file"),
    "description cut": (lambda folder: os.truncate(folder / "golden.json", 300), "is damaged"),
    "description empty": (lambda folder: os.truncate(folder / "golden.json", 0), "is damaged"),
    "description altered": (flip_in_description, "does not match its own SHA-256"),
    "a digest altered": (rewrite_digest, "does not match its own SHA-256"),
    "description is a list": (
        lambda folder: (folder / "golden.json").write_text("[]"),
        "not a JSON object",
    ),
    "description from the future": (
        lambda folder: (folder / "golden.json").write_text('{"format": 99}'),
        "not a description this version wrote",
    ),
    "description is binary": (
        lambda folder: (folder / "golden.json").write_bytes(b"\xff\xfe\0"),
        "is damaged",
    ),
}


class Composing(Exception):
    """It was begun."""


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_noticed_and_named(
    name: str, release: VerifiedRelease, cache: Cache
) -> None:
    def begun(phase: str) -> None:
        raise Composing

    damage, says = DAMAGE[name]
    damage(entry(cache))
    assert cached_golden(release, cache) is None
    listener = Listener(begun)
    with pytest.raises(Composing):
        compose(release, cache, listener)
    (note,) = listener.notes
    assert note.startswith("the cached image is composed again: ")
    assert says in note


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "damaged" in metafunc.fixturenames:
        names = list(DAMAGE)
        drawn = names if metafunc.config.getoption("--all") else a_part_of(names, 0.25)
        metafunc.parametrize("damaged", drawn)


def test_a_damaged_entry_is_composed_again(
    damaged: str, release: VerifiedRelease, composed: Cache, cache: Cache
) -> None:
    """A quarter of them, drawn by chance; ``--all`` has them all."""
    damage, _ = DAMAGE[damaged]
    damage(entry(cache))
    golden = compose(release, cache, Quiet())
    assert golden.manifest == whole(composed, release).manifest
    assert cached_golden(release, cache) == golden
    assert [path.name for path in cache.work.glob("*") if path.name != ".guard"] == []


def test_a_folder_in_the_place_of_the_image_is_refused_by_name(
    release: VerifiedRelease, composed: Cache, cache: Cache
) -> None:
    """No decay makes a folder of a file: somebody put it there."""
    put_a_directory(entry(cache))
    with pytest.raises(ConfigurationError, match="image: is no regular file"):
        compose(release, cache, Listener())


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a tmpfs, and mounting needs root")
@pytest.mark.parametrize("mib", [1, 3, 5, 7, 10])
def test_a_disk_that_fills_up_is_said_and_nothing_stays(
    mib: int, release: VerifiedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_module, "_require_space", lambda *_: None)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", small], check=True)
    try:
        cache = Cache(small / "cache")
        with pytest.raises(HostStorage, match=r"(?i)no space left") as caught:
            compose(release, cache, Quiet())
        assert caught.value.exit_code == 41
        assert "--cache" in caught.value.hint
        assert nothing_is_left(cache)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a tmpfs, and mounting needs root")
def test_a_disk_that_is_too_full_is_refused_before_unpacking(
    release: VerifiedRelease, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", tmp_path], check=True)
    try:
        begun: list[str] = []
        with pytest.raises(HostStorage, match=r"MB free, and composing takes about "):
            compose(release, Cache(tmp_path / "cache"), Listener(begun.append))
        assert begun == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_missing_tools_are_named_together_before_any_work(
    release: VerifiedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"mkfs.vfat", "debugfs"}
    real = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **words: None if name in absent else real(name, **words)
    )
    with pytest.raises(MissingTool, match=r"not installed: debugfs, mkfs\.vfat") as caught:
        compose(release, Cache(tmp_path), Quiet())
    assert "apt install dosfstools e2fsprogs" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_version_of_a_tool_makes_another_entry(
    release: VerifiedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imager.image.compose import cache as golden_cache

    before = golden_cache.golden_key(release)
    monkeypatch.setattr(golden_cache, "_version", lambda tool, _: f"{tool} 99")
    assert golden_cache.golden_key(release) != before


def test_a_cache_whose_path_looks_like_tool_options_works(
    release: VerifiedRelease, composed: Cache, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "-a b?offset=1,@@2 'c\"")
    assert compose(release, cache, Quiet()).manifest == whole(composed, release).manifest
