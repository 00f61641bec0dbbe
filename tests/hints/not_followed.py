"""Texts that the table in test_followed does not follow, each with the reason.

The first group never will be. All others are open: whoever can make the situation cheaply moves the
text into the table, and a new text does not belong here.
"""

from __future__ import annotations

TELLS = "It says how things are; nothing is to be typed."
DISK = "Needs a disk, a reader or udevd of its own."
FULL = "Needs a filesystem that is full or odd, or a stranger's folder."
MASTER = "Needs a Salt master, or reaches out to a computer that is not there."
PACKAGES = "Needs a mirror whose packages move or are damaged, or a release without pacman."
SALT = "Needs a release without Python, or PyPI with other versions."
RELEASE = "Needs a release that moves on its mirror, or an archive that is damaged in one place."
CARD = "Needs a card without a stamp, or a master's second key."

NOT_FOLLOWED: dict[str, str] = {
    "picloud-image receipt": TELLS,
    "nothing is known of it beforehand: no sums, no block map, no --sha256": TELLS,
    "Nothing was touched (--dry-run).": TELLS,
    "on trial: {} by {}, the others by {} until picloud-image lock promote": TELLS,
    "on {} alone, until picloud-image lock promote": TELLS,
    "Nothing was touched (--dry-run); signatures are checked when it is.": TELLS,
    "{} is no file that picloud-image archive export wrote": TELLS,
    "picloud-image lock --update": TELLS,
    "; picloud-image lock --update {} moves it": TELLS,
    "if it is the right one, say --max-size {}": DISK,
    "if it is the right one, say --allow-fixed-disk and type its name when asked": DISK,
    "leave --size out, or name a file ending in .img": DISK,
    "say --yes; it takes the rack's own slots, blank cards and cards of this rack": DISK,
    "put cards in; picloud-image devices lists every disk and says which may be written": DISK,
    "Every slot has its label already; --replace learns them anew.": DISK,
    "then picloud-image rack slots learn": DISK,
    'write slots = "{}" under [rack], or name the labels here: {}': DISK,
    "mend what is named here, or remove the file and run picloud-image rack slots learn": DISK,
    "save what you need and write it again: {}": DISK,
    "{} ({}) is done with another card; --again makes one more": DISK,
    "free some space, or put the cache elsewhere with --cache DIR": FULL,
    "copy it to a folder of your own and name that one (--rack DIR, --cache DIR)": FULL,
    "put the cache on an ordinary ext4, xfs or btrfs filesystem with --cache DIR": FULL,
    "use a larger card, or a larger --size for an image file": FULL,
    "name the rack's folder with --rack DIR, or make one with picloud-image rack init": FULL,
    "see what is said of each above; picloud-image rack status asks again": MASTER,
    "nodes stand before it: picloud-image rack status pi1 --wait 600": MASTER,
    "  → put each in its Pi and switch on, then: picloud-image rack status --wait": MASTER,
    "    ssh {} salt-key --yes --delete {}": MASTER,
    "for example --host 10.0.0.10": MASTER,
    "name your key with --identity FILE, or put its public half under [login] in "
    "rack.toml and write the master's card again": MASTER,
    "see that the master is switched on and on this network; --wait waits for it": MASTER,
    "its key is not the one this rack made, or the master was never given it: "
    "picloud-image rack keys export": MASTER,
    "see [salt] in rack.toml: the master needs Salt": MASTER,
    "write it, if that was not done: {}; or go back: picloud-image lock undo": MASTER,
    'name it again, as canary = ["pi3"] under [packages]; or drop what is on trial: '
    "picloud-image lock undo": PACKAGES,
    "try it: {}; then picloud-image lock promote gives it to all, or picloud-image "
    "lock undo drops it": PACKAGES,
    "back from the archive, with its next card: {}": PACKAGES,
    "say {}, or picloud-image lock to see what is pinned": PACKAGES,
    "look with --dry-run, then say --yes": PACKAGES,
    "picloud-image lock promote gives it to all nodes, picloud-image lock undo drops it": PACKAGES,
    "choose others under [packages] in rack.toml": PACKAGES,
    "choose another version of it under [packages] in rack.toml, and tell whoever "
    "publishes it": PACKAGES,
    "name units that there are as enable under [packages] in rack.toml; a unit of an "
    "overlay is enabled in its overlay.toml": PACKAGES,
    "run picloud-image lock to get it anew; what was here is kept as": PACKAGES,
    "run picloud-image lock without --offline: it sets this aside and fetches it anew": PACKAGES,
    "run picloud-image lock to get it anew": PACKAGES,
    "to use what is published now, run picloud-image lock --update {}": PACKAGES,
    "take it from a computer whose archive has it (picloud-image archive export), or "
    "run picloud-image lock --update {}": PACKAGES,
    "run picloud-image lock once without --offline": PACKAGES,
    "picloud-image lock shows them; what is new goes into [packages] in rack.toml": PACKAGES,
    "name what may move: picloud-image lock --update PKG…, or without names for all": PACKAGES,
    "run picloud-image lock --verify: it sets aside what is damaged": PACKAGES,
    "the databases of this mirror are not sound; run it again, or with --release": PACKAGES,
    "mend [packages] in rack.toml by what is named here (picloud-image docs locking)": PACKAGES,
    "put the packages into a folder and name it as packages under [salt] in rack.toml "
    "(picloud-image docs salt); or choose a release that has them": SALT,
    "choose a newer series as version under [salt] in rack.toml, such as 3008.3, "
    "which was seen to work there (picloud-image docs salt)": SALT,
    "write one of them as version under [salt] in rack.toml": SALT,
    "run picloud-image fetch": SALT,
    "take packages of the same day and the same architecture as the release, with all they depend "
    "on (picloud-image docs salt)": SALT,
    "put NAME-VERSION-RELEASE-ARCH.pkg.tar.xz files there (picloud-image docs salt)": SALT,
    "look at the connection; with --offline what is archived is enough": MASTER,
    "put the cache elsewhere with --cache DIR": FULL,
    "run picloud-image fetch, then export again": RELEASE,
    "if you trust it, name it as signing_key under [release] in rack.toml": RELEASE,
    "look with --dry-run, then say --yes if you trust where the file comes from": RELEASE,
    "the archived file was damaged; move it away and run: picloud-image fetch": RELEASE,
    "run picloud-image fetch: it sets this aside and fetches it anew": RELEASE,
    "run picloud-image fetch to get it anew, then export again": RELEASE,
    "run picloud-image fetch to get it anew; the altered one is kept as {}": RELEASE,
    "to use what is published now, run picloud-image fetch --update": RELEASE,
    "for one by {}, run picloud-image fetch --update": RELEASE,
    "get the key's file some other way and name it with --signing-key FILE": RELEASE,
    "leave --key and --receipt out, or write the card again": CARD,
    "name the rack it was written for with --rack DIR, give --receipt FILE, or write "
    "it again": CARD,
    "say --yes if that is wanted": CARD,
}
