"""Clients that a compiler has made of the protocol's description do their work on the engine, in protobuf."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from grotte.engine.data.protobuf import types
from tests.clients.running import results
from tests.engine.speech import KINDS, STREAMS
from tests.engine.wire import Box, Wire
from tests.support.engine import Engine

PYTHON, JAVASCRIPT = (Path(__file__).with_name(f"generated.{kind}") for kind in ("py", "mjs"))
END = {"event": {"end": {"exitCode": 7, "exited": True, "status": "exit status 7", "error": "exit status 7"}}}
EXPECTED = {
    "commands": [
        *(True, True, [{"stdout": "w6Q="}, {"stderr": "/w=="}, {"stderr": "AA=="}]),
        *(END, END),
    ],
    "terminal": [{"event": {"end": {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}}}],
    "files": [
        *("drwxr-xr-x", "user"),
        [
            *({"start": {}}, {"filesystem": {"name": "a", "type": "EVENT_TYPE_CREATE"}}),
            ["a", "EVENT_TYPE_CREATE", "/tmp/generated/a"],
        ],
        [True, True],
    ],
    "refusals": ["not_found", "not_found", "not_found", "deadline_exceeded"],
}
EXPECTED_OF_JAVASCRIPT = {
    "events": [{"event": {"data": {"stdout": "w6T/"}}}, END],
    "usr": [["/usr", 2, True]],
    "refusals": ["NotFound: /nö: no such file or directory", "NotFound: process with tag nobody not found"],
    "nothing": {},
}


@pytest.fixture(scope="module")
def box(engine: Engine) -> Iterator[Box]:
    with Wire(engine.url, engine.api_key) as wire, wire.box() as made:
        yield made


@pytest.fixture(scope="module")
def made_by_python(engine: Engine, box: Box, e2b_python: str) -> dict[str, Any]:
    return results([e2b_python, str(PYTHON), engine.url, json.dumps(box.headers)], {})


@pytest.mark.parametrize("protocol", ["CONNECT", "GRPC_WEB"])
def test_every_method_by_a_client_in_python(made_by_python: dict[str, Any], protocol: str) -> None:
    assert made_by_python[protocol] == EXPECTED


@pytest.fixture(scope="module")
def pool(made_by_python: dict[str, Any]) -> DescriptorPool:
    """What a compiler was told of the protocol."""
    found = DescriptorPool()
    for file in (timestamp_pb2.DESCRIPTOR.serialized_pb, *map(base64.b64decode, made_by_python["descriptors"])):
        found.AddSerializedFile(file)
    return found


def shape(message: Descriptor) -> dict[int, object]:
    """All that two sides must agree on, whatever they call it."""
    return {field.number: (field.json_name, *kind_of(field), rivals(field)) for field in message.fields}


def kind_of(field: FieldDescriptor) -> tuple[object, ...]:
    inside: object = None
    if field.message_type is not None:
        inside = shape(field.message_type)
    elif field.enum_type is not None:
        inside = {value.name: value.number for value in field.enum_type.values}
    return field.type, field.is_repeated, field.has_presence, inside


def rivals(field: FieldDescriptor) -> list[str]:
    group = field.containing_oneof
    return [] if group is None else sorted(other.json_name for other in group.fields)


@pytest.mark.parametrize("name", KINDS)
def test_messages_are_those_of_the_description(pool: DescriptorPool, name: str) -> None:
    service, method = name.split("/")
    described = pool.FindServiceByName(service).methods_by_name[method]
    question, answer = (types()[kind].DESCRIPTOR for kind in KINDS[name])
    assert shape(question) == shape(described.input_type)
    assert shape(answer) == shape(described.output_type)
    assert (described.client_streaming or described.server_streaming) == (name in STREAMS)


def test_every_method_of_the_description_is_there(pool: DescriptorPool) -> None:
    services = [pool.FindServiceByName(name) for name in ("process.Process", "filesystem.Filesystem")]
    assert {f"{service.full_name}/{name}" for service in services for name in service.methods_by_name} == set(KINDS)


def test_a_client_for_browsers(
    engine: Engine, box: Box, made_by_python: dict[str, Any], e2b_node: Path, tmp_path: Path
) -> None:
    described = tmp_path / "described.json"
    described.write_text(json.dumps(made_by_python["descriptors"]))
    command = ["node", str(JAVASCRIPT), str(e2b_node), engine.url, json.dumps(box.headers), str(described)]
    assert results(command, {}) == {"connect": EXPECTED_OF_JAVASCRIPT, "web": EXPECTED_OF_JAVASCRIPT}
