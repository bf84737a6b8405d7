"""The Python clients of others and ours do the same on the engine, with the same results."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path

from tests.clients.front import Front
from tests.clients.running import addresses, prefixed, results
from tests.support.engine import Engine

OPERATIONS = Path(__file__).with_name("operations.py")
#: What came after the client 0.2.0.
CHANGED = {
    "stdin": "it cannot close stdin",
    "pause_and_resume": "its `pause` says nothing",
    "fork": "it has none",
    "volumes": "it has one exception for all that is not found",
    "network": "it has no `update_network`",
    "kill": "it takes a sandbox that is gone for a timeout",
}


def operate(python: str, module: str, named: dict[str, str], plain: dict[str, str]) -> dict[str, object]:
    """What a client makes of the operations.

    Args:
        python: The interpreter that has it.
        module: Its name, which is also the prefix of its variables.
        named: Variables of its own, without the prefix.
        plain: Variables of everybody.
    """
    command = [python, str(OPERATIONS), module, f"{module}-{secrets.token_hex(4)}"]
    return results(command, prefixed(module, named) | plain)


def compare(python: str, named: dict[str, str], plain: dict[str, str]) -> None:
    ours = operate(sys.executable, "grotte", named, plain)
    theirs = operate(python, "e2b", named, plain)
    assert ours == theirs
    assert len(ours) >= 30
    assert not [value for value in ours.values() if isinstance(value, str) and "Exception:" in value]


def test_by_headers_over_plain_http(engine: Engine, e2b_python: str) -> None:
    compare(e2b_python, addresses(engine), {})


def test_the_client_that_had_this_name_before(engine: Engine, former_python: str) -> None:
    ours = operate(sys.executable, "grotte", addresses(engine), {})
    theirs = operate(former_python, "grotte", addresses(engine), {})
    for name, reason in CHANGED.items():
        assert ours.pop(name) != theirs.pop(name), reason
    assert ours == theirs


def test_by_host_over_tls(engine: Engine, e2b_python: str, front: Front) -> None:
    plain = {"SSL_CERT_FILE": str(front.authority), "HTTPS_PROXY": front.proxy, "https_proxy": front.proxy}
    compare(e2b_python, {"API_KEY": engine.api_key, "DOMAIN": front.domain}, plain)
    hosts = {line.removeprefix("CONNECT ") for line in front.asked}
    assert f"api.{front.domain}" in hosts
    assert any(re.fullmatch(rf"49983-i[a-z0-9]+\.{re.escape(front.domain)}", host) for host in hosts)
