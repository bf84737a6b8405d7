"""What cannot be right is refused before a byte of it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from grotte import AsyncSandbox, InvalidArgumentException, PtySize
from tests.support.stub_service import Answer, StubService, as_json

Values = tuple[object, ...]

ID = "iabcdefghij0123456789"
START = "POST /process.Process/Start"
#: No path: another type, nothing, what no file system takes, what UTF-8 cannot carry.
PATHS: Values = (None, 5, b"/tmp", "", "a\0b", "/x" * 5000, "\ud800")
#: Nothing that a message could repeat as it is, or that a number could be made of.
ABSURD: Values = ("x" * 100_000, 10**5000, ["x"] * 50_000)
USERS: Values = (5, "", "a:b", "a\nb", "a\0b", "u" * 1000)
SECONDS: Values = ("5", -1, -(10**5000), float("nan"), True, [])
PIDS: Values = (0, -1, 2**32, 10**5000, 1.5, "1", True, None)
DATA: Values = (5, None, ["x"], object())
HANDLERS: Values = (5, "print", [])
WRONG_FILES: Values = (
    5,
    None,
    "ab",
    [5],
    [{}],
    [{"path": "/x"}],
    [{"path": "", "data": ""}],
    [{"path": "/x", "data": 5}],
)

Call = Callable[[AsyncSandbox, Any], Awaitable[object]]

#: Each call, and the values that it must refuse in place of its argument.
CALLS: dict[str, tuple[Call, Values]] = {
    "run command": (
        lambda s, x: s.commands.run(x),
        (None, 5, b"ls", "", "a\0b", "\ud800", "x" * (2 * 1024 * 1024 + 1)),
    ),
    "run envs": (
        lambda s, x: s.commands.run("true", envs=x),
        (5, [], {"": "x"}, {"a=b": "x"}, {"a": 5}, {5: "a"}, {"a": "x\0"}, {"a": "x" * 3_000_000}),
    ),
    "run user": (lambda s, x: s.commands.run("true", user=x), USERS),
    "run cwd": (lambda s, x: s.commands.run("true", cwd=x), PATHS[1:]),
    "run timeout": (lambda s, x: s.commands.run("true", timeout=x), SECONDS),
    "run request_timeout": (lambda s, x: s.commands.run("true", request_timeout=x), SECONDS),
    "run stdin": (lambda s, x: s.commands.run("true", stdin=x), (5, ["x"], object())),
    "run on_stdout": (lambda s, x: s.commands.run("true", on_stdout=x), HANDLERS),
    "run on_stderr": (lambda s, x: s.commands.run("true", on_stderr=x), HANDLERS),
    "run max_output": (lambda s, x: s.commands.run("true", max_output=x), (-1, 1.5, "5", True)),
    "connect pid": (lambda s, x: s.commands.connect(x), PIDS),
    "connect timeout": (lambda s, x: s.commands.connect(1, timeout=x), SECONDS),
    "connect on_stdout": (lambda s, x: s.commands.connect(1, on_stdout=x), HANDLERS),
    "list timeout": (lambda s, x: s.commands.list(request_timeout=x), SECONDS),
    "kill pid": (lambda s, x: s.commands.kill(x), PIDS),
    "send_stdin pid": (lambda s, x: s.commands.send_stdin(x, "x"), PIDS),
    "send_stdin data": (lambda s, x: s.commands.send_stdin(1, x), DATA),
    "close_stdin pid": (lambda s, x: s.commands.close_stdin(x), PIDS),
    "pty size": (lambda s, x: s.pty.create(x), (5, (24, 80), PtySize(0, 80), PtySize(24, 65536))),
    "pty rows": (lambda s, x: s.pty.create(rows=x), (0, -1, 65536, 1.5, "24", True, *ABSURD)),
    "pty on_data": (lambda s, x: s.pty.create(on_data=x), HANDLERS),
    "pty cwd": (lambda s, x: s.pty.create(cwd=x), PATHS[1:]),
    "pty connect": (lambda s, x: s.pty.connect(x), PIDS),
    "pty kill": (lambda s, x: s.pty.kill(x), PIDS),
    "pty send_stdin": (lambda s, x: s.pty.send_stdin(1, x), DATA),
    "pty resize": (lambda s, x: s.pty.resize(1, x), (None, 5, PtySize(0, 0))),
    "read path": (lambda s, x: s.files.read(x), PATHS),
    "read format": (lambda s, x: s.files.read("/x", x), (None, "blob", 5, *ABSURD)),
    "read user": (lambda s, x: s.files.read("/x", user=x), USERS),
    "read request_timeout": (lambda s, x: s.files.read("/x", request_timeout=x), SECONDS),
    "write path": (lambda s, x: s.files.write(x, "x"), PATHS),
    "write data": (lambda s, x: s.files.write("/x", x), (5, None, object(), {"a": 1}, {"a"}, "\ud800")),
    "write_files": (lambda s, x: s.files.write_files(x), WRONG_FILES),
    "list path": (lambda s, x: s.files.list(x), PATHS),
    "list depth": (lambda s, x: s.files.list("/", x), (0, -1, 2**32, 1.5, "1", True, *ABSURD)),
    "exists": (lambda s, x: s.files.exists(x), PATHS),
    "get_info": (lambda s, x: s.files.get_info(x), PATHS),
    "make_dir": (lambda s, x: s.files.make_dir(x), PATHS),
    "rename from": (lambda s, x: s.files.rename(x, "/y"), PATHS),
    "rename to": (lambda s, x: s.files.rename("/y", x), PATHS),
    "remove": (lambda s, x: s.files.remove(x), PATHS),
    "remove user": (lambda s, x: s.files.remove("/x", user=x), USERS),
    "watch_dir": (lambda s, x: s.files.watch_dir(x), PATHS),
    "watch_dir on_event": (lambda s, x: s.files.watch_dir("/x", on_event=x), HANDLERS),
    "watch_dir timeout": (lambda s, x: s.files.watch_dir("/x", timeout=x), SECONDS),
    "upload from": (
        lambda s, x: s.files.upload(x, "/x"),
        (None, 5, b"/tmp", "", "a\0b", "/does/not/exist", "/dev/null", *ABSURD),
    ),
    "upload to": (lambda s, x: s.files.upload("/etc/hostname", x), PATHS),
    "upload on_progress": (lambda s, x: s.files.upload("/etc/hostname", "/x", on_progress=x), HANDLERS),
    "download from": (lambda s, x: s.files.download(x, "/tmp/never"), PATHS),
    "download to": (lambda s, x: s.files.download("/x", x), (None, 5, b"/tmp", "", "a\0b")),
    "download on_progress": (lambda s, x: s.files.download("/x", "/tmp/never", on_progress=x), HANDLERS),
}


@pytest.fixture
async def sandbox(stub: StubService) -> AsyncSandbox:
    created = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.6.4"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json(created)
    stub.answers["GET /health"] = Answer(204)
    made = await AsyncSandbox.connect(ID, api_url=stub.url, sandbox_url=stub.url, api_key="k")
    stub.seen.clear()
    return made


@pytest.mark.parametrize("name", CALLS)
async def test_nothing_is_sent(stub: StubService, sandbox: AsyncSandbox, name: str) -> None:
    call, values = CALLS[name]
    for value in values:
        with pytest.raises(InvalidArgumentException) as caught:
            await call(sandbox, value)
        assert len(str(caught.value)) < 500, "what is absurdly long is not repeated"
        assert not stub.seen, value
    assert not Path("/tmp/never").exists()
