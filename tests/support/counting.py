"""A program: another one's module, run as it would run, with no garbage collector and its live objects counted.

Written to a file each time when the program gets SIGUSR1, so that what only the collector would find counts as well.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

#: What an engine makes for a request, a process or a sandbox, and must not keep.
COUNTED = {"Request", "Process", "Pipe", "Spool", "Reader", "Sandbox", "Guest"}
PATIENCE = 30.0


def counted(file: Path) -> list[str]:
    """The words before a command line ``python -m module …`` that make it count into a file."""
    return [sys.executable, __file__, str(file)]


def ask(process: subprocess.Popen[str], file: Path) -> dict[str, int]:
    """How many of its objects such a program holds now."""
    file.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None, "the program has ended"
        assert time.monotonic() < end, "the program does not count"
        time.sleep(0.01)
    found: dict[str, int] = json.loads(file.read_text())
    return found


def _count(file: Path) -> None:
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({name: kinds[name] for name in sorted(COUNTED)}))
    os.rename(draft, file)


def main(file: Path, command: list[str]) -> None:
    """Run ``python -m module …``."""
    module = command.index("-m") + 1
    gc.disable()
    signal.signal(signal.SIGUSR1, lambda signum, frame: _count(file))
    sys.argv = command[module:]
    sys.path[0] = ""  # this file's folder would come before the module's own
    runpy.run_module(command[module], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
