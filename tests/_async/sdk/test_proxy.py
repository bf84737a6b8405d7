"""`proxy=`: every request of a sandbox goes through it, and nobody else's does."""

from __future__ import annotations

import pytest

from grotte import ApiUnreachableException, AsyncSandbox
from tests.servers.proxy_server import ProxyServer
from tests.support.engine import Engine


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_everything_goes_through_the_proxy(engine: Engine, scheme: str) -> None:
    with ProxyServer(credentials="me:secret") as proxy:
        url = f"{scheme}://me:secret@127.0.0.1:{proxy.port}"
        async with await AsyncSandbox.create(proxy=url, **engine.options) as sandbox:
            result = await sandbox.commands.run("echo hello")
            assert result.stdout == "hello\n"
            before = len(proxy.seen)
            assert before >= 1
            other = await AsyncSandbox.connect(sandbox.sandbox_id, **engine.options)
            assert (await other.commands.run("echo direct")).stdout == "direct\n"
            assert len(proxy.seen) == before
            assert "secret" not in repr(sandbox)


async def test_a_proxy_that_wants_other_credentials_says_so(engine: Engine) -> None:
    with ProxyServer(credentials="me:secret") as proxy:
        where = f"http://127.0.0.1:{proxy.port}"
        for user in ("", "me:other@"):
            with pytest.raises(ApiUnreachableException, match=f"the proxy {where} .*credentials") as caught:
                await AsyncSandbox.create(proxy=where.replace("//", f"//{user}"), **engine.options)
            assert caught.value.request == "POST /sandboxes"
            assert "other@" not in str(caught.value)
