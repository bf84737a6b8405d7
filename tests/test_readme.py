"""Every Python example of the README runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import Engine, environment

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


#: Runs an example as a reader would: at the top level, or, if it awaits, inside an async function.
RUNNER = """
import ast, inspect, sys
import anyio
from grotte import Sandbox

code = compile(sys.argv[1], "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
with Sandbox.create() as sandbox:
    names = {"sandbox": sandbox, "__name__": "example"}
    if code.co_flags & inspect.CO_COROUTINE:
        async def run():
            await eval(code, names)
        anyio.run(run)
    else:
        exec(code, names)
"""


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("source", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(source: str, engine: Engine) -> None:
    variables = environment() | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, source],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout, "an example shows something"
