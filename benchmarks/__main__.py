"""``python -m benchmarks NAME``: run one benchmark."""

from __future__ import annotations

import importlib
import sys

#: Name → what it measures. Each is a module of this package with `main(arguments) -> exit status`.
BENCHMARKS = {
    "transport": "requests, hosts, bodies and held streams: our HTTP/2 transport beside the HTTP clients of others",
    "engine": "sandboxes on an engine of this machine: our SDK beside others",
    "fleet": "many sandboxes one after another, by turns and at once, until each can be used: our SDK beside others",
    "soak": "minutes of mixed load on one engine: whether everything returns to where it was",
    "templates": "building templates and starting from them, beside podman build",
    "imports": "what `import grotte` costs in time and memory",
}


def usage() -> str:
    """The help text."""
    lines = [f"  {name:<10} {text}" for name, text in BENCHMARKS.items()]
    return "\n".join(["usage: python -m benchmarks NAME [--json OUT] [--quick] …", *lines])


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names, with the rest."""
    if not arguments or arguments[0] not in BENCHMARKS:
        print(usage(), file=sys.stdout if arguments[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    module = importlib.import_module(f"benchmarks.{arguments[0]}")
    status: int = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
