"""Which codec speaks on a new connection."""

from __future__ import annotations

import os

from grotte._proto.http2.codec import Codec
from grotte.errors import InvalidArgumentException

#: Names one of `CODECS`; for the day when a gateway disagrees with the native codec.
CODEC_VARIABLE = "GROTTE_HTTP2_CODEC"
CODECS = ("native", "h2")


def make_codec(
    name: str | None = None,
    *,
    stream_window: int = 2**20,
    connection_window: int = 2**26,
    max_header_list: int = 2**16,
) -> Codec:
    """Make the codec of a new connection; its `wire` holds the preface.

    Args:
        name: One of `CODECS`; None takes the environment's `GROTTE_HTTP2_CODEC`, or else the native codec.
        stream_window: How many bytes a response may send ahead of its reader.
        connection_window: How many bytes all responses together may have in flight.
        max_header_list: The largest header section that is accepted, in bytes as RFC 9113 §6.5.2 counts them.

    Raises:
        InvalidArgumentException: there is no such codec.
    """
    name = name or os.environ.get(CODEC_VARIABLE) or "native"
    if name not in CODECS:
        raise InvalidArgumentException(f"{CODEC_VARIABLE} is {name!r}: it must be one of {', '.join(CODECS)}")
    # One of the two is imported: the h2 library takes longer than all of the rest.
    if name == "h2":
        from grotte._proto.http2.h2_codec import H2Codec

        return H2Codec(
            stream_window=stream_window, connection_window=connection_window, max_header_list=max_header_list
        )
    from grotte._proto.http2.native import NativeCodec

    return NativeCodec(
        stream_window=stream_window, connection_window=connection_window, max_header_list=max_header_list
    )
