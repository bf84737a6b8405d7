"""Git in a sandbox."""

from __future__ import annotations

from typing import Unpack

from grotte._core.git_local import AsyncGitLocal
from grotte._proto import arguments, git, git_auth
from grotte._proto.git import GitParams
from grotte.errors import InvalidArgumentException
from grotte.models import CommandResult

#: What `git remote get-url` exits with when there is no such remote.
NO_REMOTE = 2
#: The name that git gives to what was cloned.
ORIGIN = "origin"


class AsyncGit(AsyncGitLocal):
    """`sandbox.git`: what ``git`` does, with typed results.

    A password or token given to a call serves that call alone: it is on no command line, in no file and in no
    exception.

    Example:
        ```python
        await sandbox.git.clone("https://github.com/psf/requests.git", "requests", depth=1)
        print((await sandbox.git.status("requests")).current_branch)
        ```
    """

    async def clone(
        self,
        url: str,
        path: str | None = None,
        branch: str | None = None,
        depth: int | None = None,
        username: str | None = None,
        password: str | None = None,
        dangerously_store_credentials: bool = False,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Clone a repository.

        Args:
            url: Where it is. A password in it is used as if it were given as `password`.
            path: Where to; default: a directory with its name.
            branch: Only this one; default: the remote's.
            depth: So many commits of its history; default: all.
            username: For http:// and https:// remotes.
            password: A password or token.
            dangerously_store_credentials: Write both into the clone's ``.git/config``, where everybody in the sandbox
                who can read that finds them.
            **options: See `GitParams`.

        Raises:
            GitAuthException: the remote wants other credentials.
            CommandExitException: git failed for another reason.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/me/private.git", username="me", password=token)
            ```
        """
        clean, inside = git_auth.split_url(url)
        given = git_auth.credentials(username, password) or inside
        words = git.clone(clean, path, branch, depth)
        result = await self._remote_git(words, None, options, given, clean)
        if given is not None and dangerously_store_credentials:
            where = path if path is not None else git_auth.directory_of(clean)
            stored = git_auth.with_credentials(clean, given)
            await self._git(["remote", "set-url", ORIGIN, stored], where, options)
        return result

    async def pull(
        self,
        path: str,
        remote: str | None = None,
        branch: str | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Fetch and merge.

        Args:
            path: The repository.
            remote: Where from; default: what the branch follows.
            branch: Which; default: what the branch follows.
            username: For http:// and https:// remotes.
            password: A password or token.
            **options: See `GitParams`.

        Raises:
            GitUpstreamException: the branch follows nothing, and none was given.
            GitAuthException: the remote wants other credentials.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.git.pull("requests", "origin", "main")
            ```
        """
        remote, inside = (None, None) if remote is None else git_auth.split_url(remote)
        given = git_auth.credentials(username, password) or inside
        words = git.pull(remote, branch)
        url = "" if given is None else await self._url(path, await self._remote_of(path, remote, options), options)
        return await self._remote_git(words, path, options, given, url)

    async def push(
        self,
        path: str,
        remote: str | None = None,
        branch: str | None = None,
        set_upstream: bool = True,
        username: str | None = None,
        password: str | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Push commits.

        Args:
            path: The repository.
            remote: Where to; default: what the branch follows.
            branch: Which; default: the current one.
            set_upstream: Let the branch follow `remote` from now on, if that is given.
            username: For http:// and https:// remotes.
            password: A password or token.
            **options: See `GitParams`.

        Raises:
            GitUpstreamException: the branch follows nothing, and no remote was given.
            GitAuthException: the remote wants other credentials.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/me/private.git", "private", username="me", password=token)
            await sandbox.git.create_branch("private", "feature")
            await sandbox.git.push("private", "origin", "feature")
            ```
        """
        remote, inside = (None, None) if remote is None else git_auth.split_url(remote)
        given = git_auth.credentials(username, password) or inside
        words = git.push(remote, branch, set_upstream)
        url = ""
        if given is not None:
            remote = await self._remote_of(path, remote, options)
            words = git.push(remote, branch, set_upstream)
            url = await self._url(path, remote, options, "--push")
        return await self._remote_git(words, path, options, given, url)

    async def remote_add(
        self,
        path: str,
        name: str,
        url: str,
        fetch: bool = False,
        overwrite: bool = False,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Add a remote.

        Args:
            path: The repository.
            name: What it is called, such as ``"origin"``.
            url: Where it is, without a password: that belongs to `pull` and `push`.
            fetch: Fetch it at once.
            overwrite: Change the URL of one that exists.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.init("fork")
            await sandbox.git.remote_add("fork", "upstream", "https://github.com/psf/requests.git", fetch=True)
            ```
        """
        name = git.name(name, "name")
        clean, inside = git_auth.split_url(url)
        if inside is not None:
            raise InvalidArgumentException(
                "url must not hold a password, which would stay: give it to pull() and push()"
            )
        known = overwrite and await self.remote_get(path, name, **options) is not None
        result = await self._git(["remote", "set-url" if known else "add", "--", name, clean], path, options)
        return await self._git(["fetch", "--", name], path, options) if fetch else result

    async def remote_get(self, path: str, name: str, **options: Unpack[GitParams]) -> str | None:
        """The URL of a remote; None if there is none of that name.

        Args:
            path: The repository.
            name: What it is called.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            print(await sandbox.git.remote_get("requests", "origin"))
            print(await sandbox.git.remote_get("requests", "upstream"))  # None
            ```
        """
        result = await self._try(["remote", "get-url", "--", git.name(name, "name")], path, options, NO_REMOTE)
        return None if result is None else result.stdout.removesuffix("\n")

    async def dangerously_authenticate(
        self,
        username: str,
        password: str,
        host: str = "github.com",
        protocol: str = "https",
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Let git in the sandbox use these credentials from now on.

        They stand in the file ``~/.git-credentials``, and whatever runs in the sandbox can read them: prefer the
        arguments of `clone`, `pull` and `push`, or tokens that end soon.

        Args:
            username: The name.
            password: A password or token.
            host: Where they are good, with a port if it is not the usual one.
            protocol: ``"https"`` or ``"http"``.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.dangerously_authenticate("me", token, host="git.example.org")
            ```
        """
        given = git_auth.credentials(username, password)
        if given is None:
            raise InvalidArgumentException("username and password must not be empty")
        if protocol not in ("http", "https"):
            raise InvalidArgumentException(f"protocol must be 'http' or 'https', not {arguments.shown(protocol)}")
        line = git_auth.approval(protocol, arguments.domain(host))
        await self.set_config("credential.helper", "store", **options)
        return await self._shell(line, options, given)

    async def _remote_of(self, path: str, remote: str | None, options: GitParams) -> str:
        """The remote that is meant, where credentials need to know."""
        if remote is not None:
            return git.name(remote, "remote")
        names = (await self._git(["remote"], path, options)).stdout.split()
        if len(names) != 1:
            raise InvalidArgumentException(f"the repository has {len(names)} remotes: say for which the password is")
        return names[0]

    async def _url(self, path: str, remote: str, options: GitParams, *flags: str) -> str:
        """Where a remote is; it may be given as a URL itself."""
        result = await self._try(["remote", "get-url", *flags, "--", remote], path, options, NO_REMOTE)
        return remote if result is None else result.stdout.strip()
