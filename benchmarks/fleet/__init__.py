"""``python -m benchmarks fleet``: time until many sandboxes can be used, with our SDK and those of others."""

from __future__ import annotations

from benchmarks.fleet.command import main

__all__ = ["main"]
