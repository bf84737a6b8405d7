"""The binary form of messages says what their JSON says, and nothing else is taken for one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from grotte._proto import messages
from grotte._proto.messages import InvalidMessage
from grotte.engine.data import protobuf
from grotte.engine.data.encodings import BINARY
from grotte.engine.data.protobuf import ENUMS, TIMESTAMP, types
from grotte.engine.faults import RpcFault
from tests.engine.speech import KINDS

QUESTIONS = sorted({question for question, _ in KINDS.values()})
ANSWERS = sorted({answer for _, answer in KINDS.values()})
SCALARS = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_STRING: st.text(max_size=20),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
}
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
TIMES = st.fixed_dictionaries(
    {"seconds": st.integers(FIRST_SECOND, LAST_SECOND), "nanos": st.integers(0, 999_999_999) | st.just(120_000_000)}
)


def struct_of(name: str) -> type[messages.Message]:
    kind: type[messages.Message] = getattr(messages, name)
    return kind


def some(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Any message of a kind, as the library's constructor takes it."""
    if descriptor.full_name == TIMESTAMP:
        return TIMES
    fields = {field.name: some_of(field) for field in descriptor.fields}
    choices = {field.name for group in descriptor.oneofs if group.name == "choice" for field in group.fields}
    if not choices:
        return st.fixed_dictionaries({}, optional=fields)
    return st.just({}) | st.one_of(*(st.fixed_dictionaries({name: fields[name]}) for name in sorted(choices)))


def some_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)
    if field.enum_type is not None:
        value: st.SearchStrategy[Any] = st.sampled_from(sorted(field.enum_type.values_by_name))
    else:
        value = SCALARS[field.type] if kind is None else some(kind)
    return st.lists(value, max_size=3) if field.is_repeated else value


@pytest.mark.parametrize("name", QUESTIONS)
@given(data=st.data())
def test_a_question_is_read_as_its_json_is(name: str, data: st.DataObject) -> None:
    message = types()[name](**data.draw(some(types()[name].DESCRIPTOR)))
    expected = messages.decode(struct_of(name), json_format.MessageToJson(message).encode())
    assert protobuf.decode(struct_of(name), message.SerializeToString()) == expected


@pytest.mark.parametrize("name", ANSWERS)
@given(data=st.data())
def test_an_answer_is_written_as_its_json_is(name: str, data: st.DataObject) -> None:
    message = types()[name](**data.draw(some(types()[name].DESCRIPTOR)))
    answer = messages.decode(struct_of(name), json_format.MessageToJson(message).encode())
    written = types()[name].FromString(protobuf.encode(answer))
    assert messages.decode(struct_of(name), json_format.MessageToJson(written).encode()) == answer


@pytest.mark.parametrize("name", types())
def test_every_message_has_the_fields_of_its_json(name: str) -> None:
    written = {field.encode_name for field in msgspec.structs.fields(struct_of(name))}
    assert {field.json_name for field in types()[name].DESCRIPTOR.fields} == written


def test_every_enum_has_its_numbers() -> None:
    assert ENUMS["Signal"]["SIGNAL_SIGKILL"] == 9
    assert (ENUMS["FileType"]["FILE_TYPE_DIRECTORY"], ENUMS["EventType"]["EVENT_TYPE_CHMOD"]) == (2, 5)


@pytest.mark.parametrize("name", QUESTIONS)
@given(noise=st.binary(max_size=60))
def test_noise_is_refused_or_read(name: str, noise: bytes) -> None:
    with suppress(RpcFault):  # the fault that was meant, and no other
        assert isinstance(BINARY.parse(struct_of(name), memoryview(noise)), struct_of(name))


@pytest.mark.parametrize(
    "noise", [b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x03\x0a\x01\xff", b"\x0b" * 5000, b"\0", b"\xff" * 20]
)
def test_noise_of_a_kind(noise: bytes) -> None:
    with pytest.raises(InvalidMessage):
        protobuf.decode(messages.StartRequest, noise)


@pytest.mark.parametrize("time", ["10000-01-01T00:00:00Z", "-1-01-01T00:00:00Z", "2026-13-01T00:00:00Z", ""])
def test_a_time_that_cannot_be_said_is_none(time: str) -> None:
    answer = messages.EntryResponse(entry=messages.EntryInfo(name="a", modified_time=time))
    assert types()["EntryResponse"].FromString(protobuf.encode(answer)).entry.modifiedTime.seconds == 0


def test_the_library_waits_for_who_needs_it() -> None:
    code = "import sys, grotte.engine.serve; sys.exit(any(name.startswith('google') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
