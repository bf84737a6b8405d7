"""What the content type of a call decides: how its messages are encoded, and what stands around them.

Connect has calls whose body is the message, and streams of envelopes; gRPC-Web has envelopes for both, and ends them
otherwise. gRPC itself cannot be offered: it ends with trailers of HTTP, which the server cannot send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from grotte._proto.connect import (
    FLAG_END_STREAM,
    HTTP_STATUS,
    STREAM_CONTENT_TYPE,
    UNARY_CONTENT_TYPE,
    EndOfStream,
    ErrorBody,
    pack,
)
from grotte._proto.messages import encode
from grotte.engine.data.encodings import BINARY, JSON, Encoding
from grotte.engine.faults import RpcFault

END_OF_STREAM = pack(encode(EndOfStream()), FLAG_END_STREAM)
FLAG_TRAILERS = 0x80

#: gRPC's numbers of the codes, which Connect lists in their order.
_GRPC_STATUS = {code: number for number, code in enumerate(HTTP_STATUS, 1)}
_GRPC_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
#: What stands in a message of gRPC as it is.
_GRPC_TEXT = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))


class Dialect(Protocol):
    """How one content type is spoken."""

    @property
    def content_type(self) -> str:
        """That of answers."""

    @property
    def encoding(self) -> Encoding:
        """How messages are written."""

    @property
    def enveloped(self) -> bool:
        """Whether messages stand in envelopes, also where there is only one."""

    def timeout(self, headers: Mapping[str, str]) -> float | None:
        """How long the client waits, in seconds; None for ever.

        Raises:
            RpcFault: the headers are malformed.
        """

    def gzips(self, headers: Mapping[str, str]) -> bool:
        """Whether the client compresses messages.

        Raises:
            RpcFault: it does so in another way.
        """

    def ending(self, fault: RpcFault | None = None) -> bytes:
        """The last envelope of an answer."""


@dataclass(frozen=True, slots=True)
class Connect:
    """The Connect protocol."""

    content_type: str
    encoding: Encoding
    enveloped: bool = False

    def timeout(self, headers: Mapping[str, str]) -> float | None:
        if headers.get("connect-protocol-version", "1") != "1":
            raise RpcFault("invalid_argument", 'connect-protocol-version must be "1"')
        said = _said(headers, "connect-timeout-ms", r"[0-9]{1,10}", "a number of milliseconds of at most 10 digits")
        return None if said is None else int(said[0]) / 1000

    def gzips(self, headers: Mapping[str, str]) -> bool:
        return _is_gzip(headers.get("connect-content-encoding" if self.enveloped else "content-encoding"))

    def ending(self, fault: RpcFault | None = None) -> bytes:
        if fault is None:
            return END_OF_STREAM
        error = ErrorBody(code=fault.code, message=fault.message)
        return pack(encode(EndOfStream(error=error)), FLAG_END_STREAM)


@dataclass(frozen=True, slots=True)
class GrpcWeb:
    """gRPC-Web: its trailers are an envelope of the body."""

    content_type: str
    encoding: Encoding
    enveloped: bool = True

    def timeout(self, headers: Mapping[str, str]) -> float | None:
        said = _said(headers, "grpc-timeout", r"([0-9]{1,8})([HMSmun])", "a number of at most 8 digits and a unit")
        return None if said is None else int(said[1]) * _GRPC_SECONDS[said[2]]

    def gzips(self, headers: Mapping[str, str]) -> bool:
        return _is_gzip(headers.get("grpc-encoding"))

    def ending(self, fault: RpcFault | None = None) -> bytes:
        trailers = "grpc-status: 0\r\n"
        if fault is not None:
            message = quote(fault.message, safe=_GRPC_TEXT, errors="replace")
            trailers = f"grpc-status: {_GRPC_STATUS[fault.code]}\r\ngrpc-message: {message}\r\n"
        return pack(trailers.encode(), FLAG_TRAILERS)


def _said(headers: Mapping[str, str], name: str, pattern: str, form: str) -> re.Match[str] | None:
    """What a header says that has a form; None if it is not there."""
    text = headers.get(name)
    if text is None:
        return None
    found = re.fullmatch(pattern, text)
    if found is None:
        raise RpcFault("invalid_argument", f"{name} must be {form}")
    return found


def _is_gzip(named: str | None) -> bool:
    if named in (None, "identity", ""):
        return False
    if named != "gzip":
        raise RpcFault("unimplemented", "unknown compression: supported encodings are gzip and identity")
    return True


_GRPC_WEB: dict[str, Dialect] = {
    "application/grpc-web": GrpcWeb("application/grpc-web+proto", BINARY),
    "application/grpc-web+proto": GrpcWeb("application/grpc-web+proto", BINARY),
    "application/grpc-web+json": GrpcWeb("application/grpc-web+json", JSON),
}
#: By the request's content type: calls with one question and one answer, and streams.
CALLS: dict[str, Dialect] = {
    UNARY_CONTENT_TYPE: Connect(UNARY_CONTENT_TYPE, JSON),
    "application/proto": Connect("application/proto", BINARY),
    **_GRPC_WEB,
}
STREAMS: dict[str, Dialect] = {
    STREAM_CONTENT_TYPE: Connect(STREAM_CONTENT_TYPE, JSON, enveloped=True),
    "application/connect+proto": Connect("application/connect+proto", BINARY, enveloped=True),
    **_GRPC_WEB,
}
