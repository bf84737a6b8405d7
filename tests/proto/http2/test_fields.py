"""Header and trailer sections: h2's validation is the oracle, and each rule has a case."""

from __future__ import annotations

import pytest
from h2.exceptions import ProtocolError as H2ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack import HeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from grotte._proto.http2.codec import Header
from grotte._proto.http2.fields import FieldRules, Malformed, Response

STATUS = (b":status", b"200")

characters = st.sampled_from(list(b"aZ09-_ \t\r\n\0:\x7f\x80\xffte")).map(lambda value: bytes((value,)))
texts = st.lists(characters, max_size=4).map(b"".join)
names = st.one_of(
    texts,
    st.sampled_from(
        [b"te", b"connection", b"upgrade", b"keep-alive", b"transfer-encoding", b"proxy-connection", b"x", b":path"]
    ),
)
values = st.one_of(texts, st.sampled_from([b"trailers", b"Trailers", b"gzip", b"a b"]))
sections = st.lists(st.one_of(st.just(STATUS), st.tuples(names, values)), max_size=4)


def h2_accepts(headers: list[Header], *, trailers: bool) -> bool:
    flags = HeaderValidationFlags(
        is_client=True, is_trailer=trailers, is_response_header=not trailers, is_push_promise=False
    )
    try:
        # An empty name is an IndexError to h2 when it looks for pseudo-headers.
        list(validate_headers([HeaderTuple(*header) for header in headers], flags))
    except (H2ProtocolError, IndexError):
        return False
    return True


def accepts(headers: list[Header], *, trailers: bool) -> bool:
    rules = FieldRules()
    try:
        rules.trailers(headers) if trailers else rules.response(headers)
    except Malformed:
        return False
    return True


@given(sections, st.booleans())
def test_h2_accepts_the_same_sections(headers: list[Header], trailers: bool) -> None:
    assert accepts(headers, trailers=trailers) == h2_accepts(headers, trailers=trailers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"server", b"x"), STATUS],
        [STATUS, STATUS],
        [(b":status", b"20")],
        [(b":status", b"2000")],
        [(b":status", b"099")],
        [(b":status", b"abc")],
        [(b":status", b"101")],
        [STATUS, (b"Server", b"x")],
        [STATUS, (b"", b"x")],
        [STATUS, (b"a:b", b"x")],
        [STATUS, (b":path", b"/")],
        [STATUS, (b"a", b"x\r\nb: c")],
        [STATUS, (b"a", b"x\n")],
        [STATUS, (b"a", b" x")],
        [STATUS, (b"a", b"x\t")],
        [STATUS, (b"a", b"\0")],
        [STATUS, (b"connection", b"close")],
        [STATUS, (b"transfer-encoding", b"chunked")],
        [STATUS, (b"content-length", b"-1")],
        [STATUS, (b"content-length", b"")],
        [STATUS, (b"content-length", b"1" * 30)],
        [STATUS, (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_a_malformed_response_is_refused(headers: list[Header]) -> None:
    rules = FieldRules()
    for _ in range(2):  # what was refused once is not remembered as fine
        with pytest.raises(Malformed):
            rules.response(headers)


def test_a_response_tells_its_status_and_length() -> None:
    rules = FieldRules()
    assert rules.response([STATUS, (b"a", b""), (b"te", b"trailers")]) == Response(200, None)
    assert rules.response([STATUS, (b"content-length", b"007"), (b"content-length", b"7")]) == Response(200, 7)


def test_what_is_remembered_is_bounded() -> None:
    rules = FieldRules()
    for number in range(2_000):
        rules.trailers([(b"date", b"%d" % number)])
    rules.trailers([(b"large", b"x" * 10_000)])
    assert len(rules._valid) <= 256
    assert max(len(value) for _, value in rules._valid) <= 256
