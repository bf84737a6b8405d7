"""Processes whose starter has hung up, and how to talk to them."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from tests.engine.wire import STREAM, Box, Wire, first_message, pack


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def by_pid(pid: int, **more: object) -> dict[str, object]:
    return {"process": {"pid": pid}} | more


def running(box: Box) -> list[dict[str, Any]]:
    return list(box.rpc("process.Process/List").json().get("processes", []))


def start_pid(answer: httpx.Response) -> int:
    message, _ = first_message(answer)
    return int(message["event"]["start"]["pid"])


class Background:
    """A process whose starter has hung up."""

    def __init__(self, box: Box, script: str, **more: object) -> None:
        self.box = box
        message = {"process": {"cmd": "/bin/sh", "args": ["-c", script]}} | more
        with Wire(str(box.wire.base_url), None) as client:
            sent = box.headers | STREAM | {k: str(v) for k, v in more.items() if k.startswith("connect-")}
            message = {k: v for k, v in message.items() if not k.startswith("connect-")}
            content = pack(json.dumps(message).encode())
            with client.stream("POST", "/process.Process/Start", content=content, headers=sent) as answer:
                self.pid = start_pid(answer)

    def signal(self, name: str | int = "SIGNAL_SIGKILL") -> httpx.Response:
        return self.box.rpc("process.Process/SendSignal", by_pid(self.pid, signal=name))
