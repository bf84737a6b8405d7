"""`Grotte-Output-From`: how a listener who was cut off says where it stopped, and hears where it goes on.

An extension that clients ask for and everybody else ignores: ``Grotte-Output-From: stdout=4096, stderr=0``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grotte.engine.faults import RpcFault

HEADER = "grotte-output-from"
_FIELD = re.compile(r"\s*(stdout|stderr|pty)=([0-9]{1,18})\s*")


def parse_offsets(text: str) -> dict[str, int]:
    """The byte offset that a listener wants each stream from.

    Example:
        >>> parse_offsets("stdout=4096, stderr=0")
        {'stdout': 4096, 'stderr': 0}

    Raises:
        RpcFault: invalid_argument, the text is malformed.
    """
    fields = [_FIELD.fullmatch(field) for field in text.split(",", maxsplit=3)]
    wanted = {field[1]: int(field[2]) for field in fields if field}
    if len(wanted) != len(fields):
        raise RpcFault("invalid_argument", f"{HEADER} must name stdout, stderr or pty once each, as in stdout=0")
    return wanted


def format_offsets(begins: Mapping[str, int]) -> str:
    """The same the other way round.

    Example:
        >>> format_offsets({"pty": 12})
        'pty=12'
    """
    return ", ".join(f"{stream}={offset}" for stream, offset in begins.items())
