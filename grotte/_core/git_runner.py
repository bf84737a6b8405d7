"""Git in a sandbox: how its command lines are run, and what their failures mean."""

from __future__ import annotations

from collections.abc import Sequence

from grotte._core.commands import AsyncCommands
from grotte._proto import arguments, git, git_auth
from grotte._proto.calls import check_call
from grotte._proto.git import GitParams
from grotte._proto.git_auth import Credentials
from grotte._proto.pinned import BY_SANDBOX, Pinned
from grotte._proto.versions import CLOSE_STDIN, at_least
from grotte.errors import (
    CommandExitException,
    GitAuthException,
    GitUpstreamException,
    GrotteException,
    NotFoundException,
)
from grotte.models import CommandResult

#: How long a git command may run unless the caller says otherwise, in seconds.
GIT_TIMEOUT = 600.0


class AsyncGitRunner(Pinned):
    """Runs git."""

    _instead = BY_SANDBOX

    def __init__(self, commands: AsyncCommands, envd_version: str, sandbox_id: str) -> None:
        self._commands = commands
        self._sandbox_id = sandbox_id
        self._has_stdin = at_least(envd_version, CLOSE_STDIN)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sandbox_id={self._sandbox_id!r})"

    async def _git(
        self, words: Sequence[str], path: str | None, options: GitParams, config: Sequence[str] = ()
    ) -> CommandResult:
        """Run one git command in a repository."""
        return await self._shell(git.command(words, path, config), options)

    async def _remote_git(
        self, words: Sequence[str], path: str | None, options: GitParams, given: Credentials | None, url: str
    ) -> CommandResult:
        """Run one git command that speaks with a remote, under which URL it may show the credentials."""
        config = [] if given is None else git_auth.settings(url)
        line = git.command(words, path, config)
        return await self._shell(line if given is None else f"exec {line} </dev/null", options, given)

    async def _try(
        self, words: Sequence[str], path: str | None, options: GitParams, absent: int
    ) -> CommandResult | None:
        """Run one git command; None if it exits with the code that means that there is nothing."""
        try:
            return await self._git(words, path, options)
        except CommandExitException as failure:
            if failure.exit_code == absent:
                return None
            raise

    async def _shell(self, line: str, options: GitParams, given: Credentials | None = None) -> CommandResult:
        check_call(options, GitParams)
        envs = git.ENVIRONMENT | arguments.environment(options.get("envs"))
        stdin = None
        if given is not None and self._has_stdin:
            line, stdin = git_auth.reading(line), given.stdin
        elif given is not None:
            envs |= given.envs
        try:
            result = await self._commands.run(
                line,
                envs=envs,
                user=options.get("user"),
                cwd=options.get("cwd"),
                stdin=stdin,
                timeout=options.get("timeout", GIT_TIMEOUT),
                request_timeout=options.get("request_timeout"),
            )
        except CommandExitException as failure:
            raise _failure(git_auth.without_secrets(failure, given), given) from None
        return git_auth.hidden(result, given)


def _failure(failure: CommandExitException, given: Credentials | None) -> GrotteException:
    """What git's failure means to the caller."""
    kind = git_auth.trouble(failure)
    said = " ".join(failure.stderr.split())
    if kind == "missing":
        text = "git is not installed in the sandbox: add it to the template"
        return NotFoundException(text, sandbox_id=failure.sandbox_id, server_message=said)
    if kind == "authentication":
        advice = "pass username= and password=" if given is None else "are username and password right?"
        text = f"git could not authenticate with the remote ({advice}): {said}"
        return GitAuthException(text, sandbox_id=failure.sandbox_id, server_message=said)
    if kind == "upstream":
        advice = "pass remote= and branch=, or push once with remote= and set_upstream=True"
        text = f"the branch has no upstream ({advice}): {said}"
        return GitUpstreamException(text, sandbox_id=failure.sandbox_id, server_message=said)
    return failure
