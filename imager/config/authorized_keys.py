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
_KEY = re.compile(
    rf"(?:\A|\s)(?P<type>{'|'.join(map(re.escape, _TYPES))})\s+(?P<body>[A-Za-z0-9+/]+=*)(?=\s|\Z)"
)
_OLD = re.compile(r"(?:\A|\s)ssh-dss\s")
EXAMPLE = '"ssh-ed25519 AAAA… you@laptop"'


def key_fault(line: str) -> str | None:
    """Why sshd would not accept ``line`` in authorized_keys(5); None when it would.

    Options before the key (``from="10.0.0.*" ssh-ed25519 …``) are allowed and not looked into.
    """
    if "PRIVATE KEY" in line:
        return "holds a private key; give the public one, the file ending .pub"
    if any(not letter.isprintable() for letter in line):
        return "has a line break or a control character in it; give one key per entry"
    if _OLD.search(line):
        return "is a DSA key, which sshd no longer takes; make a key with ssh-keygen -t ed25519"
    match = _KEY.search(line)
    if match is None:
        return f"is not a public key; write it like {EXAMPLE}"
    try:
        load_ssh_public_key(f"{match['type']} {match['body']}".encode())
    except (ValueError, UnsupportedAlgorithm):
        return "is a damaged public key; copy the whole line of the .pub file again"
    return None


def keys_in(text: str) -> list[str]:
    """The lines of an authorized_keys or .pub file, without comments and empty lines."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
