"""Several accounts in one program: an object for each, with its own key, addresses, defaults and connections."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from grotte._core import sandbox as sandboxes
from grotte._core import template as templates
from grotte._core import volume as volumes
from grotte._core.transport import AsyncTransports
from grotte._proto.options import Counters, TransportOptions
from grotte._proto.pinned import Pinned
from grotte.config import ApiParams, ConnectionConfig, bound


class AsyncGrotte(Pinned):
    """One account: a key, addresses and defaults, and connections that nobody else uses.

    Its classes are those of the package, with the object's options in place of the environment's; an option of a call
    still wins. Whatever they make goes on using the object's connections, for commands and files too. `async with`
    closes these at the end of the block; sandboxes live on.

    Attributes:
        Sandbox: `AsyncSandbox` for this account.
        Volume: `AsyncVolume` for this account.
        Template: `AsyncTemplate` for this account.

    Example:
        ```python
        async with AsyncGrotte(request_timeout=20) as client:
            async with await client.Sandbox.create("base") as sandbox:
                result = await sandbox.commands.run("whoami")
                print(result.stdout)
        ```
    """

    _instead = "its connections are its own; make another one with the same options where it is needed"

    def __init__(self, *, transport: TransportOptions | None = None, **options: Unpack[ApiParams]) -> None:
        """Nothing is connected yet.

        Args:
            transport: Whom to trust, and how to connect; see `TransportOptions`.
            **options: Where, and with which key; what is left out comes from the environment, now and not later. See
                `ApiParams`.

        Raises:
            AuthenticationException: there is no key, and no engine on this machine.
            InvalidArgumentException: an option is wrong.
        """
        config = ConnectionConfig.resolve(**options)
        self._transports = AsyncTransports(transport)
        self._config = replace(config, transports=self._transports)
        self.Sandbox: type[sandboxes.AsyncSandbox] = bound(sandboxes.AsyncSandbox, self._config)
        self.Template: type[templates.AsyncTemplate] = bound(templates.AsyncTemplate, self._config)
        self.Volume: type[volumes.AsyncVolume] = bound(volumes.AsyncVolume, self._config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(api_url={self._config.api_url!r}, domain={self._config.domain!r})"

    @property
    def connection_config(self) -> ConnectionConfig:
        """Where its sandboxes run."""
        return self._config

    @property
    def counters(self) -> Counters:
        """What its connections have done so far, in this event loop."""
        return self._transports.get().counters

    async def aclose(self) -> None:
        """Close its connections; calls on what it made raise `ClientClosedException` from now on.

        Example:
            ```python
            client = AsyncGrotte()
            print(await client.Sandbox.list().next_items())
            await client.aclose()
            ```
        """
        await self._transports.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
