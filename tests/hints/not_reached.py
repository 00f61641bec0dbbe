"""Texts that no row follows, each with the reason.

A new text does not belong here because its situation is laborious; it does if nobody can make it.
"""

from __future__ import annotations

TELLS = "It says how things are; nothing is to be typed."
ELSEWHERE = "Followed by "

NOT_REACHED: dict[str, str] = {
    "command_line('rack', 'stations', 'install', station)": f"{ELSEWHERE}"
    "tests/salt/test_stations_install.py",
    "put cards in; picloud-image rack stations lists every card that is in a reader": f"{ELSEWHERE}"
    "tests/salt/test_stations_install.py",
    "it is for {} ({}), whose card was begun in {}: look at that one; --again makes one more": (
        f"{ELSEWHERE}tests/device/test_stations_device.py"
    ),
    "picloud-image receipt": TELLS,
    "Nothing was touched (--dry-run).": TELLS,
    "rack.lock is as it was (--dry-run); what had to be known for this is in the cache.": TELLS,
    "Nothing was touched (--dry-run); signatures are checked when it is.": TELLS,
    "nothing is known of it beforehand: no sums, no block map, no --sha256": TELLS,
    "see [salt] in rack.toml: the master needs Salt": TELLS,
    "    ssh {} salt-key --yes --delete {}": f"{ELSEWHERE}tests/salt/test_join.py",
    "    scp {} {}:{}/minions/{}": f"{ELSEWHERE}tests/salt/test_join.py",
    "name an address of this computer (ip address) and a port that is free, for example --listen "
    "127.0.0.1:0": f"{ELSEWHERE}tests/unit/cli/rack/test_serve.py",
    "{} has no packages for what rack.toml asks for it now: picloud-image lock --update": (
        f"{ELSEWHERE}tests/image/test_canary.py"
    ),
    "use another address, or {} itself with --sha256": f"{ELSEWHERE}tests/image/release/"
    "test_web.py",
    "copy it, and the copy is yours: cp -r {} NEW": f"{ELSEWHERE}tests/hints/test_not_allowed.py",
    "if a run with sudo left it to root, take it back: sudo chown -R {} {}": f"{ELSEWHERE}"
    "tests/hints/test_not_allowed.py",
}
