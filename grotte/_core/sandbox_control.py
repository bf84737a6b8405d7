"""The calls about a sandbox that the control plane answers: each on the handle, and on the class with an id."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from grotte._core.api import AsyncControlPlane
from grotte._core.paginator import AsyncSnapshotPaginator
from grotte._dual import also_on_class
from grotte._proto import arguments
from grotte._proto import sandboxes as wire
from grotte._proto.pinned import Pinned
from grotte._proto.versions import METRICS, at_least
from grotte.config import ApiParams, Bound, ConnectionConfig
from grotte.errors import SandboxException
from grotte.models import (
    SandboxInfo,
    SandboxMetrics,
    SandboxNetworkOpts,
    SandboxNetworkUpdate,
    SnapshotInfo,
    SnapshotMode,
)


class AsyncSandboxControl(Pinned, Bound):
    """The life of a sandbox, seen from outside."""

    _instead = "pass on its sandbox_id, and call connect(sandbox_id) of its class; fork() copies the machine itself"

    def __init__(self, config: ConnectionConfig, sandbox_id: str, envd_version: str) -> None:
        self._config = config
        self._sandbox_id = sandbox_id
        self._envd_version = envd_version

    @property
    def sandbox_id(self) -> str:
        """Its id, for `connect`."""
        return self._sandbox_id

    @property
    def envd_version(self) -> str:
        """The version of the agent in it, which says what it can do."""
        return self._envd_version

    @property
    def connection_config(self) -> ConnectionConfig:
        """Where it runs."""
        return self._config

    @classmethod
    async def _kill_by_id(cls, sandbox_id: str, **options: Unpack[ApiParams]) -> bool:
        api = await cls._api_for(sandbox_id, options)
        return True if api.config.debug else await api.kill(sandbox_id)

    @also_on_class(_kill_by_id)
    async def kill(self, **options: Unpack[ApiParams]) -> bool:
        """End it, and throw away all that is in it.

        Args:
            **options: See `ApiParams`.

        Returns:
            True, or False if it was gone.

        Example:
            ```python
            print(await sandbox.kill())  # True
            print(await AsyncSandbox.kill(sandbox.sandbox_id))  # False: it is gone
            ```
        """
        api = await self._api(options)
        return True if api.config.debug else await api.kill(self._sandbox_id)

    @classmethod
    async def _set_timeout_by_id(cls, sandbox_id: str, timeout: float, **options: Unpack[ApiParams]) -> None:
        seconds, api = arguments.lifetime(timeout, zero=True), await cls._api_for(sandbox_id, options)
        if not api.config.debug:
            await api.set_timeout(sandbox_id, seconds)

    @also_on_class(_set_timeout_by_id)
    async def set_timeout(self, timeout: float, **options: Unpack[ApiParams]) -> None:
        """Set how long it lives from now on; this may also be shorter than before.

        Args:
            timeout: In seconds.
            **options: See `ApiParams`.

        Raises:
            SandboxNotFoundException: it is gone.

        Example:
            ```python
            await sandbox.set_timeout(3600)
            ```
        """
        seconds, api = arguments.lifetime(timeout, zero=True), await self._api(options)
        if not api.config.debug:
            await api.set_timeout(self._sandbox_id, seconds)

    @classmethod
    async def _refresh_by_id(
        cls,
        sandbox_id: str,
        seconds: float | None = None,
        *,
        duration: float | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        number = wire.refresh_seconds(seconds, duration)
        await (await cls._api_for(sandbox_id, options)).refresh(sandbox_id, number)

    @also_on_class(_refresh_by_id)
    async def refresh_ttl(
        self, seconds: float | None = None, *, duration: float | None = None, **options: Unpack[ApiParams]
    ) -> None:
        """Make sure that it lives for some more time; never shortens its life.

        Args:
            seconds: How long, at most 3600.
            duration: The same under its former name.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.refresh_ttl(600)
            ```
        """
        number = wire.refresh_seconds(seconds, duration)
        await (await self._api(options)).refresh(self._sandbox_id, number)

    @classmethod
    async def _pause_by_id(
        cls,
        sandbox_id: str,
        keep_memory: bool | None = None,
        *,
        mode: SnapshotMode | None = None,
        strict: bool = False,
        **options: Unpack[ApiParams],
    ) -> bool:
        wanted = wire.pause_request(keep_memory, mode, strict)
        return await (await cls._api_for(sandbox_id, options)).pause(sandbox_id, wanted)

    @also_on_class(_pause_by_id)
    async def pause(
        self,
        keep_memory: bool | None = None,
        *,
        mode: SnapshotMode | None = None,
        strict: bool = False,
        **options: Unpack[ApiParams],
    ) -> bool:
        """Pause it; `connect` resumes it.

        Args:
            keep_memory: False ends its processes and keeps its files alone. Default: True.
            mode: The same in words: ``"full"`` or ``"filesystem"``.
            strict: Fail rather than pause a sandbox whose agent does not answer, where the server can tell.
            **options: See `ApiParams`.

        Returns:
            True, or False if it was paused already.

        Example:
            ```python
            print(await sandbox.pause())  # True
            print(await sandbox.pause())  # False: it was
            ```
        """
        wanted = wire.pause_request(keep_memory, mode, strict)
        return await (await self._api(options)).pause(self._sandbox_id, wanted)

    #: Its name before 0.2.0.
    beta_pause = pause

    @classmethod
    async def _info_by_id(cls, sandbox_id: str, **options: Unpack[ApiParams]) -> SandboxInfo:
        api = await cls._api_for(sandbox_id, options)
        return wire.sandbox_info(await api.get(sandbox_id))

    @also_on_class(_info_by_id)
    async def get_info(self, **options: Unpack[ApiParams]) -> SandboxInfo:
        """What the control plane knows about it.

        Args:
            **options: See `ApiParams`.

        Raises:
            SandboxNotFoundException: it is gone.

        Example:
            ```python
            info = await sandbox.get_info()
            print(info.state, info.template_id, info.end_at)
            ```
        """
        api = await self._api(options)
        return wire.sandbox_info(await api.get(self._sandbox_id))

    @classmethod
    async def _metrics_by_id(
        cls,
        sandbox_id: str,
        start: datetime | None = None,
        end: datetime | None = None,
        **options: Unpack[ApiParams],
    ) -> Metrics:
        query = wire.metrics_query(start, end)
        api = await cls._api_for(sandbox_id, options)
        return [wire.sandbox_metrics(metric) for metric in await api.metrics(sandbox_id, query)]

    @also_on_class(_metrics_by_id)
    async def get_metrics(
        self, start: datetime | None = None, end: datetime | None = None, **options: Unpack[ApiParams]
    ) -> Metrics:
        """What it used, oldest first.

        Args:
            start: Default: when it started.
            end: Default: now.
            **options: See `ApiParams`.

        Example:
            ```python
            for sample in await sandbox.get_metrics():
                print(sample.timestamp, sample.cpu_used_pct, sample.mem_used)
            ```
        """
        if not at_least(self.envd_version, METRICS):
            raise SandboxException("its agent is too old for metrics: build the template anew")
        query = wire.metrics_query(start, end)
        api = await self._api(options)
        return [wire.sandbox_metrics(metric) for metric in await api.metrics(self._sandbox_id, query)]

    @classmethod
    async def _snapshot_by_id(
        cls,
        sandbox_id: str,
        name: str | None = None,
        *,
        mode: SnapshotMode | None = None,
        **options: Unpack[ApiParams],
    ) -> SnapshotInfo:
        wanted = wire.snapshot_request(name, mode)
        snapshot = await (await cls._api_for(sandbox_id, options)).snapshot(sandbox_id, wanted)
        return SnapshotInfo(snapshot.snapshot_id, snapshot.names)

    @also_on_class(_snapshot_by_id)
    async def create_snapshot(
        self, name: str | None = None, *, mode: SnapshotMode | None = None, **options: Unpack[ApiParams]
    ) -> SnapshotInfo:
        """Take a snapshot of its files, from which `create` makes any number of sandboxes.

        Args:
            name: A name for it besides its id.
            mode: ``"filesystem"`` for files alone, ``"full"`` for its memory, too, where the server can keep it.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.commands.run("touch ready")
            snapshot = await sandbox.create_snapshot()
            async with await AsyncSandbox.create(snapshot.snapshot_id) as copy:
                print(await copy.files.exists("ready"))  # True
            ```
        """
        wanted = wire.snapshot_request(name, mode)
        snapshot = await (await self._api(options)).snapshot(self._sandbox_id, wanted)
        return SnapshotInfo(snapshot.snapshot_id, snapshot.names)

    @classmethod
    def _snapshots_by_id(
        cls,
        sandbox_id: str | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **options: Unpack[ApiParams],
    ) -> AsyncSnapshotPaginator:
        """The snapshots of the account.

        Args:
            sandbox_id: Only those of this sandbox.
            limit: How many a page, at most 100.
            next_token: Where to begin: a former paginator's `next_token`.
            name: Only those of this name.
            **options: See `ApiParams`.
        """
        return AsyncSnapshotPaginator(sandbox_id, limit, next_token, name, config=cls._configured(options))

    @also_on_class(_snapshots_by_id)
    def list_snapshots(
        self,
        limit: int | None = None,
        next_token: str | None = None,
        name: str | None = None,
        **options: Unpack[ApiParams],
    ) -> AsyncSnapshotPaginator:
        """The snapshots of this sandbox.

        Args:
            limit: How many a page, at most 100.
            next_token: Where to begin: a former paginator's `next_token`.
            name: Only those of this name.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.create_snapshot()
            async for snapshot in sandbox.list_snapshots():
                print(snapshot.snapshot_id)
            ```
        """
        config = self._config.override(**options)
        return AsyncSnapshotPaginator(self._sandbox_id, limit, next_token, name, config=config)

    @classmethod
    async def delete_snapshot(cls, snapshot_id: str, **options: Unpack[ApiParams]) -> bool:
        """Delete a snapshot; sandboxes made from it go on.

        Args:
            snapshot_id: Its id, from `create_snapshot` or `list_snapshots`.
            **options: See `ApiParams`.

        Returns:
            True, or False if there was none.

        Example:
            ```python
            snapshot = await sandbox.create_snapshot()
            print(await AsyncSandbox.delete_snapshot(snapshot.snapshot_id))  # True
            ```
        """
        arguments.identifier(snapshot_id, "snapshot_id")
        api = await AsyncControlPlane.at(cls._configured(options))
        return await api.delete_template(snapshot_id)

    @classmethod
    async def _network_by_id(
        cls,
        sandbox_id: str,
        internet_access: bool = True,
        network: SandboxNetworkOpts | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        rules = wire.network_update(internet_access, network)
        await (await cls._api_for(sandbox_id, options)).set_network(sandbox_id, rules)

    @also_on_class(_network_by_id)
    async def set_network(
        self,
        internet_access: bool = True,
        network: SandboxNetworkOpts | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        """Replace what it may reach.

        Args:
            internet_access: Whether it may reach anything outside.
            network: ``allow_out`` and ``deny_out``; what is not named there is not kept.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.set_network(internet_access=False)
            ```
        """
        rules = wire.network_update(internet_access, network)
        await (await self._api(options)).set_network(self._sandbox_id, rules)

    @classmethod
    async def _update_network_by_id(
        cls, sandbox_id: str, network: SandboxNetworkUpdate, **options: Unpack[ApiParams]
    ) -> None:
        rules = wire.network_update(**wire.network_arguments(network))
        await (await cls._api_for(sandbox_id, options)).set_network(sandbox_id, rules)

    @also_on_class(_update_network_by_id)
    async def update_network(self, network: SandboxNetworkUpdate, **options: Unpack[ApiParams]) -> None:
        """Replace what it may reach; the same as `set_network`, with all in one dict.

        Args:
            network: ``allow_out``, ``deny_out`` and ``allow_internet_access``; what is not named is not kept.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.update_network({"allow_internet_access": False})
            ```
        """
        rules = wire.network_update(**wire.network_arguments(network))
        await (await self._api(options)).set_network(self._sandbox_id, rules)

    async def _api(self, options: ApiParams) -> AsyncControlPlane:
        return await AsyncControlPlane.at(self._config.override(**options))

    @classmethod
    async def _api_for(cls, sandbox_id: str, options: ApiParams) -> AsyncControlPlane:
        """The control plane for a call on the class; the id is looked at before anything is started or sent."""
        arguments.identifier(sandbox_id, "sandbox_id")
        return await AsyncControlPlane.at(cls._configured(options))


Metrics = list[SandboxMetrics]
