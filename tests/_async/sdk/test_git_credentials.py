"""Passwords for git remotes: that they work, and that they are nowhere afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import tests.support.git_server
from grotte import (
    AsyncSandbox,
    CommandResult,
    GitAuthException,
    GitUpstreamException,
    GrotteException,
    InvalidArgumentException,
)
from grotte._core import _aio

USER = "ada"
#: Characters that shells, URLs and printf have an opinion about.
PASSWORD = "p@s:s/w%s'\"$(x)`\\ ö#?&"
ROOT = "/home/user/served"


@pytest.fixture
async def url(sandbox: AsyncSandbox) -> AsyncIterator[str]:
    """A repository with one commit behind a server that wants a password."""
    await sandbox.files.write("/tmp/git_server.py", Path(tests.support.git_server.__file__).read_text())
    await sandbox.git.init(f"{ROOT}/repo.git", bare=True, initial_branch="main")
    await sandbox.git.set_config("http.receivepack", "true", "local", f"{ROOT}/repo.git")
    await sandbox.git.configure_user("Ada", "ada@example.org")
    await sandbox.git.clone(f"{ROOT}/repo.git", "/tmp/source")
    await sandbox.git.commit("/tmp/source", "first", allow_empty=True)
    await sandbox.git.push("/tmp/source", "origin", "HEAD")
    server = await sandbox.commands.run(
        'python3 /tmp/git_server.py "$ROOT" "$USER_NAME" "$SECRET"',
        background=True,
        envs={"ROOT": ROOT, "USER_NAME": USER, "SECRET": PASSWORD},
        timeout=0,
    )
    text = ""
    async for piece in server.stdout:
        text += piece
        if "\n" in text:
            break
    yield f"http://127.0.0.1:{text.strip()}/repo.git"
    await server.kill()
    await server.disconnect()


async def traces(sandbox: AsyncSandbox) -> str:
    """The files in which the password stands, those of the server and of the process table left out."""
    result = await sandbox.commands.run(
        'grep -rliF -e "$A" -e "$B" -e "$C" /home /tmp /root /etc 2>/dev/null | sort',
        envs={"A": PASSWORD, "B": "p%40s%3As", "C": "cEBzOnMvdyVz"},
        user="root",
        check=False,
    )
    return result.stdout.replace(f"{ROOT}/seen\n", "")


async def test_clone_pull_and_push(sandbox: AsyncSandbox, url: str) -> None:
    git = sandbox.git
    # a helper that stores what works must not get to see it
    await git.set_config("credential.helper", "store")
    await git.clone(url, "/tmp/one", username=USER, password=PASSWORD)
    assert await git.remote_get("/tmp/one", "origin") == url
    await git.commit("/tmp/one", "second", allow_empty=True)
    await git.push("/tmp/one", username=USER, password=PASSWORD)
    await git.push("/tmp/one", "origin", "main:refs/heads/other", username=USER, password=PASSWORD)
    await git.clone(url, "/tmp/two", username=USER, password=PASSWORD, depth=1, branch="other")
    await git.push("/tmp/source", "origin", "HEAD:refs/heads/third")
    await git.pull("/tmp/two", username=USER, password=PASSWORD)
    await git.pull("/tmp/one", "origin", "third", username=USER, password=PASSWORD)
    assert (await git.status("/tmp/two")).upstream == "origin/other"
    assert await traces(sandbox) == ""


async def test_a_password_in_the_url(sandbox: AsyncSandbox, url: str) -> None:
    quoted = "p%40s%3As%2Fw%25s%27%22%24%28x%29%60%5C%20%C3%B6%23%3F%26"
    full = url.replace("http://", f"http://{USER}:{quoted}@")
    await sandbox.git.clone(full, "/tmp/one")
    assert await sandbox.git.remote_get("/tmp/one", "origin") == url
    await sandbox.git.pull("/tmp/one", full, "main")
    with pytest.raises(InvalidArgumentException) as caught:
        await sandbox.git.remote_add("/tmp/one", "x", full)
    assert "p%40s" not in str(caught.value)
    assert await traces(sandbox) == ""


async def test_a_token_as_the_user_of_a_url(sandbox: AsyncSandbox, url: str) -> None:
    with pytest.raises(GitAuthException) as caught:
        await sandbox.git.clone(url.replace("http://", "http://tok3n@"), "/tmp/one")
    assert "tok3n" not in str(caught.value)
    assert "tok3n:" in (await sandbox.files.read(f"{ROOT}/seen")).split()


async def test_wrong_or_no_credentials(sandbox: AsyncSandbox, url: str) -> None:
    git = sandbox.git
    with pytest.raises(GitAuthException, match="pass username="):
        await git.clone(url, "/tmp/one")
    with pytest.raises(GitAuthException, match="are username and password right") as caught:
        await git.clone(url, "/tmp/one", username=USER, password="wr0ng-secret")
    failure = caught.value
    assert failure.sandbox_id == sandbox.sandbox_id
    assert failure.__cause__ is None
    assert "wr0ng-secret" not in repr(failure) + str(failure) + str(failure.server_message)
    await git.clone(url, "/tmp/one", username=USER, password=PASSWORD)
    for call in (git.pull, git.push):
        for password in ("wrong", None):
            with pytest.raises(GitAuthException):
                await call("/tmp/one", username=USER, password=password)
    await git.create_branch("/tmp/one", "lonely")
    with pytest.raises(GitUpstreamException):
        await git.pull("/tmp/one", username=USER, password=PASSWORD)


async def test_other_hosts_are_not_shown_the_password(sandbox: AsyncSandbox, url: str) -> None:
    await sandbox.git.init("/tmp/one")
    await sandbox.git.remote_add("/tmp/one", "origin", "http://other.invalid/repo.git")
    # the remote's name leads elsewhere than its URL says
    await sandbox.git.set_config(f"url.{url}.insteadOf", "http://other.invalid/repo.git", "local", "/tmp/one")
    await sandbox.git.pull("/tmp/one", "origin", "main", username=USER, password=PASSWORD)
    seen = set((await sandbox.files.read(f"{ROOT}/seen")).splitlines())
    assert seen == {"nobody", f"{USER}:{PASSWORD}"}
    with pytest.raises(GitAuthException):
        await sandbox.git.pull("/tmp/one", url.replace("127.0.0.1", "localhost"), "main")


async def test_no_command_line_shows_it(sandbox: AsyncSandbox, url: str) -> None:
    watcher = await sandbox.commands.run(
        "touch /tmp/watching; while [ -e /tmp/watching ]; do"
        " cat /proc/[0-9]*/cmdline 2>/dev/null >> /tmp/lines; done; true",
        background=True,
        user="root",
    )
    found: list[CommandResult] = []

    async def clone() -> None:
        found.append(await sandbox.git.clone(url, "/tmp/one", username=USER, password=PASSWORD))

    async def look() -> None:
        while not found:
            for process in await sandbox.commands.list():
                if "git_server" not in str(process.args):
                    assert PASSWORD not in str((process.args, process.envs))

    async with _aio.open_nursery() as nursery:
        nursery.start_soon(clone)
        nursery.start_soon(look)
    await sandbox.files.remove("/tmp/watching")
    await watcher.wait()
    lines = (await sandbox.files.read("/tmp/lines", "bytes")).replace(b"\0", b" ")
    assert b" clone -- " in lines
    own = [line for line in lines.split(b"python3 /tmp/git_server.py") if PASSWORD.encode() in line]
    assert all(
        line.startswith(f" {ROOT} {USER} {PASSWORD}".encode()) and line.count(PASSWORD.encode()) == 1 for line in own
    )


async def test_a_clone_that_is_given_up_leaves_nothing(sandbox: AsyncSandbox, url: str) -> None:
    failures: list[str] = []
    for seconds in (0.02, 0.05, 0.1, 0.2):
        try:
            await sandbox.git.clone(url, f"/tmp/{seconds}", username=USER, password=PASSWORD, timeout=seconds)
        except GrotteException as error:
            failures.append(str(error))
    assert failures
    assert PASSWORD not in "".join(failures)
    assert await traces(sandbox) == ""


async def test_stored_credentials_work_and_are_asked_for_by_name(sandbox: AsyncSandbox, url: str) -> None:
    await sandbox.git.clone(url, "/tmp/one", username=USER, password=PASSWORD, dangerously_store_credentials=True)
    await sandbox.git.pull("/tmp/one")
    assert "/tmp/one/.git/config" in await traces(sandbox)


async def test_authentication_for_all(sandbox: AsyncSandbox, url: str) -> None:
    host = url.split("/")[2]
    await sandbox.git.dangerously_authenticate(USER, PASSWORD, host, "http")
    await sandbox.git.clone(url, "/tmp/one")
    assert await traces(sandbox) == "/home/user/.git-credentials\n"
