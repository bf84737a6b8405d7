"""A gateway before an engine that keeps creations to itself until their client has given them up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engine import Engine
from tests.support.moody_proxy import MoodyProxy
from tests.support.stub_service import Answer, Seen, running_stub

#: No test waits that long for what it waits for, in seconds.
SECONDS = 60


class HoldingProxy(MoodyProxy):
    """Forwards to an engine; of creations and forks the answer comes, or with `late` the request goes on, too late.

    Attributes:
        late: Whether the engine hears of a creation only when it was given up.
        holding: Whether creations are held at all.
        given_up: The keys of the creations that were given up, as the engine was told.
        statuses: What the engine answered to each creation.
    """

    def __init__(self, engine: Engine, *, late: bool) -> None:
        super().__init__(engine)
        self.late = late
        self.holding = False
        self.keys: list[str] = []
        self.given_up: list[str] = []
        self.statuses: list[int] = []
        self._gate = threading.Event()
        self._answered = threading.Semaphore(0)

    def answer(self, seen: Seen) -> Answer:
        if not self.holding or seen.method != "POST":
            answer = self._pass_on(seen)
            if self.holding and seen.method == "DELETE":
                self.given_up.append(seen.path.rpartition("/")[2])
                self._gate.set()
            return answer
        self.keys.append(seen.headers["idempotency-key"])
        if self.late:
            self._gate.wait(SECONDS)
        answer = self._pass_on(seen)
        self.statuses.append(answer.status)
        self._answered.release()
        self._gate.wait(SECONDS)
        return answer

    def _pass_on(self, seen: Seen) -> Answer:
        return self.forward(seen.method, seen.path, seen.raw_query, seen.headers, seen.body)

    def settle(self) -> None:
        """Wait until the engine has answered a creation, whoever hears of it."""
        assert self._answered.acquire(timeout=SECONDS)

    def open(self) -> None:
        """Hold nothing back any more."""
        self._gate.set()


@contextmanager
def running_holding(engine: Engine, *, late: bool) -> Iterator[HoldingProxy]:
    proxy = HoldingProxy(engine, late=late)
    with running_stub(service=proxy):
        try:
            yield proxy
        finally:
            proxy.open()
