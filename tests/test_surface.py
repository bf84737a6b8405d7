"""The public surface: what every method accepts, and the names that users of other clients of this protocol rely on."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest

import grotte
from grotte import exceptions
from tests.support.error_table import PAGE
from tests.support.surface import arguments_of, functions_of, methods_of

METHODS = [method for world in ("grotte._core", "grotte._sync") for method in methods_of(world)]
#: What the PyPI client 0.2.0 and E2B's SDK 2.63 export: names, fields of results, methods with their arguments.
SURFACES = json.loads((Path(__file__).parent / "surfaces.json").read_text())

MCP = "there is no MCP gateway"
GENERATED = "a generated client of the REST interface, not meant for programs"
LOGGER = "everything is logged to `logging.getLogger('grotte')`"
IDLE = "`request_timeout` limits every pause of a transfer"
EGRESS = "the engine's network rules are addresses and ranges"
#: What is missing on purpose, and why.
LEFT_OUT = {
    "name ApiClient": GENERATED,
    "name client": GENERATED,
    "name E2B": "called `Grotte` and `AsyncGrotte` here",
    "name E2BClientParams": "called `ApiParams` here",
    "name HttpVersion": "chosen by what the server speaks",
    "name ProxyTypes": "a proxy is a URL",
    "name AsyncCommandInputHandle": "stdin is written by `send_stdin`",
    "argument Commands.run retain_output": "called `max_output` here, which says how much",
    "argument Commands.connect retain_output": "as for `run`",
    "method Commands.stream_input": "stdin is written by `send_stdin`",
    "method Pty.stream_input": "stdin is written by `send_stdin`",
    "argument Volume.read_file stream_idle_timeout": IDLE,
    "argument Filesystem.read stream_idle_timeout": IDLE,
    "field SandboxInfo _envd_access_token": "private",
    **{f"name {name}": MCP for name in ("McpServer", "GitHubMcpServer", "GitHubMcpServerConfig")},
    **{f"method Sandbox.{name}": MCP for name in ("default_mcp_template", "get_mcp_token", "get_mcp_url", "mcp_port")},
    **{f"argument Sandbox.{name} mcp": MCP for name in ("create", "beta_create")},
    **{f"argument Sandbox.{name} logger": LOGGER for name in ("create", "connect", "fork")},
    "argument Sandbox.create iam": "identities belong to a cloud",
    **{f"name SandboxIam{name}": "identities belong to a cloud" for name in ("Opts", "Token", "TokenType")},
    **{f"name {name}": "secrets belong to a cloud" for name in ("Secret", "SecretInfo", "SecretPaginator")},
    **{f"name {name}": "secrets belong to a cloud" for name in ("AsyncSecret", "AsyncSecretPaginator")},
    **{f"name SandboxEgressProxy{name}": EGRESS for name in ("Info", "Opts", "TLSInfo", "TLSOpts")},
    **{f"name SandboxNetwork{name}": EGRESS for name in ("Info", "Rule", "RuleInfo", "Rules")},
    **{f"name SandboxNetworkSelector{name}": EGRESS for name in ("", "Context")},
    **{f"name SandboxNetworkTransform{name}": EGRESS for name in ("", "Context", "Resolver")},
}


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=[f"{kind}.{name}" for kind, name in METHODS])
def test_every_method_accepts_the_common_arguments(kind: str, name: str) -> None:
    for function in functions_of(getattr(grotte, kind), name):
        assert {"request_timeout", "api_key"} <= arguments_of(function).keys()


def test_everything_public_has_a_representation() -> None:
    kinds = [kind for name in grotte.__all__ if inspect.isclass(kind := getattr(grotte, name))]
    assert len(kinds) > 100
    assert [kind.__name__ for kind in kinds if kind.__repr__ is object.__repr__] == []


def accepted_by(kind: type, name: str) -> set[str]:
    """The arguments of a method, those by their former names included."""
    found: set[str] = set()
    for function in functions_of(kind, name):
        found |= arguments_of(function).keys()
        found |= getattr(function, "former_names", {}).keys()
    return found


def missing_from(surface: dict[str, dict[str, dict[str, list[str] | None]]]) -> set[str]:
    """What a client has and this one has not."""
    found = {f"name {name}" for name in surface["names"] if name not in grotte.__all__}
    for kind, fields in surface["fields"].items():
        ours = {field.name for field in dataclasses.fields(getattr(grotte, kind))}
        found |= {f"field {kind} {field}" for field in fields if field not in ours}
    for kind, methods in surface["methods"].items():
        ours_of_kind = getattr(grotte, kind)
        for name, arguments in methods.items():
            if not hasattr(ours_of_kind, name):
                found.add(f"method {kind}.{name}")
            elif arguments:
                missing = set(arguments) - accepted_by(ours_of_kind, name)
                found |= {f"argument {kind}.{name} {argument}" for argument in missing}
    return found


@pytest.mark.parametrize("client", SURFACES)
def test_what_users_of_other_clients_rely_on(client: str) -> None:
    assert missing_from(SURFACES[client]) - LEFT_OUT.keys() == set()


def test_what_is_said_to_be_left_out_is_left_out() -> None:
    missing = set.union(*(missing_from(surface) for surface in SURFACES.values()))
    assert LEFT_OUT.keys() - missing == set()


def test_exceptions_are_where_they_were_in_the_former_client() -> None:
    assert len(exceptions.__all__) == 15
    assert all(getattr(exceptions, name) is getattr(grotte, name) for name in exceptions.__all__)


def test_every_exception_has_one_root_and_stands_on_the_page() -> None:
    names = [name for name in grotte.__all__ if name.endswith(("Exception", "Error"))]
    assert len(names) > 25
    assert all(issubclass(getattr(grotte, name), grotte.GrotteException) for name in names)
    page = PAGE.read_text()
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []
