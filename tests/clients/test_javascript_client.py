"""The official JavaScript client does its work on the engine."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.clients.running import addresses, prefixed, results
from tests.support.engine import Engine

OPERATIONS = Path(__file__).with_name("operations.mjs")
EXPECTED = {
    "commands": ["g\n", "err\n", 0, "g\n", True, 3],
    "background": [True, "done\n", True],
    "stdin": "a\nb\n",
    "files": ["/home/user/notes/ü.txt", "text ü", 7, [["a", 1], ["b", 2]], [True, False], [True, False]],
    "watch": True,
    "pty": [True, True, 0],
    "list": [True],
    "metrics": [2, True],
    "pause": [True, False, True, "1"],
    "snapshot": ["1", True, True],
    "kill": [False, False],
}


def test_what_it_makes_of_the_engine(engine: Engine, e2b_node: Path) -> None:
    command = ["node", str(OPERATIONS), str(e2b_node), f"js-{secrets.token_hex(4)}"]
    assert results(command, prefixed("e2b", addresses(engine))) == EXPECTED
