"""One creation per idempotency key, however often it is asked for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from grotte.engine.faults import ControlFault
from grotte.engine.lifecycle.store import Store

_KEY = re.compile(r"[a-z0-9-]{1,255}")
#: So many keys that were given up are remembered: their requests may still be on their way.
GIVEN_UP = 10_000


class _Making:
    """A creation under way, or one whose answer has not been sent yet."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        #: Others have asked for its answer.
        self.shared = False


class Idempotency:
    """Answers by key and owner: the first request makes one, its repetitions get the same."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._making: dict[tuple[str, str], _Making] = {}
        self._given_up: dict[tuple[str, str], None] = {}

    async def once(self, owner: str, key: str, digest: bytes, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer to this key; `make` is called if there is none yet, and `heard` or `unheard` is told afterwards.

        Args:
            digest: What was asked for; the same key with another digest is refused.

        Raises:
            ControlFault: 400, the key is malformed; 409, it was given up; 422, it stood for another request.
        """
        if not _KEY.fullmatch(key):
            raise ControlFault(400, "Idempotency-Key must be 1 to 255 characters of [a-z0-9-]")
        if (owner, key) in self._given_up:
            raise ControlFault(409, "the request with this Idempotency-Key was given up")
        while (making := self._making.get((owner, key))) is not None:
            making.shared = True
            if making.done.is_set():
                break
            await making.done.wait()
        if (known := self._store.answer(owner, key)) is not None:
            if known[0] != digest:
                raise ControlFault(422, "this Idempotency-Key was used for a different request")
            return known[1]
        self._making[owner, key] = making = _Making()
        try:
            answer = await make()
            self._store.remember(owner, key, digest, answer)
        except BaseException:
            del self._making[owner, key]
            raise
        finally:
            making.done.set()
        return answer

    def heard(self, owner: str, key: str) -> bool:
        """Whoever made the answer is about to get it.

        Returns:
            False if the key was given up meanwhile.
        """
        self._making.pop((owner, key), None)
        return (owner, key) not in self._given_up

    def unheard(self, owner: str, key: str) -> bool:
        """Whoever made the answer left before it was there.

        Returns:
            True if nobody else knows of it: it is forgotten.
        """
        making = self._making.pop((owner, key), None)
        if making is None or making.shared:
            return False
        self._store.forget(owner, key)
        return True

    def give_up(self, owner: str, key: str) -> list[str]:
        """Nobody wants what the key stands for, or will stand for once its request arrives.

        Returns:
            The ids of the sandboxes that its answer names, if there is one; the key is forgotten.
        """
        self._given_up[owner, key] = None
        if len(self._given_up) > GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
        known = self._store.answer(owner, key)
        if known is None:
            return []
        self._store.forget(owner, key)
        return _named(known[1])


def _named(answer: bytes) -> list[str]:
    """The sandboxes in the answer of a create or a fork."""
    said = msgspec.json.decode(answer)
    made = [one.get("sandbox") for one in said] if isinstance(said, list) else [said]
    return [one["sandboxID"] for one in made if one is not None]
