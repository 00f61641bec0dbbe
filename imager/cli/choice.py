"""From the common options to the rack, the release and the folders a command works with.

In: a Session. Out: a checked Rack, a ReleaseSpec, a VerifiedRelease, a GoldenImage. It is a
module of its own because every command begins with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
