"""Every exception that grotte raises, under one root.

The names are those of the PyPI client 0.2.0 and of E2B's SDK 2.63, with the same relations between them: a program
that catches `SandboxException` or `AuthenticationException` today goes on working. New is the common root.
"""

from __future__ import annotations

from grotte._proto.signals import manner_of_end
from grotte.models import CommandResult

#: How much of what a command wrote to stderr, the last of it, stands in the message of its exception, in characters.
SHOWN_STDERR = 4000


class GrotteException(Exception):
    """The root of every exception that grotte raises.

    Attributes:
        sandbox_id: The sandbox that the failed call was about, if it was about one.
        request: The request that failed, as ``"POST /sandboxes"``; never with a query that carries a secret.
        status_code: The HTTP status of the answer, if there was an answer.
        server_message: What the server said, word for word.
        retry_after: How long the server wants to be left alone, in seconds, if it said so.
    """

    retry_after: float | None = None
    status_code: int | None = None
    sandbox_id: str | None = None
    request: str | None = None
    server_message: str | None = None

    def __init__(
        self,
        *args: object,
        status_code: int | None = None,
        sandbox_id: str | None = None,
        request: str | None = None,
        server_message: str | None = None,
    ) -> None:
        super().__init__(*args)
        if status_code is not None:
            self.status_code = status_code
        self.sandbox_id = sandbox_id
        self.request = request
        self.server_message = server_message

    def __str__(self) -> str:
        message = super().__str__()
        where = [part for part in (self.sandbox_id and f"sandbox {self.sandbox_id}", self.request) if part]
        return f"{message} [{', '.join(where)}]" if where else message


class SandboxException(GrotteException):
    """A call on a sandbox, or about one, failed."""


class TimeoutException(SandboxException):
    """A deadline passed: the request's, the command's, or the stream's."""


class SandboxNotRunningException(TimeoutException):
    """The sandbox is gone: killed, expired or paused. Repeating the call will not help."""


class SandboxUnreachableException(TimeoutException):
    """The connection to the sandbox failed or broke; the sandbox itself may well be running."""


class SandboxHostUnreachableException(SandboxUnreachableException):
    """No connection could be made to where the sandbox runs: its server or engine is down, or the address is wrong."""


class ApiUnreachableException(SandboxException):
    """The connection to the control plane failed or broke."""


class InvalidArgumentException(SandboxException):
    """An argument is wrong: nothing was sent, or the server refused it."""


class DockerfileSyntaxError(InvalidArgumentException):
    """A Dockerfile says something that templates do not know.

    Attributes:
        line: In which line, from 1; None if it lacks something.
    """

    def __init__(self, *args: object, line: int | None = None) -> None:
        super().__init__(*args)
        self.line = line


class NotEnoughSpaceException(SandboxException):
    """The sandbox's disk is full."""


class NotFoundException(SandboxException):
    """Something that the call names does not exist."""


class FileNotFoundException(NotFoundException):
    """A file or directory does not exist in the sandbox."""


class SandboxNotFoundException(NotFoundException):
    """There is no such sandbox: it never existed, or it was killed."""


class TemplateException(SandboxException):
    """The template is unknown, or too old for this client."""


class RateLimitException(SandboxException):
    """The server asks for fewer requests, or the account holds as many sandboxes as it may."""

    status_code = 429


class GuestUnresponsiveException(SandboxException):
    """A paused sandbox cannot be resumed with its memory: its agent did not answer when it was paused."""

    code = "sandbox_snapshot_guest_agent_unresponsive"
    status_code = 409


class CommandExitException(SandboxException, CommandResult):
    """A command ended with another exit code than 0. It is the command's result as well.

    Its text names the exit code, the signal if one ended it, the sandbox, and the last 4,000 characters of stderr.

    Example:
        ```python
        try:
            sandbox.commands.run("make")
        except CommandExitException as failure:
            print(failure.exit_code, failure.stderr)
        ```
    """

    def __init__(
        self,
        stderr: str,
        stdout: str,
        exit_code: int,
        error: str | None = None,
        sandbox_id: str | None = None,
        stdout_dropped: int = 0,
        stderr_dropped: int = 0,
        output_missing: bool = False,
    ) -> None:
        # the arguments are kept as `args`, so that the exception survives pickling
        lost = (stdout_dropped, stderr_dropped, output_missing)
        super().__init__(stderr, stdout, exit_code, error, sandbox_id, *lost, sandbox_id=sandbox_id)
        CommandResult.__init__(self, stderr, stdout, exit_code, error, *lost)

    # an exception is equal to itself alone, whatever the dataclass would say
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __str__(self) -> str:
        manner = manner_of_end(self.exit_code, self.error)
        said = f"Command exited with code {self.exit_code}{manner and f' ({manner})'}"
        if self.sandbox_id:
            said += f" in sandbox {self.sandbox_id}"
        return f"{said} and error:\n{self._stderr_end()}" if self.stderr else f"{said}; its stderr is empty"

    def _stderr_end(self) -> str:
        left_out = max(0, len(self.stderr) - SHOWN_STDERR)
        mark = f"[{left_out + self.stderr_dropped} characters before this]\n" if left_out or self.stderr_dropped else ""
        return mark + self.stderr[left_out:]


class AuthenticationException(GrotteException):
    """The key is missing, unknown, or not allowed to do this."""


class ServiceBusyException(GrotteException):
    """The service has no capacity right now; nothing was changed, and the call may be repeated."""

    status_code = 503


class ClientClosedException(GrotteException):
    """The client that the call belongs to was closed; nothing was sent."""


class EngineUnavailableException(GrotteException):
    """The engine on this machine cannot start; the message says why and what to do about it."""


class DoNotRetryException(GrotteException):
    """Raised by a function that a fleet runs: whatever it came from, the item is not tried again.

    Example:
        ```python
        try:
            sandbox.commands.run("./submit-the-answer")
        except SandboxNotRunningException as failure:
            raise DoNotRetryException("it may have been submitted") from failure
        ```
    """


class FleetClosedException(GrotteException):
    """The fleet's block has ended, or is about to: it gives no sandboxes any more."""


class SandboxesLeftException(GrotteException):
    """A fleet could not kill all its sandboxes; they end with their time.

    Attributes:
        sandbox_ids: Those that may still run.
    """

    def __init__(self, *args: object, sandbox_ids: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.sandbox_ids = sandbox_ids


class GitAuthException(AuthenticationException):
    """Git could not authenticate with the remote."""


class GitUpstreamException(SandboxException):
    """The branch has no upstream to pull from or push to."""


class BuildException(GrotteException):
    """A template build failed.

    Attributes:
        step: Which step of the template failed: its number from 1, `base` or `finalize`; None if no step did.
    """

    step: str | None = None


class FileUploadException(BuildException):
    """A file of a template's context could not be uploaded."""


class VolumeException(GrotteException):
    """A call on a volume failed."""


class VolumeNotFoundException(NotFoundException):
    """There is no such volume."""


class VolumePathNotFoundException(NotFoundException):
    """A file or directory does not exist in the volume."""


class SecretException(GrotteException):
    """A call on a secret failed; for programs that name it: no call of this package is about secrets."""


class SecretNotFoundException(SecretException):
    """There is no such secret."""
