"""The part of `sandbox.filesystem` that watches."""

from __future__ import annotations

from typing import Unpack

from grotte._core import _aio
from grotte._core.rpc import AsyncEnvd
from grotte._core.watch import DEFAULT_TIMEOUT, AsyncEvents, AsyncPolledEvents, AsyncStreamedEvents, AsyncWatchHandle
from grotte._proto import arguments
from grotte._proto.calls import CallParams, check_call
from grotte._proto.messages import WatchRequest
from grotte._proto.pinned import BY_SANDBOX, Pinned
from grotte._proto.versions import NETWORK_WATCH, RECURSIVE_WATCH, WATCH_ENTRIES, at_least
from grotte.errors import TemplateException
from grotte.models import FilesystemEvent, Username


class AsyncWatchable(Pinned):
    """A file system whose directories can be watched."""

    _instead = BY_SANDBOX

    def __init__(self, envd: AsyncEnvd) -> None:
        self._envd = envd

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sandbox_id={self._envd.sandbox_id!r})"

    async def watch_dir(
        self,
        path: str,
        on_event: _aio.OutputHandler[FilesystemEvent] | None = None,
        on_exit: _aio.OutputHandler[Exception] | None = None,
        user: Username | None = None,
        request_timeout: float | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        recursive: bool = False,
        *,
        include_entry: bool = False,
        allow_network_mounts: bool = False,
        **call: Unpack[CallParams],
    ) -> AsyncWatchHandle:
        """Watch a directory; whatever happens in it after this returns is told.

        Take the events by iterating over the handle, by its `get_new_events`, or by its `wait`, which gives them to
        `on_event`. Events wait in the sandbox while nobody takes them; when they become too many, the watch fails.

        Args:
            path: The directory.
            on_event: Called with each event, while somebody takes events from the handle.
            on_exit: Called by `wait` with the reason when the watch breaks; otherwise `wait` raises it.
            user: Whose home relative paths start at.
            request_timeout: How long the start may take, in seconds.
            timeout: How long the watch lives, in seconds; 0 or None: until it is stopped.
            recursive: Watch all directories below it, too, those that are made later included.
            include_entry: Tell with each event what is there now.
            allow_network_mounts: Watch it even if it is on a network file system, where changes can go unseen.
            **call: See `CallParams`.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is no directory, or on a network file system.
            TemplateException: the sandbox's agent is too old for this.

        Example:
            ```python
            watch = await sandbox.files.watch_dir("/home/user", recursive=True)
            await sandbox.files.write("/home/user/a.txt", "x")
            events = await watch.get_new_events()
            await watch.stop()
            ```
        """
        check_call(call)
        _aio.check_handler(on_event, "on_event")
        _aio.check_handler(on_exit, "on_exit")
        limit = arguments.seconds(timeout, "timeout")
        user = None if user is None else arguments.user_name(user)
        message = WatchRequest(
            path=arguments.path(path, "path"),
            recursive=self._offered("recursive", recursive, RECURSIVE_WATCH),
            include_entry=self._offered("include_entry", include_entry, WATCH_ENTRIES),
            allow_network_mounts=self._offered("allow_network_mounts", allow_network_mounts, NETWORK_WATCH),
        )
        events: AsyncEvents
        if _aio.STREAMS_WATCHES:
            events = await AsyncStreamedEvents.open(self._envd, message, user, limit, request_timeout)
        else:
            events = await AsyncPolledEvents.open(self._envd, message, user, limit, request_timeout)
        return AsyncWatchHandle(events, on_event, on_exit, f"path={path!r}, sandbox_id={self._envd.sandbox_id!r}")

    def _offered(self, name: str, wanted: bool, version: tuple[int, int, int]) -> bool:
        if wanted and not at_least(self._envd.version, version):
            text = f"the template's agent {self._envd.version} is too old for {name}=True: build the template anew"
            raise TemplateException(text, sandbox_id=self._envd.sandbox_id)
        return wanted
