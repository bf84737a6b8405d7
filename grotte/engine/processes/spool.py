"""The last output of a process, kept so that a listener who was cut off can go on where it stopped.

One queue of pieces in the order in which they were read. A listener is a place in that queue; what all have passed
stays until it must make room, so that bytes which were sent into a connection that broke are still there.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import anyio

#: How much output may wait for a slow listener before the process is made to wait.
LAG = 384 * 1024
#: What the spool of one process holds: more than a broken connection can have had in flight.
PER_PROCESS = 4 * 1024 * 1024
#: What those of a sandbox hold together.
PER_SANDBOX = 16 * 1024 * 1024
#: What a piece costs besides its bytes.
PIECE_COST = 128
#: How far back the end of a stream is looked for.
TAIL_PIECES = 256


class Piece(NamedTuple):
    """Output as it was read.

    Attributes:
        stream: ``stdout``, ``stderr`` or ``pty``.
        offset: How many bytes of that stream came before.
    """

    stream: str
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    @property
    def cost(self) -> int:
        return len(self.data) + PIECE_COST


class Allowance:
    """What all spools of one sandbox may hold.

    When it is used up, those of processes that ended make room, the oldest first, and then the largest.
    """

    def __init__(self, limit: int = PER_SANDBOX) -> None:
        self._limit = limit
        self._used = 0
        self._spools: dict[Spool, None] = {}  # in the order of their beginnings

    def join(self, spool: Spool) -> None:
        self._spools[spool] = None

    def leave(self, spool: Spool) -> None:
        """The spool is not wanted any more."""
        self._spools.pop(spool, None)
        self._used -= spool.cost

    def release(self, cost: int) -> None:
        """So much less is held."""
        self._used -= cost

    def use(self, cost: int) -> None:
        """So much more is held."""
        self._used += cost
        while self._used > self._limit:
            ended = next((spool for spool in self._spools if spool.ended and spool.spare), None)
            if ended is not None:
                ended.shrink(0)
                if not ended.cost:
                    del self._spools[ended]
                continue
            largest = max(self._spools, key=lambda spool: spool.spare)
            if not largest.spare:
                return  # all of it waits for listeners, who hold their processes up
            largest.shrink(largest.cost - max(1, largest.spare // 2))


class Spool:
    """A process's output: everything that its listeners still need, and as much of the rest as may be kept.

    Attributes:
        written: How many bytes each stream has had.
        cost: What is held.
        ended: Nothing more will come.
    """

    def __init__(self, streams: Iterable[str], allowance: Allowance, limit: int = PER_PROCESS) -> None:
        self.written = dict.fromkeys(streams, 0)
        self.cost = 0
        self.ended = False
        self._kept_from = dict(self.written)
        self._pieces: deque[Piece] = deque()
        self._first = 0  # the number of the first piece that is held
        self._readers: set[Reader] = set()
        self._room_made: Callable[[], None] | None = None
        self._allowance = allowance
        self._limit = limit
        allowance.join(self)

    @property
    def full(self) -> bool:
        """A listener is far behind: whoever puts more in should wait until there is room."""
        return any(reader.lag >= LAG for reader in self._readers)

    def when_room(self, made: Callable[[], None]) -> None:
        """Call back once, as soon as it is not full any more."""
        self._room_made = made

    def look_for_room(self) -> None:
        """A listener has taken something, or has left."""
        if self._room_made is not None and not self.full:
            made, self._room_made = self._room_made, None
            made()

    def put(self, stream: str, data: bytes) -> None:
        """Add output."""
        piece = Piece(stream, self.written[stream], data)
        self.written[stream] = piece.end
        self._pieces.append(piece)
        self.cost += piece.cost
        for reader in self._readers:
            reader.lag += piece.cost
            reader.wake()
        self.shrink(self._limit)
        self._allowance.use(piece.cost)

    def end(self) -> None:
        """Say that nothing more will come."""
        self.ended = True
        for reader in self._readers:
            reader.wake()

    def close(self) -> None:
        """Nobody will ask for it again."""
        self._allowance.leave(self)

    @property
    def spare(self) -> int:
        """How much of what is held no listener waits for."""
        return self.cost - max((reader.lag for reader in self._readers), default=0)

    def shrink(self, cost: int) -> None:
        """Drop the oldest, down to such a cost, but nothing that a listener waits for."""
        before, spare = self.cost, self.spare
        while self._pieces and self.cost > cost and spare >= self._pieces[0].cost:
            piece = self._pieces.popleft()
            self._first += 1
            self._kept_from[piece.stream] = piece.end
            self.cost -= piece.cost
            spare -= piece.cost
        self._allowance.release(before - self.cost)

    def tail(self, stream: str, size: int) -> bytes:
        """The last bytes of one stream, at most so many."""
        found = b""
        for piece in itertools.islice(reversed(self._pieces), TAIL_PIECES):
            if piece.stream == stream:
                found = piece.data + found
                if len(found) >= size:
                    break
        return found[-size:]

    # -- listeners -----------------------------------------------------------------------------------------------

    def listen(self, wanted: Mapping[str, int] | None = None) -> Reader:
        """Listen from now on, or from where somebody stopped.

        Args:
            wanted: The offset to begin at, by stream; at the present for one that is not named.
        """
        begins = self.written | {
            stream: min(max(offset, self._kept_from[stream]), self.written[stream])
            for stream, offset in (wanted or {}).items()
            if stream in self.written
        }
        reader = Reader(self, begins)
        reader.lag = self.cost
        reader.number = self._first
        if begins == self.written:
            reader.skip_all()
        self._readers.add(reader)
        return reader

    def after(self, number: int) -> Piece | None:
        """The piece that has this number, if there is one yet."""
        index = number - self._first
        return self._pieces[index] if index < len(self._pieces) else None

    @property
    def next_number(self) -> int:
        return self._first + len(self._pieces)

    def leave(self, reader: Reader) -> None:
        """A listener goes."""
        self._readers.discard(reader)
        self.look_for_room()


class Reader:
    """One listener's place in a spool.

    Attributes:
        begins: The offset at which each stream really begins.
        lag: The cost of what it has not taken yet.
        number: Of the piece that it takes next.
    """

    def __init__(self, spool: Spool, begins: dict[str, int]) -> None:
        self.begins = begins
        self.lag = 0
        self.number = 0
        self._spool = spool
        self._more: anyio.Event | None = None

    def wake(self) -> None:
        if self._more is not None:
            self._more.set()

    def skip_all(self) -> None:
        """Begin at the present."""
        self.lag = 0
        self.number = self._spool.next_number

    async def take(self) -> list[Piece]:
        """What waits, in order, in a bounded amount; nothing when there will be nothing more."""
        while True:
            if taken := self.take_now():
                return taken
            if self.over:
                return []
            await self.wait()

    @property
    def over(self) -> bool:
        """Nothing will come but what is there."""
        return self._spool.ended

    @property
    def idle(self) -> bool:
        """There is nothing at this moment, not even the end."""
        return not self.over and self._spool.after(self.number) is None

    async def wait(self) -> None:
        """Wait for `wake`, which whatever comes next calls."""
        self._more = anyio.Event()
        await self._more.wait()

    def take_now(self) -> list[Piece]:
        """What there is now, in order, in a bounded amount."""
        taken: list[Piece] = []
        size = 0
        while size < LAG and (piece := self._spool.after(self.number)) is not None:
            self.number += 1
            self.lag -= piece.cost
            if (unseen := self._unseen(piece)) is not None:
                taken.append(unseen)
                size += piece.cost
        self._spool.look_for_room()
        return taken

    def _unseen(self, piece: Piece) -> Piece | None:
        """What of a piece comes after the place where this listener begins."""
        begin = self.begins[piece.stream]
        if piece.end <= begin:
            return None
        return piece if piece.offset >= begin else Piece(piece.stream, begin, piece.data[begin - piece.offset :])

    def close(self) -> None:
        """The listener leaves."""
        self._spool.leave(self)
