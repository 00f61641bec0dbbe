"""Renders the ``*.j2`` files of overlays with Jinja2; an unknown name is an error.

In: a template's path and text, and the values it may use. Out: the text for the card, or one
line that names file, line and variable. A rack's folder may come from somebody else's git, so
templates run in a sandbox: they can calculate, but not use Python's own objects.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

SUFFIX = ".j2"


class TemplateFault(ValueError):
    """A template that cannot be rendered; the message names file and line."""


class Templates:
    """Renders templates with one set of values: ``rack``, ``node``, ``card``."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self._environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )

    def render(self, path: Path, text: str) -> str:
        """``text`` (of the file ``path``) with its expressions replaced; raises TemplateFault."""
        try:
            code = self._environment.compile(text, name=str(path), filename=str(path))
            template = Template.from_code(self._environment, code, {})
            return template.render(self._values)
        except TemplateSyntaxError as error:
            raise TemplateFault(f"{path}:{error.lineno}: {error.message}") from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise TemplateFault(f"{path}:{_line(error, path)}: {error}") from None


def _line(error: BaseException, path: Path) -> int:
    """The template line that raised ``error``: Jinja2 rewrites its tracebacks to name it."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == str(path)), 0)
