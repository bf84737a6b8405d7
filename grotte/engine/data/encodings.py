"""How messages are written: as JSON, or in protobuf's binary form."""

from __future__ import annotations

import zlib
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from grotte._proto import messages
from grotte._proto.connect import MAX_MESSAGE
from grotte._proto.messages import InvalidMessage
from grotte.engine.data import protobuf
from grotte.engine.faults import RpcFault

M = TypeVar("M", bound=Struct)

#: What zlib is told so that it reads gzip.
GZIP = 31


class Encoding(Protocol):
    """One of the two."""

    def parse(self, kind: type[M], payload: bytes | memoryview) -> M:
        """One message.

        Raises:
            RpcFault: invalid_argument, it is malformed.
        """

    def encode(self, message: Struct) -> bytes:
        """One message of an answer."""


class Json:
    """proto3 JSON."""

    encode = staticmethod(messages.encode)

    def parse(self, kind: type[M], payload: bytes | memoryview) -> M:
        try:
            return messages.decode(kind, payload)
        except InvalidMessage as error:
            try:
                # proto3 JSON lets null stand for an absent field at any depth; real clients hardly write it
                plain = _without_nulls(msgspec.json.decode(payload))
                return messages.decode(kind, msgspec.json.encode(plain))
            except (InvalidMessage, msgspec.MsgspecError, UnicodeError, RecursionError):
                raise _malformed(error) from None


class Binary:
    """protobuf."""

    encode = staticmethod(protobuf.encode)

    def parse(self, kind: type[M], payload: bytes | memoryview) -> M:
        try:
            return protobuf.decode(kind, payload)
        except InvalidMessage as error:
            raise _malformed(error) from None


def unzip(payload: bytes | memoryview) -> bytes:
    """A compressed message as it was.

    Raises:
        RpcFault: it is not gzip, or becomes too long.
    """
    reader = zlib.decompressobj(wbits=GZIP)
    try:
        plain = reader.decompress(payload, MAX_MESSAGE)
    except zlib.error as error:
        raise RpcFault("invalid_argument", f"decompress message: {error}") from None
    if reader.unconsumed_tail:
        raise RpcFault("resource_exhausted", f"a message is longer than {MAX_MESSAGE} bytes")
    if not reader.eof:
        raise RpcFault("invalid_argument", "decompress message: it is cut off")
    return plain


def _malformed(error: InvalidMessage) -> RpcFault:
    return RpcFault("invalid_argument", f"unmarshal message: {error}")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


JSON = Json()
BINARY = Binary()
