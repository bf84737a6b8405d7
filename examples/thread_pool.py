"""A sync script with a thread pool of its own: ``python examples/thread_pool.py [COUNT]``.

The fleet gives sandboxes to any thread that asks, one after the other, and hands them on after a small reset. `map`
would do without the pool; this is how a fleet fits into a program that already has one.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from grotte import Fleet, Sandbox


def reset(sandbox: Sandbox) -> None:
    """Between two users: away with what the last one left."""
    sandbox.commands.run("rm -rf ~/*")


def word_count(fleet: Fleet, text: str) -> int:
    with fleet.sandbox() as sandbox:
        sandbox.files.write("text", text)
        return int(sandbox.commands.run("wc -w < text").stdout)


def main(count: int) -> None:
    texts = ["word " * number for number in range(count)]
    with Fleet("base", size=4, reuse=reset) as fleet:
        with ThreadPoolExecutor(8) as threads:
            counts = list(threads.map(lambda text: word_count(fleet, text), texts))
        created = fleet.stats().created
    assert counts == list(range(count))
    print(f"{count} texts counted in {created} sandboxes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
