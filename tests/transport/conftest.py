"""As the generated tests: asyncio and trio, both codecs."""

from __future__ import annotations

from tests._async.conftest import anyio_backend
from tests._async.transport.conftest import certificate, codec, options, origin, server, transport

__all__ = ["anyio_backend", "certificate", "codec", "options", "origin", "server", "transport"]
