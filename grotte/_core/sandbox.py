"""A computer for an agent: create it, find it again, look after its life, throw it away."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Self, Unpack

from grotte._core import _aio
from grotte._core.api import AsyncControlPlane
from grotte._core.commands import AsyncCommands
from grotte._core.creation import create_or_kill, fork_or_kill
from grotte._core.filesystem import AsyncFilesystem
from grotte._core.git import AsyncGit
from grotte._core.paginator import AsyncSandboxPaginator
from grotte._core.pty import AsyncPty
from grotte._core.rpc import AsyncEnvd
from grotte._core.sandbox_urls import AsyncSandboxUrls
from grotte._dual import also_on_class, named_after
from grotte._proto import control, failures
from grotte._proto import sandboxes as wire
from grotte._proto.calls import CallParams, check_call
from grotte._proto.failures import Context
from grotte._proto.mounts import Named
from grotte._proto.versions import MINIMUM, at_least
from grotte.config import ApiParams, ConnectionConfig
from grotte.errors import GrotteException, TemplateException, TimeoutException
from grotte.models import (
    SandboxLifecycle,
    SandboxListOrder,
    SandboxNetworkOpts,
    SandboxOnResume,
    SandboxQuery,
)

logger = logging.getLogger("grotte")

#: How long leaving `async with` may take to kill, although it is cancelled.
KILL_SECONDS = 10.0
DEBUG_ID = "debug_sandbox_id"
DEBUG_VERSION = "99.99.99"


class AsyncSandbox(AsyncSandboxUrls):
    """A sandbox: an isolated Linux machine with its own files, processes and network.

    `async with` kills it at the end of the block.

    Example:
        ```python
        async with await AsyncSandbox.create("base") as sandbox:
            result = await sandbox.commands.run('echo "Hello"')
            print(result.stdout)
        ```
    """

    #: What `create` takes when it is not told; subclasses may say something else.
    default_template: ClassVar[str] = wire.DEFAULT_TEMPLATE
    #: How long a sandbox lives when `create` is not told, in seconds.
    default_sandbox_timeout: ClassVar[int] = wire.DEFAULT_LIFETIME

    def __new__(cls, *made: object, **options: object) -> Self:
        """Tell whoever calls the class which of its methods makes sandboxes."""
        if options or not (made and isinstance(made[0], ConnectionConfig)):
            name = cls.__name__
            raise TypeError(
                f"{name}() makes no sandbox: call {name}.create(), or {name}.connect(sandbox_id) for one that is there"
            )
        return super().__new__(cls)

    def __init__(self, config: ConnectionConfig, answer: control.Sandbox) -> None:
        """Not to be called: `create` and `connect` make sandboxes."""
        super().__init__(config, answer.sandbox_id, answer.envd_version)
        self._domain = answer.domain or None
        self._traffic_access_token = answer.traffic_access_token or None
        self._envd = AsyncEnvd(
            config, answer.sandbox_id, self._domain, answer.envd_version, answer.envd_access_token or None
        )
        self._commands = AsyncCommands(self._envd)
        self._filesystem = AsyncFilesystem(self._envd)
        self._git = AsyncGit(self._commands, answer.envd_version, answer.sandbox_id)
        self._pty = AsyncPty(self._envd, self._commands)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sandbox_id={self._sandbox_id!r})"

    @property
    def commands(self) -> AsyncCommands:
        """Its commands."""
        return self._commands

    @property
    def filesystem(self) -> AsyncFilesystem:
        """Its files."""
        return self._filesystem

    @property
    def files(self) -> AsyncFilesystem:
        """The same as `filesystem`."""
        return self._filesystem

    @property
    def pty(self) -> AsyncPty:
        """Its terminals."""
        return self._pty

    @property
    def git(self) -> AsyncGit:
        """Git in it."""
        return self._git

    # -- making and finding ----------------------------------------------------------------------------------------

    @classmethod
    async def create(
        cls,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        secure: bool = True,
        allow_internet_access: bool = True,
        *,
        network: SandboxNetworkOpts | None = None,
        lifecycle: SandboxLifecycle | None = None,
        volume_mounts: Mapping[str, str | Named] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ApiParams],
    ) -> Self:
        """Create a sandbox.

        Cancelling it leaves nothing behind: what was created is killed before the cancellation is raised.

        Args:
            template: A template's name or id, or a snapshot's id. Default: the class's `default_template`.
            timeout: How long it lives, in seconds. Default: the class's `default_sandbox_timeout`.
            metadata: Pairs by which `list` finds it.
            envs: Environment variables of all its commands.
            secure: Protect it with a token of its own.
            allow_internet_access: Whether it may reach the internet.
            network: What it may reach, and who may reach it.
            lifecycle: What happens when its time is over.
            volume_mounts: A volume, or its name, for each path at which one is mounted.
            idempotency_key: Two calls with the same key make one sandbox, where the server knows such keys: 1 to 255
                lower-case letters, digits and ``-``. Default: a new one for each call.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            AuthenticationException: the key is missing or wrong.
            TemplateException: there is no such template.
            InvalidArgumentException: an argument is wrong.
            RateLimitException: the account holds as many sandboxes as it may.
            EngineUnavailableException: the engine on this machine cannot start.

        Example:
            ```python
            sandbox = await AsyncSandbox.create("base", timeout=600, envs={"MODE": "test"})
            ```
        """
        config = cls._configured(options)
        key = wire.idempotency_key(idempotency_key)
        wanted = wire.new_sandbox(
            cls.default_template if template is None else template,
            cls.default_sandbox_timeout if timeout is None else timeout,
            metadata,
            envs,
            secure=secure,
            allow_internet_access=allow_internet_access,
            network=network,
            lifecycle=lifecycle,
            volume_mounts=volume_mounts,
        )
        if config.debug:
            return cls(config, _debug_sandbox())
        api = await AsyncControlPlane.at(config)
        sandbox = cls(api.config, await create_or_kill(api, wanted, key))
        if not at_least(sandbox.envd_version, MINIMUM):
            await sandbox.kill()
            text = f"the template's agent {sandbox.envd_version} is too old for this client: build the template anew"
            raise TemplateException(text, sandbox_id=sandbox.sandbox_id)
        return sandbox

    @classmethod
    async def beta_create(
        cls,
        template: str | None = None,
        timeout: float | None = None,
        auto_pause: bool = False,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        secure: bool = True,
        allow_internet_access: bool = True,
        *,
        volume_mounts: Mapping[str, str | Named] | None = None,
        **options: Unpack[ApiParams],
    ) -> Self:
        """`create` as it was called before 0.2.0.

        Args:
            template: As for `create`.
            timeout: As for `create`.
            auto_pause: Pause it when its time is over, as ``lifecycle={"on_timeout": "pause"}`` says now.
            metadata: As for `create`.
            envs: As for `create`.
            secure: As for `create`.
            allow_internet_access: As for `create`.
            volume_mounts: As for `create`.
            **options: See `ApiParams`.

        Example:
            ```python
            sandbox = await AsyncSandbox.beta_create("base", auto_pause=True)
            ```
        """
        lifecycle: SandboxLifecycle = {"on_timeout": "pause" if auto_pause else "kill"}
        return await cls.create(
            template,
            timeout,
            metadata,
            envs,
            secure,
            allow_internet_access,
            lifecycle=lifecycle,
            volume_mounts=volume_mounts,
            **options,
        )

    @classmethod
    async def _connect_by_id(
        cls,
        sandbox_id: str,
        timeout: float | None = None,
        *,
        on_resume: SandboxOnResume = "restore",
        **options: Unpack[ApiParams],
    ) -> AsyncSandbox:
        """Connect to a running sandbox, or resume a paused one.

        Args:
            sandbox_id: Which.
            timeout: How long it lives from now on, at least, in seconds. Default: 300.
            on_resume: ``"reboot"`` leaves the memory of a paused one behind, and starts from its files.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            SandboxNotFoundException: there is no such sandbox.
        """
        lifetime, reboot = wire.connect_lifetime(timeout), wire.reboots(on_resume)
        api = await cls._api_for(sandbox_id, options)
        if api.config.debug:
            return cls(api.config, _debug_sandbox())
        return cls(api.config, await api.connect(sandbox_id, lifetime, reboot=reboot))

    @also_on_class(_connect_by_id)
    async def connect(
        self, timeout: float | None = None, *, on_resume: SandboxOnResume = "restore", **options: Unpack[ApiParams]
    ) -> AsyncSandbox:
        """Extend its life, or resume it if it is paused.

        Args:
            timeout: How long it lives from now on, at least, in seconds. Default: 300.
            on_resume: ``"reboot"`` leaves its memory behind if it is paused, and starts from its files.
            **options: See `ApiParams`.

        Returns:
            This sandbox.

        Example:
            ```python
            again = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=600)
            print((await again.commands.run("whoami")).stdout)
            ```
        """
        lifetime, reboot = wire.connect_lifetime(timeout), wire.reboots(on_resume)
        api = await self._api(options)
        if not api.config.debug:
            await api.connect(self._sandbox_id, lifetime, reboot=reboot)
        return self

    @classmethod
    async def _resume_by_id(
        cls, sandbox_id: str, timeout: float | None = None, **options: Unpack[ApiParams]
    ) -> AsyncSandbox:
        return await cls._connect_by_id(sandbox_id, timeout, **options)

    @also_on_class(_resume_by_id)
    async def resume(self, timeout: float | None = None, **options: Unpack[ApiParams]) -> AsyncSandbox:
        """Resume it after `pause`; the same as `connect`.

        Args:
            timeout: As for `connect`.
            **options: See `ApiParams`.

        Example:
            ```python
            await sandbox.pause()
            await sandbox.resume(timeout=600)
            ```
        """
        return await self.connect(timeout, **options)

    @classmethod
    async def _fork_by_id(
        cls, sandbox_id: str, count: int = 1, timeout: float | None = None, **options: Unpack[ApiParams]
    ) -> Forks:
        wanted, api = wire.fork_request(count, timeout), await cls._api_for(sandbox_id, options)
        return [cls(api.config, made) for made in await fork_or_kill(api, sandbox_id, wanted)]

    @also_on_class(_fork_by_id)
    async def fork(self, count: int = 1, timeout: float | None = None, **options: Unpack[ApiParams]) -> Forks:
        """Make copies of it as it is at this moment; it goes on.

        All or none: if a copy fails, or the call is cancelled, those that were made are killed.

        Args:
            count: How many, at most 20.
            timeout: How long each lives, in seconds. Default: 300.
            **options: See `ApiParams`.

        Raises:
            SandboxException: a copy could not be made.

        Example:
            ```python
            await sandbox.files.write("/tmp/state", "so far")
            for copy in await sandbox.fork(2, timeout=60):
                print(await copy.files.read("/tmp/state"))
            ```
        """
        wanted, api = wire.fork_request(count, timeout), await self._api(options)
        made = await fork_or_kill(api, self._sandbox_id, wanted)
        return [type(self)(api.config, one) for one in made]

    @classmethod
    def list(
        cls,
        query: SandboxQuery | None = None,
        limit: int | None = None,
        next_token: str | None = None,
        order: SandboxListOrder | None = None,
        **options: Unpack[ApiParams],
    ) -> AsyncSandboxPaginator:
        """The sandboxes of the account, the running ones unless the query says otherwise.

        Args:
            query: Which.
            limit: How many a page, at most 100.
            next_token: Where to begin: a former paginator's `next_token`.
            order: ``"asc"`` for the oldest first, ``"desc"`` for the newest. Default: as the server likes.
            **options: See `ApiParams`.

        Example:
            ```python
            async for info in AsyncSandbox.list(SandboxQuery(metadata={"user": "ada"})):
                print(info.sandbox_id, info.state)
            ```
        """
        return AsyncSandboxPaginator(query, limit, next_token, order, config=cls._configured(options))

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure: GrotteException | None = TimeoutException(
            f"the sandbox could not be killed within {KILL_SECONDS:g} s", sandbox_id=self._sandbox_id
        )
        with _aio.shield(KILL_SECONDS):
            try:
                await self.kill()
                failure = None
                await self._envd.aclose()
            except GrotteException as refusal:
                failure = refusal
        if failure is not None:
            if error is None:
                raise failure
            # what happened in the block counts more; the sandbox ends with its time
            logger.warning("sandbox %s could not be killed: %s", self._sandbox_id, failure)

    async def is_running(self, request_timeout: float | None = None, **call: Unpack[CallParams]) -> bool:
        """Whether it runs: True or False; anything unclear is an exception.

        Args:
            request_timeout: In seconds.
            **call: See `CallParams`.

        Raises:
            SandboxUnreachableException: it could not be asked.

        Example:
            ```python
            print(await sandbox.is_running())  # True
            ```
        """
        check_call(call)
        response = await self._envd.health(self._config.timeout(request_timeout))
        if response.status < 300:
            return True
        if response.status == 502:
            return False
        context = Context("GET /health", self._sandbox_id)
        raise failures.files_failure(response.status, response.content, context)


named_after(AsyncSandbox)
#: `list` is a method there.
Forks = list[AsyncSandbox]


def _debug_sandbox() -> control.Sandbox:
    return control.Sandbox(template_id="", sandbox_id=DEBUG_ID, envd_version=DEBUG_VERSION)
