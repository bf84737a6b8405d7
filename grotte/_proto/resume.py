"""How far the output of a process has been read: what is said when it is attached to again, and what the answer means.

Streams of events carry no positions, so both sides count bytes since the process began. The client asks in a header for
what follows; a server that can says in the same header where that really begins. Others ignore it and leave it out.

Whoever asks in another header gets output as it is and not as base64 in JSON: each piece is the payload of an envelope
whose flags name the stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grotte._proto.messages import DataEvent

#: ``stdout=12, stderr=0, pty=0``: where the answer shall begin, where it begins.
HEADER = "Grotte-Output-From"
#: More than any process prints: who asks for what comes after it gets what comes from now on, and hears where that is.
NOW = 10**18 - 1

#: ``1`` of the request: output may come as it is; of the answer: it does.
RAW_HEADER = "Grotte-Output-Raw"
#: The flags of the envelopes in which it does, none of which the protocol knows.
RAW_FLAGS = {"stdout": 0x10, "stderr": 0x20, "pty": 0x40}
RAW_MASK = 0x70

NAMES = ("stdout", "stderr", "pty")
_ITEM = re.compile(r"\s*(stdout|stderr|pty)\s*=\s*([0-9]{1,18})\s*")


def write_offsets(offsets: Mapping[str, int]) -> str:
    """The value of the header."""
    return ", ".join(f"{name}={offsets.get(name, 0)}" for name in NAMES)


def read_offsets(text: str | None) -> dict[str, int] | None:
    """The offsets that a header names; None if it is absent, malformed, or names none.

    Example:
        >>> read_offsets("stdout=12, pty=3")
        {'stdout': 12, 'stderr': 0, 'pty': 3}
    """
    if text is None:
        return None
    found = dict.fromkeys(NAMES, 0)
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            return None
        found[match[1]] = int(match[2])
    return found


class OutputPosition:
    """Where a reader of a process's output stands.

    Attributes:
        missing: Output is known to be lost, or may be: the server that was asked again does not say.
        gaps: How often reading went on with `missing` output before it.
    """

    __slots__ = ("_at", "_known", "gaps", "missing")

    def __init__(self, *, from_start: bool) -> None:
        self._at = dict.fromkeys(NAMES, 0)
        #: Whether `_at` counts from the beginning of the process.
        self._known = from_start
        self.missing = False
        self.gaps = 0

    def wish(self) -> str:
        """The header's value for the next request."""
        return write_offsets(self._at if self._known else dict.fromkeys(NAMES, NOW))

    def begin(self, answer: str | None) -> None:
        """The first stream begins."""
        offsets = read_offsets(answer)
        if offsets is not None and not self._known:
            self._at, self._known = offsets, True

    def resume(self, answer: str | None) -> bool:
        """Another stream goes on where the last one broke, as far as its server can.

        Returns:
            False if it is another process's: that one has not printed as much as was read of this one.
        """
        offsets = read_offsets(answer)
        if offsets is None or not self._known:
            self._gap()
        elif any(offsets[name] < self._at[name] for name in NAMES):
            return False
        elif offsets != self._at:
            self._gap()
        self._known = offsets is not None
        self._at = offsets or dict.fromkeys(NAMES, 0)
        return True

    def _gap(self) -> None:
        self.missing = True
        self.gaps += 1

    def take(self, data: DataEvent) -> None:
        """Count a piece of output."""
        if data.stdout:
            self._at["stdout"] += len(data.stdout)
        if data.stderr:
            self._at["stderr"] += len(data.stderr)
        if data.pty:
            self._at["pty"] += len(data.pty)
