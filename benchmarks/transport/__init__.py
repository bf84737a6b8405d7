"""``python -m benchmarks transport``: HTTP clients side by side against one nginx on loopback."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark."""
    from benchmarks.transport import command  # here: the processes of clients need nothing of it

    return command.main(arguments)
