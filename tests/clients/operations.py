"""The same operations by any Python client of this protocol: ``python operations.py MODULE``; prints JSON.

Only names that both clients have are used. What differs from run to run (ids, times) is not in the results.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# the clients are strangers to each other: neither's types describe both
sdk: Any = importlib.import_module(sys.argv[1])
GROUP = {"group": sys.argv[2], "k&": "v 1"}
OPERATIONS: dict[str, Callable[[Any], object]] = {}


def operation(function: Callable[[Any], object]) -> Callable[[Any], object]:
    OPERATIONS[function.__name__] = function
    return function


def failure_of(call: Callable[[], object]) -> str:
    """The name of the exception that a call ends with."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, its name is the result
        return type(error).__name__
    return "nothing"


def result_of(result: Any) -> list[object]:
    return [result.stdout, result.stderr, result.exit_code, result.error or None]


@operation
def is_running(sandbox: Any) -> object:
    return sandbox.is_running()


@operation
def get_info(sandbox: Any) -> object:
    info = sandbox.get_info()
    same = info.sandbox_id == sandbox.sandbox_id
    return [
        same,
        info.state.value,
        info.metadata == GROUP,
        info.name,
        info.cpu_count,
        info.memory_mb,
        info.envd_version,
    ]


@operation
def list_by_metadata(sandbox: Any) -> object:
    found = sdk.Sandbox.list(query=sdk.SandboxQuery(metadata=GROUP)).next_items()
    return [info.sandbox_id == sandbox.sandbox_id for info in found]


@operation
def run(sandbox: Any) -> object:
    return result_of(sandbox.commands.run("echo out; echo err >&2"))


@operation
def run_that_fails(sandbox: Any) -> object:
    try:
        sandbox.commands.run("echo why >&2; exit 3")
    except sdk.CommandExitException as failure:
        return [failure.exit_code, failure.stderr, failure.error]
    return None


@operation
def run_with_surroundings(sandbox: Any) -> object:
    command = "echo $GLOBAL $LOCAL $PWD $(whoami)"
    result = sandbox.commands.run(command, envs={"LOCAL": "l"}, cwd="/tmp", user="root")
    return result_of(result)


@operation
def run_with_callbacks(sandbox: Any) -> object:
    out: list[str] = []
    err: list[str] = []
    sandbox.commands.run("echo a; echo b >&2; echo ü", on_stdout=out.append, on_stderr=err.append)
    return ["".join(map(str, out)), "".join(map(str, err))]


@operation
def run_in_the_background(sandbox: Any) -> object:
    handle = sandbox.commands.run("sleep 0.2; echo done", background=True)
    return result_of(handle.wait())


@operation
def run_and_iterate(sandbox: Any) -> object:
    handle = sandbox.commands.run("for n in 1 2 3; do echo $n; done", background=True)
    return "".join(stdout for stdout, _, _ in handle if stdout)


@operation
def large_output(sandbox: Any) -> object:
    return len(sandbox.commands.run("head -c 1000000 /dev/zero | tr '\\0' x").stdout)


@operation
def list_and_kill(sandbox: Any) -> object:
    handle = sandbox.commands.run("sleep 600", background=True)
    listed = [process.pid == handle.pid for process in sandbox.commands.list() if "sleep 600" in process.args]
    killed = [sandbox.commands.kill(handle.pid), sandbox.commands.kill(99999)]
    return [listed, killed, failure_of(handle.wait)]


@operation
def stdin(sandbox: Any) -> object:
    handle = sandbox.commands.run("sort", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "b\n")
    sandbox.commands.send_stdin(handle.pid, "a\n")
    sandbox.commands.close_stdin(handle.pid)
    return handle.wait().stdout


@operation
def connect_to_a_command(sandbox: Any) -> object:
    started = sandbox.commands.run("sleep 0.5; echo late", background=True)
    again = sandbox.commands.connect(started.pid)
    return [again.pid == started.pid, again.wait().stdout, failure_of(lambda: sandbox.commands.connect(99999))]


@operation
def timeout_of_a_command(sandbox: Any) -> object:
    return failure_of(lambda: sandbox.commands.run("sleep 60", timeout=0.5))


@operation
def wrong_directory_and_user(sandbox: Any) -> object:
    return [
        failure_of(lambda: sandbox.commands.run("true", cwd="/no/such")),
        failure_of(lambda: sandbox.commands.run("true", user="no-such-user")),
    ]


@operation
def write_and_read(sandbox: Any) -> object:
    info = sandbox.files.write("notes/ü.txt", "text ü")
    stream = b"".join(sandbox.files.read("notes/ü.txt", format="stream"))
    content = sandbox.files.read("notes/ü.txt", format="bytes")
    kind = getattr(info.type, "value", info.type)
    return [info.name, info.path, kind, sandbox.files.read("notes/ü.txt"), list(content), list(stream)]


@operation
def write_many(sandbox: Any) -> object:
    files = [{"path": f"/tmp/many/{n}", "data": b"x" * n} for n in range(3)]
    return [info.path for info in sandbox.files.write_files(files)]


@operation
def list_a_directory(sandbox: Any) -> object:
    entries = sandbox.files.list("/tmp/many")
    deep = sandbox.files.list("/tmp", depth=2)
    return [
        sorted((entry.name, entry.type.value, entry.path, entry.size) for entry in entries),
        sorted(entry.path for entry in deep if entry.path.startswith("/tmp/many")),
    ]


@operation
def stat(sandbox: Any) -> object:
    sandbox.commands.run("ln -s /tmp/many/2 /tmp/link; chmod 640 /tmp/many/2")
    found = [sandbox.files.get_info(path) for path in ("/tmp/many/2", "/tmp/many", "/tmp")]
    link = sandbox.files.get_info("/tmp/link")
    return [
        [[info.size if info.type.value == "file" else 0, info.mode, info.permissions, info.owner] for info in found],
        [link.symlink_target, link.permissions],
    ]


@operation
def exists_and_remove(sandbox: Any) -> object:
    before = sandbox.files.exists("/tmp/many/1")
    sandbox.files.remove("/tmp/many/1")
    return [before, sandbox.files.exists("/tmp/many/1")]


@operation
def make_directories(sandbox: Any) -> object:
    return [sandbox.files.make_dir("/tmp/x/y"), sandbox.files.make_dir("/tmp/x/y")]


@operation
def rename(sandbox: Any) -> object:
    info = sandbox.files.rename("/tmp/many/2", "/tmp/x/moved")
    return [info.path, info.name, info.type.value]


@operation
def files_that_are_not_there(sandbox: Any) -> object:
    calls = [
        lambda: sandbox.files.read("/no/such"),
        lambda: sandbox.files.get_info("/no/such"),
        lambda: sandbox.files.list("/no/such"),
        lambda: sandbox.files.rename("/no/such", "/tmp/z"),
        lambda: sandbox.files.read("/tmp"),
        lambda: sandbox.files.list("/etc/passwd"),
    ]
    return [failure_of(call) for call in calls]


@operation
def watch(sandbox: Any) -> object:
    sandbox.files.make_dir("/tmp/watched")
    handle = sandbox.files.watch_dir("/tmp/watched", recursive=True)
    sandbox.files.write("/tmp/watched/new", "x")
    sandbox.files.remove("/tmp/watched/new")
    found: set[tuple[str, str]] = set()
    deadline = time.monotonic() + 60
    while ("new", "remove") not in found and time.monotonic() < deadline:
        found |= {(event.name, event.type.value) for event in handle.get_new_events()}
        time.sleep(0.05)
    handle.stop()
    return sorted(found)


@operation
def terminal(sandbox: Any) -> object:
    shown: list[bytes] = []
    pty = sandbox.pty.create(sdk.PtySize(rows=30, cols=100))
    sandbox.pty.resize(pty.pid, sdk.PtySize(rows=31, cols=101))
    sandbox.pty.send_stdin(pty.pid, b"stty size; echo $((6 * 7)); exit\n")
    result = pty.wait(on_pty=shown.append)
    text = b"".join(shown)
    return [b"31 101" in text, b"\n42\r" in text, result.exit_code]


@operation
def urls(sandbox: Any) -> object:
    sandbox.files.write("/tmp/linked", "by link")
    with urllib.request.urlopen(sandbox.download_url("/tmp/linked")) as answer:
        read = answer.read().decode()
    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="up"\r\n\r\nloaded\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(sandbox.upload_url("/tmp/uploaded"), data=body, headers=headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    return [read, sandbox.files.read("/tmp/uploaded"), sandbox.get_host(80).startswith("80-")]


@operation
def git(sandbox: Any) -> object:
    sandbox.git.init("repo", initial_branch="main")
    sandbox.files.write("repo/a", "1")
    before = sandbox.git.status("repo")
    sandbox.git.add("repo")
    sandbox.git.commit("repo", "first", author_name="Ada", author_email="ada@example.org")
    after = sandbox.git.status("repo")
    branches = sandbox.git.branches("repo")
    files = [[file.name, file.status, file.staged] for file in before.file_status]
    return [before.current_branch, files, after.is_clean, branches.branches, branches.current_branch]


@operation
def set_timeout(sandbox: Any) -> object:
    sandbox.set_timeout(1000)
    info = sandbox.get_info()
    return 900 < (info.end_at - info.started_at).total_seconds() < 1100


@operation
def metrics(sandbox: Any) -> object:
    deadline = time.monotonic() + 60
    while not (found := sandbox.get_metrics()) and time.monotonic() < deadline:
        time.sleep(0.1)
    last = found[-1]
    return [last.cpu_count, last.mem_total > last.mem_used > 0, last.disk_total > 0, last.cpu_used_pct >= 0]


@operation
def pause_and_resume(sandbox: Any) -> object:
    sandbox.files.write("/tmp/kept", "kept")
    paused = [bool(sandbox.pause()), bool(sandbox.pause())]
    states = [sandbox.get_info().state.value, sandbox.is_running()]
    again = sdk.Sandbox.connect(sandbox.sandbox_id)
    return [paused, states, again.is_running(), again.files.read("/tmp/kept")]


@operation
def snapshot(sandbox: Any) -> object:
    taken = sandbox.create_snapshot()
    listed = [one.snapshot_id == taken.snapshot_id for one in sandbox.list_snapshots().next_items()]
    with sdk.Sandbox.create(taken.snapshot_id) as copy:
        kept = copy.files.read("/tmp/kept")
    deleted = [sdk.Sandbox.delete_snapshot(taken.snapshot_id), sdk.Sandbox.delete_snapshot(taken.snapshot_id)]
    return [listed, kept, deleted]


@operation
def fork(sandbox: Any) -> object:
    copies = sandbox.fork(count=2)
    return [[copy.files.read("/tmp/kept"), copy.kill()] for copy in copies]


@operation
def volumes(sandbox: Any) -> object:
    volume = sdk.Volume.create(f"v-{sys.argv[2]}")
    volume.make_dir("/d")
    volume.write_file("/d/a.txt", "in a volume")
    entries = [[entry.path, str(entry.type.value), entry.size] for entry in volume.list("/d")]
    with sdk.Sandbox.create(volume_mounts={"/mnt/v": volume}) as mounting:
        seen = mounting.files.read("/mnt/v/d/a.txt")
    content = volume.read_file("/d/a.txt")
    missing = failure_of(lambda: volume.read_file("/no/such"))
    destroyed = [sdk.Volume.destroy(volume.volume_id), sdk.Volume.destroy(volume.volume_id)]
    return [entries, content, seen, missing, destroyed]


@operation
def network(sandbox: Any) -> object:
    sandbox.update_network({"allow_internet_access": False})
    return sandbox.get_info().state.value


@operation
def what_is_refused(sandbox: Any) -> object:
    unknown = "i" + "0" * 20
    calls = [
        lambda: sdk.Sandbox.connect(unknown),
        lambda: sdk.Sandbox.get_info(unknown),
        lambda: sdk.Sandbox.create(api_key="grt_another").kill(),
    ]
    try:
        sdk.Sandbox.create("no-such-template").kill()
    except sdk.SandboxException:
        calls.append(lambda: sdk.Sandbox.set_timeout(unknown, 10))
    return [sdk.Sandbox.kill(unknown), *(failure_of(call) for call in calls)]


@operation
def kill(sandbox: Any) -> object:
    killed = [sandbox.kill(), sandbox.kill()]
    return [killed, sandbox.is_running(), failure_of(lambda: sandbox.commands.run("true"))]


def main() -> None:
    results: dict[str, object] = {}
    sandbox = sdk.Sandbox.create(timeout=300, metadata=GROUP, envs={"GLOBAL": "g"})
    try:
        for name, function in OPERATIONS.items():
            try:
                results[name] = function(sandbox)
            except Exception as error:  # noqa: BLE001 - shown beside what the other client says
                results[name] = f"{type(error).__name__}: {error}"
    finally:
        with suppress(Exception):
            sandbox.kill()
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
