"""``grotte doctor``: what this machine can isolate, and what to install where it cannot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from grotte import _local

if TYPE_CHECKING:
    from argparse import _SubParsersAction

MARKS = {"ok": "ok", "degraded": "degraded", "missing": "MISSING"}


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="say what this machine can isolate, and what is missing")
    parser.add_argument(
        "--data-dir", type=Path, default=None, metavar="DIR", help="where the engine would keep its data"
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print one line for each layer of isolation; status 1 if sandboxes cannot run here."""
    from grotte.engine.host import diagnose
    from grotte.engine.images import programs

    checks = [*diagnose(options.data_dir or _local.data_dir()), programs.check()]
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{MARKS[check.status]:>8}  {check.name:<{width}}  {check.detail}")
        if check.remedy:
            print(f"{'':>8}  {'':<{width}}  -> {check.remedy}")
    missing = [check.name for check in checks if check.status == "missing"]
    print(f"\nThis machine cannot run sandboxes yet: {', '.join(missing)}." if missing else "\nSandboxes run here.")
    return 1 if missing else 0
