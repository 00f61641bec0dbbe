"""Public keys that may log in: one line of authorized_keys each.

In: a line of text. Out: what is wrong with it. No message repeats the line, because it may be a
private key that was pasted by mistake.
"""

from __future__ import annotations

import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_OPTION = re.compile(r'(?P<name>[A-Za-z0-9-]+)(?:="(?:\\"|[^"])*")?(?:,|[ \t]+|\Z)')
_OPTIONS = frozenset(
    (
        *("agent-forwarding", "no-agent-forwarding", "port-forwarding", "no-port-forwarding"),
        *("pty", "no-pty", "user-rc", "no-user-rc", "x11-forwarding", "no-x11-forwarding"),
        *("cert-authority", "command", "environment", "expiry-time", "from", "permitlisten"),
        *("permitopen", "principals", "restrict", "tunnel", "verify-required"),
        "no-touch-required",
    )
)
"""sshd(8), AUTHORIZED_KEYS FILE FORMAT; capital letters are the same. A line with any other one is
ignored."""
_KEY = re.compile(
    rf"(?P<type>{'|'.join(map(re.escape, _TYPES))})[ \t]+(?P<body>[A-Za-z0-9+/]+=*)(?=[ \t]|\Z)"
)
_OLD = re.compile(r"ssh-dss[ \t]")
EXAMPLE = '"ssh-ed25519 AAAA… you@laptop"'


def key_fault(line: str) -> str | None:
    """Why sshd would not accept ``line`` in authorized_keys(5); None when it would.

    Options before the key (``from="10.0.0.*" ssh-ed25519 …``) must be some of sshd's, and what they
    say is not looked into.
    """
    if "PRIVATE KEY" in line:
        return "holds a private key; give the public one, the file ending .pub"
    if any(not letter.isprintable() for letter in line):
        return "has a line break or a control character in it; give one key per entry"
    if line.startswith("#"):
        return "is a comment to sshd; remove the # or the line"
    start = _after_options(line)
    if _OLD.match(line, start):
        return "is a DSA key, which sshd no longer takes; make a key with ssh-keygen -t ed25519"
    match = _KEY.match(line, start)
    if match is None:
        where = "; what is before it sshd takes for options" if _KEY.search(line) else ""
        return f"is not a public key{where}; write it like {EXAMPLE}"
    try:
        load_ssh_public_key(f"{match['type']} {match['body']}".encode())
    except (ValueError, UnsupportedAlgorithm):
        return "is a damaged public key; copy the whole line of the .pub file again"
    return None


def _after_options(line: str) -> int:
    """Where the key begins: behind the options of sshd, if there are any."""
    end = 0
    while (option := _OPTION.match(line, end)) and option["name"].lower() in _OPTIONS:
        end = option.end()
        if not option[0].endswith(","):
            break
    return end


def keys_in(text: str) -> list[str]:
    """The lines of an authorized_keys or .pub file, without comments and empty lines."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
