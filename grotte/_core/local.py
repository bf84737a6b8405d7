"""The engine on this machine, from the side of those who use it: find it, or start it, and keep it alive.

A lease (a shared lock that the kernel drops with this process) keeps a running engine from leaving; whoever finds none
takes the start lock, looks once more, and starts one. So two programs that start at once share one engine.
"""

from __future__ import annotations

import logging
import os

import msgspec

from grotte import _local
from grotte._core import _aio
from grotte._proto.http import split_url
from grotte.config import ENGINE_MODULES, engine_installed
from grotte.errors import EngineUnavailableException

logger = logging.getLogger("grotte")

#: How long an engine may take until it accepts connections.
START_SECONDS = 30.0
POLL_SECONDS = 0.02
ANSWER_SECONDS = 2.0


class _Ready(msgspec.Struct):
    """What a starting engine says, once: its address, or why there is none."""

    url: str = ""
    api_key: str = ""
    pid: int = 0
    version: str = ""
    error: str | None = None


async def find_or_start_engine() -> _local.EngineAddress:
    """The address of the engine of this user, which is running when this returns.

    Raises:
        EngineUnavailableException: it cannot run here; the message says why.
    """
    try:
        return await _find_or_start(_aio.clock() + START_SECONDS)
    except OSError as error:
        text = f"the engine's directory cannot be used: {error.strerror or error}"
        raise EngineUnavailableException(text) from error


async def _find_or_start(deadline: float) -> _local.EngineAddress:
    while not _local.hold_lease():
        await _pause(deadline, "the engine that is leaving does not end")
    while True:
        address = await _running_engine()
        if address is not None:
            return address
        lock = _local.try_exclusive(_local.start_lock())
        if lock is None:
            await _pause(deadline, "another program is starting the engine and does not come to an end")
            continue
        try:
            return await _running_engine() or await _start_engine(deadline)
        finally:
            _local.release(lock)


async def _running_engine() -> _local.EngineAddress | None:
    address = _local.read_address()
    if address is None:
        return None
    origin, _ = split_url(address.url)
    try:
        sock = await _aio.connect_tcp(origin.host, origin.port, _aio.clock() + ANSWER_SECONDS)
    except OSError:
        return None  # TimeoutError is one of them
    sock.close()
    return address


async def _start_engine(deadline: float) -> _local.EngineAddress:
    if not engine_installed():
        raise EngineUnavailableException(
            "sandboxes on this machine need the engine: pip install 'grotte[engine]' "
            f"(one of {', '.join(ENGINE_MODULES)} is missing)"
        )
    logger.info("starting the engine on this machine")
    engine = _local.spawn_engine()
    try:
        line = await _read_ready(engine.ready_fd, deadline)
    finally:
        os.close(engine.ready_fd)
    try:
        ready = msgspec.json.decode(line, type=_Ready)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        ready = _Ready(error=f"it ended at once: {_local.last_words()}")
    if ready.error is not None:
        raise EngineUnavailableException(
            f"the engine on this machine cannot start: {ready.error} (its log is {_local.engine_log()})"
        )
    return _local.EngineAddress(url=ready.url, api_key=ready.api_key, pid=ready.pid, version=ready.version)


async def _read_ready(fd: int, deadline: float) -> bytes:
    """Read until the other side closes, looking now and then: this pipe is not worth a waiter of its own."""
    os.set_blocking(fd, False)
    found = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            await _pause(deadline, "the engine was started but does not accept connections")
            continue
        if not chunk:
            return found
        found += chunk


async def _pause(deadline: float, problem: str) -> None:
    if _aio.clock() > deadline:
        raise EngineUnavailableException(f"{problem}, for {START_SECONDS:.0f} s now; its log is {_local.engine_log()}")
    await _aio.sleep(POLL_SECONDS)
