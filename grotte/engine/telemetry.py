"""What the engine itself does, in numbers: the Prometheus text format, for whoever runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from grotte._version import __version__
from grotte.engine.http import Request
from grotte.engine.lifecycle.keys import Keyring
from grotte.engine.lifecycle.registry import Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATH = "/metrics"

#: Label values of one sample; empty for a metric without labels.
Labels = tuple[tuple[str, str], ...]


class Telemetry:
    """Counts requests, and shows them with what the registry knows.

    Only the holder of the engine's first API key may read it: the numbers are about the sandboxes of all.

    Attributes:
        websockets: How many are open now.
    """

    def __init__(self, registry: Registry, keyring: Keyring) -> None:
        self._registry = registry
        self._keyring = keyring
        self._answered: Counter[Labels] = Counter()
        self._active: Counter[Labels] = Counter()
        self.websockets = 0
        self._received = 0
        self._sent = 0

    def began(self, request: Request) -> None:
        """A request has come to the door."""
        self._active[_method(request)] += 1

    def ended(self, request: Request) -> None:
        """It was answered, or broken off; it knows now what it was for."""
        self._active[_method(request)] -= 1
        status = f"{request.status // 100}xx" if request.status else "none"
        self._answered[(("route", request.route), ("status", status))] += 1
        self._received += request.received
        self._sent += request.sent

    async def serve(self, request: Request) -> None:
        """Answer with all numbers.

        Raises:
            ControlFault: 401 and 403, whoever asks may not know.
        """
        request.route = PATH
        self._keyring.check_first(request)
        await request.reply(200, self.render().encode(), type=CONTENT_TYPE)

    def render(self) -> str:
        """All numbers, as Prometheus reads them."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        registry = self._registry
        states = Counter(sandbox.state for sandbox in registry.all())
        yield from _metric("info", "gauge", "The engine.", {(("version", __version__),): 1})
        sandboxes: dict[Labels, int] = {(("state", state),): states[state] for state in ("running", "paused")}
        yield from _metric("sandboxes", "gauge", "Sandboxes that have not ended.", sandboxes)
        yield from _metric("spares", "gauge", "Sandboxes that stand ready for a creation.", {(): registry.spares})
        processes = sum(len(sandbox.life.processes.running()) for sandbox in registry.all() if sandbox.life)
        yield from _metric("processes", "gauge", "Processes that were started and have not ended.", {(): processes})
        born, ended = registry.counts
        yield from _metric("sandboxes_created_total", "counter", "Sandboxes that were created.", {(): born})
        yield from _metric("sandboxes_ended_total", "counter", "Sandboxes that have ended.", {(): ended})
        guard = registry.guard
        yield from _metric("disk_free_bytes", "gauge", "What sandboxes may still take.", {(): max(0, guard.free.bytes)})
        yield from _metric("disk_stops_total", "counter", "Sandboxes that held too much.", {(): guard.stops})
        yield from _metric("requests_total", "counter", "Requests that are over.", self._answered)
        yield from _metric("requests_active", "gauge", "Requests and streams that are being served.", self._active)
        yield from _metric("websockets_active", "gauge", "WebSockets to ports of sandboxes.", {(): self.websockets})
        counted: dict[Labels, int] = {(("direction", "in"),): self._received, (("direction", "out"),): self._sent}
        yield from _metric("body_bytes_total", "counter", "Bytes of bodies, of requests that are over.", counted)


def _method(request: Request) -> Labels:
    # Anybody may make methods up, and every value of a label is kept for ever.
    return (("method", request.method if request.method in _METHODS else "other"),)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _metric(name: str, kind: str, text: str, samples: Mapping[Labels, int]) -> Iterator[str]:
    yield f"# HELP grotte_{name} {text}\n# TYPE grotte_{name} {kind}\n"
    for labels, value in samples.items():
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        yield f"grotte_{name}{{{shown}}} {value}\n" if shown else f"grotte_{name} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
