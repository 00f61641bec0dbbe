"""The paths on a command line: what kind of thing each must be, and nothing more.

In: a word. Out: a Path. Whether it may be read is found out when it is opened, because only then
it can be said what to do about it; click would only say that it is not readable.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

_Path = partial(click.Path, path_type=Path, readable=False)

PATH = _Path()
FOLDER = _Path(file_okay=False)
EXISTING_FILE = _Path(exists=True, dir_okay=False)
