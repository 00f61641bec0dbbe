"""Ctrl-C has to come through to the code under test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """The garbage collector calls back hypothesis, once that is loaded. An exception there is
    shown and forgotten, so Ctrl-C in that moment never arrives (gc.callbacks, sys.unraisablehook).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
