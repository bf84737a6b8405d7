"""`upload_url` and `download_url`: fetched by a program that knows nothing but the URL."""

from __future__ import annotations

import base64
import hashlib
import time
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from grotte import AsyncSandbox, InvalidArgumentException, get_signature
from grotte._core import _aio
from tests.support.engine import Engine
from tests.support.stub_service import StubService, as_json

ID = "iabcdefghij0123456789"


def by_hand(path: str, operation: str, user: str, token: str, expiration: str = "") -> str:
    raw = f"{path}:{operation}:{user}:{token}" + (f":{expiration}" if expiration else "")
    return "v1_" + base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode().rstrip("=")


async def get(url: str, **headers: str) -> httpx.Response:
    return await _aio.run_in_thread(lambda: httpx.get(url, headers=headers, timeout=30, trust_env=False))


async def post(url: str, name: str, content: bytes) -> httpx.Response:
    files = {"file": (name, content)}
    return await _aio.run_in_thread(lambda: httpx.post(url, files=files, timeout=30, trust_env=False))


async def test_download(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/home/user/ä b+&=/%.txt", b"\0content")
    for url in (
        sandbox.download_url("/home/user/ä b+&=/%.txt"),
        sandbox.download_url("ä b+&=/%.txt", user="user"),
        sandbox.download_url("/home/user/ä b+&=/%.txt", use_signature_expiration=60),
        sandbox.download_url("/home/user/ä b+&=/%.txt", use_signature_expiration=0),
    ):
        answer = await get(url)
        assert (answer.status_code, answer.content) == (200, b"\0content")


async def test_upload(sandbox: AsyncSandbox) -> None:
    assert (await post(sandbox.upload_url("/tmp/one.txt", user="root"), "other", b"1")).status_code == 200
    assert (await sandbox.files.get_info("/tmp/one.txt")).owner == "root"
    assert (await post(sandbox.upload_url(), "/tmp/two.txt", b"2")).status_code == 200
    assert (await post(sandbox.upload_url(use_signature_expiration=60), "three.txt", b"3")).status_code == 200
    assert [await sandbox.files.read(path) for path in ("/tmp/one.txt", "/tmp/two.txt", "three.txt")] == ["1", "2", "3"]


async def test_a_url_is_good_for_one_thing(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/a", "a")
    await sandbox.files.write("/tmp/b", "b")
    url = sandbox.download_url("/tmp/a", use_signature_expiration=60)
    assert (await get(url.replace("%2Ftmp%2Fa", "%2Ftmp%2Fb"))).status_code >= 400
    assert (await post(url, "x", b"x")).status_code >= 400
    later = url.replace("signature_expiration=", "signature_expiration=9")
    assert (await get(later)).status_code >= 400


async def test_an_expired_url(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/tmp/a", "a")
    token = sandbox._envd.access_token
    assert token is not None
    past = str(int(time.time()) - 5)
    plain = sandbox.download_url("/tmp/a").partition("&signature=")[0]
    signature = by_hand("/tmp/a", "read", "", token, past)
    answer = await get(str(httpx.URL(plain).copy_add_param("signature", signature)) + f"&signature_expiration={past}")
    assert answer.status_code == 401


async def test_a_sandbox_without_a_token(engine: Engine) -> None:
    async with await AsyncSandbox.create("base", secure=False, **engine.options) as sandbox:
        await sandbox.files.write("/tmp/open", "to all")
        url = sandbox.download_url("/tmp/open")
        parts = urlsplit(url)
        assert parts.query == "path=%2Ftmp%2Fopen"
        # resolvers that do not know RFC 6761 get its address, and the name as the host
        answer = await get(f"http://127.0.0.1:{parts.port}/files?{parts.query}", Host=parts.netloc)
        assert answer.text == "to all"
        with pytest.raises(InvalidArgumentException, match="secure=False"):
            sandbox.download_url("/tmp/open", use_signature_expiration=60)


async def connected(stub: StubService, *, shared: bool = True, **changes: object) -> AsyncSandbox:
    answer = {"templateID": "base", "sandboxID": ID, "clientID": "c", "envdVersion": "0.5.7", "envdAccessToken": "tok"}
    stub.answers[f"POST /sandboxes/{ID}/connect"] = as_json({**answer, **changes})
    sandbox_url = "https://shared.example/base/" if shared else None
    return await AsyncSandbox.connect(ID, api_url=stub.url, sandbox_url=sandbox_url, api_key="grt_key")


async def test_the_form_of_a_url(stub: StubService) -> None:
    sandbox = await connected(stub)
    url = sandbox.download_url("/a b", user="root", use_signature_expiration=60)
    assert url.startswith("https://shared.example/base/files?path=%2Fa%20b&username=root&signature=v1_")
    query = parse_qsl(urlsplit(url).query)
    assert [key for key, _ in query] == ["path", "username", "signature", "signature_expiration"]
    found = dict(query)
    assert abs(int(found["signature_expiration"]) - time.time() - 60) < 30
    assert found["signature"] == by_hand("/a b", "read", "root", "tok", found["signature_expiration"])
    assert parse_qsl(urlsplit(sandbox.upload_url("")).query) == [("signature", by_hand("", "write", "", "tok"))]
    assert "signature_expiration" not in sandbox.upload_url("/x", use_signature_expiration=0)


async def test_where_a_url_leads(stub: StubService) -> None:
    sandbox = await connected(stub, shared=False)
    assert sandbox.download_url("/x").startswith(f"{stub.url}/files?path=%2Fx&signature=")
    sandbox = await connected(stub, shared=False, domain="e2b.app")
    assert sandbox.download_url("/x").startswith(f"https://49983-{ID}.e2b.app/files?path=")
    sandbox = await connected(stub, shared=False, domain="e2b.app", envdAccessToken=None)
    assert sandbox.upload_url() == f"https://49983-{ID}.e2b.app/files"
    sandbox = await connected(stub, envdVersion="0.3.9")
    assert parse_qsl(urlsplit(sandbox.upload_url()).query)[0] == ("username", "user")


@pytest.mark.parametrize(
    ("path", "user", "seconds"), [("", None, None), ("a\0b", None, None), ("/x", "", None), ("/x", "a:b", None)]
)
async def test_what_is_no_path_or_user(stub: StubService, path: str, user: str | None, seconds: float | None) -> None:
    sandbox = await connected(stub)
    with pytest.raises(InvalidArgumentException):
        sandbox.download_url(path, user, seconds)


async def test_what_is_no_expiration(stub: StubService) -> None:
    sandbox = await connected(stub)
    for seconds in (-1, float("nan"), "60"):
        with pytest.raises(InvalidArgumentException):
            sandbox.upload_url(None, None, seconds)  # type: ignore[arg-type]  # a str is one of them


def test_a_signature() -> None:
    assert get_signature("/a", "write", None, "tok") == {
        "signature": by_hand("/a", "write", "", "tok"),
        "expiration": None,
    }
    signed = get_signature("/a", "read", "root", "tok", 1.5)
    assert signed["signature"] == by_hand("/a", "read", "root", "tok", str(signed["expiration"]))
    with pytest.raises(InvalidArgumentException):
        get_signature("/a", "read", None, None)
    with pytest.raises(InvalidArgumentException):
        get_signature("/a", "delete", None, "tok")  # type: ignore[arg-type]  # that is the point
