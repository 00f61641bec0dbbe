"""An exported file, taken in elsewhere: the same bytes, or nothing."""

from __future__ import annotations

import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, Interrupted, NotAuthentic, PicloudError
from imager.base.progress import Phase, Quiet
from imager.packages.carry import form
from imager.packages.carry.carried import opened
from imager.packages.carry.lists import missing_of
from imager.packages.fetch.archive import PackageArchive
from tests.support.carrying import (
    NOW,
    Carrying,
    Members,
    altered,
    archived,
    flipped,
    members_of,
    packed,
    take,
)
from tests.support.pacman import package
from tests.support.signing import SigningKey, make_key, revoked, sign_detached


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return make_key()


@pytest.fixture(scope="module")
def carrying(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Carrying:
    """Exported once; the tests only read it."""
    found = Carrying(tmp_path_factory.mktemp("carrying"), key)
    found.export()
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "elsewhere")


def written(cache: Cache, data: bytes) -> Path:
    file = cache.root.parent / "given.tar"
    file.write_bytes(data)
    return file


def refused(data: bytes, cache: Cache, key: SigningKey) -> PicloudError:
    """Why a file of ``data`` is refused; nothing of it stays."""
    file = written(cache, data)
    with pytest.raises(PicloudError) as caught:
        take(file, cache, key)
    assert archived(cache) == {}
    assert str(file) in caught.value.what
    assert caught.value.hint
    return caught.value


def test_what_is_taken_in_is_what_was_exported(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    before = carrying.file.read_bytes()
    assert take(carrying.file, cache, key) == 4
    assert archived(cache) == archived(carrying.cache)
    assert take(carrying.file, cache, key) == 0
    elsewhere = Carrying.__new__(Carrying)
    elsewhere.folder, elsewhere.key, elsewhere.others = carrying.folder, key, {}
    elsewhere.cache, elsewhere.file = cache, cache.root.parent / "again.tar"
    elsewhere.export()
    assert elsewhere.file.read_bytes() == before
    with tarfile.open(carrying.file) as tar:
        assert tar.getnames() == list(members_of(carrying.file))


def test_one_bit_anywhere_is_found(carrying: Carrying, cache: Cache, key: SigningKey) -> None:
    data = carrying.file.read_bytes()
    for at in range(0, len(data), 401):
        error = refused(flipped(data, at), cache, key)
        assert error.exit_code in (12, 13), at


def test_one_bit_of_a_member_names_it(carrying: Carrying, cache: Cache, key: SigningKey) -> None:
    members = members_of(carrying.file)
    for name, content in members.items():
        if name == form.SUMS:
            continue
        for at in (0, len(content) // 2, len(content) - 1):
            spoilt = packed({**members, name: flipped(content, at)}, sums=False)
            error = refused(spoilt, cache, key)
            assert error.exit_code == 12 or name == form.LOCK
            assert name in error.what


def test_a_file_that_ends_early_says_where(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    data = carrying.file.read_bytes()
    for length in (0, 1, 511, 512, 600, len(data) // 2, len(data) - 1025, len(data) - 1):
        error = refused(data[:length], cache, key)
        assert error.exit_code == 13
        assert any(word in error.what for word in ("ends at byte", "speaks of", "is no file"))


def climbing(members: Members) -> None:
    members["packages/../../../etc/cron.d/x"] = b"x"


def absolute(members: Members) -> None:
    members["/etc/cron.d/x"] = b"x"


def surplus(members: Members) -> None:
    folder = next(name for name in members if "docker" in name).rpartition("/")[0]
    members[f"{folder}/more"] = b"x"


def one_missing(members: Members) -> None:
    del members[next(name for name in members if name.endswith("/salt-3008.3.tar.gz"))]


def another_order(members: Members) -> None:
    key = next(name for name in members if name.startswith("keys/"))
    members[key] = members.pop(key)


def huge_claim(members: Members) -> None:
    text = members[form.LOCK].decode()
    members[form.LOCK] = text.replace("size_bytes = 500", "size_bytes = 250000000").encode()


def no_limit(members: Members) -> None:
    text = members[form.LOCK].decode()
    members[form.LOCK] = text.replace("size_bytes = 500", f"size_bytes = {2**62}").encode()


def small_claim(members: Members) -> None:
    text = members[form.LOCK].decode()
    members[form.LOCK] = text.replace("size_bytes = 500", "size_bytes = 501").encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (climbing, "does not speak of packages/../../../etc/cron.d/x"),
        (absolute, "does not speak of /etc/cron.d/x"),
        (surplus, "does not speak of packages/"),
        (one_missing, "salt 3008.3, which its rack.lock pins, is not in it"),
        (another_order, "in that order"),
        (huge_claim, "its rack.lock speaks of"),
        (no_limit, f"salt 3008.3 claims {2**62} bytes"),
        (small_claim, "salt-3008.3.tar.gz has not the 501 bytes"),
    ],
)
def test_what_was_not_exported_so_is_refused(
    change: Callable[[Members], None],
    words: str,
    carrying: Carrying,
    cache: Cache,
    key: SigningKey,
) -> None:
    error = refused(altered(carrying.file, change), cache, key)
    assert error.exit_code == 13
    assert words in error.what


@pytest.mark.parametrize("ending", ["salt-3008.3.tar.gz", ".pkg.tar.xz", "release.tar.gz"])
def test_what_the_lock_does_not_pin_is_refused(
    ending: str, carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    """Also where SHA256SUMS was made right for it."""

    def change(members: Members) -> None:
        name = next(name for name in members if name.endswith(ending))
        members[name] = flipped(members[name], 9)

    error = refused(altered(carrying.file, change), cache, key)
    assert error.exit_code == 12
    assert f"{ending} is not what its rack.lock pins" in error.what


def test_no_other_kind_of_member_is_read(carrying: Carrying, cache: Cache, key: SigningKey) -> None:
    """Links, devices, holes, a second file of a name, something at the end."""
    members = members_of(carrying.file)
    data, name = carrying.file.read_bytes(), list(members)[-1]
    head = form.header(name, len(members[name]))
    at = data.index(head)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/shadow", len(members[name])
        other = info.tobuf(tarfile.PAX_FORMAT)
        spoilt = data[:at] + other + data[at + len(head) :]
        assert refused(spoilt, cache, key).exit_code == 13
    twice = packed([*members.items(), (name, members[name])], sums=False)
    assert refused(twice, cache, key).exit_code == 13
    assert "twice" in refused(packed([*members.items(), (name, b"x")]), cache, key).what
    assert "more follows" in refused(data + bytes(512), cache, key).what
    assert refused(b"\x1f\x8b" + bytes(600), cache, key).exit_code == 13


def test_a_header_that_claims_much_costs_nothing(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    members = members_of(carrying.file)
    for name in (form.SUMS, form.LOCK, next(name for name in members if name.endswith(".sig"))):
        head = form.header(name, len(members[name]))
        huge = form.header(name, 7 << 30)
        error = refused(carrying.file.read_bytes().replace(head, huge, 1), cache, key)
        assert "may have" in error.what


def test_no_key_is_read_that_the_rack_does_not_name(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    """There may be as many as fit into rack.lock, each of a MiB of zeros that a file need not
    even have on the disk."""
    members = members_of(carrying.file)
    (name,) = (name for name in members if name.startswith("keys/"))
    head = carrying.file.read_bytes().partition(form.header(name, len(members[name])))[0]
    with pytest.raises(NotAuthentic, match="which this rack does not name"):
        take(written(cache, head), cache, make_key())
    with pytest.raises(PicloudError, match=f"in the middle of {name}"):
        take(written(cache, head), cache, key)


def test_a_fault_of_its_lock_is_told_in_a_line(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    def change(members: Members) -> None:
        members[form.LOCK] += f'[release.y]\nsize_bytes = 1\nsha256 = "{"x" * 9000}"\n'.encode()

    error = refused(altered(carrying.file, change), cache, key)
    assert "its rack.lock is wrong: release.y.sha256" in error.what
    assert len(error.what) < 1000


def test_what_another_key_signed_is_refused(tmp_path: Path, cache: Cache, key: SigningKey) -> None:
    other = make_key()
    carrying = Carrying(tmp_path / "other", key, {"docker": sign_detached(other, b"x")})
    carrying.export()
    error = refused(carrying.file.read_bytes(), cache, key)
    assert error.exit_code == 12
    assert "docker-1:1.6-1-any.pkg.tar.xz.sig was made by the key" in error.what
    carrying = Carrying(tmp_path / "old", key, {"x": sign_detached(key, b"an older release")})
    carrying.export()
    error = refused(carrying.file.read_bytes(), cache, key)
    assert error.exit_code == 12
    assert "release.tar.gz: the key" in error.what


def test_no_signature_is_kept_that_proved_nothing(
    tmp_path: Path, cache: Cache, key: SigningKey
) -> None:
    """When something was signed is read of its signatures: one that is older, of something else,
    would let an older release in."""
    carrying = Carrying(tmp_path / "two", key)
    before = archived(carrying.cache)
    for path in carrying.cache.root.glob("*/*/*.sig"):
        path.write_bytes(sign_detached(key, b"something else") + path.read_bytes())
    assert archived(carrying.cache) != before
    carrying.export()
    assert take(carrying.file, cache, key) == 4
    assert archived(cache) == before


def test_a_package_under_another_name_is_refused(
    tmp_path: Path, cache: Cache, key: SigningKey
) -> None:
    carrying = Carrying(tmp_path / "renamed", key)
    carrying.add_package(package(tmp_path, "backdoor", "1:1.6-1", {"usr/x": "y"}), "openssh")
    carrying.export()
    error = refused(carrying.file.read_bytes(), cache, key)
    assert error.exit_code == 12
    assert "is backdoor 1:1.6-1 any, and should be openssh" in error.what


def test_a_key_that_was_revoked_is_called_so(
    carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    gone = replace(key, certificate=revoked(key))
    error = refused(carrying.file.read_bytes(), cache, gone)
    assert error.exit_code == 12
    assert f"cannot be proven: the key {key.fingerprint} is revoked" in error.what


@pytest.mark.parametrize("record", ["package.json", "release.json"])
def test_a_record_that_says_something_else_is_refused(
    record: str, carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    def change(members: Members) -> None:
        name = next(name for name in members if name.endswith(record))
        members[name] = members[name].replace(b'"size_bytes": ', b'"size_bytes": 1')

    error = refused(altered(carrying.file, change), cache, key)
    assert error.exit_code == 12
    assert f"{record}: it is not what its rack.lock says" in error.what


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"source_url": "http://m/', '"source_url": "gopher://m/'),
        (f'"fetched_at": "{NOW}"', '"fetched_at": "once"'),
    ],
)
def test_a_record_that_no_rack_lock_could_hold_is_refused(
    right: str, wrong: str, carrying: Carrying, cache: Cache, key: SigningKey
) -> None:
    """It goes into rack.lock when the release is pinned."""

    def change(members: Members) -> None:
        name = next(name for name in members if name.endswith("release.json"))
        assert right in members[name].decode()
        members[name] = members[name].replace(right.encode(), wrong.encode())

    error = refused(altered(carrying.file, change), cache, key)
    assert error.exit_code == 12
    assert "release.json: pin." in error.what


def test_a_long_name_is_carried(tmp_path: Path, cache: Cache, key: SigningKey) -> None:
    """Names of more than 100 bytes have a header of their own kind (pax)."""
    carrying = Carrying(tmp_path / "long", key)
    name = "python-" + "long-" * 20 + "name"
    carrying.add_package(package(tmp_path, name, "1:1.6-1", {"usr/x": "y"}), name)
    carrying.export()
    assert take(carrying.file, cache, key) == 5
    assert archived(cache) == archived(carrying.cache)


def test_a_file_is_carried_under_the_name_that_is_pinned(
    tmp_path: Path, cache: Cache, key: SigningKey
) -> None:
    """Another mirror may call the same bytes otherwise."""
    carrying = Carrying(tmp_path / "called", key)
    pin = replace(carrying.lock.pacman["docker"], file="d.pkg.tar.xz")
    carrying.lock.with_pin("docker", pin)
    carrying.export()
    assert take(carrying.file, cache, key) == 4
    found = PackageArchive(cache).find("docker", pin)
    assert found is not None
    assert found.path.name == "d.pkg.tar.xz"


def test_what_another_key_signed_too_is_taken_in_beside(
    carrying: Carrying, tmp_path: Path, cache: Cache, key: SigningKey
) -> None:
    other = make_key()
    both = Carrying(tmp_path / "both", other)
    both.export()
    assert take(carrying.file, cache, key) == 4
    assert take(both.file, cache, other) == 3, "all but Salt, which has no signature"
    for each in (carrying, both):
        assert missing_of(cache, each.lock) == ()


def test_what_is_no_file_is_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    for path in (pipe, tmp_path):
        with pytest.raises(ConfigurationError, match="no regular file"), opened(path, ()):
            pass


class Ending(Quiet):
    """A Progress under which the ``count``-th step is the last."""

    def __init__(self, count: int, end: Callable[[], object]) -> None:
        self.left = count
        self.end = end

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        yield self

    def advance(self, size_bytes: int) -> None:
        self.left -= 1
        if not self.left:
            self.end()


def interrupt() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object]) -> bool:
    """Do ``work`` in a process of its own; whether it was killed."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ctrl_c_and_kill_9_leave_nothing_half(
    count: int, carrying: Carrying, cache: Cache, key: SigningKey, tmp_path: Path
) -> None:
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        take(carrying.file, cache, key, Ending(count, interrupt))
    assert archived(cache) == {}
    assert killed(lambda: take(carrying.file, cache, key, Ending(count, kill)))
    assert not any(name.startswith(("pack", "rel")) for name in archived(cache))
    assert take(carrying.file, cache, key) == 4
    assert archived(cache) == archived(carrying.cache)

    out = Carrying(tmp_path / "out", key)
    with pytest.raises(KeyboardInterrupt):
        out.export(Ending(count, interrupt))
    assert [path.name for path in out.folder.glob("*rack.tar*")] == []
    assert killed(lambda: out.export(Ending(count, kill)))
    assert not out.file.exists()


def test_what_is_there_is_left_alone(carrying: Carrying, cache: Cache, key: SigningKey) -> None:
    take(carrying.file, cache, key)
    before = {path: path.stat().st_mtime_ns for path in cache.root.glob("*/*/*")}
    take(carrying.file, cache, key)
    assert {path: path.stat().st_mtime_ns for path in cache.root.glob("*/*/*")} == before


def test_an_altered_signature_is_not_exported(tmp_path: Path, key: SigningKey) -> None:
    carrying = Carrying(tmp_path, key)
    (signature,) = carrying.cache.root.glob("packages/*/docker*.sig")
    signature.write_bytes(flipped(signature.read_bytes(), -1 + signature.stat().st_size))
    with pytest.raises(NotAuthentic, match="docker"):
        carrying.export()
    assert not carrying.file.exists()
