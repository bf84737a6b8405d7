"""Lists that arrive in pages."""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import AsyncIterator
from typing import Unpack

from grotte._core.api import AsyncControlPlane
from grotte._proto.sandboxes import list_query, sandbox_info
from grotte.config import ApiParams, ConnectionConfig
from grotte.errors import SandboxException
from grotte.models import SandboxInfo, SandboxQuery


class AsyncSandboxPaginator:
    """The sandboxes of an account: iterate over it, or take it page by page.

    Example:
        ```python
        async for info in AsyncSandbox.list():
            print(info.sandbox_id)
        ```
        ```python
        paginator = AsyncSandbox.list(limit=10)
        while paginator.has_next:
            print(await paginator.next_items())
        ```
    """

    def __init__(
        self,
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        list_query(query, limit, next_token)  # what is wrong is said here, not when the first page is asked for
        self.query = query
        self.limit = limit
        self._config = ConnectionConfig.resolve(**options)
        self._has_next = True
        self._next_token = next_token

    @property
    def has_next(self) -> bool:
        """Whether there may be more."""
        return self._has_next

    @property
    def next_token(self) -> str | None:
        """Where the next page begins; None at the beginning and at the end."""
        return self._next_token

    async def next_items(self) -> builtins.list[SandboxInfo]:
        """The next page.

        Raises:
            SandboxException: there is none: look at `has_next` first.
        """
        if not self._has_next:
            raise SandboxException("there are no more items: look at has_next first")
        api = await AsyncControlPlane.at(self._config)
        page, token = await api.list_page(list_query(self.query, self.limit, self._next_token))
        self._next_token = token
        self._has_next = token is not None
        return [sandbox_info(listed) for listed in page]

    def __aiter__(self) -> AsyncIterator[SandboxInfo]:
        return AsyncItemIterator(self)


class AsyncItemIterator:
    """One item after the other, a page ahead at most."""

    def __init__(self, paginator: AsyncSandboxPaginator) -> None:
        self._paginator = paginator
        self._items: deque[SandboxInfo] = deque()

    def __aiter__(self) -> AsyncIterator[SandboxInfo]:
        return self

    async def __anext__(self) -> SandboxInfo:
        while not self._items:
            if not self._paginator.has_next:
                raise StopAsyncIteration
            self._items.extend(await self._paginator.next_items())
        return self._items.popleft()
