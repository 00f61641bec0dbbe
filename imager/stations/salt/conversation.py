"""The station's end of what the head asks: ``picloud-image station ACTION`` hears it here.

In: standard input, as the module of Salt on this minion writes it: a line with the arguments, a
line for each secret, an empty line, and later a line for each file that was asked for. Out: the
arguments, the secrets opened, and those files. None of it is written anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.stations.salt.sealing import own_key, public_of, unseal
from imager.stations.wire.bus import Document

_MOST_BYTES = 64 << 20
_MOST_SECRETS = 1000


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the head asked for. ``key`` is the public key of this station, in hexadecimal: an action
    says it in its first line, as ``{"event": "key", "key": …}``, so that secrets can be sealed to
    it. ``secrets`` are what was handed to this station, by name."""

    arguments: JsonObject
    secrets: dict[str, bytes]
    key: str
    _replies: BinaryIO

    def bring(self, say: Callable[[Document], None], name: str) -> Path:
        """Fetch the published file ``name``. ``say`` prints one line at once. The file is the
        caller's: to be proven, used and deleted. Raises FileNotFoundError with Salt's reason when
        it could not be fetched."""
        say({"event": "bring", "name": name})
        reply = read_object(self._replies.readline(_MOST_BYTES) or b"{}")
        if "path" in reply:
            return Path(reply.text("path"))
        raise FileNotFoundError(reply.text("fault") if "fault" in reply else "nobody fetches it")


def conversation(source: BinaryIO, private: X25519PrivateKey | None = None) -> Conversation:
    """The conversation that ``source`` begins. Raises JsonFault when it begins none."""
    own = private or own_key()
    arguments = read_object(source.readline(_MOST_BYTES))
    secrets: dict[str, bytes] = {}
    while (line := source.readline(_MOST_BYTES)).strip():
        handed = read_object(line)
        if len(secrets) == _MOST_SECRETS:
            raise handed.fault("secret", f"more than {_MOST_SECRETS}")
        secrets[handed.text("secret")] = _opened(handed, own)
    return Conversation(arguments, secrets, public_of(own).hex(), source)


def _opened(handed: JsonObject, own: X25519PrivateKey) -> bytes:
    try:
        return unseal(own, base64.b64decode(handed.text("base64"), validate=True))
    except ValueError as error:  # of base64 or of the seal
        raise JsonFault(f"secret {handed.text('secret')!r}: {error}") from None
