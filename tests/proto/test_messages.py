"""Messages as other writers of proto3 JSON write them: what is plainly right is read in one step, the rest as well."""

from __future__ import annotations

import json

import msgspec
import pytest

from grotte._proto import messages
from grotte._proto.messages import InvalidMessage, Message, decode

KINDS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)]
VALUES: list[object] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, 2**70, 1e300),
    *("", "1", "1.0", "true", "null", "AA==", "-_8=", "FILE_TYPE_FILE", "\0"),
    *([], [1], ["x"], [{}], {}, {"a": "b"}, {"a": 1}, {"pid": "7"}, {"cmd": None}, {"start": {"pid": 1}}),
]

#: What stands in a field that nobody asked for.
UNKNOWN = [
    *(
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\ud800\\u0041"',
        b'"\\x"',
        b'"\\u12"',
        b'"\n"',
        b'"\0"',
        b'{"\xff": 1}',
    ),
    *(
        b"01",
        b"1.",
        b"-",
        b"1e",
        b"+1",
        b"NaN",
        b"nul",
        b"tru",
        b"'a'",
        b"[1,]",
        b'{"a"}',
        b"{1: 2}",
        b"9" * 400,
    ),
    *(b"[" * 900 + b"]" * 900, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000),
]


def bodies(name: str, value: object) -> list[bytes]:
    """A field with a value: alone, twice, and taken back."""
    text = json.dumps(value)
    wholes = f'{{"{name}": {text}}}', f'{{"{name}": 1, "{name}": {text}}}', f'{{"{name}": {text}, "{name}": null}}'
    return [whole.encode() for whole in (*wholes, text, f'{{"{name}": {text}')]


def outcome(kind: type[Message], body: bytes) -> Message | str:
    try:
        return decode(kind, body)
    except InvalidMessage as error:
        return str(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_both_ways_of_reading_find_the_same(kind: type[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    cases = [
        body for name in (*names, *messages._PROTO_NAMES, "other") for value in VALUES for body in bodies(name, value)
    ]
    cases += [b"", b"{", b"\xff", b"[" * 5000, *(b'{"a": %s}' % text for text in UNKNOWN)]
    found = [outcome(kind, body) for body in cases]
    monkeypatch.setattr(messages, "_decoder", lambda kind: None)
    assert found == [outcome(kind, body) for body in cases]


def test_names_of_the_proto_file_are_understood() -> None:
    for name in ("watcher_id", "watcherId"):
        assert decode(messages.WatcherRequest, json.dumps({name: "w1"}).encode()).watcher_id == "w1"
