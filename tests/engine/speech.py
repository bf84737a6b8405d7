"""A client of the data plane that speaks protobuf, in the words of Connect or of gRPC-Web."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import httpx
from google.protobuf import json_format

from grotte._proto.connect import EnvelopeReader
from grotte.engine.data.protobuf import types
from tests.engine.wire import Box, named, pack

#: Each method's question and answer.
KINDS = {
    "process.Process/Start": ("StartRequest", "ProcessEventResponse"),
    "process.Process/Connect": ("ConnectRequest", "ProcessEventResponse"),
    "process.Process/StreamInput": ("StreamInputRequest", "Empty"),
    "process.Process/List": ("Empty", "ListResponse"),
    "process.Process/Update": ("UpdateRequest", "Empty"),
    "process.Process/SendInput": ("SendInputRequest", "Empty"),
    "process.Process/SendSignal": ("SendSignalRequest", "Empty"),
    "process.Process/CloseStdin": ("CloseStdinRequest", "Empty"),
    "filesystem.Filesystem/Stat": ("PathRequest", "EntryResponse"),
    "filesystem.Filesystem/MakeDir": ("PathRequest", "EntryResponse"),
    "filesystem.Filesystem/Move": ("MoveRequest", "EntryResponse"),
    "filesystem.Filesystem/Remove": ("PathRequest", "Empty"),
    "filesystem.Filesystem/ListDir": ("ListDirRequest", "ListDirResponse"),
    "filesystem.Filesystem/WatchDir": ("WatchRequest", "WatchDirResponse"),
    "filesystem.Filesystem/CreateWatcher": ("WatchRequest", "CreateWatcherResponse"),
    "filesystem.Filesystem/GetWatcherEvents": ("WatcherRequest", "WatcherEventsResponse"),
    "filesystem.Filesystem/RemoveWatcher": ("WatcherRequest", "Empty"),
}
STREAMS = ("process.Process/Start", "process.Process/Connect", "process.Process/StreamInput")
STREAMS += ("filesystem.Filesystem/WatchDir",)
#: gRPC's numbers of what is asked for here.
GRPC_CODES = {
    *(("0", ""), ("3", "invalid_argument"), ("4", "deadline_exceeded"), ("5", "not_found")),
    *(("6", "already_exists"), ("12", "unimplemented"), ("13", "internal"), ("16", "unauthenticated")),
}


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Speech:
    """How a client in protobuf talks to a sandbox."""

    def __init__(self, box: Box, *, web: bool) -> None:
        self.box = box
        self.web = web

    def content_type(self, method: str) -> str:
        if self.web:
            return "application/grpc-web+proto"
        return "application/connect+proto" if method in STREAMS else "application/proto"

    def enveloped(self, method: str) -> bool:
        return self.web or method in STREAMS

    def body(self, method: str, *messages: Mapping[str, Any]) -> bytes:
        kind = types()[KINDS[method][0]]
        payloads = [kind(**message).SerializeToString() for message in messages]
        return b"".join(map(pack, payloads)) if self.enveloped(method) else payloads[0]

    def post(self, method: str, content: bytes, **headers: str) -> httpx.Response:
        return self.box.wire.post(f"/{method}", content=content, headers=self._headers(method, headers))

    def ask(self, method: str, message: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """The one answer to one question."""
        (answer,) = self.exchange(method, message or {}, **headers)
        return answer

    def exchange(self, method: str, *messages: Mapping[str, Any], **headers: str) -> list[dict[str, Any]]:
        """All messages of the answer.

        Raises:
            Refused: it ends in an error.
        """
        return self.read(method, self.post(method, self.body(method, *messages), **headers))

    def read(self, method: str, answer: httpx.Response) -> list[dict[str, Any]]:
        if not self.enveloped(method):
            return [self._unary(method, answer)]
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == self.content_type(method)
        return list(self.messages(method, iter([answer.content])))

    @contextmanager
    def open(
        self, method: str, *messages: Mapping[str, Any], **headers: str
    ) -> Iterator[tuple[httpx.Response, Iterator[dict[str, Any]]]]:
        """An answer that is read as it comes."""
        content = self.body(method, *messages)
        sent = self._headers(method, headers)
        with self.box.wire.stream("POST", f"/{method}", content=content, headers=sent) as answer:
            assert answer.headers["content-type"] == self.content_type(method)
            yield answer, self.messages(method, answer.iter_raw())

    def messages(self, method: str, chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        reader = EnvelopeReader()
        for chunk in chunks:
            for envelope in reader.feed(chunk):
                if envelope.flags == 0:
                    yield self._message(method, bytes(envelope.payload))
                else:
                    assert envelope.flags == (0x80 if self.web else 2)
                    return self._end(bytes(envelope.payload))
        raise AssertionError("the stream has no end")

    def _headers(self, method: str, more: dict[str, str]) -> dict[str, str]:
        return self.box.headers | {"content-type": self.content_type(method)} | named(more)

    def _unary(self, method: str, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/json"
            raise Refused(**answer.json())
        assert answer.headers["content-type"] == "application/proto"
        assert answer.headers["content-length"] == str(len(answer.content))
        return self._message(method, answer.content)

    def _message(self, method: str, payload: bytes) -> dict[str, Any]:
        message: dict[str, Any] = json_format.MessageToDict(types()[KINDS[method][1]].FromString(payload))
        return message

    def _end(self, payload: bytes) -> None:
        if not self.web:
            if error := json.loads(payload).get("error"):
                raise Refused(**error)
            return
        trailers = dict(line.split(": ", 1) for line in payload.decode("ascii").removesuffix("\r\n").split("\r\n"))
        if trailers["grpc-status"] != "0":
            raise Refused(dict(GRPC_CODES)[trailers["grpc-status"]], unquote(trailers["grpc-message"]))
