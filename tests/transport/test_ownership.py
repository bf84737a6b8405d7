"""Who closes the connections: the block, the event loop, the interpreter, or nobody; and what a fork may not do."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.servers.http1_server import serve_http1
from tests.servers.http2_server import Http2Server

ROOT = Path(__file__).parent.parent.parent
#: asyncio, in development mode, warns of turns that take long; on a busy machine they do.
QUIET = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, in which every warning shows."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always::ResourceWarning", "-c", QUIET + textwrap.dedent(program)]
        + [str(argument) for argument in arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_until_closed(server: Http2Server) -> None:
    for connection in server.connections:
        connection.finished.wait(10)
    assert server.open_connections == 0


ASYNC = """
    import sys, asyncio, trio
    from grotte._core.transport import Origin, Request, default_transport

    async def main(port):
        origin = Origin("http", "127.0.0.1", port)
        for _ in range(3):
            response = await default_transport().fetch(Request("GET", origin, "/"), deadline=None)
            assert response.content == b"hello"

    for library in sys.argv[2].split(","):
        if library == "trio":
            trio.run(main, int(sys.argv[1]))
        elif library == "asyncio":
            asyncio.run(main(int(sys.argv[1])))
        elif library == "uvloop":
            import uvloop
            uvloop.run(main(int(sys.argv[1])))
    print("done")
"""


@pytest.mark.parametrize("libraries", ["asyncio", "trio", "asyncio,trio,asyncio"])
def test_the_default_transport_closes_with_its_event_loop(libraries: str) -> None:
    with Http2Server() as server:
        done = run_program(ASYNC, server.port, libraries)
        assert (done.stdout, done.stderr) == ("done\n", "")
        assert len(server.connections) == libraries.count(",") + 1
        wait_until_closed(server)


def test_it_runs_on_uvloop() -> None:
    pytest.importorskip("uvloop")
    with Http2Server() as server:
        done = run_program(ASYNC, server.port, "uvloop")
        assert (done.stdout, done.stderr) == ("done\n", "")
        wait_until_closed(server)


@pytest.mark.parametrize("kind", ["", "transport.close()", "with transport: pass"])
def test_a_forgotten_transport_warns_once(kind: str) -> None:
    program = """
        import sys, gc
        from grotte._sync.transport import Origin, Request, Transport

        def use():
            transport = Transport()
            origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
            assert transport.fetch(Request("GET", origin, "/"), deadline=None).content == b"hello"
            {kind}

        use()
        gc.collect()
        print("done")
    """.replace("{kind}", kind or "pass")
    with Http2Server() as server:
        done = run_program(program, server.port)
        assert done.stdout == "done\n"
        assert done.stderr.count("was not closed") == (0 if kind else 1)
        wait_until_closed(server)


def test_the_sync_default_transport_closes_with_the_interpreter() -> None:
    program = """
        import sys
        from grotte._sync.transport import Origin, Request, default_transport
        origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
        assert default_transport().fetch(Request("GET", origin, "/"), deadline=None).content == b"hello"
        print("done")
    """
    with Http2Server() as server:
        done = run_program(program, server.port)
        assert (done.stdout, done.stderr) == ("done\n", "")
        wait_until_closed(server)


def test_a_forked_child_never_uses_its_parents_connections() -> None:
    program = """
        import os, sys
        from grotte._sync.transport import Origin, Request, Transport, default_transport
        origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
        own = Transport()

        def ask(transport, what):
            request = Request("POST", origin, "/echo", body=what)
            assert transport.fetch(request, deadline=None).content == what

        ask(own, b"parent"); ask(default_transport(), b"parent")
        child = os.fork()
        if child == 0:
            ask(own, b"child"); ask(default_transport(), b"child")
            own.close()
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        ask(own, b"parent"); ask(default_transport(), b"parent")
        own.close()
        print("done")
    """
    with Http2Server() as server:
        done = run_program(program, server.port)
        assert (done.stdout, done.stderr) == ("done\n", "")
        used = [(bytes(seen.body), seen.connection) for seen in server.seen]
        assert used == [
            *((b"parent", 0), (b"parent", 1)),
            *((b"child", 2), (b"child", 3)),
            *((b"parent", 0), (b"parent", 1)),
        ]
        wait_until_closed(server)
        assert server.violations == []


def test_what_was_under_way_in_the_parent_is_lost_to_the_child() -> None:
    program = """
        import os, sys
        from grotte._proto.transport_errors import ConnectionLost
        from grotte._sync.transport import Origin, Request, Transport
        transport = Transport()
        asked = Request("GET", Origin("http", "127.0.0.1", int(sys.argv[1])), "/hold")
        with transport.stream(asked, deadline=None) as held:
            child = os.fork()
            if child == 0:
                try:
                    held.read()
                except ConnectionLost as lost:
                    os._exit(7 if lost.processed else 1)
                os._exit(2)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        transport.close()
    """
    with Http2Server() as server:
        done = run_program(program, server.port)
        assert (done.stdout, done.stderr) == ("7\n", "")
        wait_until_closed(server)
        assert server.violations == []


def test_one_client_serves_many_event_loops_at_once() -> None:
    """Each has connections of its own, which its end closes."""
    program = """
        import sys, asyncio, threading, trio
        from grotte._core.transport import AsyncTransports, Origin, Request

        shared = AsyncTransports()
        origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
        together = threading.Barrier(6, timeout=20)
        opened, answers = [], []

        async def main():
            transport = shared.get()
            assert transport is shared.get()
            for _ in range(50):
                answers.append((await transport.fetch(Request("GET", origin, "/"), deadline=None)).content)
            together.wait()
            opened.append(transport.counters.connections_opened)
            if threading.current_thread().name.startswith("closes"):
                await transport.aclose()

        runners = [asyncio.run, asyncio.run, asyncio.run, trio.run, trio.run, trio.run]
        threads = [
            threading.Thread(target=run, args=(main() if run is asyncio.run else main,), name=name)
            for run, name in zip(runners, ["ends", "closes"] * 3)
        ]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert answers == [b"hello"] * 300, len(answers)
        print(opened)
    """
    with Http2Server() as server:
        done = run_program(program, server.port)
        assert (done.stdout, done.stderr) == ("[1, 1, 1, 1, 1, 1]\n", "")
        assert len(server.connections) == 6
        wait_until_closed(server)
        assert server.violations == []


@pytest.mark.parametrize("tree", ["sync", "async"])
def test_a_transport_that_is_forgotten_in_the_middle_of_an_answer_loses_nothing_of_it(tree: str) -> None:
    program = """
        import sys, gc, asyncio
        from grotte._core.transport import AsyncTransport, Origin, Request
        from grotte._sync.transport import Transport

        request = Request("GET", Origin("http", "127.0.0.1", int(sys.argv[1])), "/bytes/3000000")

        def sync():
            with Transport().stream(request, deadline=None) as response:
                gc.collect()
                return len(next(iter(response)) + response.read())

        async def main():
            async with AsyncTransport().stream(request, deadline=None) as response:
                gc.collect()
                return len(await anext(aiter(response)) + await response.aread())

        print(sync() if sys.argv[2] == "sync" else asyncio.run(main()))
        gc.collect()
    """
    with Http2Server() as server:
        done = run_program(program, server.port, tree)
        assert done.stdout == "3000000\n"
        assert done.stderr.count("was not closed") == 1
        wait_until_closed(server)


def test_a_forked_child_never_uses_its_parents_http1_connections() -> None:
    program = """
        import os, sys
        from grotte._sync.transport import Origin, Request, Transport
        origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
        transport = Transport()

        def ask():
            assert transport.fetch(Request("GET", origin, "/"), deadline=None).content == b"old"

        ask(); ask()
        child = os.fork()
        if child == 0:
            ask(); ask()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        ask()
        transport.close()
        print("done")
    """
    with serve_http1() as server:
        done = run_program(program, server.port)
        assert (done.stdout, done.stderr) == ("done\n", "")
        first, second, child, again, last = server.clients
        assert first == second == last
        assert child == again != first
