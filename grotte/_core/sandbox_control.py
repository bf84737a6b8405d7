"""The calls about a sandbox that the control plane answers: each on the handle, and on the class with an id."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from grotte._core.api import AsyncControlPlane
from grotte._core.paginator import AsyncSnapshotPaginator
from grotte._dual import also_on_class
from grotte._proto import arguments
from grotte._proto import sandboxes as wire
from grotte._proto.versions import METRICS, at_least
from grotte.config import ApiParams, ConnectionConfig
from grotte.errors import SandboxException
from grotte.models import SandboxInfo, SandboxMetrics, SandboxNetworkOpts, SnapshotInfo


class AsyncSandboxControl:
    """The life of a sandbox, seen from outside."""

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
        api = await api_of(sandbox_id, options)
        return True if api.config.debug else await api.kill(sandbox_id)

    @also_on_class(_kill_by_id)
    async def kill(self, **options: Unpack[ApiParams]) -> bool:
        """End it, and throw away all that is in it.

        Returns:
            True, or False if it was gone.
        """
        api = await self._api(options)
        return True if api.config.debug else await api.kill(self._sandbox_id)

    @classmethod
    async def _set_timeout_by_id(cls, sandbox_id: str, timeout: float, **options: Unpack[ApiParams]) -> None:
        seconds, api = arguments.lifetime(timeout, zero=True), await api_of(sandbox_id, options)
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
        await (await api_of(sandbox_id, options)).refresh(sandbox_id, number)

    @also_on_class(_refresh_by_id)
    async def refresh_ttl(
        self, seconds: float | None = None, *, duration: float | None = None, **options: Unpack[ApiParams]
    ) -> None:
        """Make sure that it lives for some more time; never shortens its life.

        Args:
            seconds: How long, at most 3600.
            duration: The same under its former name.
            **options: See `ApiParams`.
        """
        number = wire.refresh_seconds(seconds, duration)
        await (await self._api(options)).refresh(self._sandbox_id, number)

    @classmethod
    async def _pause_by_id(cls, sandbox_id: str, **options: Unpack[ApiParams]) -> bool:
        api = await api_of(sandbox_id, options)
        return await api.pause(sandbox_id)

    @also_on_class(_pause_by_id)
    async def pause(self, **options: Unpack[ApiParams]) -> bool:
        """Pause it; `connect` resumes it.

        Returns:
            True, or False if it was paused already.
        """
        return await (await self._api(options)).pause(self._sandbox_id)

    @classmethod
    async def _info_by_id(cls, sandbox_id: str, **options: Unpack[ApiParams]) -> SandboxInfo:
        api = await api_of(sandbox_id, options)
        return wire.sandbox_info(await api.get(sandbox_id))

    @also_on_class(_info_by_id)
    async def get_info(self, **options: Unpack[ApiParams]) -> SandboxInfo:
        """What the control plane knows about it.

        Raises:
            SandboxNotFoundException: it is gone.
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
        api = await api_of(sandbox_id, options)
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
        """
        if not at_least(self.envd_version, METRICS):
            raise SandboxException("its agent is too old for metrics: build the template anew")
        query = wire.metrics_query(start, end)
        api = await self._api(options)
        return [wire.sandbox_metrics(metric) for metric in await api.metrics(self._sandbox_id, query)]

    @classmethod
    async def _snapshot_by_id(cls, sandbox_id: str, **options: Unpack[ApiParams]) -> SnapshotInfo:
        snapshot = await (await api_of(sandbox_id, options)).snapshot(sandbox_id)
        return SnapshotInfo(snapshot.snapshot_id, snapshot.names)

    @also_on_class(_snapshot_by_id)
    async def create_snapshot(self, **options: Unpack[ApiParams]) -> SnapshotInfo:
        """Take a snapshot of its files, from which `create` makes any number of sandboxes."""
        snapshot = await (await self._api(options)).snapshot(self._sandbox_id)
        return SnapshotInfo(snapshot.snapshot_id, snapshot.names)

    @classmethod
    def _snapshots_by_id(
        cls,
        sandbox_id: str | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        **options: Unpack[ApiParams],
    ) -> AsyncSnapshotPaginator:
        """The snapshots of the account.

        Args:
            sandbox_id: Only those of this sandbox.
            limit: How many a page, at most 100.
            next_token: Where to begin: a former paginator's `next_token`.
            **options: See `ApiParams`.
        """
        return AsyncSnapshotPaginator(sandbox_id, limit, next_token, config=ConnectionConfig.resolve(**options))

    @also_on_class(_snapshots_by_id)
    def list_snapshots(
        self, limit: int | None = None, next_token: str | None = None, **options: Unpack[ApiParams]
    ) -> AsyncSnapshotPaginator:
        """The snapshots of this sandbox.

        Args:
            limit: How many a page, at most 100.
            next_token: Where to begin: a former paginator's `next_token`.
            **options: See `ApiParams`.
        """
        config = self._config.override(**options)
        return AsyncSnapshotPaginator(self._sandbox_id, limit, next_token, config=config)

    @staticmethod
    async def delete_snapshot(snapshot_id: str, **options: Unpack[ApiParams]) -> bool:
        """Delete a snapshot; sandboxes made from it go on.

        Args:
            snapshot_id: Its id, from `create_snapshot` or `list_snapshots`.
            **options: See `ApiParams`.

        Returns:
            True, or False if there was none.
        """
        arguments.identifier(snapshot_id, "snapshot_id")
        api = await AsyncControlPlane.at(ConnectionConfig.resolve(**options))
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
        await (await api_of(sandbox_id, options)).set_network(sandbox_id, rules)

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
        """
        rules = wire.network_update(internet_access, network)
        await (await self._api(options)).set_network(self._sandbox_id, rules)

    async def _api(self, options: ApiParams) -> AsyncControlPlane:
        return await AsyncControlPlane.at(self._config.override(**options))


Metrics = list[SandboxMetrics]


async def api_of(sandbox_id: str, options: ApiParams) -> AsyncControlPlane:
    """The control plane for a call on the class; the id is looked at before anything is started or sent."""
    arguments.identifier(sandbox_id, "sandbox_id")
    return await AsyncControlPlane.at(ConnectionConfig.resolve(**options))
