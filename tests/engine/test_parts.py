"""The parts of the engine that need no engine: what they promise, tried on many inputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte.engine.control.listing import read_listing, read_metadata
from grotte.engine.data.multipart import PartBegin, PartData, disposition_parameters, read_parts
from grotte.engine.faults import Fault
from grotte.engine.lifecycle.ids import new_sandbox_id, parse_template, plain_sandbox_id
from grotte.engine.lifecycle.sandbox import rfc3339
from grotte.engine.processes.output import cut_between_characters

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, st.integers(0, 10))
def test_text_is_cut_between_characters(text: str, short: int) -> None:
    data = text.encode()
    data = data[: max(0, len(data) - short)]
    whole, held = cut_between_characters(data)
    assert whole + held == data
    assert len(held) <= 3
    whole.decode()


@given(st.binary())
def test_bytes_that_are_no_text_are_cut_without_loss(data: bytes) -> None:
    whole, held = cut_between_characters(data)
    assert whole + held == data
    assert len(held) <= 3


@given(st.dictionaries(TEXT, TEXT, min_size=1))
def test_metadata_survives_both_quotings(pairs: dict[str, str]) -> None:
    quoted = urlencode({quote(key): quote(value) for key, value in pairs.items()})
    assert read_metadata(quoted) == pairs


@given(TEXT)
def test_metadata_filters_are_read_or_refused(text: str) -> None:
    try:
        read_metadata(text)
    except Fault as fault:
        if fault.status != 400:
            raise


@given(st.dictionaries(st.sampled_from(["limit", "state", "order", "startedAfter", "template", "nextToken"]), TEXT))
def test_queries_of_lists_are_read_or_refused(query: dict[str, str]) -> None:
    try:
        read_listing(query)
    except Fault as fault:
        if fault.status != 400:
            raise


@given(TEXT)
def test_template_references_are_read_or_refused(text: str) -> None:
    try:
        parsed = parse_template(text)
    except Fault as fault:
        if fault.status != 400:
            raise
    else:
        assert parsed.alias
        assert parsed.tag


def test_template_references() -> None:
    parsed = parse_template(" Team/My_App-2:V1.0 ")
    assert (parsed.namespace, parsed.alias, parsed.tag) == ("team", "my_app-2", "v1.0")
    assert parse_template("x").tag == "default"


def test_sandbox_ids() -> None:
    made = {new_sandbox_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(plain_sandbox_id(name) == name for name in made)
    assert plain_sandbox_id("i" + "0" * 20 + "-abc") == "i" + "0" * 20
    assert plain_sandbox_id("i" + "0" * 20 + "\n") is None


@given(st.integers(0, 4_000_000_000_000_000))
def test_moments_keep_their_microseconds(micros: int) -> None:
    listing = read_listing({"startedAfter": rfc3339(micros)})
    assert listing.started_after == micros


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'form-data; name="file"; filename="a b"', {"name": "file", "filename": "a b"}),
        (b"form-data; name=file; filename=/x/y", {"name": "file", "filename": "/x/y"}),
        (b'form-data; name="file"; filename="a;b=\\"c"', {"name": "file", "filename": 'a;b="c'}),
        (b'form-data; filename="C:\\dir\\x"; name="file"', {"name": "file", "filename": "C:\\dir\\x"}),
        (b'form-data; name="file"; filename=""', {"name": "file", "filename": ""}),
        (b"form-data", {}),
        (b"", {}),
    ],
)
def test_parameters_of_parts(header: bytes, expected: dict[str, str]) -> None:
    assert disposition_parameters(header) == expected


@given(
    st.lists(st.tuples(TEXT.filter(lambda t: not set(t) & set('"\\\r\n\0')), st.binary())),
    st.none() | st.binary().filter(lambda preamble: b"--XyZ" not in preamble),
    st.integers(1, 50),
)
async def test_forms_come_apart_however_they_are_cut(
    files: list[tuple[str, bytes]], preamble: bytes | None, size: int
) -> None:
    body = b"" if preamble is None else preamble + b"\r\n"
    body += b"".join(
        f'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
        if b"--XyZ" not in data
    )
    body += b"--XyZ--\r\n"
    found: list[tuple[str | None, bytes]] = []

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async for event in read_parts("multipart/form-data; boundary=XyZ", chunks()):
        match event:
            case PartBegin(_, filename):
                found.append((filename, b""))
            case PartData(data):
                found[-1] = (found[-1][0], found[-1][1] + data)
    assert found == [(name, data) for name, data in files if b"--XyZ" not in data]


@given(st.binary(max_size=300))
async def test_garbage_forms_are_refused(body: bytes) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        async with aclosing(chunks()) as body_chunks:
            async for _ in read_parts("multipart/form-data; boundary=B", body_chunks):
                pass
    except Fault as fault:
        if fault.status != 400:
            raise
