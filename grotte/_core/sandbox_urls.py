"""Where a sandbox is reached: its ports, and its files by links that work without a key."""

from __future__ import annotations

from typing import Unpack

from grotte._core.rpc import AsyncEnvd
from grotte._core.sandbox_control import AsyncSandboxControl
from grotte._proto import arguments
from grotte._proto.calls import RequestParams, check_call
from grotte._proto.signature import Operation, file_url
from grotte.config import ENVD_PORT
from grotte.models import Username


class AsyncSandboxUrls(AsyncSandboxControl):
    """The hosts and URLs of a sandbox."""

    _envd: AsyncEnvd
    _domain: str | None
    _traffic_access_token: str | None

    @property
    def sandbox_domain(self) -> str:
        """Where its ports are reached; see `get_url`."""
        return self._config.sandbox_domain(self._domain)

    @property
    def traffic_access_token(self) -> str | None:
        """What requests to its ports must carry if they are not public."""
        return self._traffic_access_token

    @property
    def envd_api_url(self) -> str:
        """Where the agent in it is reached."""
        return self._config.envd_url(self._sandbox_id, self._domain)

    @property
    def envd_direct_url(self) -> str:
        """The same by a host of its own, which needs no header that says which sandbox is meant."""
        scheme = self._config.port_scheme(self._domain)
        return f"{scheme}://{self._config.sandbox_host(self._sandbox_id, self._domain, ENVD_PORT)}"

    def get_host(self, port: int, **call: Unpack[RequestParams]) -> str:
        """The host under which a port of the sandbox is reached, without a scheme.

        Args:
            port: Where something in the sandbox listens.
            **call: See `RequestParams`.

        Example:
            ```python
            print(sandbox.get_host(8000))  # 8000-….grotte.dev
            ```
        """
        check_call(call, RequestParams)
        return self._config.sandbox_host(self._sandbox_id, self._domain, arguments.port_number(port))

    def get_url(self, port: int, **call: Unpack[RequestParams]) -> str:
        """The URL under which a port of the sandbox is reached.

        Args:
            port: Where something in the sandbox listens.
            **call: See `RequestParams`.

        Example:
            ```python
            await sandbox.commands.run("python3 -m http.server 8000", background=True)
            print(sandbox.get_url(8000))  # https://8000-….grotte.dev
            ```
        """
        return f"{self._config.port_scheme(self._domain)}://{self.get_host(port, **call)}"

    def download_url(
        self,
        path: str,
        user: Username | None = None,
        use_signature_expiration: float | None = None,
        **call: Unpack[RequestParams],
    ) -> str:
        """A URL under which anybody who has it can GET a file, without a key.

        Args:
            path: Which file.
            user: Whose home relative paths start at; default: the template's user.
            use_signature_expiration: How long it works, in seconds. None and 0: as long as the sandbox lives.
            **call: See `RequestParams`.

        Raises:
            InvalidArgumentException: an argument is wrong, or an end is wanted although the sandbox was created with
                ``secure=False``.

        Example:
            ```python
            print(sandbox.download_url("/tmp/report.pdf", use_signature_expiration=3600))
            ```
        """
        check_call(call, RequestParams)
        return self._file_url(arguments.path(path, "path"), "read", user, use_signature_expiration)

    def upload_url(
        self,
        path: str | None = None,
        user: Username | None = None,
        use_signature_expiration: float | None = None,
        **call: Unpack[RequestParams],
    ) -> str:
        """A URL to which anybody who has it can POST files, without a key.

        Each part named ``file`` of a ``multipart/form-data`` body is a file.

        Args:
            path: Where to; None: the ``filename`` of each part says so.
            user: Who will own them; default: the template's user.
            use_signature_expiration: As for `download_url`.
            **call: See `RequestParams`.

        Raises:
            InvalidArgumentException: as for `download_url`.

        Example:
            ```python
            print(sandbox.upload_url("/tmp/data.csv", use_signature_expiration=600))
            ```
        """
        check_call(call, RequestParams)
        return self._file_url(path or "", "write", user, use_signature_expiration)

    def _file_url(self, path: str, operation: Operation, user: Username | None, lifetime: float | None) -> str:
        token = self._envd.access_token
        name = self._envd.user_or_default(None if user is None else arguments.user_name(user))
        base = self._config.files_url(self._sandbox_id, self._domain, signed=token is not None)
        return file_url(base, path, operation, name, token, lifetime)
