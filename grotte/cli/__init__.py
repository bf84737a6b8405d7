"""The command line: ``grotte serve``, ``grotte doctor``, ``grotte run`` and ``grotte template``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from grotte._version import __version__
from grotte.cli import doctor, run, serve, template
from grotte.errors import GrotteException

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: The words after ``grotte``; those of this process when None.

    Returns:
        The exit status: that of the command for ``grotte run``, else 0 for success, 1 for a failure, 2 for wrong
        arguments.
    """
    parser = argparse.ArgumentParser(prog="grotte", description="A computer for every AI agent.")
    parser.add_argument("--version", action="version", version=f"grotte {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (serve, doctor, run, template):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.execute(options)
    except GrotteException as error:
        print(f"grotte: {error}", file=sys.stderr)
        return 1
    return status
