"""Stopping all of a sandbox without a freezer: by signals, which the first process alone can send to everybody.

Programs can notice: a shell sees its jobs stop. What somebody inside had stopped already stays so afterwards.
"""

from __future__ import annotations

import os
import time

from .lean import SIGCONT, SIGKILL, SIGSTOP, suppress
from .wire import RefusedError

SECONDS, PAUSE = 5.0, 0.002
STOPPED, OVER = "Tt", "ZXx"


class Stopper:
    """Stops the processes of a sandbox, and lets them go on."""

    def __init__(self) -> None:
        self._were_stopped: set[int] = set()
        self._stopped = False

    def stop_all(self) -> None:
        """Stop every process but this one; when this returns, none of them runs.

        Raises:
            RefusedError: They would not all stop, and run.
        """
        if self._stopped:
            return
        self._were_stopped = {pid for pid, state in _states() if state in STOPPED}
        self._stopped = True
        end = time.monotonic() + SECONDS
        while True:
            _signal_all(SIGSTOP)
            if all(state in STOPPED + OVER for _, state in _states()):
                return
            if time.monotonic() > end:
                self.go_on()
                raise RefusedError("internal", "the processes of the sandbox could not be stopped")
            time.sleep(PAUSE)

    def go_on(self) -> None:
        """Let all go on but those that were stopped before."""
        if self._stopped:
            self._stopped = False
            for pid, _ in _states():
                if pid not in self._were_stopped:
                    _signal(pid, SIGCONT)


def kill_all() -> None:
    """Kill every process but this one, however fast they multiply: the kernel lets none be born meanwhile."""
    _signal_all(SIGKILL)


def _states() -> list[tuple[int, str]]:
    """Return all other processes, each with the letter of its state."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    found.append((int(name), file.read().rpartition(")")[2].split()[0]))
            except (OSError, IndexError):
                continue
    return found


def _signal_all(number: int) -> None:
    _signal(-1, number)  # to all but the first process, which is this one


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
