"""Check that every file and every heading that the documentation links to or names exists."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: A path of this repository in code type: `grotte/_core/sandbox.py`, `docs/`.
NAMED = re.compile(r"`((?:grotte|tests|docs|examples|tools|benchmarks)/[\w./-]*)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def problems_of(page: Path) -> Iterator[str]:
    text = page.read_text()
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {target} does not exist"
        elif fragment and fragment not in map(anchor, HEADING.findall(file.read_text())):
            yield f"{page.relative_to(ROOT)}: {target} names no heading"
    for name in NAMED.findall(text):
        if not (ROOT / name).exists():
            yield f"{page.relative_to(ROOT)}: {name} does not exist"


def main() -> int:
    pages = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    problems = [problem for page in pages for problem in problems_of(page)]
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems or not pages else 0


if __name__ == "__main__":
    raise SystemExit(main())
