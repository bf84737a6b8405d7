"""Imports one thing in a fresh interpreter and prints what it cost. Needs nothing but the standard library."""

import json
import sys
import time


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Rss:")) * 1024


job = json.loads(sys.argv[1])
modules = len(sys.modules)
before = resident()
started = time.perf_counter()
exec(job["statement"].replace("MODULE", job["module"]), {})
elapsed = time.perf_counter() - started
print(json.dumps({"seconds": elapsed, "bytes": resident() - before, "modules": len(sys.modules) - modules}))
