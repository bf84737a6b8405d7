"""Async functions where nobody could await them: refused before anything is sent."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from grotte import Fleet, InvalidArgumentException, Sandbox, Template
from tests.support.engine import Engine


async def function(piece: object) -> None:
    raise AssertionError


async def generator(piece: object) -> AsyncIterator[object]:
    yield piece


class Listener:
    async def __call__(self, piece: object) -> None:
        raise AssertionError

    async def method(self, piece: object) -> None:
        raise AssertionError


ASYNC: list[Callable[..., object]] = [
    function,
    generator,
    Listener(),
    Listener().method,
    functools.partial(function),
    functools.partial(Listener(), "x"),
    functools.partial(functools.partial(Listener().method)),
]


@pytest.fixture(scope="module")
def sandbox(engine: Engine) -> Iterator[Sandbox]:
    with Sandbox.create(**engine.options) as made:
        yield made


@pytest.mark.parametrize("handler", ASYNC)
def test_they_are_refused_by_every_call(sandbox: Sandbox, engine: Engine, handler: Callable[..., None]) -> None:
    handle = sandbox.commands.run("true", background=True)
    calls: dict[str, list[Callable[[], object]]] = {
        "on_stdout": [
            lambda: sandbox.commands.run("touch /tmp/ran", on_stdout=handler),
            lambda: sandbox.commands.run("touch /tmp/ran", background=True, on_stdout=handler),
            lambda: sandbox.commands.connect(1, on_stdout=handler),
            lambda: handle.wait(on_stdout=handler),
        ],
        "on_stderr": [
            lambda: sandbox.commands.run("touch /tmp/ran", on_stderr=handler),
            lambda: handle.wait(on_stderr=handler),
        ],
        "on_pty": [lambda: handle.wait(on_pty=handler)],
        "on_data": [lambda: sandbox.pty.create(on_data=handler), lambda: sandbox.pty.connect(1, on_data=handler)],
        "on_event": [lambda: sandbox.files.watch_dir("/tmp", on_event=handler)],
        "on_exit": [lambda: sandbox.files.watch_dir("/tmp", on_exit=handler)],
        "on_progress": [
            lambda: sandbox.files.upload(__file__, "/tmp/ran", on_progress=handler),
            lambda: sandbox.files.download("/etc/passwd", "/nowhere", on_progress=handler),
        ],
        "on_build_logs": [
            lambda: Template.build(Template().from_base_image(), "x", on_build_logs=handler, **engine.options),
        ],
        "prepare": [lambda: Fleet(size=1, prepare=handler, **engine.options)],
        "reuse": [lambda: Fleet(size=1, reuse=handler, **engine.options)],
    }
    for name, several in calls.items():
        for call in several:
            with pytest.raises(InvalidArgumentException, match=f"^{name} must not be an async function"):
                call()
    assert not sandbox.files.exists("/tmp/ran")


def test_fleets_refuse_them(engine: Engine) -> None:
    handler: Callable[..., object] = function
    with Fleet(size=1, **engine.options) as fleet:
        calls: list[Callable[[], object]] = [lambda: fleet.map(handler, [1]), lambda: fleet.run(handler)]
        for call in calls:
            with pytest.raises(InvalidArgumentException, match="function must not be an async function"):
                call()


def test_one_that_is_wrapped_is_found_out_when_it_is_called(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="async function"):
        sandbox.commands.run("echo x", on_stdout=lambda piece: function(piece))  # type: ignore[arg-type]


def test_plain_ones_are_called(sandbox: Sandbox) -> None:
    seen: list[str] = []
    for handler in (seen.append, functools.partial(seen.append), lambda piece: seen.append(piece)):
        sandbox.commands.run("echo x", on_stdout=handler)
    assert seen == ["x\n"] * 3
