"""The ASGI application: every request goes to one of two planes, every error becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from grotte.engine.control.plane import ControlPlane
from grotte.engine.data.access import cors
from grotte.engine.data.pages import for_browser
from grotte.engine.data.plane import DataPlane
from grotte.engine.data.ports import UpstreamLost
from grotte.engine.data.routing import is_for_sandbox, is_unaddressed
from grotte.engine.faults import ClientGone, ControlFault, Fault
from grotte.engine.http import Receive, Request, Scope, Send
from grotte.engine.telemetry import PATH, Telemetry

log = logging.getLogger("grotte.engine")


class App:
    """Control plane and data plane on one address.

    Args:
        starts_over: Tells whether what ran is gone, and nobody may take that for its end.

    Attributes:
        stopping: The engine is on its way out and takes no more work.
    """

    def __init__(
        self, control: ControlPlane, data: DataPlane, telemetry: Telemetry, starts_over: Callable[[], bool]
    ) -> None:
        self._control = control
        self._data = data
        self._telemetry = telemetry
        self._starts_over = starts_over
        self.stopping = False
        self._active = 0
        self._idle = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._join(scope, receive, send)
            return
        request = Request(scope, receive, send)
        self._active += 1
        self._telemetry.began(request)
        try:
            await self._serve(request)
        except UpstreamLost:
            log.debug("event=upstream_lost method=%s path=%s", request.method, request.path)
            raise  # breaks the answer off
        except ClientGone:
            log.debug("event=client_gone method=%s path=%s", request.method, request.path)
            if not request.answered:  # a body that breaks off looks like this, too: somebody may still listen
                await request.refuse(ControlFault(400, "the request broke off"))
        except Exception:
            if self._starts_over() and not request.answered:
                await request.refuse(_later())
                return
            # Paths are logged without their query: that may hold a signature.
            log.exception("event=failed method=%s path=%s", request.method, request.path)
            if request.answered:
                raise  # breaks the answer off: the client must not take it for whole
            await request.refuse(ControlFault(500, "internal error"))
        finally:
            self._telemetry.ended(request)
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def wait_idle(self, seconds: float) -> None:
        """Let the requests that are being answered finish, for so long."""
        with anyio.move_on_after(seconds):
            while self._active:
                self._idle = anyio.Event()
                await self._idle.wait()

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, which only what listens in a sandbox may want."""
        self._active += 1
        self._telemetry.websockets += 1
        try:
            await self._data.serve_websocket(scope, receive, send)
        except Exception:
            log.exception("event=failed websocket path=%s", scope["path"])
            raise
        finally:
            self._telemetry.websockets -= 1
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _serve(self, request: Request) -> None:
        try:
            if self.stopping or self._starts_over():
                raise ControlFault(503, "the engine is stopping")
            if (request.method, request.path) == ("GET", PATH) and is_unaddressed(request):
                await self._telemetry.serve(request)  # a sandbox's own have the same path
            else:
                plane = self._data if is_for_sandbox(request, self._control.knows) else self._control
                await plane.serve(request)
        except Fault as fault:
            if request.answered:
                raise
            await self._refuse(request, fault)

    async def _refuse(self, request: Request, fault: Fault) -> None:
        """Answer with an error: not where it was caught, or it would know a frame that knows it, a cycle."""
        # What is missing while the engine starts over will be there again.
        told = _later() if self._starts_over() else fault
        if not self.stopping:  # then there is no time to hear everybody out
            await request.drain()
        await request.refuse(for_browser(told, request), cors(request))


def _later() -> ControlFault:
    again = [("retry-after", "1")]
    return ControlFault(503, "the engine starts over: in a moment it is back", again, retry=True)
