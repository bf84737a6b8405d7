"""What a generated client makes of the engine: ``python generated.py URL HEADERS``; prints JSON.

The client is that of E2B's package, but with what generated clients have by default, which is protobuf, compressed.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from e2b.envd.filesystem import filesystem_connect, filesystem_pb
from e2b.envd.process import process_connect, process_pb

URL, HEADERS = sys.argv[1], json.loads(sys.argv[2])


class Client:
    """Both services, asked and answering in JSON's words."""

    def __init__(self, protocol: ProtocolType) -> None:
        self._services = [
            (process_connect.ProcessClientSync(URL, protocol=protocol), process_pb),
            (filesystem_connect.FilesystemClientSync(URL, protocol=protocol), filesystem_pb),
        ]

    def open(self, name: str, *messages: dict[str, Any], timeout: int | None = None) -> Any:
        """What a method returns: a message, or an iterator of them."""
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
        client, module = next(service for service in self._services if hasattr(service[0], method))
        asked = [getattr(module, f"{name}Request").from_json(json.dumps(message)) for message in messages]
        question = iter(asked) if name == "StreamInput" else asked[0]
        return getattr(client, method)(question, headers=HEADERS, timeout_ms=timeout)

    def ask(self, name: str, **message: Any) -> dict[str, Any]:
        return read(self.open(name, message))

    def stream(self, name: str, **message: Any) -> Iterator[dict[str, Any]]:
        return map(read, self.open(name, message))


def read(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.to_json())
    return found


def refusal_of(call: Callable[[], object]) -> str:
    """The code with which a call is refused."""
    try:
        call()
    except ConnectError as error:
        return str(error.code.value)
    return "none"


def commands(client: Client) -> object:
    config = {"cmd": "/bin/sh", "args": ["-c", "printf $A; cat >&2; exit 7"], "envs": {"A": "ä"}, "cwd": "/tmp"}
    events = client.stream("Start", process=config, stdin=True, tag="generated")
    selector = {"pid": next(events)["event"]["start"]["pid"]}
    (listed,) = [found for found in client.ask("List")["processes"] if found.get("tag") == "generated"]
    output = [next(events)["event"]["data"]]
    heard = client.stream("Connect", process={"tag": "generated"})
    same = next(heard) == {"event": {"start": selector}}
    client.ask("SendInput", process=selector, input={"stdin": "/w=="})
    output.append(next(events)["event"]["data"])
    client.open("StreamInput", {"start": {"process": selector}}, {"data": {"input": {"stdin": "AA=="}}})
    output.append(next(events)["event"]["data"])
    client.ask("CloseStdin", process=selector)
    return [listed == {"config": config, "tag": "generated"} | selector, same, output, *events, list(heard)[-1]]


def terminal(client: Client) -> object:
    events = client.stream("Start", process={"cmd": "/bin/cat"}, pty={"size": {"cols": 90, "rows": 30}})
    selector = {"pid": next(events)["event"]["start"]["pid"]}
    client.ask("Update", process=selector, pty={"size": {"cols": 91, "rows": 31}})
    client.ask("SendSignal", process=selector, signal="SIGNAL_SIGKILL")
    return list(events)


def files(client: Client) -> object:
    made = client.ask("MakeDir", path="/tmp/generated")["entry"]
    watched = client.stream("WatchDir", path="/tmp/generated")
    watcher = client.ask("CreateWatcher", path="/tmp/generated", includeEntry=True)
    told = [next(watched)]
    client.ask("MakeDir", path="/tmp/generated/a")
    told.append(next(watched))
    event = client.ask("GetWatcherEvents", **watcher)["events"][0]
    told.append([event["name"], event["type"], event["entry"]["path"]])
    client.ask("RemoveWatcher", **watcher)
    moved = client.ask("Move", source="/tmp/generated/a", destination="/tmp/generated/b")["entry"]
    listed = client.ask("ListDir", path="/tmp/generated", depth=1)["entries"]
    same = [listed == [moved], client.ask("Stat", path="/tmp/generated/b")["entry"] == moved]
    client.ask("Remove", path="/tmp/generated")
    return [made["permissions"], made["owner"], told, same]


def refusals(client: Client) -> object:
    sleep = {"process": {"cmd": "/bin/sleep", "args": ["60"]}}
    return [
        refusal_of(lambda: client.ask("Stat", path="/nö")),
        refusal_of(lambda: client.ask("SendSignal", process={"pid": 1 << 31}, signal="SIGNAL_SIGTERM")),
        refusal_of(lambda: list(client.stream("Connect", process={"tag": "nobody"}))),
        refusal_of(lambda: list(client.open("Start", sleep, timeout=900))),
    ]


operations = (commands, terminal, files, refusals)
results: dict[str, object] = {
    protocol.name: {operation.__name__: operation(Client(protocol)) for operation in operations}
    for protocol in (ProtocolType.CONNECT, ProtocolType.GRPC_WEB)
}
described = [module.desc().proto.to_binary() for module in (process_pb, filesystem_pb)]
print(json.dumps(results | {"descriptors": [base64.b64encode(file).decode() for file in described]}))
