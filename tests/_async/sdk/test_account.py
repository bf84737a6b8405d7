"""Several accounts in one program: each with its own key, trust and connections."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from grotte import (
    ApiUnreachableException,
    AsyncGrotte,
    AsyncSandbox,
    AuthenticationException,
    ClientClosedException,
    InvalidArgumentException,
    SandboxQuery,
    TransportOptions,
)
from grotte._core.transport import default_transport
from tests.servers.certificates import Certificate, make_certificate
from tests.support.engine import Engine
from tests.support.stub_service import StubService, as_json, running_stub

SANDBOXES = "GET /v2/sandboxes"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


async def test_everything_of_a_sandbox_goes_over_its_client(engine: Engine) -> None:
    everybodys = replace(default_transport().counters)
    async with AsyncGrotte(**engine.options) as client:
        async with await client.Sandbox.create("base", metadata={"of": "client"}) as sandbox:
            assert isinstance(sandbox, AsyncSandbox)
            assert (await sandbox.commands.run("echo $((6 * 7))")).stdout == "42\n"
            await sandbox.files.write("/tmp/x", "y")
            assert await sandbox.files.read("/tmp/x", "bytes") == b"y"
            again = await client.Sandbox.connect(sandbox.sandbox_id)
            assert await again.files.exists("/tmp/x")
            pty = await again.pty.create()
            assert await pty.kill()
            found = client.Sandbox.list(SandboxQuery(metadata={"of": "client"}))
            assert [info.sandbox_id async for info in found] == [sandbox.sandbox_id]
            copies = await sandbox.fork(1)
            assert await copies[0].kill()
            assert await copies[0].is_running() is False
            snapshot = await sandbox.create_snapshot()
            assert await client.Sandbox.delete_snapshot(snapshot.snapshot_id)
            await client.Sandbox.set_timeout(sandbox.sandbox_id, 60)
        assert await client.Sandbox.kill(sandbox.sandbox_id) is False
        assert client.counters.streams_opened > 15
        assert client.counters.streams_open == 0
    assert default_transport().counters == everybodys


async def test_templates_of_a_client(engine: Engine) -> None:
    name = f"t-{secrets.token_hex(4)}"
    async with AsyncGrotte(**engine.options) as client:
        await client.Template.build(client.Template().from_template("base").run_cmd("touch /tmp/x"), name)
        async with await client.Sandbox.create(name) as sandbox:
            assert await sandbox.files.exists("/tmp/x")
        assert await client.Template.exists(name)
        assert client.counters.streams_opened >= 6


async def test_after_its_end_a_client_says_so(engine: Engine) -> None:
    async with AsyncGrotte(**engine.options) as client:
        sandbox = await client.Sandbox.create("base")
    calls = [
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.files.read("/etc/hostname"),
        lambda: sandbox.get_info(),
        lambda: client.Sandbox.create(),
    ]
    for call in calls:
        with pytest.raises(ClientClosedException, match="closed"):
            await call()
    await client.aclose()
    assert await AsyncSandbox.kill(sandbox.sandbox_id, **engine.options)


async def test_each_has_its_own_key_defaults_and_connections(stub: StubService) -> None:
    stub.answers[SANDBOXES] = as_json([])
    first = AsyncGrotte(api_url=stub.url, api_key="grt_one", headers={"X-Of": "one"})
    second = AsyncGrotte(api_url=stub.url, api_key="grt_two", request_timeout=7)
    async with first, second:
        for client in (first, second, first):
            await client.Sandbox.list().next_items()
        await first.Sandbox.list(api_key="grt_three", headers={"X-More": "yes"}).next_items()
        assert second.connection_config.request_timeout == 7
        assert first.Sandbox is not second.Sandbox
        assert first.Sandbox.list().__class__ is second.Sandbox.list().__class__
    assert [seen.headers["x-api-key"] for seen in stub.seen] == ["grt_one", "grt_two", "grt_one", "grt_three"]
    assert [seen.headers.get("x-of") for seen in stub.seen] == ["one", None, "one", "one"]
    assert stub.seen[-1].headers["x-more"] == "yes"
    peers = [seen.peer for seen in stub.seen]
    assert peers[0] == peers[2] == peers[3] != peers[1]


async def test_trust_is_never_shared(certificate: Certificate) -> None:
    trusting = TransportOptions(ca_file=str(certificate.certificate))
    with running_stub(certificate.server_context("http/1.1")) as stub:
        stub.answers[SANDBOXES] = as_json([])
        options = {"api_url": stub.url, "api_key": "grt_key"}
        async with AsyncGrotte(transport=trusting, **options) as one, AsyncGrotte(**options) as other:
            assert await one.Sandbox.list().next_items() == []
            with pytest.raises(ApiUnreachableException, match="certificate"):
                await other.Sandbox.list().next_items()
            assert await one.Sandbox.list().next_items() == []
        with pytest.raises(ApiUnreachableException, match="certificate"):
            await AsyncSandbox.list(**options).next_items()
        assert len(stub.calls(SANDBOXES)) == 2


async def test_a_trace_sees_the_clients_own_requests(engine: Engine) -> None:
    events: list[str] = []
    options = TransportOptions(trace=lambda event, details: events.append(event))
    async with AsyncGrotte(transport=options, **engine.options) as client:
        await client.Sandbox.list().next_items()
        await AsyncSandbox.list(**engine.options).next_items()
    assert events.count("http2.request_sent") == 1


@pytest.mark.parametrize(
    "options", [{"api_key": ""}, {"request_timeout": -1}, {"api_url": "ftp://x"}, {"proxy": "gopher://x"}]
)
async def test_wrong_options_are_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentException):
        AsyncGrotte(**{"api_key": "grt_key", **options})  # type: ignore[arg-type]  # that is the point


async def test_a_key_shows_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = AsyncGrotte(api_key="grt_secret", api_url="http://localhost:1", proxy="http://me:secret@localhost:2")
    assert "secret" not in repr(client) + repr(client.connection_config) + repr(client.Sandbox)
    monkeypatch.setattr("grotte.config.engine_installed", lambda: False)
    monkeypatch.delenv("GROTTE_API_KEY", raising=False)
    with pytest.raises(AuthenticationException, match="GROTTE_API_KEY"):
        AsyncGrotte()
