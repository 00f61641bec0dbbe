"""A whole file from a mirror with any manners, or a plain word about why not."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import HostStorage, NetworkError, NotAuthentic
from imager.release.transfer.download import Version, parse_version
from imager.release.transfer.web import Web
from tests.support.fetching import LIMITS, PATH, Scene, md5_line, release_files, some_bytes
from tests.support.mirror import LAST_MODIFIED, Manners, Mirror, serving
from tests.support.syncing import fsyncs

pytestmark = pytest.mark.image


def test_a_cut_connection_is_resumed_where_it_broke(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 70_000]))
    release = scene.fetch(mirror)
    assert release.tarball.read_bytes() == scene.data
    asked = mirror.asked(PATH)
    assert [each.range for each in asked] == [None, *["bytes=50000-"] * 2, "bytes=120000-"]
    assert {each.if_range for each in asked[1:]} == {'"v1"'}
    assert sum(scene.heard.phases["fetch stand-in"]) == len(scene.data)


def test_without_an_etag_the_time_says_whether_to_go_on(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000], etags=[]))
    scene.fetch(mirror)
    assert mirror.asked(PATH)[1].if_range == LAST_MODIFIED


def test_without_any_validator_a_cut_download_begins_anew(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000], etags=[], last_modified=None))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert [each.range for each in mirror.asked(PATH)] == [None, None]


def test_a_weak_etag_is_no_promise_of_the_same_bytes(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000], etags=['W/"v1"']))
    scene.fetch(mirror)
    assert mirror.asked(PATH)[1].if_range == LAST_MODIFIED


def test_a_server_that_ignores_range_sends_it_all_again(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 150_000], ignores_range=True))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert sum(scene.heard.phases["fetch stand-in"]) == len(scene.data)


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_replaced_meanwhile_is_fetched_whole(
    scene: Scene, mirror: Mirror, ignores_if_range: bool
) -> None:
    new = some_bytes(1)
    mirror.files.update(release_files(scene.key, new))
    # One probe and one cut request see the old file, every later one the new.
    mirror.misbehave(
        PATH,
        Manners(
            bodies=[scene.data],
            cut_after=[50_000],
            etags=['"v1"', '"v1"', '"v2"'],
            ignores_if_range=ignores_if_range,
        ),
    )
    release = scene.fetch(mirror)
    assert release.tarball.read_bytes() == new
    assert not list(scene.cache.partial.glob("*.rejected")), "the two were never mixed"
    assert json.loads((release.tarball.parent / "release.json").read_text())["etag"] == '"v2"'


def test_a_server_that_continues_at_the_wrong_byte_begins_anew(
    scene: Scene, mirror: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000], shifts_range=1))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert not list(scene.cache.partial.glob("*.rejected"))


def test_what_was_fetched_is_on_the_disk_before_it_is_believed(
    scene: Scene, mirror: Mirror
) -> None:
    """Before it gets its name in the archive, and after a cut, before the version is trusted."""
    mirror.misbehave(PATH, Manners(cut_after=[50_000]))
    with fsyncs() as done:
        scene.fetch(mirror)
    whole = [sync.path for sync in done if sync.size_bytes == len(scene.data)]
    assert [path.name for path in whole] == ["tarball"]
    assert whole[0].is_relative_to(scene.cache.partial)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_disk_without_room_is_told_before_the_transfer(
    scene: Scene, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    real, asked = os.statvfs, list[str]()

    def nearly_full(path: str) -> os.statvfs_result:
        found = list(real(path))
        found[1] = 1  # f_frsize: what follows are bytes
        found[3] = found[4] = 0
        # f_bfree is for root alone, f_bavail for everybody.
        found[4 if os.geteuid() else 3] = len(scene.data) - len(asked) * 50_000 - missing
        asked.append(path)
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    if not missing:
        mirror.misbehave(PATH, Manners(cut_after=[50_000]))
        assert scene.fetch(mirror).tarball.read_bytes() == scene.data
        return
    with pytest.raises(HostStorage, match="and what is still to come takes") as caught:
        scene.fetch(mirror)
    assert "--cache" in caught.value.hint
    assert not list(scene.cache.partial.rglob("tarball")), "nothing of it was stored"


def test_cuts_without_headway_end_in_a_network_error(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0, 0, 0]))
    with pytest.raises(NetworkError, match="the connection was cut") as caught:
        scene.fetch(mirror)
    assert caught.value.exit_code == 11
    assert len(mirror.asked(PATH)) == LIMITS.attempts
    assert (scene.partial / "tarball").stat().st_size == 50_000


def test_cuts_with_headway_do_not_count(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[20_000] * 9))
    release = scene.fetch(mirror, limits=replace(LIMITS, headway_bytes=10_000))
    assert release.tarball.read_bytes() == scene.data


def test_after_headway_failures_are_counted_from_one(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[20_000, 0, 20_000, 0, 0, 0]))
    limits = replace(LIMITS, headway_bytes=20_000, attempts=3)
    with pytest.raises(NetworkError, match="the connection was cut"):
        scene.fetch(mirror, limits=limits)
    assert len(mirror.asked(PATH)) == 5


def test_the_next_run_goes_on_where_the_last_gave_up(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0]))
    with pytest.raises(NetworkError):
        scene.fetch(mirror)
    mirror.log.clear()
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert [each.range for each in mirror.asked(PATH)] == ["bytes=50000-"]


def test_another_mirror_with_the_same_file_goes_on_too(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0]))
    second.misbehave(PATH, Manners(etags=['"numbered otherwise"']))
    assert scene.fetch(mirror, second).tarball.read_bytes() == scene.data
    (asked,) = second.asked(PATH)
    assert (asked.range, asked.if_range) == ("bytes=50000-", '"numbered otherwise"')


def test_another_mirror_with_another_file_does_not(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0]))
    second.files.update(release_files(scene.key, some_bytes(1)))
    second.misbehave(PATH, Manners(etags=['"v2"'], last_modified="Mon, 09 Nov 2026 10:00:00 GMT"))
    assert scene.fetch(mirror, second).tarball.read_bytes() == some_bytes(1)
    assert [each.range for each in second.asked(PATH)] == [None]


def test_a_partial_file_longer_than_the_real_one_begins_anew(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0]))
    with pytest.raises(NetworkError):
        scene.fetch(mirror)
    with (scene.partial / "tarball").open("ab") as file:
        file.write(bytes(300_000))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data


def test_a_complete_partial_file_is_not_fetched_again(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(cut_after=[50_000, 0, 0, 0]))
    with pytest.raises(NetworkError):
        scene.fetch(mirror)
    (scene.partial / "tarball").write_bytes(scene.data)
    mirror.log.clear()
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert mirror.asked(PATH) == []


def test_an_endless_body_is_left_at_the_size_cap(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(endless=True))
    with pytest.raises(NetworkError, match=r"sends more than 2 MB"):
        scene.fetch(mirror)
    assert not (scene.partial / "tarball").exists()


def test_an_endless_signature_is_left_at_its_cap(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(f"{PATH}.sig", Manners(endless=True))
    with pytest.raises(NetworkError, match=r"\.sig is larger than 64 KiB"):
        scene.fetch(mirror)
    assert mirror.asked(PATH) == []


def test_a_length_over_the_cap_is_refused_before_a_byte(scene: Scene, mirror: Mirror) -> None:
    mirror.files[PATH] = bytes(2_000_001)
    with pytest.raises(NetworkError, match="no release is larger than"):
        scene.fetch(mirror)


def test_a_release_as_large_as_the_cap_is_taken(scene: Scene, mirror: Mirror) -> None:
    limits = replace(LIMITS, tarball_bytes=len(scene.data))
    assert scene.fetch(mirror, limits=limits).size_bytes == len(scene.data)


def test_an_empty_file_is_told(scene: Scene, mirror: Mirror) -> None:
    mirror.files[PATH] = b""
    with pytest.raises(NetworkError, match="the file is empty"):
        scene.fetch(mirror)


def test_a_length_too_large_is_a_cut_connection(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(announced=250_000))
    with pytest.raises(NetworkError):
        scene.fetch(mirror)


def test_a_length_that_is_none_is_not_waited_for(scene: Scene, mirror: Mirror) -> None:
    """The server keeps the connection open, and without a length no body has an end."""
    mirror.misbehave(PATH, Manners(announced=-5))
    with pytest.raises(NetworkError, match="announces a body of '-5' bytes"):
        scene.fetch(mirror)


def test_a_length_too_small_is_not_the_signed_file(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(announced=150_000))
    with pytest.raises(NotAuthentic):
        scene.fetch(mirror)
    assert scene.archived() == []


def test_a_truncated_file_is_not_the_signed_one(scene: Scene, mirror: Mirror) -> None:
    mirror.files[PATH] = scene.data[:-1]
    with pytest.raises(NotAuthentic) as caught:
        scene.fetch(mirror)
    assert caught.value.exit_code == 12
    assert len(mirror.asked(PATH)) == 2, "the .md5 said the transfer may have been damaged"


def test_a_transfer_damaged_once_is_repeated(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(bodies=[scene.data[:-1] + b"?"]))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_unannounced_length_is_taken(scene: Scene, mirror: Mirror, chunked: bool) -> None:
    mirror.misbehave(PATH, Manners(chunked=chunked, ignores_range=True))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data


def test_a_cut_chunked_body_is_noticed(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(chunked=True, ignores_range=True, cut_after=[50_000]))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert len(mirror.asked(PATH)) == 2


def test_bytes_are_kept_as_stored_whatever_encoding_is_claimed(
    scene: Scene, mirror: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(content_encoding="gzip"))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data
    assert {each.accept_encoding for each in mirror.log} == {"identity"}


def test_a_busy_server_is_asked_again(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(failures=[503, 429]))
    mirror.misbehave(f"{PATH}.sig", Manners(failures=[502]))
    assert scene.fetch(mirror).tarball.read_bytes() == scene.data


def test_a_silent_server_is_given_up(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(seconds_per_kib=3))
    with pytest.raises(NetworkError, match="no answer within"):
        scene.fetch(mirror, limits=replace(LIMITS, attempts=1, read_seconds=0.2))


def test_a_server_that_drips_is_given_up(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(seconds_per_kib=1))  # minutes, for all of it
    limits = replace(LIMITS, attempts=1, window_seconds=0.2, least_bytes=100_000)
    began = time.monotonic()
    with pytest.raises(NetworkError, match="came in"):
        scene.fetch(mirror, limits=limits)
    assert time.monotonic() - began < 60


def test_a_slow_server_that_brings_enough_is_waited_for(scene: Scene, mirror: Mirror) -> None:
    mirror.files.update(release_files(scene.key, scene.data[:25_000]))
    mirror.misbehave(PATH, Manners(seconds_per_kib=0.06))
    limits = replace(LIMITS, attempts=1, window_seconds=1, least_bytes=1024)
    assert scene.fetch(mirror, limits=limits).size_bytes == 25_000


def test_servers_that_drip_cost_one_bound_together(scene: Scene, mirror: Mirror) -> None:
    limits = replace(
        LIMITS, attempts=4, window_seconds=0.2, least_bytes=100_000, wasted_seconds=0.3
    )
    with serving(mirror.files) as other:
        for each in (mirror, other):
            each.misbehave(PATH, Manners(seconds_per_kib=0.05))
        with pytest.raises(NetworkError, match="none of 2 mirrors") as caught:
            scene.fetch(mirror, other, limits=limits)
        tries = [len([ask for ask in each.asked(PATH) if ask.range != "bytes=0-0"])
                 for each in (mirror, other)]  # fmt: skip
    assert tries[0] in (1, 2), "a busy computer takes longer for each"
    assert tries[1] == 1, "the second one is asked, and not asked again"
    for said in caught.value.details:
        assert re.search(r"came in in 0.2 s; \d tries in \d+ s brought next to nothing", said)


def test_an_hour_of_tries_with_headway_is_no_waste(scene: Scene, mirror: Mirror) -> None:
    """A slow link that breaks again and again still gets there."""
    mirror.misbehave(PATH, Manners(cut_after=[20_000] * 8))
    limits = replace(LIMITS, attempts=2, headway_bytes=10_000, wasted_seconds=0.05)
    assert scene.fetch(mirror, limits=limits).tarball.read_bytes() == scene.data


_ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the length of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"a"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "the body of a redirection": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"a"),
}
"""What is sent, and what follows it without end: nothing of it is a byte of the file."""


@pytest.mark.parametrize("part", _ENDLESS)
def test_a_server_that_never_comes_to_the_file_is_given_up(part: str) -> None:
    first, rest = _ENDLESS[part]
    limits = replace(LIMITS, attempts=1, read_seconds=0.3, window_seconds=0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening, closing(Web(limits)) as web:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(1 << 16)
                        connection.sendall(first)
                        while True:
                            connection.sendall(rest)
                            time.sleep(0.02)

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(NetworkError):
            web.small_file(f"http://127.0.0.1:{listening.getsockname()[1]}/", 100)
        listening.shutdown(socket.SHUT_RDWR)
    assert time.monotonic() - began < 60


def test_a_length_of_thousands_of_digits_is_none(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(announced="9" * 5000))
    with pytest.raises(NetworkError, match="announces a body"):
        scene.fetch(mirror)


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_missing_file_sends_us_to_the_next_mirror(
    scene: Scene, mirror: Mirror, second: Mirror, status: int
) -> None:
    mirror.misbehave(PATH, Manners(status=status))
    release = scene.fetch(mirror, second)
    assert release.source_url == second.address + PATH


def test_a_busy_mirror_is_asked_again_only_where_it_is_the_only_one(
    scene: Scene, mirror: Mirror, second: Mirror
) -> None:
    mirror.misbehave(PATH, Manners(status=503))
    scene.fetch(mirror, second)
    assert len(mirror.log) == 1
    with pytest.raises(NetworkError, match="answered 503"):
        scene.fetch(mirror, update=True)
    assert len(mirror.log) == 1 + LIMITS.attempts


def test_a_dead_mirror_sends_us_to_the_next(scene: Scene, mirror: Mirror) -> None:
    with serving() as gone:
        pass
    assert scene.fetch(gone, mirror).source_url == mirror.address + PATH


def test_when_every_mirror_fails_each_is_named(scene: Scene) -> None:
    with serving() as dead:
        pass
    with serving() as empty, pytest.raises(NetworkError, match="none of 2 mirrors") as caught:
        scene.fetch(dead, empty)
    assert "refused" in caught.value.details[0]
    assert "404" in caught.value.details[1]
    assert all("\n" not in line for line in (caught.value.what, *caught.value.details))
    (note,) = scene.heard.notes
    assert note.startswith(dead.address)
    assert note.endswith("asking the next mirror")


def test_an_answer_that_is_not_http_is_a_network_error(scene: Scene, mirror: Mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen()
        mirror.address, real = f"http://127.0.0.1:{listener.getsockname()[1]}", mirror.address
        with pytest.raises(NetworkError):
            scene.fetch(mirror, limits=replace(LIMITS, read_seconds=0.2, attempts=1))
        mirror.address = real


def test_a_redirect_loop_ends(scene: Scene, mirror: Mirror) -> None:
    mirror.misbehave(PATH, Manners(redirect=mirror.address + PATH))
    with pytest.raises(NetworkError, match="redirect"):
        scene.fetch(mirror)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "http://[", "http:///x"])
def test_a_redirect_to_nowhere_is_a_network_error(
    scene: Scene, mirror: Mirror, target: str
) -> None:
    mirror.misbehave(PATH, Manners(redirect=target))
    with pytest.raises(NetworkError):
        scene.fetch(mirror)


def test_all_three_files_come_from_the_mirror_the_redirector_chose(scene: Scene) -> None:
    with serving() as geo, serving(scene.files) as chosen, serving(scene.files) as other:
        geo.misbehave(PATH, Manners(redirect=chosen.address + PATH))
        for ending in (".sig", ".md5"):
            geo.misbehave(PATH + ending, Manners(redirect=other.address + PATH + ending))
        release = scene.fetch(geo)
        assert release.source_url == chosen.address + PATH
        assert [each.path for each in geo.log] == [PATH], "the redirector is asked once"
        assert {each.path for each in chosen.log} == {PATH, f"{PATH}.sig", f"{PATH}.md5"}
        assert other.log == []


def test_resuming_stays_with_the_mirror_that_was_chosen(scene: Scene) -> None:
    with serving() as geo, serving(scene.files) as chosen:
        geo.misbehave(PATH, Manners(redirect=chosen.address + PATH))
        chosen.misbehave(PATH, Manners(cut_after=[50_000]))
        scene.fetch(geo)
        assert len(geo.log) == 1
        assert [each.range for each in chosen.asked(PATH)] == [None, "bytes=50000-"]


def test_a_server_that_redirects_each_file_to_storage_is_followed(scene: Scene) -> None:
    with serving() as front, serving() as storage:
        for number, (path, body) in enumerate(scene.files.items()):
            storage.files[f"/blob{number}?token=x"] = body
            front.misbehave(path, Manners(redirect=f"{storage.address}/blob{number}?token=x"))
        release = scene.fetch(front)
        assert release.tarball.read_bytes() == scene.data
        assert release.source_url == front.address + PATH


@pytest.mark.parametrize("body", [b"", b"not a checksum", b"\xff" * 5000])
def test_a_useless_md5_changes_nothing(scene: Scene, mirror: Mirror, body: bytes) -> None:
    mirror.files[f"{PATH}.md5"] = body
    scene.fetch(mirror)


def test_a_missing_md5_changes_nothing(scene: Scene, mirror: Mirror) -> None:
    del mirror.files[f"{PATH}.md5"]
    scene.fetch(mirror)


def test_a_wrong_md5_does_not_overrule_the_signature(scene: Scene, mirror: Mirror) -> None:
    mirror.files[f"{PATH}.md5"] = md5_line(b"something else")
    scene.fetch(mirror)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_version_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        parse_version(data)


def test_versions_without_a_common_validator_are_not_the_same_file() -> None:
    assert not Version(5, None, None).is_same_file(Version(5, None, None))
    assert not Version(None, '"a"', None).is_same_file(Version(None, '"a"', None))
    assert not Version(5, '"a"', None).is_same_file(Version(6, '"a"', None))
    assert Version(5, '"a"', "x").is_same_file(Version(5, '"b"', "x"))
