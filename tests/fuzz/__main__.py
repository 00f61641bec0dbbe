"""A reader under the fuzzer, for a while.

usage: python -m tests.fuzz NAME [--seconds N] [--seed S] [--corpus DIR]
       python -m tests.fuzz NAME FILE...

The first begins with inputs of real tools and with what was found before (``kept/NAME``), and says
how many inputs it tried. What breaks the reader is put into build/fuzz. With ``--corpus`` it goes
on where the last run with that folder ended. The second tries files.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOUND = ROOT / "build/fuzz"
_PATIENCE_SECONDS = 600
"""How much longer than asked for the fuzzer may take to begin and to end."""
_PROGRESS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: seconds on the processor, inputs tried, branches reached by the first inputs
    and by all, and the traceback of what was found with the place of the input; empty where
    nothing was."""

    seconds: float
    inputs: int
    branches_first: int
    branches: int
    found: str

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s on the processor, {self.inputs} inputs, "
            f"{self.branches_first} -> {self.branches} branches"
        )


def kept(name: str) -> list[Path]:
    """The inputs that broke this reader once."""
    return sorted((HERE / "kept" / name).glob("*"))


def run(name: str, seconds: int, seed: int, corpus: Path | None = None) -> Outcome:
    """Fuzz the reader ``name`` for so many ``seconds`` by the clock; the process and its files are
    gone when this returns, except what it kept in ``corpus``."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        corpus, found = corpus or Path(place, "corpus"), Path(place, "found")
        for folder in (corpus, found, Path(place, "seeds"), Path(place, "tmp")):
            folder.mkdir(parents=True, exist_ok=True)
        inputs = [*TARGETS[name].seeds(Path(place, "seeds")), *(p.read_bytes() for p in kept(name))]
        for number, data in enumerate(inputs):
            (corpus / f"{number}").write_bytes(data)
        largest = max(map(len, inputs))
        words = (
            sys.executable, "-m", "tests.fuzz.child", "fuzz", name, str(corpus),
            f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={found}/",
            f"-max_len={largest + 4096}", "-timeout=300",
            "-report_slow_units=300", "-print_final_stats=1",
        )  # fmt: skip
        before = _processor()
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": f"{place}/tmp", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=seconds + _PATIENCE_SECONDS,
            check=False,
        )
        kept_as = [_keep(name, file) for file in found.iterdir()]
        lines = _PROGRESS.findall(done.stderr)
        first = next((int(cov) for _, word, cov in lines if word == "INITED"), 0)
        last = lines[-1] if lines else ("0", "", "0")
        broke = "\n".join((*map(str, kept_as), done.stderr[-6000:])) if done.returncode else ""
        return Outcome(_processor() - before, int(last[0]), first, int(last[2]), broke)


def _processor() -> float:
    """Seconds on the processor of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _keep(name: str, file: Path) -> Path:
    place = FOUND / name / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(file.read_bytes())
    return place


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    asked = parser.parse_args()
    if asked.files:
        words = (sys.executable, "-m", "tests.fuzz.child", "try", asked.name, *asked.files)
        return subprocess.run(words, cwd=ROOT, check=False).returncode
    outcome = run(asked.name, asked.seconds, asked.seed, asked.corpus)
    sys.stdout.write(f"{asked.name}: {outcome}\n{outcome.found}\n")
    return 1 if outcome.found else 0


if __name__ == "__main__":
    sys.exit(main())
