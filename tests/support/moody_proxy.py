"""A control plane with moods: it stands before an engine, refuses some creations, and kills some sandboxes."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec

from grotte import ApiParams
from tests.support.engine import Engine
from tests.support.stub_service import Answer, Seen, StubService, as_json, running_stub

HOP_HEADERS = {"host", "connection", "content-length", "transfer-encoding"}


class MoodyProxy(StubService):
    """Forwards to an engine, with a will of its own.

    Attributes:
        refusals: The part of creations that are answered with 429.
        kills: The part of sandboxes that are killed soon after they were created.
        lost_answers: How many of the next creations succeed without an answer.
        refused: How many were refused.
        killed: The ids of those that were killed.
        alive: The ids of those that were created, and not deleted.
        most_alive: How many those were at most, with those that were being created.
    """

    def __init__(self, engine: Engine, *, refusals: float = 0, kills: float = 0) -> None:
        super().__init__()
        self._engine = engine
        self._rng = random.Random(1)
        self._guard = threading.Lock()
        self._timers: list[threading.Timer] = []
        self.refusals = refusals
        self.kills = kills
        self.lost_answers = 0
        self.refused = 0
        self.killed: list[str] = []
        self.alive: set[str] = set()
        self._pending = 0
        self.most_alive = 0

    @property
    def options(self) -> ApiParams:
        """The control plane is here, the sandboxes are where they are."""
        return {"api_url": self.url, "api_key": self._engine.api_key, "sandbox_url": self._engine.url}

    def answer(self, seen: Seen) -> Answer:
        creates = (seen.method, seen.path) == ("POST", "/sandboxes")
        with self._guard:
            scripted = f"{seen.method} {seen.path}" in self.answers
            refuse = creates and self._rng.random() < self.refusals
            self.refused += refuse
        if scripted:
            return super().answer(seen)
        if refuse:
            wish = {"Retry_After": "0"} if self.refused % 2 else {}
            return as_json({"code": 429, "message": "too many"}, 429, **wish)
        if creates:
            return self._create(seen)
        answer = self.forward(seen.method, seen.path, seen.raw_query, seen.headers, seen.body)
        if seen.method == "DELETE":
            with self._guard:
                self.alive.discard(seen.path.rpartition("/")[2])
        return answer

    def _create(self, seen: Seen) -> Answer:
        with self._guard:
            self._pending += 1
            self.most_alive = max(self.most_alive, len(self.alive) + self._pending)
        answer = self.forward(seen.method, seen.path, seen.raw_query, seen.headers, seen.body)
        with self._guard:
            self._pending -= 1
            if answer.status >= 300:
                return answer
            self._doom(str(msgspec.json.decode(answer.body)["sandboxID"]))
            if self.lost_answers:
                self.lost_answers -= 1
                return Answer(502, b"bad gateway")
        return answer

    def _doom(self, sandbox_id: str) -> None:
        self.alive.add(sandbox_id)
        if self._rng.random() < self.kills:
            self.killed.append(sandbox_id)
            self._timers.append(threading.Timer(self._rng.uniform(0, 0.2), self.kill, [sandbox_id]))
            self._timers[-1].start()

    def kill(self, sandbox_id: str) -> None:
        """Kill one from outside."""
        self.forward("DELETE", f"/sandboxes/{sandbox_id}", "", {"x-api-key": self._engine.api_key}, b"")

    def forward(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self._engine.url).netloc, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name not in HOP_HEADERS}
            connection.request(method, f"{path}?{query}" if query else path, body, kept)
            response = connection.getresponse()
            content = response.read()
            found = {name: value for name, value in response.getheaders() if name.lower() not in HOP_HEADERS}
            return Answer(response.status, content, found)
        finally:
            connection.close()

    def settle(self) -> None:
        """Wait for the kills that are under way."""
        for timer in self._timers:
            timer.join(30)


@contextmanager
def running_moody(engine: Engine, *, refusals: float = 0, kills: float = 0) -> Iterator[MoodyProxy]:
    proxy = MoodyProxy(engine, refusals=refusals, kills=kills)
    with running_stub(service=proxy):
        yield proxy
    proxy.settle()
