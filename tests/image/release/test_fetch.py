"""From a name to a proven release in the archive: pins, offline, forgeries, keys, interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import (
    ConfigurationError,
    HostStorage,
    Interrupted,
    NetworkError,
    NotAuthentic,
    UsageError,
)
from imager.base.progress import Phase
from imager.release.archive import DamagedEntry
from imager.release.fetch import fetch_release
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms, KeySources
from tests.support.fetching import LIMITS, NO_SOURCES, PATH, Scene, release_files, some_bytes
from tests.support.mirror import Manners, Mirror, serving
from tests.support.signing import SigningKey, make_key, revoked, sign_detached

pytestmark = pytest.mark.image
ROOT = Path(__file__).resolve().parents[3]
NEW = some_bytes(7, 150_000)


def publish_anew(scene: Scene, mirror: Mirror, data: bytes = NEW) -> None:
    """What the distribution does: other bytes under the same name."""
    mirror.files.update(release_files(scene.key, data))
    mirror.misbehave(PATH, Manners(etags=['"new"'], last_modified="Tue, 01 Dec 2026 10:00:00 GMT"))


def test_a_fetched_release_is_archived_with_all_that_is_known(scene: Scene, mirror: Mirror) -> None:
    release = scene.fetch(mirror)
    sha256 = hashlib.sha256(scene.data).hexdigest()
    assert release.tarball == scene.cache.releases / sha256 / "release.tar.gz"
    assert release.tarball.read_bytes() == scene.data
    assert (release.name, release.models) == ("stand-in", ("pi2",))
    assert (release.sha256, release.size_bytes) == (sha256, len(scene.data))
    assert release.fingerprint == scene.key.fingerprint
    record = json.loads((release.tarball.parent / "release.json").read_text())
    assert record["last_modified"] is not None
    assert record["etag"] == '"v1"'
    assert record["source_url"] == mirror.address + PATH
    assert sum(scene.heard.phases["prove stand-in"]) == len(scene.data)
    assert list(scene.partial.iterdir()) == []


def test_a_release_is_called_as_its_rack_calls_it(scene: Scene, mirror: Mirror) -> None:
    """Another rack, with the same cache, took the same bytes from another place."""
    first, path = scene.fetch(mirror, locked=True), "/os/rpi-2026.11.tar.gz"
    mirror.files.update({f"{path}{end}": mirror.files[f"{PATH}{end}"] for end in ("", ".sig")})
    spec = replace(scene.spec(mirror), name="rpi-2026.11", url=mirror.address + path)
    sources = replace(NO_SOURCES, file=scene.key_file)
    for offline in (False, True):
        lock = RackLock.load(scene.lock_path.with_name("other.lock"))
        terms = FetchTerms(scene.cache, scene.heard, offline)
        assert fetch_release(spec, lock, terms, sources, LIMITS) == replace(first, name=spec.name)
    assert any(note.startswith("rpi-2026.11: pin moved") for note in scene.heard.notes)
    assert scene.archived() == [first.sha256]


# --- pins -------------------------------------------------------------------------------------


def test_the_first_fetch_writes_the_pin(scene: Scene, mirror: Mirror) -> None:
    release = scene.fetch(mirror, locked=True)
    pin = RackLock.load(scene.lock_path).pin("stand-in")
    assert pin is not None
    assert (pin.sha256, pin.size_bytes, pin.url) == (
        release.sha256, release.size_bytes, mirror.address + PATH,
    )  # fmt: skip
    assert pin.fingerprint == scene.key.fingerprint


def test_a_pinned_and_archived_release_needs_no_network(scene: Scene, mirror: Mirror) -> None:
    first = scene.fetch(mirror, locked=True)
    publish_anew(scene, mirror)
    mirror.log.clear()
    assert scene.fetch(mirror, locked=True, with_key=False) == first
    assert scene.fetch(mirror, locked=True, offline=True, with_key=False) == first
    assert mirror.log == []


def test_without_a_lock_the_newest_archived_is_used(scene: Scene, mirror: Mirror) -> None:
    first = scene.fetch(mirror)
    mirror.log.clear()
    assert scene.fetch(mirror) == first
    assert scene.fetch(mirror, offline=True) == first
    assert mirror.log == []


def test_only_update_moves_the_pin_and_says_from_what_to_what(scene: Scene, mirror: Mirror) -> None:
    old = scene.fetch(mirror, locked=True)
    publish_anew(scene, mirror)
    new = scene.fetch(mirror, locked=True, update=True)
    assert new.tarball.read_bytes() == NEW
    assert any(
        old.sha256[:12] in note and new.sha256[:12] in note and "moved" in note
        for note in scene.heard.notes
    )
    pin = RackLock.load(scene.lock_path).pin("stand-in")
    assert pin is not None
    assert pin.sha256 == new.sha256
    assert old.tarball.exists(), "what was used once is never deleted"


def test_update_does_not_fetch_what_is_archived_already(scene: Scene, mirror: Mirror) -> None:
    first = scene.fetch(mirror, locked=True)
    before = scene.lock_path.read_bytes()
    mirror.log.clear()
    assert scene.fetch(mirror, locked=True, update=True) == first
    assert mirror.asked(PATH) == []
    assert scene.lock_path.read_bytes() == before
    assert any("still the newest" in note for note in scene.heard.notes)
    assert any("is the one that is archived already" in note for note in scene.heard.notes)


def test_a_second_rack_pins_what_the_first_fetched(scene: Scene, mirror: Mirror) -> None:
    scene.fetch(mirror, locked=True)
    scene.lock_path = scene.lock_path.with_name("other.lock")
    mirror.log.clear()
    scene.fetch(mirror, locked=True)
    assert mirror.asked(PATH) == []
    assert RackLock.load(scene.lock_path).pin("stand-in") is not None


@pytest.mark.parametrize("same_size", [False, True])
def test_a_mirror_that_moved_on_does_not_move_the_pin(
    scene: Scene, mirror: Mirror, same_size: bool
) -> None:
    release = scene.fetch(mirror, locked=True)
    scene.cache = replace(scene.cache, root=scene.cache.root / "of another computer")
    publish_anew(scene, mirror, some_bytes(9) if same_size else NEW)
    pinned = scene.lock_path.read_bytes()
    mirror.log.clear()
    with pytest.raises(NotAuthentic, match=r"rack\.lock pins") as caught:
        scene.fetch(mirror, locked=True)
    assert caught.value.exit_code == 12
    assert "fetch --update" in caught.value.hint
    assert release.sha256[:12] in caught.value.what
    assert scene.lock_path.read_bytes() == pinned
    assert len(mirror.asked(PATH)) == int(same_size), "another size is seen before the download"
    scene.fetch(mirror, locked=True, update=True)
    assert len(mirror.asked(PATH)) == 1, "what was fetched and authentic was kept"


def test_a_mirror_that_lags_behind_still_has_the_pinned_bytes(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    pinned = scene.fetch(mirror, locked=True)
    scene.cache = replace(scene.cache, root=scene.cache.root / "of another computer")
    publish_anew(scene, mirror)
    assert scene.fetch(mirror, second, locked=True).sha256 == pinned.sha256


def test_a_pin_of_another_key_is_not_used(
    scene: Scene, mirror: Mirror, other_key: SigningKey
) -> None:
    scene.fetch(mirror, locked=True)
    scene.key = other_key
    with pytest.raises(NotAuthentic, match=r"rack\.lock pins"):
        scene.fetch(mirror, locked=True)


def test_the_same_bytes_by_another_key_are_proven_again(
    scene: Scene, mirror: Mirror, other_key: SigningKey
) -> None:
    first, first_key = scene.fetch(mirror, locked=True), scene.key
    scene.key = other_key
    scene.key_file.write_bytes(other_key.certificate)
    text = scene.lock_path.read_text()
    scene.lock_path.write_text(text.replace(first.fingerprint, other_key.fingerprint))
    with pytest.raises(NotAuthentic, match="not by the pinned one"):
        scene.fetch(mirror, locked=True)
    with pytest.raises(NetworkError):
        scene.fetch(mirror, locked=True, offline=True)
    mirror.files.update(release_files(other_key, scene.data))
    for offline in (False, True):
        again = scene.fetch(mirror, locked=True, offline=offline)
        assert (again.sha256, again.fingerprint) == (first.sha256, other_key.fingerprint)
    # The rack that was here first still finds its own, without asking anybody.
    scene.key = first_key
    scene.lock_path.write_text(text)
    assert scene.fetch(mirror, locked=True, offline=True) == first


# --- offline ----------------------------------------------------------------------------------


@pytest.mark.parametrize("locked", [False, True])
def test_offline_with_nothing_archived_says_what_to_run(
    scene: Scene, mirror: Mirror, locked: bool
) -> None:
    with pytest.raises(NetworkError, match="is not in") as caught:
        scene.fetch(mirror, locked=locked, offline=True)
    assert "picloud-image fetch" in caught.value.hint
    assert mirror.log == []


def test_offline_with_the_pinned_one_elsewhere_names_its_hash(scene: Scene, mirror: Mirror) -> None:
    release = scene.fetch(mirror, locked=True)
    scene.cache = replace(scene.cache, root=scene.cache.root / "of another computer")
    with pytest.raises(NetworkError, match=release.sha256[:12]):
        scene.fetch(mirror, locked=True, offline=True)


def test_offline_and_update_exclude_each_other(scene: Scene, mirror: Mirror) -> None:
    with pytest.raises(UsageError):
        scene.fetch(mirror, offline=True, update=True)


# --- a damaged archive ------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 1000)


def test_a_truncated_archived_release_is_refused_by_name_offline(
    scene: Scene, mirror: Mirror
) -> None:
    release = scene.fetch(mirror, locked=True)
    truncate(release.tarball)
    with pytest.raises(DamagedEntry, match="1000 bytes instead of 200000") as caught:
        scene.fetch(mirror, locked=True, offline=True)
    assert str(release.tarball) in caught.value.what
    assert "fetch" in caught.value.hint


@pytest.mark.parametrize("locked", [False, True])
def test_a_truncated_archived_release_is_fetched_anew_online(
    scene: Scene, mirror: Mirror, locked: bool
) -> None:
    release = scene.fetch(mirror, locked=locked)
    truncate(release.tarball)
    again = scene.fetch(mirror, locked=locked)
    assert again.sha256 == release.sha256
    assert again.tarball.read_bytes() == scene.data
    assert scene.archived() == [release.sha256, f"{release.sha256}.damaged-1"]
    if locked:
        (warning,) = scene.heard.warnings
        assert warning.endswith(f"it is kept as {release.sha256}.damaged-1")


# --- forgeries --------------------------------------------------------------------------------


def test_a_stale_signature_is_refused_and_the_file_set_aside(scene: Scene, mirror: Mirror) -> None:
    mirror.files[f"{PATH}.sig"] = sign_detached(scene.key, b"last month's tarball")
    with pytest.raises(NotAuthentic) as caught:
        scene.fetch(mirror, locked=True)
    assert caught.value.exit_code == 12
    rejected = scene.cache.partial / f"{PATH.rpartition('/')[2]}.rejected"
    assert str(rejected) in caught.value.hint
    assert rejected.read_bytes() == scene.data
    signature = rejected.with_name(f"{PATH.rpartition('/')[2]}.sig.rejected")
    assert signature.read_bytes() == mirror.files[f"{PATH}.sig"]
    assert scene.archived() == []
    assert not scene.lock_path.exists()
    assert len(mirror.asked(PATH)) == 1, "the .md5 fits, so the transfer was sound"


def test_a_stale_signature_sends_us_to_the_next_mirror(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    mirror.files[f"{PATH}.sig"] = sign_detached(scene.key, b"last month's tarball")
    assert scene.fetch(mirror, second).source_url == second.address + PATH


def test_an_altered_byte_is_refused(scene: Scene, mirror: Mirror) -> None:
    altered = bytearray(scene.data)
    altered[1234] ^= 4
    mirror.files[PATH] = bytes(altered)
    with pytest.raises(NotAuthentic, match="is not what the key"):
        scene.fetch(mirror)
    assert scene.archived() == []


def test_a_wholly_forged_set_is_refused_before_the_download(
    scene: Scene, mirror: Mirror, other_key: SigningKey
) -> None:
    mirror.files.update(release_files(other_key, NEW))
    with pytest.raises(NotAuthentic, match="not by the pinned one"):
        scene.fetch(mirror)
    assert mirror.asked(PATH) == []


def test_no_signature_is_refused_before_the_download(scene: Scene, mirror: Mirror) -> None:
    del mirror.files[f"{PATH}.sig"]
    with pytest.raises(NotAuthentic, match="comes without a signature"):
        scene.fetch(mirror)
    assert mirror.asked(PATH) == []


def test_a_sign_in_page_is_no_signature(scene: Scene, mirror: Mirror) -> None:
    mirror.files = dict.fromkeys(mirror.files, b"<html>Welcome to the hotel</html>")
    with pytest.raises(NotAuthentic, match="not an OpenPGP signature"):
        scene.fetch(mirror)


def test_a_forgery_is_worse_news_than_a_dead_mirror(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(status=404))
    del second.files[f"{PATH}.sig"]
    with pytest.raises(NotAuthentic) as caught:
        scene.fetch(mirror, second)
    assert len(caught.value.details) == 2


def test_of_two_forgeries_the_first_is_told(scene: Scene, mirror: Mirror, second: Mirror) -> None:
    del mirror.files[f"{PATH}.sig"]
    second.files[f"{PATH}.sig"] = b"<html>"
    with pytest.raises(NotAuthentic, match="comes without a signature") as caught:
        scene.fetch(mirror, second)
    assert caught.value.hint.startswith("a release is used only with its .sig beside it")
    assert "is not an OpenPGP signature" in caught.value.details[1]


# --- the public key ---------------------------------------------------------------------------


def test_the_key_is_kept_for_next_time(scene: Scene, mirror: Mirror) -> None:
    scene.fetch(mirror)
    publish_anew(scene, mirror)
    assert scene.fetch(mirror, update=True, with_key=False).tarball.read_bytes() == NEW


def test_the_key_is_found_in_a_keyring_among_others(
    scene: Scene, mirror: Mirror, other_key: SigningKey, tmp_path: Path
) -> None:
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(other_key.certificate + b"\n" + scene.key.certificate)
    sources = KeySources(keyrings=(tmp_path / "absent.gpg", ring), keyservers=())
    scene.fetch(mirror, with_key=False, key_sources=sources)


@pytest.mark.parametrize("first", ["absent", "forged", "busy"])
def test_the_key_comes_from_the_keyserver_that_has_it(
    scene: Scene, mirror: Mirror, other_key: SigningKey, first: str
) -> None:
    with serving() as servers:
        if first == "forged":
            servers.files[f"/1/{scene.key.fingerprint}"] = other_key.certificate
        if first == "busy":
            servers.misbehave(f"/1/{scene.key.fingerprint}", Manners(status=503))
        servers.files[f"/2/{scene.key.fingerprint}"] = scene.key.certificate
        sources = KeySources((), tuple(f"{servers.address}/{n}/{{fingerprint}}" for n in (1, 2)))
        scene.fetch(mirror, with_key=False, key_sources=sources)
    assert any("keyserver" in note for note in scene.heard.notes)
    unheard = ["only that keyserver may know it" in said for said in scene.heard.warnings]
    assert unheard == [True] * (first == "busy"), "one that has not got it has said so"


def test_one_keyserver_that_knows_of_a_revocation_is_enough(tmp_path: Path) -> None:
    key = make_key("revoked")
    scene = Scene(tmp_path, key)
    with serving(scene.files) as mirror, serving() as servers:
        servers.files = {"/1": key.certificate, "/2": revoked(key)}
        sources = KeySources((), (f"{servers.address}/1", f"{servers.address}/2"))
        with pytest.raises(NotAuthentic, match=f"the key {key.fingerprint} is revoked") as caught:
            scene.fetch(mirror, with_key=False, key_sources=sources)
    assert mirror.address + PATH in caught.value.what
    assert "not to be trusted any more" in caught.value.hint


def test_without_any_key_the_hint_names_the_option(scene: Scene, mirror: Mirror) -> None:
    with serving({"/page": b"<html>"}) as servers:
        sources = KeySources((), (f"{servers.address}/{{fingerprint}}", f"{servers.address}/page"))
        with pytest.raises(NetworkError, match=scene.key.fingerprint) as caught:
            scene.fetch(mirror, with_key=False, key_sources=sources)
    assert "--signing-key FILE" in caught.value.hint
    none, page = caught.value.details
    assert "404" in none
    assert page.endswith("/page: gave something else than the key asked for")
    assert mirror.log == []


def test_a_file_with_another_key_is_not_authentic(
    scene: Scene, mirror: Mirror, other_key: SigningKey
) -> None:
    scene.key_file.write_bytes(other_key.certificate)
    with pytest.raises(NotAuthentic, match=other_key.fingerprint) as caught:
        scene.fetch(mirror)
    assert scene.key.fingerprint in caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"no key"])
def test_a_file_without_a_key_is_a_configuration_error(
    scene: Scene, mirror: Mirror, content: bytes | None
) -> None:
    scene.key_file.unlink()
    if content is not None:
        scene.key_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"key\.asc"):
        scene.fetch(mirror)


def test_a_secret_key_is_not_copied_into_the_cache(scene: Scene, mirror: Mirror) -> None:
    scene.key_file.write_text(str(scene.key.secret))
    scene.fetch(mirror)
    (kept,) = (scene.cache.root / "keys").iterdir()
    assert b"PRIVATE" not in kept.read_bytes()


# --- interruptions ----------------------------------------------------------------------------

# Another process, because a killed thread is no killed run; argv: cache, lock, key file,
# fingerprint, URL, and the largest file it may write.
_CHILD = """
import resource, sys
from pathlib import Path
from imager.base.cache import Cache
from imager.base.errors import PicloudError
from imager.base.progress import Quiet
from imager.release.fetch import fetch_release
from imager.release.catalogue import ReleaseSpec
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms, KeySources
cache, lock, key_file, fingerprint, url, largest = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
try:
    fetch_release(
        ReleaseSpec("stand-in", url, fingerprint, ("pi2",)), RackLock.load(Path(lock)),
        FetchTerms(Cache(Path(cache)), Quiet()), KeySources(file=Path(key_file)),
    )
except PicloudError as error:
    sys.exit(error.exit_code)
"""


@contextmanager
def fetching(
    scene: Scene, mirror: Mirror, largest: int = 1_000_000
) -> Iterator[subprocess.Popen[bytes]]:
    """A run of its own that can be killed; it exits with its error's exit code."""
    words = (
        scene.cache.root, scene.lock_path, scene.key_file, scene.key.fingerprint,
        mirror.address + PATH, largest,
    )  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *map(str, words)], cwd=ROOT)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def came_in(scene: Scene) -> int:
    found = list(scene.cache.partial.glob("*/tarball"))
    return found[0].stat().st_size if found else 0


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, Interrupted.exit_code)]
)
def test_a_killed_download_is_resumed(
    scene: Scene, mirror: Mirror, how: signal.Signals, code: int
) -> None:
    mirror.misbehave(PATH, Manners(seconds_per_kib=0.02))
    with fetching(scene, mirror) as child:
        wait_for(lambda: came_in(scene) > 5_000)
        child.send_signal(how)
        assert child.wait() == code
    kept = came_in(scene)
    assert 5_000 < kept < len(scene.data)
    assert scene.archived() == []
    assert not scene.lock_path.exists()
    mirror.misbehave(PATH, Manners())
    mirror.log.clear()
    assert scene.fetch(mirror, locked=True).tarball.read_bytes() == scene.data
    assert [each.range for each in mirror.asked(PATH)] == [f"bytes={kept}-"]


def test_ctrl_c_says_what_is_kept(scene: Scene, mirror: Mirror) -> None:
    class Impatient:
        def advance(self, size_bytes: int) -> None:
            raise KeyboardInterrupt

    class Phases:
        def __enter__(self) -> Phase:
            return Impatient()

        def __exit__(self, *_: object) -> None:
            pass

    scene.heard.phase = lambda *_: Phases()  # type: ignore[assignment,method-assign]
    with pytest.raises(Interrupted, match="kB that came in are kept") as caught:
        scene.fetch(mirror)
    assert caught.value.exit_code == 130
    assert "same command again" in caught.value.hint


def test_two_runs_at_once_fetch_once_and_the_second_says_it_waits(
    scene: Scene, mirror: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(seconds_per_kib=0.002))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(scene.fetch(mirror, locked=True).sha256))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(scene.data).hexdigest()] * 2
    assert len(mirror.asked(PATH)) == 1
    assert sum("waiting" in note for note in scene.heard.notes) == 1


def test_a_run_that_waited_honours_the_pin_made_meanwhile(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(seconds_per_kib=0.002))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(scene.fetch(mirror, locked=True).sha256))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: bool(mirror.asked(PATH)) and bool(scene.heard.notes))
    publish_anew(scene, mirror)
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(scene.data).hexdigest()] * 2


def test_a_disk_that_fills_up_is_host_storage_and_the_next_run_goes_on(
    scene: Scene, mirror: Mirror
) -> None:
    with fetching(scene, mirror, largest=60_000) as child:
        assert child.wait() == HostStorage.exit_code
    assert came_in(scene) == 60_000
    mirror.log.clear()
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert [each.range for each in mirror.asked(PATH)] == ["bytes=60000-"]


def test_a_file_where_the_cache_should_be_is_refused_by_name(scene: Scene, mirror: Mirror) -> None:
    scene.cache.root.write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match=f"{scene.cache.root}: is no folder"):
        scene.fetch(mirror)
