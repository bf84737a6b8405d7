"""``python -m benchmarks engine``: sandboxes on an engine of this machine, with our SDK and those of others."""

from __future__ import annotations

from benchmarks.engine.command import main

__all__ = ["main"]
