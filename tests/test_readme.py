"""Every Python example of the README runs as it stands there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType

import anyio
import pytest

from grotte import Sandbox
from tests.support.engine import Engine

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def compiled(source: str) -> CodeType:
    """Code that may await at its top level, as a reader would paste it into an async function."""
    return compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("source", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(
    source: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROTTE_API_URL", engine.url)
    monkeypatch.setenv("GROTTE_API_KEY", engine.api_key)
    with Sandbox.create() as sandbox:
        names: dict[str, object] = {"sandbox": sandbox, "__name__": "example"}
        code = compiled(source)
        if code.co_flags & inspect.CO_COROUTINE:

            async def run() -> None:
                await eval(code, names)

            anyio.run(run)
        else:
            exec(code, names)
    assert capsys.readouterr().out, "an example shows something"
