"""`process.Process`: start commands, listen to them, talk to them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from grotte._proto.messages import (
    SIGNALS,
    CloseStdinRequest,
    ConnectRequest,
    Empty,
    InvalidMessage,
    ListResponse,
    ProcessEvent,
    ProcessEventResponse,
    ProcessInfo,
    ProcessInput,
    Pty,
    PtyWindow,
    SendInputRequest,
    SendSignalRequest,
    StartEvent,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
    decode_base64,
)
from grotte._proto.resume import RAW_HEADER
from grotte.engine.data import offsets
from grotte.engine.data.rpc import Call, Stream, Streaming, Unary, keepalive_interval, until_disconnected
from grotte.engine.faults import SANDBOX_NOT_FOUND, RpcFault
from grotte.engine.host import TerminalSize
from grotte.engine.processes.process import Process, pack_output, pack_raw
from grotte.engine.processes.spool import Piece, Reader

KEEPALIVE = ProcessEventResponse(event=ProcessEvent(keepalive=Empty()))
#: Most commands end so soon that their client need not be watched: they go on without it anyway. In seconds.
HASTE = 0.05
#: What the kernel's 16 bits hold.
MAX_SIDE = 65535


async def start(call: Call, stream: Stream) -> None:
    request = await stream.first(StartRequest)
    terminal = None if request.pty is None else _terminal_size(request.pty)
    _check(request)
    wanted = _wanted(call)
    envs = call.sandbox.global_envs() | request.process.envs
    cwd = request.process.cwd or call.sandbox.template.setup.workdir or None
    process, reader = await call.sandbox.processes.start(request, envs, call.user, call.deadline, terminal, cwd)
    await _tell(call, stream, process, reader, resumes=wanted is not None)


async def connect(call: Call, stream: Stream) -> None:
    request = await stream.first(ConnectRequest)
    wanted = _wanted(call)
    process = call.sandbox.processes.find(request.process, ended=True)
    await _tell(call, stream, process, process.output.listen(wanted), resumes=wanted is not None)


def _wanted(call: Call) -> dict[str, int] | None:
    text = call.request.headers.get(offsets.HEADER)
    return None if text is None else offsets.parse_offsets(text)


async def _tell(call: Call, stream: Stream, process: Process, reader: Reader, *, resumes: bool) -> None:
    """Send a process's events until it ends; when the client leaves, the process stays."""
    if resumes:
        call.headers.append((offsets.HEADER, offsets.format_offsets(reader.begins)))
    packed = _packer(call, stream)
    try:
        await stream.send(stream.pack(ProcessEventResponse(event=ProcessEvent(start=StartEvent(pid=process.pid)))))
        await until_disconnected(call.request, partial(_relay, call, stream, reader, packed), after=HASTE)
    finally:
        reader.close()
    if process.end is None:
        raise RpcFault("unavailable", SANDBOX_NOT_FOUND)
    await stream.end(stream.pack(ProcessEventResponse(event=ProcessEvent(end=process.end))))


def _packer(call: Call, stream: Stream) -> Callable[[list[Piece]], bytes]:
    """What makes envelopes of output: protobuf has no need of the raw ones, for it carries bytes as they are."""
    if stream.binary:
        return partial(pack_output, packed=stream.pack)
    if call.request.headers.get(RAW_HEADER.lower()) != "1":
        return pack_output
    call.headers.append((RAW_HEADER.lower(), "1"))
    return pack_raw


async def _relay(call: Call, stream: Stream, reader: Reader, packed: Callable[[list[Piece]], bytes]) -> None:
    interval = keepalive_interval(call)
    loop = asyncio.get_running_loop()
    while True:
        if output := reader.take_now():
            await stream.send(packed(output))
        elif reader.over:
            return
        else:
            alarm = loop.call_later(interval, reader.wake)
            try:
                await reader.wait()
            finally:
                alarm.cancel()
            if reader.idle:  # it was the alarm
                await stream.send(stream.pack(KEEPALIVE))


def _check(request: StartRequest) -> None:
    """Refuse what no program can be started with, before anything is passed on."""
    config = request.process
    if not config.cmd:
        raise RpcFault("invalid_argument", "the command is empty")
    texts = [config.cmd, *config.args, *config.envs, *config.envs.values(), config.cwd or ""]
    if any("\0" in text for text in texts):
        raise RpcFault("invalid_argument", "a command, argument, variable or directory holds a NUL character")
    if any(not name or "=" in name for name in config.envs):
        raise RpcFault("invalid_argument", "a variable's name is empty or holds '='")


async def list_processes(call: Call, _: Empty) -> Struct:
    running = call.sandbox.processes.running()
    return ListResponse(processes=[ProcessInfo(config=p.config, pid=p.pid, tag=p.tag) for p in running])


async def update(call: Call, request: UpdateRequest) -> Struct:
    process = call.sandbox.processes.find(request.process)
    if request.pty is not None:
        await process.resize(_terminal_size(request.pty))
    return Empty()


def _terminal_size(pty: Pty) -> TerminalSize:
    """The size that is asked for; none at all is 0 by 0, which means unknown."""
    size = pty.size or PtyWindow()
    if not (0 <= size.cols <= MAX_SIDE and 0 <= size.rows <= MAX_SIDE):
        raise RpcFault("invalid_argument", f"a terminal has at most {MAX_SIDE} columns and rows")
    return TerminalSize(size.cols, size.rows)


async def send_input(call: Call, request: SendInputRequest) -> Struct:
    process = call.sandbox.processes.find(request.process)
    await until_disconnected(call.request, partial(_write, process, request.input))
    return Empty()


async def stream_input(call: Call, stream: Stream) -> None:
    process: Process | None = None
    async for message in stream.messages(StreamInputRequest):
        if message.start is not None:
            process = call.sandbox.processes.find(message.start.process)
        elif message.data is not None:
            if process is None:
                raise RpcFault("invalid_argument", "the first message must name the process")
            await _write(process, message.data.input)
        elif message.keepalive is None:
            raise RpcFault("unimplemented", "a message holds neither start, data nor keepalive")
    await stream.end(stream.pack(Empty()))


async def _write(process: Process, given: ProcessInput) -> None:
    if given.pty is not None:
        await process.type(_input_bytes(given.pty, "pty"))
    elif given.stdin is not None:
        await process.write_stdin(_input_bytes(given.stdin, "stdin"))
    else:
        raise RpcFault("unimplemented", "the input is neither stdin nor pty")


def _input_bytes(text: str, name: str) -> bytes:
    try:
        return decode_base64(text)
    except InvalidMessage as error:
        raise RpcFault("invalid_argument", f"unmarshal message: {name} is {error}") from None


async def send_signal(call: Call, request: SendSignalRequest) -> Struct:
    process = call.sandbox.processes.find(request.process)
    number = SIGNALS.get(str(request.signal), request.signal)
    if isinstance(number, str) and re.fullmatch("[0-9]{1,10}", number):
        number = int(number)
    if number not in (SIGNALS["SIGNAL_SIGKILL"], SIGNALS["SIGNAL_SIGTERM"]):
        raise RpcFault("unimplemented", "only SIGNAL_SIGKILL and SIGNAL_SIGTERM can be sent")
    await process.send_signal(int(number))
    return Empty()


async def close_stdin(call: Call, request: CloseStdinRequest) -> Struct:
    # A process that has just ended has closed its input, too: closing is idempotent.
    call.sandbox.processes.find(request.process, ended=True).close_stdin()
    return Empty()


METHODS: dict[str, Unary | Streaming] = {
    "/process.Process/Start": Streaming(start),
    "/process.Process/Connect": Streaming(connect),
    "/process.Process/StreamInput": Streaming(stream_input),
    "/process.Process/List": Unary(Empty, list_processes),
    "/process.Process/Update": Unary(UpdateRequest, update),
    "/process.Process/SendInput": Unary(SendInputRequest, send_input),
    "/process.Process/SendSignal": Unary(SendSignalRequest, send_signal),
    "/process.Process/CloseStdin": Unary(CloseStdinRequest, close_stdin),
}
