"""WebSockets to whatever listens inside a sandbox: message by message, each way as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as Opening
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from grotte.engine.data.pages import for_browser
from grotte.engine.data.routing import find_port, is_for_port, wake
from grotte.engine.data.upstream import RawHeaders, check_traffic, is_clean, open_port, passed_on, request_headers
from grotte.engine.data.upstream_tls import Stream
from grotte.engine.faults import Fault, ProxyFault
from grotte.engine.http import Receive, Request, Scope, Send
from grotte.engine.lifecycle.registry import Registry
from grotte.engine.lifecycle.sandbox import Sandbox
from grotte.engine.turns import Turns

#: The longest message, in bytes; ASGI hands over whole messages only.
MAX_MESSAGE = 64 * 1024 * 1024
#: What each of its parts costs besides its bytes: there may be any number of empty ones.
PART_COST = 128
#: The longest body of an answer that is no WebSocket, in bytes.
MAX_REFUSAL = 1024 * 1024
NO_WEBSOCKET = "The sandbox is running but its port does not answer as a WebSocket"
#: Close codes that are for this side alone and are never sent.
_NOT_SENT = (None, 1005, 1006, 1015)


async def serve_websocket(scope: Scope, receive: Receive, send: Send, registry: Registry) -> None:
    """Join a client's WebSocket to one of a port of a sandbox; refuse it if there is none."""
    request = Request(scope, receive, send)
    await receive()  # the client wants to connect
    try:
        if not is_for_port(request):
            raise Fault(404, "not found: WebSockets are for the ports of sandboxes")
        sandbox, port = find_port(request, registry)
        check_traffic(request, sandbox)
        if sandbox.paused:
            await wake(sandbox, registry)
        async with open_port(sandbox, port) as upstream:
            bridge = _Bridge(upstream, receive, send)
            if not await bridge.run(_opening(scope, request, sandbox, port)):
                raise ProxyFault(502, NO_WEBSOCKET, sandbox.sandbox_id, port)
    except Fault as fault:
        await _refuse(send, for_browser(fault, request))


def _opening(scope: Scope, request: Request, sandbox: Sandbox, port: int) -> Opening:
    (_, host), *headers = request_headers(request, sandbox, port)
    extra = [(name, value) for name, value in headers if not name.startswith(b"sec-websocket-")]
    target = request.path + (f"?{request.query_string}" if request.query_string else "")
    return Opening(
        host=host.decode("latin-1"),
        target=target,
        subprotocols=list(scope.get("subprotocols") or []),
        extra_headers=extra,
    )


class _Bridge:
    """A client's WebSocket and the one to the server, once both stand."""

    def __init__(self, upstream: Stream, receive: Receive, send: Send) -> None:
        self._upstream = upstream
        self._receive = receive
        self._send = send
        self._server = WSConnection(ConnectionType.CLIENT)
        self._client_left = False

    async def run(self, opening: Opening) -> bool:
        """Join the two until one ends; False if the server does not answer the opening in its protocol."""
        code, reason = int(CloseReason.INTERNAL_ERROR), ""
        async with aclosing(self._events(opening)) as events:
            try:
                first = await anext(events, None)
                if isinstance(first, RejectConnection):
                    await self._pass_refusal(first, events)
                    return True
            except (OSError, ProtocolError):
                return False
            if not isinstance(first, AcceptConnection):
                return False
            await self._send({"type": "websocket.accept", "subprotocol": first.subprotocol})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._from_client, tasks.cancel_scope)
                code, reason = await self._from_server(events)
                tasks.cancel_scope.cancel()
            if not self._client_left:
                await self._send({"type": "websocket.close", "code": int(code), "reason": reason})
        return True

    async def _pass_refusal(self, refusal: RejectConnection, events: AsyncGenerator[Event]) -> None:
        """The server's own answer, as the client would get it without an engine in between."""
        body = bytearray()
        async for event in events:
            if isinstance(event, RejectData):
                body += event.data
            if len(body) > MAX_REFUSAL:
                raise ProtocolError("the refusal is too long")
        if not is_clean(refusal.headers):
            raise ProtocolError("the refusal's headers cannot be sent on")
        headers = [(name, value) for name, value in passed_on(refusal.headers) if name.lower() != b"content-length"]
        await _answer(self._send, refusal.status_code, headers, bytes(body))

    async def _events(self, opening: Opening) -> AsyncGenerator[Event]:
        """What the server says, until it hangs up."""
        turns = Turns()
        await self._upstream.send(self._server.send(opening))
        while True:
            data = await self._upstream.receive()
            self._server.receive_data(data or None)
            for event in self._server.events():
                await turns.step()
                yield event
                if isinstance(event, CloseConnection) or _ends_refusal(event):
                    return

    async def _from_server(self, events: AsyncGenerator[Event]) -> tuple[int, str]:
        """Hand messages over until the server ends; return how it did."""
        parts: list[Any] = []
        size = 0
        try:
            async for event in events:
                if isinstance(event, Message):
                    parts.append(event.data)
                    size += len(event.data) + PART_COST
                    if size > MAX_MESSAGE:
                        return CloseReason.MESSAGE_TOO_BIG, ""
                    if event.message_finished:
                        await self._hand_over(event, parts)
                        parts, size = [], 0
                elif isinstance(event, Ping):
                    await self._upstream.send(self._server.send(event.response()))
                elif isinstance(event, CloseConnection):
                    return CloseReason.NORMAL_CLOSURE if event.code in _NOT_SENT else event.code, event.reason or ""
        except (OSError, ProtocolError):
            pass
        return CloseReason.INTERNAL_ERROR, ""

    async def _hand_over(self, last: Message[Any], parts: list[Any]) -> None:
        if isinstance(last, TextMessage):
            await self._send({"type": "websocket.send", "text": "".join(parts)})
        else:
            await self._send({"type": "websocket.send", "bytes": b"".join(parts)})

    async def _from_client(self, bridge: anyio.CancelScope) -> None:
        try:
            while True:
                event = await self._receive()
                if event["type"] == "websocket.disconnect":
                    self._client_left = True
                    code = event.get("code")
                    closing = CloseConnection(code=CloseReason.NORMAL_CLOSURE if code in _NOT_SENT else code)
                    await self._upstream.send(self._server.send(closing))
                    bridge.cancel()
                    return
                await self._upstream.send(self._server.send(_message(event)))
        except (OSError, ProtocolError):
            return  # the server hung up, which the other direction tells


def _message(event: Any) -> Event:
    text = event.get("text")
    return BytesMessage(data=event["bytes"]) if text is None else TextMessage(data=text)


def _ends_refusal(event: Event) -> bool:
    return (isinstance(event, RejectConnection) and not event.has_body) or (
        isinstance(event, RejectData) and event.body_finished
    )


async def _refuse(send: Send, fault: Fault) -> None:
    """Answer with an error instead of a WebSocket."""
    fields = [*fault.headers, ("content-type", fault.content_type)]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await _answer(send, fault.status, headers, fault.body())


async def _answer(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "websocket.http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
