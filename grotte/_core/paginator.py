"""Lists that arrive in pages."""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar, Unpack

from grotte._core.api import AsyncControlPlane
from grotte._proto.pinned import Pinned
from grotte._proto.sandboxes import list_query, sandbox_info, snapshots_query
from grotte.config import ApiParams, ConnectionConfig
from grotte.errors import SandboxException
from grotte.models import SandboxInfo, SandboxListOrder, SandboxQuery, SnapshotInfo

T = TypeVar("T")


class AsyncPaginator(Pinned, Generic[T]):
    """A list: iterate over it, as often as you like, or take it page by page."""

    _instead = "pass on its next_token, with which list() goes on where it was"

    def __init__(self, limit: int | None, next_token: str | None, config: ConnectionConfig) -> None:
        self.limit = limit
        self._config = config
        self._has_next = True
        self._next_token = next_token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(limit={self.limit}, has_next={self._has_next})"

    @property
    def has_next(self) -> bool:
        """Whether there may be more."""
        return self._has_next

    @property
    def next_token(self) -> str | None:
        """Where the next page begins; None at the beginning and at the end."""
        return self._next_token

    async def next_items(self, **options: Unpack[ApiParams]) -> builtins.list[T]:
        """The next page.

        Args:
            **options: For this page alone; see `ApiParams`.

        Raises:
            SandboxException: there is none: look at `has_next` first.

        Example:
            ```python
            paginator = AsyncSandbox.list(limit=50)
            while paginator.has_next:
                for info in await paginator.next_items():
                    print(info.sandbox_id)
            ```
        """
        if not self._has_next:
            raise SandboxException("there are no more items: look at has_next first")
        page, token = await self._page(await AsyncControlPlane.at(self._config.override(**options)), self._next_token)
        self._next_token = token
        self._has_next = token is not None
        return page

    async def page_at(self, token: str | None) -> tuple[builtins.list[T], str | None]:
        """A page by its token, and the token of the next one, for an iteration: `next_items` stays where it is."""
        return await self._page(await AsyncControlPlane.at(self._config), token)

    async def _page(self, api: AsyncControlPlane, token: str | None) -> tuple[builtins.list[T], str | None]:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[T]:
        return AsyncItemIterator(self, self._next_token, self._has_next)


class AsyncSandboxPaginator(AsyncPaginator[SandboxInfo]):
    """The sandboxes of an account: iterate over it, or take it page by page.

    Each iteration begins where `next_items` is, at first with the first page, and leaves that where it is: so a second
    one asks anew and sees everything again. `has_next` is about `next_items` alone.

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
        order: SandboxListOrder | None = None,
        *,
        config: ConnectionConfig | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        list_query(query, limit, next_token, order)  # what is wrong is said here, not when the first page is asked for
        super().__init__(limit, next_token, ConnectionConfig.resolve(**options) if config is None else config)
        self.query = query
        self.order = order

    async def _page(self, api: AsyncControlPlane, token: str | None) -> tuple[builtins.list[SandboxInfo], str | None]:
        page, following = await api.list_page(list_query(self.query, self.limit, token, self.order))
        return [sandbox_info(listed) for listed in page], following


class AsyncSnapshotPaginator(AsyncPaginator[SnapshotInfo]):
    """Snapshots: iterate over it, or take it page by page as an `AsyncSandboxPaginator`.

    Example:
        ```python
        async for snapshot in AsyncSandbox.list_snapshots():
            print(snapshot.snapshot_id)
        ```
    """

    def __init__(
        self,
        sandbox_id: str | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        *,
        config: ConnectionConfig,
    ) -> None:
        snapshots_query(sandbox_id, limit, next_token, name)
        super().__init__(limit, next_token, config)
        self.sandbox_id = sandbox_id
        self.name = name

    async def _page(self, api: AsyncControlPlane, token: str | None) -> tuple[builtins.list[SnapshotInfo], str | None]:
        query = snapshots_query(self.sandbox_id, self.limit, token, self.name)
        page, following = await api.snapshots_page(query)
        return [SnapshotInfo(snapshot.snapshot_id, snapshot.names) for snapshot in page], following


class AsyncItemIterator(Generic[T]):
    """One item after the other, a page ahead at most."""

    def __init__(self, paginator: AsyncPaginator[T], token: str | None, more: bool) -> None:
        self._paginator = paginator
        self._token = token
        self._more = more
        self._items: deque[T] = deque()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if not self._more:
                raise StopAsyncIteration
            page, self._token = await self._paginator.page_at(self._token)
            self._more = self._token is not None
            self._items.extend(page)
        return self._items.popleft()
