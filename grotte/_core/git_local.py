"""What git does within a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from grotte._core.git_runner import AsyncGitRunner
from grotte._proto import arguments, git
from grotte._proto.git import GitConfigScope, GitParams, GitResetMode
from grotte._proto.git_output import read_branches, read_status
from grotte.models import CommandResult, GitBranches, GitStatus

#: What `git config --get` exits with when there is no such key.
NO_KEY = 1


class AsyncGitLocal(AsyncGitRunner):
    """The part of `sandbox.git` that needs no remote."""

    async def init(
        self, path: str, bare: bool = False, initial_branch: str | None = None, **options: Unpack[GitParams]
    ) -> CommandResult:
        """Make a repository.

        Args:
            path: Where.
            bare: Without a working tree.
            initial_branch: The name of its first branch; default: as git is configured.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.init("repo", initial_branch="main")
            ```
        """
        return await self._git(git.init(path, bare, initial_branch), None, options)

    async def status(self, path: str, **options: Unpack[GitParams]) -> GitStatus:
        """The branch, and what is changed, staged or not tracked.

        Args:
            path: The repository.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            status = await sandbox.git.status("requests")
            print(status.current_branch, [file.name for file in status.file_status])
            ```
        """
        return read_status((await self._git(git.STATUS, path, options)).stdout)

    async def branches(self, path: str, **options: Unpack[GitParams]) -> GitBranches:
        """The local branches.

        Args:
            path: The repository.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            found = await sandbox.git.branches("requests")
            print(found.current_branch, found.branches)
            ```
        """
        return read_branches((await self._git(git.BRANCHES, path, options)).stdout)

    async def create_branch(self, path: str, branch: str, **options: Unpack[GitParams]) -> CommandResult:
        """Make a branch and check it out.

        Args:
            path: The repository.
            branch: Its name.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.git.create_branch("requests", "feature")
            ```
        """
        return await self._git(["checkout", "-b", git.name(branch, "branch")], path, options)

    async def checkout_branch(self, path: str, branch: str, **options: Unpack[GitParams]) -> CommandResult:
        """Check a branch out.

        Args:
            path: The repository.
            branch: Its name, or that of one that a remote has.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.git.create_branch("requests", "feature")
            await sandbox.git.checkout_branch("requests", "main")
            ```
        """
        # the dashes keep a file of that name from being meant
        return await self._git(["checkout", git.name(branch, "branch"), "--"], path, options)

    async def delete_branch(
        self, path: str, branch: str, force: bool = False, **options: Unpack[GitParams]
    ) -> CommandResult:
        """Delete a branch.

        Args:
            path: The repository.
            branch: Its name.
            force: Even if its commits are nowhere else.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.git.create_branch("requests", "feature")
            await sandbox.git.checkout_branch("requests", "main")
            await sandbox.git.delete_branch("requests", "feature", force=True)
            ```
        """
        words = ["branch", "-D" if force else "-d", "--", git.name(branch, "branch")]
        return await self._git(words, path, options)

    async def add(
        self, path: str, files: Sequence[str] | None = None, all: bool = True, **options: Unpack[GitParams]
    ) -> CommandResult:
        """Stage files.

        Args:
            path: The repository.
            files: Which; default: all that changed.
            all: Without `files`: everything in the repository (True), or what is below `path` (False).
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.init("repo")
            await sandbox.files.write_files([{"path": "repo/a", "data": "1"}, {"path": "repo/b", "data": "2"}])
            await sandbox.git.add("repo", ["a"])
            print([file.name for file in (await sandbox.git.status("repo")).file_status if file.staged])  # a
            ```
        """
        return await self._git(git.add(files, all), path, options)

    async def commit(
        self,
        path: str,
        message: str,
        author_name: str | None = None,
        author_email: str | None = None,
        allow_empty: bool = False,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Commit what is staged.

        Args:
            path: The repository.
            message: The message.
            author_name: Who commits; default: as configured, see `configure_user`.
            author_email: The same.
            allow_empty: Even if nothing is staged.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.init("repo")
            await sandbox.files.write("repo/a", "1")
            await sandbox.git.add("repo")
            await sandbox.git.commit("repo", "Begin", author_name="Ada", author_email="ada@example.org")
            ```
        """
        config = git.author(author_name, author_email)
        return await self._git(git.commit(message, allow_empty), path, options, config)

    async def reset(
        self,
        path: str,
        mode: GitResetMode | None = None,
        target: str | None = None,
        paths: Sequence[str] | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Set the branch, or some paths in the index, back to a commit.

        Args:
            path: The repository.
            mode: ``"soft"``, ``"mixed"``, ``"hard"``, ``"merge"`` or ``"keep"``; default: git's, which is ``"mixed"``.
            target: The commit, branch or tag; default: the last commit.
            paths: These only.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.files.write("requests/README.md", "changed")
            await sandbox.git.reset("requests", mode="hard")
            print((await sandbox.git.status("requests")).is_clean)  # True
            ```
        """
        return await self._git(git.reset(mode, target, paths), path, options)

    async def restore(
        self,
        path: str,
        paths: Sequence[str],
        staged: bool | None = None,
        worktree: bool | None = None,
        source: str | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Undo changes of files, or take them back from the index.

        Args:
            path: The repository.
            paths: Which; ``["."]`` for all.
            staged: In the index.
            worktree: In the working tree, which is the default unless `staged` is set.
            source: A commit, branch or tag to take them from.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.clone("https://github.com/psf/requests.git", "requests")
            await sandbox.files.write("requests/README.md", "changed")
            await sandbox.git.restore("requests", ["README.md"])
            ```
        """
        return await self._git(git.restore(paths, staged, worktree, source), path, options)

    async def set_config(
        self,
        key: str,
        value: str,
        scope: GitConfigScope = "global",
        path: str | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Set a configuration value.

        Args:
            key: Such as ``"pull.rebase"``.
            value: The value.
            scope: ``"global"``: for the user; ``"local"``: for one repository; ``"system"``: for all, which only root
                can set.
            path: The repository, for ``"local"``.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.set_config("pull.rebase", "true")
            ```
        """
        words, repository = git.config(key, arguments.text(value, "value", empty=True), scope, path)
        return await self._git(words, repository, options)

    async def get_config(
        self, key: str, scope: GitConfigScope = "global", path: str | None = None, **options: Unpack[GitParams]
    ) -> str | None:
        """A configuration value; None if it is not set in this scope.

        Args:
            key: Such as ``"pull.rebase"``.
            scope: As for `set_config`.
            path: The repository, for ``"local"``.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.set_config("pull.rebase", "true")
            print(await sandbox.git.get_config("pull.rebase"))  # true
            print(await sandbox.git.get_config("no.such"))  # None
            ```
        """
        words, repository = git.config(key, None, scope, path)
        result = await self._try(words, repository, options, NO_KEY)
        return None if result is None else result.stdout.removesuffix("\n")

    async def configure_user(
        self,
        name: str,
        email: str,
        scope: GitConfigScope = "global",
        path: str | None = None,
        **options: Unpack[GitParams],
    ) -> CommandResult:
        """Say who commits.

        Args:
            name: The name in commits.
            email: The address in commits.
            scope: As for `set_config`.
            path: The repository, for ``"local"``.
            **options: See `GitParams`.

        Example:
            ```python
            await sandbox.git.configure_user("Ada", "ada@example.org")
            ```
        """
        name, email = arguments.text(name, "name"), arguments.text(email, "email")
        await self.set_config("user.name", name, scope, path, **options)
        return await self.set_config("user.email", email, scope, path, **options)
