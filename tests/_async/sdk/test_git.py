"""`sandbox.git` within one repository, and with remotes that ask for nothing."""

from __future__ import annotations

import pytest

from grotte import (
    AsyncSandbox,
    CommandExitException,
    GitBranches,
    GitFileStatus,
    GitUpstreamException,
    InvalidArgumentException,
    NotFoundException,
)

REPO = "/home/user/re po's"


async def repository(sandbox: AsyncSandbox, path: str = REPO) -> None:
    """A repository with one commit."""
    await sandbox.git.init(path, initial_branch="main")
    await sandbox.git.configure_user("Ada 'L' Byron", "ada@example.org")
    await sandbox.files.write(f"{path}/a file", "one\n")
    await sandbox.git.add(path)
    await sandbox.git.commit(path, "-first; $(touch /tmp/oops)")


async def test_a_new_repository(sandbox: AsyncSandbox) -> None:
    await sandbox.git.init(REPO, initial_branch="main")
    status = await sandbox.git.status(REPO)
    assert (status.current_branch, status.upstream, status.detached, status.is_clean) == ("main", None, False, True)
    assert await sandbox.git.branches(REPO) == GitBranches([], None)
    await sandbox.git.init("~/bare.git", bare=True)
    assert await sandbox.files.exists("/home/user/bare.git/HEAD")


async def test_what_changed(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    assert not await sandbox.files.exists("/tmp/oops")
    assert (await sandbox.commands.run("git log --format=%an:%ae:%s", cwd=REPO)).stdout.startswith(
        "Ada 'L' Byron:ada@example.org:-first"
    )
    await sandbox.files.write(f'{REPO}/staged ->\n"ö', "x")
    await sandbox.git.add(REPO, ['staged ->\n"ö'])
    await sandbox.files.write(f"{REPO}/new", "x")
    await sandbox.commands.run("git mv 'a file' 'b file'; echo more >> 'b file'", cwd=REPO)
    status = await sandbox.git.status(REPO)
    assert status.file_status == [
        GitFileStatus("b file", "renamed", "R", "M", staged=True, renamed_from="a file"),
        GitFileStatus('staged ->\n"ö', "added", "A", " ", staged=True),
        GitFileStatus("new", "untracked", "?", "?", staged=False),
    ]
    assert (status.has_changes, status.has_staged, status.has_untracked, status.has_conflicts) == (
        True,
        True,
        True,
        False,
    )
    counts = status.total_count, status.staged_count, status.unstaged_count, status.untracked_count
    assert (*counts, status.conflict_count) == (3, 2, 1, 1, 0)


async def test_reset_and_restore(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.files.write(f"{REPO}/a file", "two\n")
    await sandbox.git.add(REPO, all=False)
    await sandbox.git.restore(REPO, ["a file"], staged=True)
    (file,) = (await sandbox.git.status(REPO)).file_status
    assert (file.status, file.index_status, file.working_tree_status, file.staged) == ("modified", " ", "M", False)
    await sandbox.git.restore(REPO, ["."])
    assert (await sandbox.git.status(REPO)).is_clean
    await sandbox.git.commit(REPO, "empty", "Eve", "eve@example.org", allow_empty=True)
    assert (await sandbox.commands.run("git log -1 --format=%an", cwd=REPO)).stdout == "Eve\n"
    await sandbox.git.reset(REPO, "hard", "HEAD~1")
    await sandbox.files.write(f"{REPO}/a file", "three\n")
    await sandbox.git.add(REPO)
    await sandbox.git.reset(REPO, paths=["a file"])
    assert not (await sandbox.git.status(REPO)).has_staged
    await sandbox.git.restore(REPO, ["a file"], source="HEAD", staged=True, worktree=True)
    assert (await sandbox.git.status(REPO)).is_clean


async def test_branches(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.git.create_branch(REPO, "feature/x")
    assert await sandbox.git.branches(REPO) == GitBranches(["feature/x", "main"], "feature/x")
    await sandbox.files.write(f"{REPO}/main", "a file with the name of a branch")
    await sandbox.git.checkout_branch(REPO, "main")
    assert (await sandbox.git.status(REPO)).current_branch == "main"
    await sandbox.git.delete_branch(REPO, "feature/x")
    await sandbox.git.create_branch(REPO, "other")
    await sandbox.git.commit(REPO, "more", allow_empty=True)
    await sandbox.git.checkout_branch(REPO, "main")
    with pytest.raises(CommandExitException, match="not fully merged"):
        await sandbox.git.delete_branch(REPO, "other")
    await sandbox.git.delete_branch(REPO, "other", force=True)
    await sandbox.commands.run("git checkout -q --detach", cwd=REPO)
    status = await sandbox.git.status(REPO)
    assert (status.current_branch, status.detached) == (None, True)
    assert await sandbox.git.branches(REPO) == GitBranches(["main"], None)


async def test_a_conflict(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    await sandbox.git.create_branch(REPO, "theirs")
    for branch in ("theirs", "main"):
        await sandbox.git.checkout_branch(REPO, branch)
        await sandbox.files.write(f"{REPO}/a file", branch)
        await sandbox.git.add(REPO)
        await sandbox.git.commit(REPO, branch)
    await sandbox.commands.run("git merge theirs", cwd=REPO, check=False)
    status = await sandbox.git.status(REPO)
    assert status.has_conflicts
    assert [(file.name, file.status) for file in status.file_status] == [("a file", "conflict")]


async def test_configuration(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    assert await sandbox.git.get_config("user.name") == "Ada 'L' Byron"
    assert await sandbox.git.get_config("user.name", "local", REPO) is None
    await sandbox.git.set_config("user.name", "--version", scope="local", path=REPO)
    assert await sandbox.git.get_config("user.name", scope="local", path=REPO) == "--version"
    await sandbox.git.set_config("pull.rebase", "true", scope="system", user="root")
    assert await sandbox.git.get_config("pull.rebase", scope="system") == "true"
    with pytest.raises(CommandExitException):
        await sandbox.git.get_config("user.name", "local", "/nowhere")


async def test_clone_push_and_pull(sandbox: AsyncSandbox) -> None:
    git = sandbox.git
    await repository(sandbox)
    await git.init("/home/user/bare.git", bare=True, initial_branch="main")
    await git.remote_add(REPO, "origin", "/home/user/bare.git")
    with pytest.raises(GitUpstreamException, match="set_upstream"):
        await git.push(REPO)
    with pytest.raises(GitUpstreamException):
        await git.pull(REPO)
    await git.push(REPO, "origin", "main")
    await git.clone("/home/user/bare.git", "~/clone one")
    await git.clone("file:///home/user/bare.git", cwd="/tmp", depth=1, branch="main")
    assert await sandbox.files.exists("/tmp/bare/a file")
    await git.commit(REPO, "second", allow_empty=True)
    assert (await git.status(REPO)).ahead == 1
    await git.push(REPO)
    await git.pull("~/clone one")
    await git.pull("/tmp/bare", "origin", "main")
    await git.commit(REPO, "third", allow_empty=True)
    await git.push(REPO)
    await git.remote_add("~/clone one", "origin", "/home/user/bare.git", fetch=True, overwrite=True)
    status = await git.status("~/clone one")
    assert (status.current_branch, status.upstream, status.ahead, status.behind) == ("main", "origin/main", 0, 1)


async def test_remotes(sandbox: AsyncSandbox) -> None:
    await repository(sandbox)
    assert await sandbox.git.remote_get(REPO, "origin") is None
    await sandbox.git.remote_add(REPO, "origin", "https://example.org/x")
    with pytest.raises(CommandExitException, match="already exists"):
        await sandbox.git.remote_add(REPO, "origin", "https://example.org/y")
    await sandbox.git.remote_add(REPO, "origin", "https://example.org/y", overwrite=True)
    await sandbox.git.remote_add(REPO, "other", "git@example.org:z", overwrite=True)
    assert await sandbox.git.remote_get(REPO, "origin") == "https://example.org/y"
    assert await sandbox.git.remote_get(REPO, "other") == "git@example.org:z"
    with pytest.raises(InvalidArgumentException, match="2 remotes"):
        await sandbox.git.push(REPO, username="u", password="p")


async def test_no_git(sandbox: AsyncSandbox) -> None:
    with pytest.raises(NotFoundException, match="not installed"):
        await sandbox.git.status("/tmp", envs={"PATH": "/nowhere", "BASH_ENV": ""}, cwd="/")


async def test_nothing_is_taken_for_an_option(sandbox: AsyncSandbox) -> None:
    git, evil = sandbox.git, "--upload-pack=touch /tmp/oops"
    for call in (
        lambda: git.clone(evil, "/tmp/x"),
        lambda: git.clone("/tmp", "/tmp/x", branch=evil),
        lambda: git.pull("/tmp", evil),
        lambda: git.pull("/tmp", "origin", evil),
        lambda: git.push("/tmp", "origin", "--receive-pack=x"),
        lambda: git.push("/tmp", "--all"),
        lambda: git.init("/tmp/x", initial_branch="-x"),
        lambda: git.create_branch("/tmp", "-f"),
        lambda: git.checkout_branch("/tmp", "--orphan"),
        lambda: git.delete_branch("/tmp", "-r"),
        lambda: git.remote_add("/tmp", "-f", "/x"),
        lambda: git.remote_add("/tmp", "x", "--mirror=push"),
        lambda: git.remote_get("/tmp", "--all"),
        lambda: git.reset("/tmp", target="--hard"),
        lambda: git.restore("/tmp", ["x"], source="--staged"),
        lambda: git.set_config("--edit", "x"),
        lambda: git.get_config("-l"),
        lambda: git.checkout_branch("/tmp", "a\nb"),
    ):
        with pytest.raises(InvalidArgumentException):
            await call()
    # a path may start with a dash, and is a path then
    await git.init("--bare", cwd="/tmp")
    assert await sandbox.files.exists("/tmp/--bare/.git")


async def test_what_cannot_be_right_is_refused(sandbox: AsyncSandbox) -> None:
    git = sandbox.git
    for call in (
        lambda: git.clone("https://example.org/x", password="p"),
        lambda: git.clone("/tmp", username="u", password="p"),
        lambda: git.clone("https://[::1/x"),
        lambda: git.clone("https://example.org/x", username="u", password="a\nb"),
        lambda: git.clone("/x", depth=0),
        lambda: git.status(""),
        lambda: git.add("/tmp", []),
        lambda: git.add("/tmp", "file"),
        lambda: git.commit("/tmp", ""),
        lambda: git.push("/tmp", branch="main"),
        lambda: git.remote_add("/tmp", "x", "https://u:p@example.org"),
        lambda: git.reset("/tmp", "harder"),  # type: ignore[arg-type]  # that is the point
        lambda: git.restore("/tmp", []),
        lambda: git.restore("/tmp", ["x"], staged=False, worktree=False),
        lambda: git.set_config("a.b", "c", "local"),
        lambda: git.set_config("a.b", "c", "all"),  # type: ignore[arg-type]
        lambda: git.set_config("name", "c"),
        lambda: git.configure_user("", "x"),
        lambda: git.dangerously_authenticate("u", ""),
        lambda: git.dangerously_authenticate("u", "p", "host/path"),
        lambda: git.dangerously_authenticate("u", "p", protocol="ssh"),
    ):
        with pytest.raises(InvalidArgumentException):
            await call()
