"""The API reference is what the docstrings say, complete, and every example in it runs as it stands there."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import grotte
from grotte import AsyncFleet, AsyncSandbox, AsyncVolume, Fleet, Sandbox, Volume
from tests.support.engine import Engine
from tests.support.surface import arguments_of, functions_of, methods_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
BLOCK = re.compile(r"^##+ ([^\n]+)$|^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: How long an example may take; the longest needs a few seconds.
SECONDS = 60
#: What examples name: files, programs, and repositories of hosts that no test reaches.
SETTING = """
set -e
mkdir -p /app/dist /home/user/bin
echo page > /app/dist/index.html; echo data > /data.bin; mkdir -p /var/log; echo line > /var/log/syslog
printf '#!/bin/sh\\necho made\\n' | tee /home/user/bin/make > /home/user/submit-the-answer
chmod +x /home/user/bin/make /home/user/submit-the-answer
echo 'PATH=$HOME/bin:$PATH' >> /home/user/.profile
chown -R user:user /home/user
"""
REPOSITORIES = """
set -e
mkdir -p /srv/git/psf /srv/git/me
git init -q -b main /tmp/seed && cd /tmp/seed
echo read me > README.md && git add . && git -c user.name=x -c user.email=x@example.org commit -qm first
git clone -q --bare /tmp/seed /srv/git/psf/requests.git
git clone -q --bare /tmp/seed /srv/git/me/private.git
git config --system url./srv/git/.insteadOf https://github.com/
chown -R user:user /srv/git
"""


@dataclass(frozen=True)
class Example:
    """A block of code, and where it stands."""

    name: str
    source: str

    @property
    def awaits(self) -> bool:
        return bool(self.code.co_flags & inspect.CO_COROUTINE) or "Async" in self.source

    @property
    def code(self) -> object:
        return compile(self.source, self.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        heading = page.stem
        for title, source in BLOCK.findall(page.read_text()):
            heading = title or heading
            if source:
                found.append(Example(heading, source))
    return found


EXAMPLES = examples()
SYNC = [example for example in EXAMPLES if not example.awaits]
ASYNC = [example for example in EXAMPLES if example.awaits]


@pytest.fixture
def place(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where examples run: the environment says which engine, and a few local files are there."""
    monkeypatch.setenv("GROTTE_API_URL", engine.url)
    monkeypatch.setenv("GROTTE_API_KEY", engine.api_key)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("print('hello')")


def set_up(sandbox: Sandbox, example: Example) -> None:
    script = SETTING + REPOSITORIES if "sandbox.git" in example.source else SETTING
    sandbox.commands.run(script, user="root")


def evaluate(sandbox: Sandbox, program: str) -> str:
    return sandbox.commands.run(program).stdout


async def evaluate_async(sandbox: AsyncSandbox, program: str) -> str:
    return (await sandbox.commands.run(program)).stdout


def names_for(sandbox: object, fleet: object, evaluate: object) -> dict[str, object]:
    """What an example may name without saying where it has it from."""
    names = {name: getattr(grotte, name) for name in grotte.__all__}
    own = {"sandbox": sandbox, "token": "t0ken", "fleet": fleet, "evaluate": evaluate}
    return names | own | {"programs": ["echo 1", "echo 2"]}


def clean_up(names: dict[str, object]) -> None:
    for made in names.values():
        if isinstance(made, Volume | AsyncVolume):
            Volume.destroy(made.volume_id)
        if isinstance(made, Sandbox | AsyncSandbox):
            Sandbox.kill(made.sandbox_id)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("example", SYNC, ids=lambda example: example.name)
def test_sync_example(example: Example, place: None) -> None:
    with Sandbox.create() as sandbox, Fleet("base", size=2) as fleet:
        set_up(sandbox, example)
        names = names_for(sandbox, fleet, evaluate)
        exec(example.code, names)  # type: ignore[arg-type]  # compile() is not typed by its flags
        clean_up(names)


@pytest.mark.anyio
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("example", ASYNC, ids=lambda example: example.name)
async def test_async_example(example: Example, place: None) -> None:
    async with await AsyncSandbox.create() as sandbox, AsyncFleet("base", size=2) as fleet:
        set_up(Sandbox.connect(sandbox.sandbox_id), example)
        names = names_for(sandbox, fleet, evaluate_async)
        running = eval(example.code, names)  # type: ignore[arg-type]  # as above
        if running is not None:
            await running
        clean_up(names)


def test_the_reference_is_what_the_docstrings_say() -> None:
    command = [sys.executable, "tools/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "name"), list(methods_of("grotte._core")), ids=lambda part: part)
def test_every_method_is_described(kind: str, name: str) -> None:
    function = functions_of(getattr(grotte, kind), name)[0]
    text = inspect.getdoc(function) or ""
    for argument in inspect.signature(function).parameters:
        assert argument == "self" or argument == "cls" or re.search(rf"^    \*{{0,2}}{argument}: ", text, re.MULTILINE)
    assert "```python" in text
    assert arguments_of(function) is not None
