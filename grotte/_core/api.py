"""The control plane: one method per endpoint, with retries where a call may be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET, Struct

from grotte._core.client import fetch_patiently, locate
from grotte._core.exchange import Request
from grotte._proto import control
from grotte._proto.backoff import retry_after
from grotte._proto.failures import Context, api_failure
from grotte._proto.http import Coalesce, Response, split_url
from grotte.config import ConnectionConfig, user_agent
from grotte.errors import (
    GrotteException,
    SandboxException,
    SandboxNotFoundException,
    TemplateException,
)

M = TypeVar("M")

_NO_SANDBOX: dict[int, type[GrotteException]] = {404: SandboxNotFoundException}
_NO_TEMPLATE: dict[int, type[GrotteException]] = {404: TemplateException}
NO_BODY = b""
KEY_HEADER = "Idempotency-Key"


class AsyncControlPlane:
    """The calls on sandboxes, for one configuration."""

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config

    @classmethod
    async def at(cls, config: ConnectionConfig) -> Self:
        """The control plane of a configuration; starts the engine on this machine if it is that."""
        return cls(await locate(config))

    async def create(self, wanted: control.NewSandbox, key: str) -> control.Sandbox:
        """``POST /sandboxes``. The key lets a server that knows it make one sandbox of two attempts."""
        response = await self._call("POST", "/sandboxes", wanted, headers=[(KEY_HEADER, key)], kinds=_NO_TEMPLATE)
        return self._read(response, control.Sandbox, "POST /sandboxes")

    async def connect(self, sandbox_id: str, timeout: int, *, reboot: bool = False) -> control.Sandbox:
        """Extend the life of a running sandbox, or resume a paused one, with its memory or from its files alone."""
        body = control.TimeoutRequest(timeout=timeout, memory=False if reboot else UNSET)
        version = "/v2" if reboot else ""
        response = await self._on(sandbox_id, "POST", "/connect", body, version=version, idempotent=True)
        return self._read(response, control.Sandbox, "POST /sandboxes/{id}/connect", sandbox_id)

    async def get(self, sandbox_id: str) -> control.SandboxDetail:
        response = await self._on(sandbox_id, "GET", "", None)
        return self._read(response, control.SandboxDetail, "GET /sandboxes/{id}", sandbox_id)

    async def kill(self, sandbox_id: str) -> bool:
        """Whether it was there."""
        response = await self._on(sandbox_id, "DELETE", "", None, idempotent=True, accept=(404,))
        return response.status != 404

    async def give_up(self, key: str) -> None:
        """Kill what a request with this key made or will make: its answer did not come, so its name is not known.

        The key has the form of a sandbox's id: a server that does not know such requests has no sandbox of that name.
        """
        headers = [(KEY_HEADER, key)]
        await self._on(key, "DELETE", "", None, headers=headers, idempotent=True, accept=(400, 404, 405))

    async def set_timeout(self, sandbox_id: str, timeout: int) -> None:
        body = control.TimeoutRequest(timeout=timeout)
        await self._on(sandbox_id, "POST", "/timeout", body, idempotent=True)

    async def refresh(self, sandbox_id: str, duration: int) -> None:
        await self._on(sandbox_id, "POST", "/refreshes", control.RefreshRequest(duration=duration))

    async def pause(self, sandbox_id: str, wanted: control.PauseRequest | None = None) -> bool:
        """Whether it was running."""
        response = await self._on(sandbox_id, "POST", "/pause", wanted, accept=(409,))
        return response.status != 409

    async def set_network(self, sandbox_id: str, rules: control.NetworkUpdate) -> None:
        await self._on(sandbox_id, "PUT", "/network", rules, idempotent=True)

    async def snapshot(self, sandbox_id: str, wanted: control.SnapshotRequest) -> control.Snapshot:
        response = await self._on(sandbox_id, "POST", "/snapshots", wanted)
        return self._read(response, control.Snapshot, "POST /sandboxes/{id}/snapshots", sandbox_id)

    async def snapshots_page(self, query: Mapping[str, str]) -> tuple[list[control.Snapshot], str | None]:
        """One page, and the token of the next one."""
        response = await self._call("GET", "/snapshots", None, query=query)
        page = self._read(response, list[control.Snapshot], "GET /snapshots")
        return page, response.headers.get("x-next-token") or None

    async def delete_template(self, template_id: str) -> bool:
        """Whether it was there."""
        path = f"/templates/{quote(template_id, safe='')}"
        response = await self._call("DELETE", path, None, idempotent=True, accept=(404,))
        return response.status != 404

    async def fork(self, sandbox_id: str, wanted: control.ForkRequest, key: str) -> list[control.Fork]:
        """Make copies of a running sandbox; the key as for `create`."""
        response = await self._on(sandbox_id, "POST", "/fork", wanted, headers=[(KEY_HEADER, key)])
        return self._read(response, list[control.Fork], "POST /sandboxes/{id}/fork", sandbox_id)

    async def metrics(self, sandbox_id: str, query: Mapping[str, str]) -> list[control.Metric]:
        response = await self._on(sandbox_id, "GET", "/metrics", None, query=query)
        return self._read(response, list[control.Metric], "GET /sandboxes/{id}/metrics", sandbox_id)

    async def list_page(self, query: Mapping[str, str]) -> tuple[list[control.ListedSandbox], str | None]:
        """One page, and the token of the next one."""
        response = await self._call("GET", "/v2/sandboxes", None, query=query)
        page = self._read(response, list[control.ListedSandbox], "GET /v2/sandboxes")
        return page, response.headers.get("x-next-token") or None

    async def _on(
        self,
        sandbox_id: str,
        method: str,
        path: str,
        body: Struct | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: list[tuple[str, str]] | None = None,
        version: str = "",
        idempotent: bool = False,
        accept: tuple[int, ...] = (),
    ) -> Response:
        target = f"{version}/sandboxes/{quote(sandbox_id, safe='')}{path}"
        return await self._call(
            method,
            target,
            body,
            query=query,
            headers=headers,
            sandbox_id=sandbox_id,
            kinds=_NO_SANDBOX,
            idempotent=idempotent,
            accept=accept,
        )

    async def _call(
        self,
        method: str,
        path: str,
        body: Struct | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: list[tuple[str, str]] | None = None,
        sandbox_id: str | None = None,
        kinds: Mapping[int, type[GrotteException]] | None = None,
        default: type[GrotteException] = SandboxException,
        idempotent: bool = False,
        accept: tuple[int, ...] = (),
    ) -> Response:
        request = self._request(method, path, body, query, headers or [], idempotent)
        context = Context(f"{method} {path}", sandbox_id)
        response = await fetch_patiently(request, self.config.request_timeout, context, idempotent or method == "GET")
        if response.status < 300 or response.status in accept:
            return response
        failure = api_failure(response.status, response.content, context, kinds, default)
        failure.retry_after = retry_after(response.headers)
        raise failure

    def _request(
        self,
        method: str,
        path: str,
        body: Struct | None,
        query: Mapping[str, str] | None,
        headers: list[tuple[str, str]],
        idempotent: bool,
    ) -> Request:
        origin, base = split_url(self.config.api_url)
        target = base.rstrip("/") + path
        if query:
            target += "?" + urlencode(query, quote_via=quote)
        found = [*self.config.headers.items(), ("User-Agent", user_agent()), *headers]
        if self.config.api_key is not None:
            found.append(("X-API-KEY", self.config.api_key))
        if body is not None:
            found.append(("Content-Type", "application/json"))
        # only names that the SDK builds itself are known to lie behind one gateway
        built = self.config.api_url == f"https://api.{self.config.domain}"
        coalesce: Coalesce = "domain" if built else "off"
        content = msgspec.json.encode(body) if body is not None else NO_BODY if method == "POST" else None
        return Request(
            method,
            origin,
            target,
            headers=found,
            body=content,
            coalesce=coalesce,
            idempotent=idempotent,
            proxy=self.config.proxy,
            transports=self.config.transports,
        )

    def _read(self, response: Response, kind: type[M], request: str, sandbox_id: str | None = None) -> M:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            text = f"the answer is not understood: {error}"
            raise Context(request, sandbox_id).fail(SandboxException, text, response.status) from None
