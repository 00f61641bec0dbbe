"""What scripts/record-tour writes is what came to the terminal, of the width that was asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_recording_is_an_asciicast(tmp_path: Path) -> None:
    cast = tmp_path / "tour.cast"
    said = 'stty size; printf "→ %s\\n" "$PWD"; exit 3'
    done = subprocess.run([ROOT / "scripts/record-tour", cast, "60", "sh", "-c", said], check=False)
    assert done.returncode == 3
    head, *events = map(json.loads, cast.read_text().splitlines())
    assert (head["version"], head["width"], head["height"]) == (2, 60, 24)
    assert "".join(text for _, kind, text in events) == "24 60\r\n→ ~/picloud-image\r\n"
    assert all(kind == "o" for _, kind, _ in events)
