"""Volumes on the wire, seen by a service of the standard library, and what the SDK makes of its answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from grotte import (
    ApiParams,
    ApiUnreachableException,
    AsyncVolume,
    AuthenticationException,
    GrotteException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    RateLimitException,
    ServiceBusyException,
    TimeoutException,
    VolumeException,
    VolumeFileType,
    VolumeNotFoundException,
    VolumePathNotFoundException,
)
from tests.support.stub_service import Answer, StubService, as_json

ID = "vol-1"
MADE = {"volumeID": ID, "name": "data", "token": "vol_secret"}
CONTENT = f"/volumecontent/{ID}"
STAT = {
    "name": "a",
    "type": "file",
    "path": "/a",
    "size": 3,
    "mode": 0o644,
    "uid": 1000,
    "gid": 1000,
    **dict.fromkeys(("atime", "mtime", "ctime"), "2026-01-02T03:04:05Z"),
    "somethingNew": True,
}


def options(stub: StubService) -> ApiParams:
    return {"api_url": stub.url, "api_key": "grt_key", "headers": {"X-Mine": "yes"}}


async def connected(stub: StubService, **changes: object) -> AsyncVolume:
    stub.answers[f"GET /volumes/{ID}"] = as_json({**MADE, **changes})
    return await AsyncVolume.connect(ID, **options(stub))


async def test_the_control_plane(stub: StubService) -> None:
    stub.answers["POST /volumes"] = as_json(MADE, 201)
    stub.answers["GET /volumes"] = as_json([MADE, {"volumeID": "2", "name": "b", "token": None}])
    stub.answers[f"GET /volumes/{ID}"] = as_json({**MADE, "domain": None})
    stub.answers[f"DELETE /volumes/{ID}"] = [Answer(204), as_json({"code": 404, "message": "none"}, 404)]
    volume = await AsyncVolume.create("data", **options(stub))
    assert stub.seen[-1].json == {"name": "data"}
    assert stub.seen[-1].headers["x-api-key"] == "grt_key"
    assert (volume.volume_id, volume.name, volume.token) == (ID, "data", "vol_secret")
    assert "secret" not in repr(volume)
    assert [info.name for info in await AsyncVolume.list(**options(stub))] == ["data", "b"]
    info = await AsyncVolume.get_info(ID, **options(stub))
    assert (info.token, info.domain) == ("vol_secret", None)
    assert "secret" not in repr(info)
    assert await AsyncVolume.destroy(ID, **options(stub)) is True
    assert await AsyncVolume.destroy(ID, **options(stub)) is False


async def test_the_requests_for_files(stub: StubService) -> None:
    volume = await connected(stub)
    for route in ("GET", "PATCH"):
        stub.answers[f"{route} {CONTENT}/path"] = as_json(STAT)
    stub.answers[f"DELETE {CONTENT}/path"] = Answer(204)
    stub.answers[f"GET {CONTENT}/dir"] = as_json([STAT, {**STAT, "type": "symlink", "target": "/a"}])
    stub.answers[f"POST {CONTENT}/dir"] = stub.answers[f"PUT {CONTENT}/file"] = as_json(STAT, 201)
    stub.answers[f"GET {CONTENT}/file"] = Answer(200, b"a\xffb")

    stat = await volume.get_info("/ä b&c")
    assert (stat.type, stat.size, stat.mtime) == (VolumeFileType.FILE, 3, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert stub.seen[-1].query == [("path", "/ä b&c")]
    assert stub.seen[-1].headers["authorization"] == "Bearer vol_secret"
    assert stub.seen[-1].headers["x-mine"] == "yes"
    assert "x-api-key" not in stub.seen[-1].headers
    await volume.update_metadata("/a", uid=0, mode=0o600)
    assert stub.seen[-1].json == {"uid": 0, "mode": 0o600}
    await volume.remove("/a")
    entries = await volume.list("/", depth=2)
    assert stub.seen[-1].query == [("path", "/"), ("depth", "2")]
    assert [(entry.type, entry.target) for entry in entries] == [("file", None), ("symlink", "/a")]
    await volume.make_dir("/d", 1, 2, 0o700, force=True)
    assert stub.seen[-1].query == [("path", "/d"), ("uid", "1"), ("gid", "2"), ("mode", "448"), ("force", "true")]
    assert stub.seen[-1].body == b""
    await volume.write_file("/a", "ü", force=False)
    assert stub.seen[-1].query == [("path", "/a"), ("force", "false")]
    assert stub.seen[-1].headers["content-type"] == "application/octet-stream"
    assert stub.seen[-1].body == "ü".encode()
    await volume.write_file("/a", (piece for piece in (b"one", b"two")))
    assert stub.seen[-1].body == b"onetwo"
    assert await volume.read_file("/a", "bytes") == b"a\xffb"
    assert await volume.read_file("/a") == "a\ufffdb"
    async with await volume.read_file("/a", "stream") as pieces:
        assert await pieces.aread() == b"a\xffb"


async def test_where_the_files_are(stub: StubService, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answers[f"GET {CONTENT}/path"] = as_json(STAT)
    volume = await connected(stub, token=None)
    assert not await connected_and_asked(volume, stub)
    monkeypatch.setenv("GROTTE_ACCESS_TOKEN", "of-the-account")
    assert await connected_and_asked(volume, stub) == "Bearer of-the-account"
    await volume.get_info("/a", token="of-the-call")
    assert stub.seen[-1].headers["authorization"] == "Bearer of-the-call"
    far = await connected(stub, domain="volumes.invalid")
    with pytest.raises(ApiUnreachableException):
        await far.get_info("/a", request_timeout=5)
    await far.get_info("/a", api_url=stub.url)
    monkeypatch.setenv("GROTTE_API_URL", stub.url)
    monkeypatch.setenv("GROTTE_VOLUME_API_URL", f"{stub.url}/elsewhere")
    stub.answers[f"GET /elsewhere{CONTENT}/path"] = as_json(STAT)
    environment = await AsyncVolume.connect(ID, api_key="grt_key")
    await environment.get_info("/a")
    assert stub.seen[-1].path.startswith("/elsewhere/")


async def connected_and_asked(volume: AsyncVolume, stub: StubService) -> str | None:
    await volume.get_info("/a")
    return stub.seen[-1].headers.get("authorization")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, VolumeException),
        (401, AuthenticationException),
        (404, VolumePathNotFoundException),
        (409, VolumeException),
        (429, RateLimitException),
        (500, VolumeException),
        (503, ServiceBusyException),
        (507, NotEnoughSpaceException),
    ],
)
async def test_how_files_can_fail(stub: StubService, status: int, kind: type[GrotteException]) -> None:
    volume = await connected(stub)
    failure = as_json({"code": str(status), "message": "so it is"}, status, Should_Retry="false")
    for route in ("GET", "DELETE", "PATCH"):
        stub.answers[f"{route} {CONTENT}/path"] = failure
    stub.answers[f"GET {CONTENT}/file"] = stub.answers[f"PUT {CONTENT}/file"] = failure
    calls = [
        lambda: volume.get_info("/a"),
        lambda: volume.remove("/a"),
        lambda: volume.update_metadata("/a", mode=0),
        lambda: volume.read_file("/a"),
        lambda: volume.write_file("/a", b"x"),
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            await call()
        assert type(caught.value) is kind
        assert (caught.value.status_code, caught.value.server_message) == (status, "so it is")
        assert caught.value.request is not None
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(400, VolumeException), (404, VolumeNotFoundException)])
async def test_how_volumes_can_fail(stub: StubService, status: int, kind: type[GrotteException]) -> None:
    stub.answers["POST /volumes"] = stub.answers[f"GET /volumes/{ID}"] = as_json(
        {"code": status, "message": "m"}, status
    )
    for call in (lambda: AsyncVolume.create("x", **options(stub)), lambda: AsyncVolume.connect(ID, **options(stub))):
        with pytest.raises(kind) as caught:
            await call()
        assert type(caught.value) is kind


async def test_answers_that_break(stub: StubService) -> None:
    volume = await connected(stub)
    stub.answers[f"GET {CONTENT}/path"] = Answer(200, b"[1")
    stub.answers[f"GET {CONTENT}/file"] = Answer(200, b"x", hang_up=True)
    with pytest.raises(VolumeException, match="not understood"):
        await volume.get_info("/a")
    with pytest.raises(ApiUnreachableException):
        await volume.read_file("/a")
    stub.answers[f"GET {CONTENT}/file"] = Answer(200, chunks=[b"x", b"y"], pause=0.6)
    with pytest.raises(TimeoutException, match="request_timeout"):
        await volume.read_file("/a", request_timeout=0.2)
    stub.answers[f"GET {CONTENT}/path"] = as_json({"code": "404", "message": "no"}, 404)
    assert await volume.exists("/b") is False


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": ""},
        {"path": 3},
        {"path": "a\0b"},
        {"uid": -1},
        {"gid": 2**32},
        {"mode": 0o10000},
        {"mode": "644"},
        {"force": 1},
        {"token": "two words"},
        {"request_timeout": -1},
        {"api_key": ""},
    ],
    ids=str,
)
async def test_wrong_arguments_are_refused_before_a_byte_is_sent(
    stub: StubService, arguments: dict[str, object]
) -> None:
    volume = await connected(stub)
    before = len(stub.seen)
    given = {"path": "/a", **arguments}
    with pytest.raises(InvalidArgumentException):
        await volume.make_dir(**given)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgumentException):
        await volume.write_file(data=b"x", **given)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgumentException):
        await AsyncVolume.create("no spaces", **options(stub))
    with pytest.raises(InvalidArgumentException):
        await volume.list("/", depth=0)
    with pytest.raises(InvalidArgumentException):
        await volume.write_file("/a", 3)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError):
        await volume.list("/", no_such="x")  # type: ignore[call-arg]  # that is the point
    assert len(stub.seen) == before
