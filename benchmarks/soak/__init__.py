"""Ten minutes of mixed load on one engine: does everything return to where it was?"""

from benchmarks.soak.command import main

__all__ = ["main"]
