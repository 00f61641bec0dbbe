"""Values as TOML text, for the few files this program writes (tomllib only reads)."""

from __future__ import annotations

import json


def toml_text(value: str | list[str]) -> str:
    """A text, or a list of texts, as TOML. It is the same as in JSON, except that TOML wants the
    character DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
