"""From a configuration to answers: finds the engine on this machine, and maps what the transport says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from grotte._core import _aio
from grotte._core.exchange import AsyncStreamResponse, Request
from grotte._core.local import find_or_start_engine
from grotte._core.transport import AsyncTransport, AsyncTransports, default_transport
from grotte._proto.backoff import retry_delay
from grotte._proto.failures import Context, request_limit, transport_failure
from grotte._proto.http import Response
from grotte._proto.transport_errors import TransportError
from grotte.config import ConnectionConfig
from grotte.errors import ApiUnreachableException, GrotteException


async def locate(config: ConnectionConfig) -> ConnectionConfig:
    """The same with an address: the engine on this machine is started if it is meant and does not run yet."""
    if not config.is_local:
        return config
    address = await find_or_start_engine()
    return config.located(address.url, address.api_key)


def deadline_after(seconds: float | None) -> float | None:
    """When a time limit that starts now will be over."""
    return None if seconds is None else _aio.clock() + seconds


async def fetch(
    request: Request, *, timeout: float | None, context: Context, unreachable: type[GrotteException]
) -> Response:
    """Send a request over the transport that it belongs to.

    Raises:
        TimeoutException: `timeout` seconds were not enough.
        GrotteException: of the kind `unreachable`: the connection could not be made, or broke.
    """
    try:
        return await transport_of(request).fetch(request, deadline=deadline_after(timeout))
    except TransportError as error:
        raise transport_failure(error, context, unreachable, request_limit(timeout)) from error


async def fetch_patiently(
    request: Request,
    timeout: float | None,
    context: Context,
    idempotent: bool,
    *,
    unreachable: type[GrotteException] = ApiUnreachableException,
    plan: Callable[..., float | None] = retry_delay,
) -> Response:
    """Send it, again when the server is busy and says or lets expect that this helps; all within one limit."""
    deadline = deadline_after(timeout)
    transport = transport_of(request)
    attempt = 0
    while True:
        try:
            response = await transport.fetch(request, deadline=deadline)
        except TransportError as error:
            raise transport_failure(error, context, unreachable, request_limit(timeout)) from error
        if response.status < 400:
            return response
        delay = plan(response.status, response.headers, attempt=attempt, idempotent=idempotent)
        if delay is None or (deadline is not None and _aio.clock() + delay >= deadline):
            return response
        await _aio.sleep(delay)
        attempt += 1


def open_stream(
    request: Request, *, deadline: float | None, idle_timeout: float | None
) -> AbstractAsyncContextManager[AsyncStreamResponse]:
    """Send a request and read its answer as it comes; errors are the transport's own."""
    return transport_of(request).stream(request, deadline=deadline, idle_timeout=idle_timeout)


def transport_of(request: Request) -> AsyncTransport:
    """Its client's own, or that of everybody."""
    if request.transports is None:
        return default_transport()
    assert isinstance(request.transports, AsyncTransports)
    return request.transports.get()
