"""The encodings of the guest's interpreter: those that it needs, without the library's table of hundreds of names.

Its copy of the library has this module under the name `encodings`, and reads it before everything else. The library's
own package would be a tenth of the time in which the guest starts.
"""

from __future__ import annotations

import codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Encode = Callable[..., tuple[bytes, int]]
    Decode = Callable[..., tuple[str, int]]


def _codec(name: str, encode: Encode, decode: Decode) -> codecs.CodecInfo:
    class Encoder(codecs.IncrementalEncoder):
        def encode(self, input: str, final: bool = False) -> bytes:
            return encode(input, self.errors)[0]

    class Decoder(codecs.BufferedIncrementalDecoder):
        _buffer_decode = staticmethod(decode)

    return codecs.CodecInfo(
        encode, lambda data, errors="strict": decode(data, errors, True), None, None, Encoder, Decoder, name
    )


def _of_bytes(decode: Decode) -> Decode:
    """A decoder of characters of one byte, which knows no incomplete ones."""
    return lambda data, errors, _final: decode(data, errors)


_UTF_8 = _codec("utf-8", codecs.utf_8_encode, codecs.utf_8_decode)


def find(name: str) -> codecs.CodecInfo | None:
    """Return an encoding by its normalized name, as the interpreter asks for it."""
    if name in ("utf_8", "utf8"):
        return _UTF_8
    if name in ("ascii", "us_ascii"):
        return _codec("ascii", codecs.ascii_encode, _of_bytes(codecs.ascii_decode))
    if name in ("latin_1", "latin1", "iso_8859_1", "iso8859_1"):
        return _codec("iso8859-1", codecs.latin_1_encode, _of_bytes(codecs.latin_1_decode))
    return None


codecs.register(find)
