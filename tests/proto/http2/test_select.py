from __future__ import annotations

import subprocess
import sys

import pytest

from grotte._proto.http2 import make_codec
from grotte._proto.http2.h2_codec import H2Codec
from grotte._proto.http2.native import NativeCodec
from grotte.errors import InvalidArgumentException


def test_the_native_codec_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROTTE_HTTP2_CODEC", raising=False)
    assert isinstance(make_codec(), NativeCodec)
    assert isinstance(make_codec("h2"), H2Codec)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROTTE_HTTP2_CODEC", "h2")
    assert isinstance(make_codec(), H2Codec)
    assert isinstance(make_codec("native"), NativeCodec)
    monkeypatch.setenv("GROTTE_HTTP2_CODEC", "")
    assert isinstance(make_codec(), NativeCodec)


def test_an_unknown_codec_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROTTE_HTTP2_CODEC", "quiche")
    with pytest.raises(InvalidArgumentException, match="GROTTE_HTTP2_CODEC is 'quiche'"):
        make_codec()


def test_the_native_codec_does_without_the_library() -> None:
    program = (
        "import sys; from grotte._proto.http2 import make_codec; make_codec('native');"
        "sys.exit(bool({'h2', 'hpack', 'hyperframe'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
