"""What a type checker knows of the results: each line that says `assert_type` is checked in strict mode, and runs.

The arguments decide: ``format=`` of `read`, ``background=`` of `run`. Run it with ``python examples/typed.py``.
"""

from __future__ import annotations

import asyncio
from typing import assert_type

from grotte import (
    AsyncCommandHandle,
    AsyncFileStreamReader,
    AsyncSandbox,
    CommandHandle,
    CommandResult,
    FileStreamReader,
    Sandbox,
    SandboxInfo,
)


def with_sync() -> None:
    with Sandbox.create("base") as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.commands.run("echo hello"), CommandResult)
        assert_type(sandbox.commands.run("exit 3", check=False), CommandResult)
        handle = assert_type(sandbox.commands.run("echo hello", background=True), CommandHandle)
        assert_type(handle.wait(), CommandResult)
        sandbox.files.write("hello.txt", "hello")
        assert_type(sandbox.files.read("hello.txt"), str)
        assert_type(sandbox.files.read("hello.txt", format="text"), str)
        assert_type(sandbox.files.read("hello.txt", format="bytes"), bytes)
        with assert_type(sandbox.files.read("hello.txt", format="stream"), FileStreamReader) as pieces:
            for piece in pieces:
                assert_type(piece, bytes)
        # the same name on a handle and on the class: the types follow
        assert_type(sandbox.get_info(), SandboxInfo)
        assert_type(Sandbox.get_info(sandbox.sandbox_id), SandboxInfo)
    print("sync: as the types say")


async def with_async() -> None:
    async with await AsyncSandbox.create("base") as sandbox:
        assert_type(sandbox, AsyncSandbox)
        assert_type(await sandbox.commands.run("exit 3", check=False), CommandResult)
        handle = assert_type(await sandbox.commands.run("echo hello", background=True), AsyncCommandHandle)
        assert_type(await handle.wait(), CommandResult)
        await sandbox.files.write("hello.txt", "hello")
        assert_type(await sandbox.files.read("hello.txt", format="bytes"), bytes)
        stream = assert_type(await sandbox.files.read("hello.txt", format="stream"), AsyncFileStreamReader)
        async with stream as pieces:
            async for piece in pieces:
                assert_type(piece, bytes)
        assert_type(await AsyncSandbox.get_info(sandbox.sandbox_id), SandboxInfo)
    print("async: as the types say")


if __name__ == "__main__":
    with_sync()
    asyncio.run(with_async())
