"""Who the release has, and no password of it that works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.node.files.accounts import Accounts, without_passwords

PASSWD = b"""root:x:0:0::/root:/bin/bash
salt:x:963:963:Salt:/opt/salt:/usr/sbin/nologin
sync:x:4:65534:sync:/bin:/bin/sync
alarm:x:1000:1001::/home/alarm:/bin/bash
nobody:x:65534:65534::/:/usr/bin/nologin
broken line
odd:x:a:b::/:/bin/sh
"""
GROUP = b"root:x:0:root\nwheel:x:998:alarm\nalarm:x:1001:\n"


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(PASSWD, GROUP)


def test_root_and_people_may_log_in_and_services_not(accounts: Accounts) -> None:
    assert [a.name for a in accounts.users.values() if a.may_log_in] == ["root", "alarm"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("root:root", (0, 0)),
        ("alarm", (1000, 1001)),
        ("alarm:wheel", (1000, 998)),
        ("1234:77", (1234, 77)),
        ("1234", (1234, 1234)),
        ("0:wheel", (0, 998)),
    ],
)
def test_owners_are_names_of_the_release_or_numbers(
    accounts: Accounts, text: str, numbers: tuple[int, int]
) -> None:
    assert accounts.owner(text) == numbers


@pytest.mark.parametrize(
    ("text", "fault"),
    [("pi:pi", "no user 'pi'"), ("root:nogroup", "no group 'nogroup'"), ("", "no user ''")],
)
def test_an_owner_the_release_does_not_have_is_named(
    accounts: Accounts, text: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        accounts.owner(text)


def test_every_password_that_works_is_taken_and_nothing_else_changes() -> None:
    shadow = (
        b"root:$6$salt$hash:14871::::::\nempty::14871::::::\nold:aaOFnF0FIzTVI:1::::::\n"
        b"locked:!$6$salt$hash:14871::::::\nservice:!*:14871::::::\nnone:*:1::::::\n"
        b"alarm:$y$j9T$x:14871:0:99999:7:::\n"
    )
    locked, taken = without_passwords(shadow)
    assert taken == ("root", "empty", "old", "alarm")
    assert locked == (
        b"root:*:14871::::::\nempty:*:14871::::::\nold:*:1::::::\n"
        b"locked:!$6$salt$hash:14871::::::\nservice:!*:14871::::::\nnone:*:1::::::\n"
        b"alarm:*:14871:0:99999:7:::\n"
    )


def test_a_hash_kept_in_passwd_itself_is_taken_too() -> None:
    locked, taken = without_passwords(
        b"root:aaOFnF0FIzTVI:0:0::/root:/bin/sh\na:x:1:1::/:/bin/sh\n"
    )
    assert taken == ("root",)
    assert locked == b"root:*:0:0::/root:/bin/sh\na:x:1:1::/:/bin/sh\n"


@given(st.binary(max_size=120) | st.text(alphabet="ab:!*$x\n", max_size=60).map(str.encode))
def test_any_file_ends_without_a_working_password(text: bytes) -> None:
    locked, _ = without_passwords(text)
    assert without_passwords(locked) == (locked, ())
    assert locked.count(b"\n") == text.count(b"\n")
    for line in locked.split(b"\n"):
        fields = line.split(b":")
        assert len(fields) < 2 or fields[1] == b"x" or fields[1][:1] in (b"!", b"*")


@given(st.binary(max_size=120))
def test_any_passwd_file_can_be_read(text: bytes) -> None:
    Accounts(text, text)
