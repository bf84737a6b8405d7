"""Broken variants of good input, for parsers that face strangers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

#: What breaks parsers: ends, escapes, lengths, half characters.
SPLINTERS = (
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r\n", b"\n", b"\r\n\r\n", b"%", b"%00", b"%2e%2e/", b"../", b'"'),
    *(b"\\", b";", b"=", b"&", b"--", b"{", b"}", b"[" * 300, b"null", b"-1", b"1e999", b"9" * 30),
    *(b"\x7f\xff\xff\xff", b"\xff" * 8, b"A" * 5000),
)


def mutate(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples, changed in a few places."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        rng.choice(CHANGES)(rng, data, samples)
    return bytes(data)


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The data as a network may deliver it."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 3, 10))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _span(rng: random.Random, data: bytearray) -> slice:
    start = rng.randrange(len(data) + 1)
    return slice(start, min(len(data), start + rng.choice((1, 2, 4, 30, 500))))


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _remove(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_span(rng, data)]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    span = _span(rng, data)
    data[span] = data[span] * rng.choice((2, 3, 50))


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(SPLINTERS)


def _replace(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[_span(rng, data)] = rng.choice(SPLINTERS)


def _truncate(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _splice(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> None:
    other = rng.choice(samples)
    data[_span(rng, data).start :] = other[rng.randrange(len(other) + 1) :]


CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _remove,
    _repeat,
    _insert,
    _replace,
    _truncate,
    _splice,
)
