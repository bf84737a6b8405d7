"""The parts of the SDK that do no input or output."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from importlib.metadata import version

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grotte
from grotte._dual import accepts_old_names, also_on_class
from grotte._proto import arguments, failures
from grotte._proto.backoff import MAX_RETRIES, retry_delay
from grotte._proto.connect import HTTP_STATUS, ErrorBody
from grotte._proto.control import SandboxDetail
from grotte._proto.entries import file_type, public_entry, timestamp
from grotte._proto.failures import Context
from grotte._proto.messages import DataEvent, EndEvent, EntryInfo, ProcessEvent
from grotte._proto.multipart import Multipart, can_name
from grotte._proto.output import CommandOutput, TextOutput
from grotte._proto.sandboxes import sandbox_info
from grotte._proto.transport_errors import ConnectFailed, ConnectionLost, DeadlineExceeded
from grotte._proto.versions import OCTET_UPLOAD, at_least
from grotte.errors import GrotteException, InvalidArgumentException, SandboxException, TimeoutException
from grotte.models import CommandResult, FileType

# -- output --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary()))
def test_text_is_that_of_the_joined_bytes(pieces: list[bytes]) -> None:
    output = TextOutput()
    returned = [output.feed(piece) for piece in pieces]
    returned.append(output.feed(b"", final=True))
    assert "".join(returned) == output.text() == b"".join(pieces).decode(errors="replace")
    assert "" not in output._chunks


@given(st.text(), st.integers(1, 3))
def test_no_character_is_split(text: str, size: int) -> None:
    data = text.encode(errors="replace")
    output = TextOutput()
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])
    assert output.text() == data.decode()
    assert "\ufffd" not in output.text() or "\ufffd" in text


def test_both_outputs_and_the_end() -> None:
    output = CommandOutput()
    output.feed(ProcessEvent(data=DataEvent(stdout=b"a\xe2")))
    output.feed(ProcessEvent(data=DataEvent(stderr=b"b")))
    output.feed(ProcessEvent(data=DataEvent(pty=b"\x1b")))
    output.feed(ProcessEvent(data=DataEvent(stdout=b"")))
    output.feed(ProcessEvent(end=EndEvent(exit_code=3)))
    assert output.pieces == [("a", None, None), (None, "b", None), (None, None, b"\x1b"), ("\ufffd", None, None)]
    assert output.end is not None
    assert output.end.exit_code == 3


# -- failures ------------------------------------------------------------------------------------------------------


@given(st.binary())
def test_no_body_is_too_strange(content: bytes) -> None:
    said = failures.read_error(content)
    assert isinstance(said.message, str)
    for status in (400, 404, 500, 502):
        context = Context("GET /x", "i1")
        for failure in (
            failures.api_failure(status, content, context),
            failures.files_failure(status, content, context),
            failures.rpc_failure(failures.read_rpc_error(status, content), context),
        ):
            assert isinstance(failure, GrotteException)
            assert str(failure)


@pytest.mark.parametrize("code", [*HTTP_STATUS, "no_such_code"])
def test_every_code_names_sandbox_and_request(code: str) -> None:
    failure = failures.rpc_failure(ErrorBody(code=code, message="why"), Context("POST /x", "i1"), limit="more time")
    assert (failure.sandbox_id, failure.request, failure.server_message) == ("i1", "POST /x", "why")
    assert "why" in str(failure)


def test_what_the_transport_says() -> None:
    context = Context("GET /x")
    late = DeadlineExceeded("late", kind="total", processed=True)
    assert isinstance(failures.transport_failure(late, context, SandboxException, "give more"), TimeoutException)
    for error in (
        ConnectFailed("refused"),
        ConnectionLost("lost", processed=True),
        DeadlineExceeded("slow", kind="connect", processed=False),
    ):
        assert type(failures.transport_failure(error, context, SandboxException, "")) is SandboxException


# -- repetition ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "attempt", "idempotent", "expected"),
    [
        (503, {"retry-after": "7"}, 0, True, 7),
        (503, {"retry-after": "0"}, 0, True, 0),
        (503, {"retry-after": "3600"}, 0, True, None),
        (503, {"retry-after": "7", "should-retry": "false"}, 0, True, None),
        (503, {"retry-after": "7"}, 0, False, None),
        (409, {"retry-after": "1", "should-retry": "true"}, 0, False, 1),
        (503, {"retry-after": "1"}, MAX_RETRIES, True, None),
        (200, {"should-retry": "true"}, 0, True, None),
        (500, {}, 0, True, None),
        (404, {}, 0, True, None),
    ],
)
def test_when_to_repeat(
    status: int, headers: dict[str, str], attempt: int, idempotent: bool, expected: float | None
) -> None:
    assert retry_delay(status, headers, attempt=attempt, idempotent=idempotent) == expected


@given(st.sampled_from([429, 502, 503, 504]), st.integers(0, MAX_RETRIES - 1), st.text())
def test_a_delay_without_good_advice_grows_within_bounds(status: int, attempt: int, advice: str) -> None:
    delay = retry_delay(status, {"retry-after": advice}, attempt=attempt, idempotent=True)
    if not advice.strip().isdigit():
        assert delay is not None
        assert 0.05 * 4**attempt <= delay <= 0.1 * 4**attempt


# -- arguments -----------------------------------------------------------------------------------------------------


@given(st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.booleans()))
def test_numbers_are_usable_or_refused(value: object) -> None:
    try:
        number = arguments.seconds(value, "timeout")
    except InvalidArgumentException as error:
        assert "timeout" in str(error)  # noqa: PT017 - both outcomes are fine
    else:
        assert number is None or 0 < number < float("inf")


@given(st.text())
def test_urls_and_domains_hold_no_surprises(value: str) -> None:
    for check in (lambda: arguments.url(value, "api_url"), lambda: arguments.domain(value)):
        try:
            found = check()
        except InvalidArgumentException:
            continue
        assert found.isascii()
        assert not set(found) & set(" \r\n\t@?#")


# -- files ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(min_size=1), st.binary()), min_size=1))
def test_a_form_holds_what_was_put_in(files: list[tuple[str, bytes]]) -> None:
    files = [(path, content) for path, content in files if can_name(path) and path.isascii()]
    form = Multipart(files)
    body = form.body()
    assert len(body) == form.length
    boundary = form.content_type.partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)[1:-1]
    found = []
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesParser(policy=HTTP).parsebytes(head)
        found.append((headers["Content-Disposition"].params["filename"], content.removesuffix(b"\r\n")))
    assert [content for _, content in found] == [content for _, content in files]
    assert b"--" + boundary + b"--\r\n" == body[-(len(boundary) + 6) :]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ("FILE_TYPE_FILE", FileType.FILE),
        (2, FileType.DIR),
        (3, FileType.SYMLINK),
        ("FILE_TYPE_SYMLINK", FileType.SYMLINK),
        ("FILE_TYPE_UNSPECIFIED", None),
        (99, None),
        (-1, None),
        ("NEW", None),
    ],
)
def test_types_by_name_and_number(wire: int | str, expected: FileType | None) -> None:
    assert file_type(wire) is expected


def test_an_entry() -> None:
    entry = public_entry(
        EntryInfo(name="l", type="FILE_TYPE_DIRECTORY", size="12", is_symlink=True, symlink_target="/d", path="/l")
    )
    assert (entry.type, entry.size, entry.symlink_target, entry.metadata) == (FileType.SYMLINK, 12, "/d", None)
    assert entry.modified_time == datetime(1970, 1, 1, tzinfo=UTC)
    assert timestamp("2026-01-02T03:04:05.123456789Z").microsecond == 123457
    assert timestamp("nonsense").year == 1970


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5.7", True), ("0.5.6", False), ("0.5.10", True), ("0.10", True), ("v1.0.0", True), ("dev", True), ("", True)],
)
def test_versions(text: str, expected: bool) -> None:
    assert at_least(text, OCTET_UPLOAD) is expected


def test_what_the_control_plane_may_leave_out_or_write_as_null() -> None:
    plain = {"templateID": "t", "sandboxID": "i", "envdVersion": "1", "startedAt": "", "endAt": "", "state": "paused"}
    plain |= {"cpuCount": 1, "memoryMB": 2}
    names = ("alias", "metadata", "volumeMounts", "network", "lifecycle", "domain", "allowInternetAccess")
    bare = sandbox_info(msgspec.convert(plain, SandboxDetail))
    assert sandbox_info(msgspec.convert(plain | dict.fromkeys(names), SandboxDetail)) == bare
    assert (bare.name, bare.metadata, bare.network, bare.lifecycle, bare.volume_mounts) == (None, {}, None, None, [])
    network = {"allowOut": None, "denyOut": ["1.1.1.1"], "rules": {}}
    full = plain | {"network": network, "lifecycle": {"onTimeout": "pause", "autoResume": True}, "alias": "a"}
    info = sandbox_info(msgspec.convert(full, SandboxDetail))
    assert (info.name, info.network) == ("a", {"deny_out": ["1.1.1.1"]})
    assert info.lifecycle == {"on_timeout": "pause", "auto_resume": True}


# -- the shape of the API ------------------------------------------------------------------------------------------


class Box:
    @classmethod
    def _close_by_id(cls, box_id: str) -> str:
        return f"{cls.__name__} closes {box_id}"

    @also_on_class(_close_by_id)
    def close(self) -> str:
        """Close it."""
        return "closes itself"


class BigBox(Box):
    pass


def test_methods_of_class_and_instance() -> None:
    assert Box().close() == "closes itself"
    assert BigBox.close("b") == "BigBox closes b"
    assert BigBox.close(box_id="b") == "BigBox closes b"
    assert Box.close.__doc__ == Box().close.__doc__ == "Close it."
    assert Box.close.__name__ == "close"


def test_old_names() -> None:
    @accepts_old_names(old="new")
    def double(new: int) -> int:
        return new * 2

    assert double(2) == double(new=2) == double(old=2) == 4  # type: ignore[call-arg]  # checkers see the new name
    with pytest.raises(TypeError):
        double(old=1, new=2)  # type: ignore[call-arg]  # that is the point


def test_a_failed_command_is_an_exception_and_a_result() -> None:
    failure = grotte.CommandExitException("err", "out", 3, "exit status 3", "i1")
    assert isinstance(failure, CommandResult)
    assert isinstance(failure, SandboxException)
    assert len({failure, grotte.CommandExitException("err", "out", 3)}) == 2
    assert str(failure) == "Command exited with code 3 in sandbox i1 and error:\nerr"


def test_every_public_name_is_there() -> None:
    assert sorted(grotte.__all__) == list(dict.fromkeys(sorted(grotte.__all__)))
    for name in grotte.__all__:
        assert getattr(grotte, name) is not None
    assert set(grotte.__all__) <= set(dir(grotte))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = grotte.no_such_name  # type: ignore[attr-defined]  # that is the point
    assert grotte.__version__ == version("grotte")


def test_import_is_lazy() -> None:
    heavy = ("anyio", "asyncio", "httpx", "h2", "msgspec", "grotte._core", "grotte._sync", "grotte.engine")
    program = f"import sys, grotte; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sync_world_needs_no_event_loop() -> None:
    heavy = ("anyio", "asyncio", "trio", "grotte._core", "grotte.engine")
    program = f"import sys; from grotte import Sandbox; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
