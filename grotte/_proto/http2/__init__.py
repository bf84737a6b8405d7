"""A client's half of HTTP/2 (RFC 9113) as pure functions of bytes: codecs, frames, header compression."""

from __future__ import annotations

from grotte._proto.http2.select import make_codec

__all__ = ["make_codec"]
