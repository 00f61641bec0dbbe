"""Host names as RFC 1123 section 2.1 and hostname(7) allow them.

In: a name. Out: what is wrong with it, or None. A node's name becomes the kernel's host name, the
Salt minion id, a file name and a DNS label, so the strictest of the four rules counts.
"""

from __future__ import annotations

import re

LABEL_LIMIT = 63
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z")
_RESERVED = frozenset({"localhost", "localdomain"})


def name_fault(name: str) -> str | None:
    """Why ``name`` cannot be a node's name; None when it can.

    Upper case is refused and not changed to lower case: to DNS both are the same name, but to
    Salt and in the folders of keys they are two, so there must be only one spelling.
    """
    if not name:
        return "is empty"
    if len(name) > LABEL_LIMIT:
        return f"is {len(name)} characters long; a host name has at most {LABEL_LIMIT} (RFC 1123)"
    if name != name.lower() and _LABEL.match(name.lower()):
        return f"has upper-case letters; write {name.lower()}"
    if "_" in name:
        return f"has an underscore, which host names cannot have (RFC 1123); try {_dashed(name)}"
    if name[0] == "-" or name[-1] == "-":
        return "begins or ends with a hyphen, which RFC 1123 forbids"
    if not _LABEL.match(name):
        wrong = next(letter for letter in name if not _LABEL.match(letter) and letter != "-")
        return f"has {wrong!r} in it; a host name is made of a-z, 0-9 and hyphens (RFC 1123)"
    if name.isdigit():
        return "is only digits, which many programs read as an address; begin with a letter"
    if name in _RESERVED:
        return "is reserved (RFC 6761)"
    return None


def domain_fault(name: str) -> str | None:
    """Why ``name`` cannot be the (perhaps dotted) name of another computer; None when it can."""
    if len(name) > 253:
        return f"is {len(name)} characters long; a domain name has at most 253 (RFC 1035)"
    labels = name.removesuffix(".").lower().split(".")
    if labels == ["localhost"]:
        return "would be each node itself"
    if labels[-1].isdigit():
        return "is not an IPv4 address and not a host name"
    for label in labels:
        if not label:
            return "has an empty part between its dots"
        if len(label) > LABEL_LIMIT or not _LABEL.match(label):
            return f"has the part {label!r}, which is not a host name (RFC 1123)"
    return None


def _dashed(name: str) -> str:
    return name.lower().replace("_", "-").strip("-") or "a name of letters"
