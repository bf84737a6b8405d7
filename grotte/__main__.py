"""``python -m grotte``: the command line."""

from __future__ import annotations

from grotte.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
