"""Every row of the tables in `docs/errors.md`, on the real engine, or with a service that fails to order."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import grotte
import tests.support.git_server
from grotte import ApiParams, AsyncGrotte, AsyncSandbox, AsyncTemplate, AsyncVolume, GrotteException
from tests.servers.certificates import make_certificate
from tests.support.engine import Engine
from tests.support.error_table import Row, attributes_of, rows
from tests.support.stub_service import Answer, Seen, StubService, as_json, running_stub

ID = "i" + "0" * 20
CREATED = {"templateID": "base", "sandboxID": ID, "envdVersion": "0.5.7", "envdAccessToken": "tok"}
NOWHERE = "http://127.0.0.1:9"
LIST = "POST /process.Process/List"
SECRETS = ("grt_", "tok", "hunter2")


@dataclass
class World:
    """What there is to break."""

    engine: Engine
    stub: StubService
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def stubbed(self) -> ApiParams:
        return {"api_url": self.stub.url, "sandbox_url": self.stub.url, "api_key": "grt_key"}

    async def sandbox(self, **options: object) -> AsyncSandbox:
        """A real one."""
        return await AsyncSandbox.create("base", timeout=60, **options, **self.engine.options)  # type: ignore[arg-type]

    async def of_stub(self, sandbox_url: str | None = None, **changes: object) -> AsyncSandbox:
        """One that only its service knows of."""
        self.stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json({**CREATED, **changes})
        options = self.stubbed
        options["sandbox_url"] = sandbox_url or self.stub.url
        return await AsyncSandbox.connect(ID, **options)

    def answers(self, route: str, status: int, **body: object) -> None:
        self.stub.answers[route] = as_json(
            {"code": status, "message": "so it is", **body}, status, Should_Retry="false"
        )


@pytest.fixture
def world(engine: Engine, stub: StubService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(engine, stub, tmp_path, monkeypatch)


def slowly(seen: Seen) -> Answer:
    time.sleep(0.6)
    return as_json({})


# -- before anything is sent -----------------------------------------------------------------------------------------


async def no_key(world: World) -> None:
    world.monkeypatch.setattr("grotte.config.ENGINE_MODULES", ("no_such_module",))
    world.monkeypatch.delenv("GROTTE_API_KEY", raising=False)
    await AsyncSandbox.create()


async def wrong_argument(world: World) -> None:
    await AsyncSandbox.create(timeout=-1, **world.engine.options)


async def no_signature(world: World) -> None:
    async with await world.sandbox(secure=False) as sandbox:
        sandbox.download_url("/tmp/x", use_signature_expiration=60)


async def old_agent(world: World) -> None:
    sandbox = await world.of_stub(envdVersion="0.1.0")
    await sandbox.files.watch_dir("/tmp", recursive=True)


async def closed_client(world: World) -> None:
    async with AsyncGrotte(**world.engine.options) as client:
        paginator = client.Sandbox.list()
    await paginator.next_items()


async def no_engine(world: World) -> None:
    (world.folder / "grotte").write_text("where the engine's directory should be")
    world.monkeypatch.setenv("XDG_RUNTIME_DIR", str(world.folder))
    await AsyncSandbox.create(api_url="local")


# -- the control plane -----------------------------------------------------------------------------------------------


async def wrong_key(world: World) -> None:
    await AsyncSandbox.create(api_url=world.engine.url, api_key="grt_another")


async def unknown_template(world: World) -> None:
    await AsyncSandbox.create("no-such-template", **world.engine.options)


async def unknown_sandbox(world: World) -> None:
    await AsyncSandbox.get_info(ID, **world.engine.options)


async def create_fails(world: World, status: int) -> None:
    world.answers("POST /sandboxes", status)
    await AsyncSandbox.create(**world.stubbed)


async def refused(world: World) -> None:
    await create_fails(world, 400)


async def too_many(world: World) -> None:
    await create_fails(world, 429)


async def busy(world: World) -> None:
    await create_fails(world, 503)


async def asleep_for_good(world: World) -> None:
    world.answers(f"POST /sandboxes/{ID}/connect", 409, error_code=grotte.GuestUnresponsiveException.code)
    await AsyncSandbox.connect(ID, **world.stubbed)


async def not_offered(world: World) -> None:
    world.answers(f"GET /sandboxes/{ID}", 501)
    await AsyncSandbox.get_info(ID, **world.stubbed)


async def nonsense(world: World) -> None:
    world.stub.answers[f"GET /sandboxes/{ID}"] = Answer(200, b"<html>")
    await AsyncSandbox.get_info(ID, **world.stubbed)


async def nobody_listens(world: World) -> None:
    await AsyncSandbox.create(api_url=NOWHERE, api_key="grt_key")


async def untrusted(world: World) -> None:
    certificate = make_certificate(world.folder, "localhost")
    with running_stub(certificate.server_context("http/1.1")) as stub:
        await AsyncSandbox.create(api_url=stub.url, api_key="grt_key")


async def cut_answer(world: World) -> None:
    world.stub.answers[f"GET /sandboxes/{ID}"] = Answer(200, b"{}", hang_up=True)
    await AsyncSandbox.get_info(ID, **world.stubbed)


async def late_answer(world: World) -> None:
    world.stub.answers[f"GET /sandboxes/{ID}"] = slowly
    await AsyncSandbox.get_info(ID, request_timeout=0.2, **world.stubbed)


# -- in a sandbox ----------------------------------------------------------------------------------------------------


async def killed(world: World) -> None:
    sandbox = await world.sandbox()
    await sandbox.kill()
    await sandbox.commands.run("true")


async def killed_meanwhile(world: World) -> None:
    sandbox = await world.sandbox()
    handle = await sandbox.commands.run("sleep 60", background=True)
    await sandbox.kill()
    await handle.wait()


async def paused(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.pause()
        await sandbox.files.read("/etc/hostname")


async def unreachable(world: World) -> None:
    sandbox = await world.of_stub(NOWHERE)
    await sandbox.commands.list()


async def list_fails(world: World, status: int, **body: object) -> None:
    sandbox = await world.of_stub()
    world.answers(LIST, status, **body)
    await sandbox.commands.list()


async def agent_silent(world: World) -> None:
    await list_fails(world, 502, message="The sandbox is running but port is not open")


async def wrong_token(world: World) -> None:
    await list_fails(world, 401)


async def too_fast(world: World) -> None:
    await list_fails(world, 429)


async def late_sandbox(world: World) -> None:
    sandbox = await world.of_stub()
    world.stub.answers[LIST] = slowly
    await sandbox.commands.list(request_timeout=0.2)


# -- commands and terminals ------------------------------------------------------------------------------------------


async def exit_code(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.commands.run("exit 3")


async def command_timeout(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.commands.run("sleep 60", timeout=0.3)


async def no_directory(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.commands.run("true", cwd="/no/such")


async def no_user(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.commands.run("true", user="nobody-of-that-name")


async def no_process(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.commands.connect(99999)


async def no_stdin(world: World) -> None:
    async with await world.sandbox() as sandbox:
        handle = await sandbox.commands.run("sleep 60", background=True)
        await handle.send_stdin("x")


async def quiet_terminal(world: World) -> None:
    async with await world.sandbox() as sandbox:
        pty = await sandbox.pty.create()
        while True:
            await pty.read(timeout=0.5)


# -- files -----------------------------------------------------------------------------------------------------------


async def no_file(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.files.read("/no/such")


async def no_entry(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.files.get_info("/no/such")


async def directory(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.files.read("/tmp")


async def disk_full(world: World) -> None:
    sandbox = await world.of_stub()
    world.answers("POST /files", 507)
    await sandbox.files.write("/tmp/x", "y")


async def watch_over(world: World) -> None:
    async with await world.sandbox() as sandbox:
        watch = await sandbox.files.watch_dir("/tmp", timeout=0.3)
        async for _ in watch:
            pass


async def watch_stopped(world: World) -> None:
    async with await world.sandbox() as sandbox:
        watch = await sandbox.files.watch_dir("/tmp")
        await watch.stop()
        await watch.get_new_events()


# -- git -------------------------------------------------------------------------------------------------------------


async def git_credentials(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.files.write("/tmp/server.py", Path(tests.support.git_server.__file__).read_text())
        await sandbox.commands.run("mkdir /tmp/root")
        server = await sandbox.commands.run("python3 -u /tmp/server.py /tmp/root ada right", background=True)
        port = (await anext(aiter(server.stdout))).strip()
        await sandbox.git.clone(f"http://localhost:{port}/x.git", username="ada", password="hunter2")


async def git_upstream(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.git.init("repo")
        await sandbox.git.pull("repo")


async def git_missing(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.files.write(".profile", "PATH=/nowhere")
        await sandbox.git.status("repo")


async def git_failed(world: World) -> None:
    async with await world.sandbox() as sandbox:
        await sandbox.git.status("no-repository")


# -- volumes ---------------------------------------------------------------------------------------------------------


async def no_volume(world: World) -> None:
    await AsyncVolume.connect("v" + ID, **world.engine.options)


async def no_volume_path(world: World) -> None:
    await with_volume(world, lambda volume: volume.read_file("/no/such"))


async def volume_exists(world: World) -> None:
    await with_volume(world, lambda volume: AsyncVolume.create(volume.name, **world.engine.options))


async def with_volume(world: World, call: Callable[[AsyncVolume], Awaitable[object]]) -> None:
    volume = await AsyncVolume.create(f"v-{secrets.token_hex(4)}", **world.engine.options)
    try:
        await call(volume)
    finally:
        await AsyncVolume.destroy(volume.volume_id, **world.engine.options)


async def volume_full(world: World) -> None:
    volume = await volume_of_stub(world)
    world.answers(f"PUT /volumecontent/{ID}/file", 507)
    await volume.write_file("/a", "b")


async def volume_late(world: World) -> None:
    volume = await volume_of_stub(world)
    world.stub.answers[f"GET /volumecontent/{ID}/file"] = Answer(200, chunks=[b"a", b"b"], pause=0.6)
    await volume.read_file("/a", request_timeout=0.2)


async def volume_of_stub(world: World) -> AsyncVolume:
    world.stub.answers[f"GET /volumes/{ID}"] = as_json({"volumeID": ID, "name": "v", "token": "tok"})
    return await AsyncVolume.connect(ID, **world.stubbed)


# -- templates -------------------------------------------------------------------------------------------------------


async def dockerfile(world: World) -> None:
    AsyncTemplate().from_dockerfile("FROM base\nNONSENSE here\n")


async def build_failed(world: World) -> None:
    template = AsyncTemplate().from_template("base").run_cmd("exit 3")
    await AsyncTemplate.build(template, f"t-{secrets.token_hex(4)}", **world.engine.options)


Condition = Callable[[World], Awaitable[None]]
CONDITIONS: dict[str, Condition] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(no_key, wrong_argument, no_signature, old_agent, closed_client, no_engine),
        *(wrong_key, unknown_template, unknown_sandbox, refused, too_many, busy, asleep_for_good, not_offered),
        *(nonsense, nobody_listens, untrusted, cut_answer, late_answer),
        *(killed, killed_meanwhile, paused, unreachable, agent_silent, wrong_token, too_fast, late_sandbox),
        *(exit_code, command_timeout, no_directory, no_user, no_process, no_stdin, quiet_terminal),
        *(no_file, no_entry, directory, disk_full, watch_over, watch_stopped),
        *(git_credentials, git_upstream, git_missing, git_failed),
        *(no_volume, no_volume_path, volume_exists, volume_full, volume_late),
        *(dockerfile, build_failed),
    )
}


def test_the_page_and_the_tests_name_the_same_conditions() -> None:
    named = [row.condition for row in rows()]
    assert sorted(named) == sorted(CONDITIONS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.condition)
async def test_what_is_raised(world: World, row: Row) -> None:
    with pytest.raises(GrotteException) as caught:
        await CONDITIONS[row.condition](world)
    assert type(caught.value) is getattr(grotte, row.exception)
    assert attributes_of(caught.value) >= row.attributes
    for secret in (*SECRETS, world.engine.api_key):
        assert secret not in f"{caught.value} {caught.value.args}"
