from __future__ import annotations

import pytest

from tests.proto.http2.peer import CODECS, Settled


@pytest.fixture(params=CODECS)
def codec_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settled(codec_name: str) -> Settled:
    """Either codec, past SETTINGS, with stream 1 open and its request complete."""
    settled = Settled(codec_name)
    settled.open()
    return settled
