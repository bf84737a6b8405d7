"""Other SDKs, each in a Python of its own: ``--peer-python NAME=PATH``.

NAME is the module to import, with anything after a dash to tell two versions apart: ``e2b=…``, ``grotte-0.2.0=…``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Whom the bars compare us with: reported as not measured when no Python for them is given.
EXPECTED = ("e2b", "grotte-0.2.0")


@dataclass(slots=True, frozen=True)
class Peer:
    """An SDK and the Python that has it.

    Attributes:
        name: As it is called in tables.
        python: Its interpreter; None: nobody said where it is.
    """

    name: str
    python: Path | None

    @property
    def module(self) -> str:
        """What to import."""
        return self.name.partition("-")[0]


OURS = Peer("ours", Path(sys.executable))


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--peer-python`` to a command line."""
    text = f"measure another SDK too; may repeat. The bars ask for {' and '.join(EXPECTED)}"
    parser.add_argument("--peer-python", action="append", default=[], type=parse, metavar="NAME=PATH", help=text)


def parse(text: str) -> Peer:
    """Read one ``NAME=PATH``."""
    name, separator, path = text.partition("=")
    if not separator or not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH of a Python interpreter")
    return Peer(name, Path(path))


def everybody(given: Sequence[Peer]) -> list[Peer]:
    """Ourselves, the peers that were given, and the expected ones that were not."""
    missing = [Peer(name, None) for name in EXPECTED if name not in {peer.name for peer in given}]
    return [OURS, *given, *missing]


def environment(peer: Peer, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would send an SDK elsewhere, or a peer to our package."""
    hidden = ("GROTTE_", "E2B_", "PYTHONDONTWRITEBYTECODE", *(() if peer == OURS else ("PYTHONPATH",)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return {**kept, **extra}


def run_script(
    peer: Peer,
    script: Path,
    job: Mapping[str, object],
    extra: Mapping[str, str],
    seconds: float,
    wrapper: Sequence[str] = (),
) -> object:
    """Run a script that takes a job as JSON and prints one JSON line, with a peer's Python, `wrapper` before it.

    Returns:
        What it printed, or a text that says what went wrong.
    """
    if peer.python is None:
        return "not measured: no --peer-python was given for it"
    module = "grotte" if peer == OURS else peer.module
    command = [*wrapper, str(peer.python), "-P", str(script), json.dumps({**job, "module": module})]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment(peer, extra), check=False
        )
        answer: object = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"still busy after {seconds:.0f} s"
    except (IndexError, ValueError):
        return f"exit status {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2][:200]}"
    return answer
