"""Who closes the connections: the block, the event loop, the interpreter, or nobody; and what a fork may not do."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.servers.http2_server import Http2Server

ROOT = Path(__file__).parent.parent.parent


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, in which every warning shows."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always::ResourceWarning", "-c", textwrap.dedent(program)]
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
