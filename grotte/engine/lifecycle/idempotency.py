"""One creation per idempotency key, however often it is asked for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import anyio

from grotte.engine.faults import ControlFault
from grotte.engine.lifecycle.store import Store

_KEY = re.compile(r"[a-z0-9-]{1,255}")


class Idempotency:
    """Answers by key and owner: the first request makes one, its repetitions get the same."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[tuple[str, str], anyio.Event] = {}

    async def once(self, owner: str, key: str, digest: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to this key; `make` is called if there is none yet.

        Args:
            digest: What was asked for; the same key with another digest is refused.

        Raises:
            ControlFault: 400, the key is malformed; 422, it stood for another request.
        """
        if not _KEY.fullmatch(key):
            raise ControlFault(400, "Idempotency-Key must be 1 to 255 characters of [a-z0-9-]")
        while (running := self._running.get((owner, key))) is not None:
            await running.wait()
        if (known := self._store.answer(owner, key)) is not None:
            if known[0] != digest:
                raise ControlFault(422, "this Idempotency-Key was used for a different request")
            return known[1]
        self._running[owner, key] = anyio.Event()
        try:
            answer = await make()
            self._store.remember(owner, key, digest, answer)
            return answer
        finally:
            self._running.pop((owner, key)).set()
