"""Building templates over the wire, as clients do."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.engine.wire import Wire

PATIENCE = 60.0
Step = dict[str, Any]


def run(*args: str, force: bool = False) -> Step:
    return {"type": "RUN", "args": list(args), "force": force}


def step(kind: str, *args: str) -> Step:
    return {"type": kind, "args": list(args), "force": False}


def copy(source: str, target: str, owner: str = "", mode: str = "", *, digest: str) -> Step:
    return {"type": "COPY", "args": [source, target, owner, mode], "filesHash": digest, "force": False}


@dataclass(frozen=True)
class Build:
    """A build that has been asked for."""

    wire: Wire
    template: str
    build: str

    @property
    def path(self) -> str:
        return f"/templates/{self.template}/builds/{self.build}"

    def status(self, **query: object) -> dict[str, Any]:
        answer = self.wire.get(f"{self.path}/status", params={k: str(v) for k, v in query.items()})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def start(self, **fields: object) -> None:
        answer = self.wire.post(f"/v2{self.path}", json=fields)
        assert (answer.status_code, answer.content) == (202, b""), answer.text

    def wait(self) -> dict[str, Any]:
        """The last status."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.status())["status"] in ("waiting", "building"):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status

    def messages(self, level: str = "debug") -> list[str]:
        """All messages of the log."""
        found: list[str] = []
        while entries := self.status(logsOffset=len(found), level=level)["logEntries"]:
            found += [entry["message"] for entry in entries]
        return found


class Templates(Wire):
    """The control plane, as a builder of templates sees it."""

    def request_build(self, name: str, **fields: object) -> Build:
        answer = self.post("/v3/templates", json={"name": name} | fields)
        assert answer.status_code == 202, answer.text
        return Build(self, answer.json()["templateID"], answer.json()["buildID"])

    def upload(self, template: str, digest: str, archive: bytes) -> None:
        offer = self.get(f"/templates/{template}/files/{digest}")
        assert offer.status_code == 201, offer.text
        answer = self.put(offer.json()["url"], content=archive, headers={"x-api-key": ""})
        assert answer.status_code == 200, answer.text

    def try_build(self, name: str, *steps: Step, **fields: object) -> tuple[Build, dict[str, Any]]:
        """A build that has come to its end, and its last status."""
        build = self.request_build(name)
        build.start(steps=list(steps), **fields)
        return build, build.wait()

    def build(self, name: str, *steps: Step, **fields: object) -> Build:
        """A template that is ready."""
        build, status = self.try_build(name, *steps, **fields)
        assert status["status"] == "ready", status
        return build

    def failure(self, name: str, *steps: Step, **fields: object) -> dict[str, Any]:
        """The reason why a build has failed."""
        _, status = self.try_build(name, *steps, **fields)
        assert status["status"] == "error", status
        reason: dict[str, Any] = status["reason"]
        return reason


def archive(*members: tuple[str, bytes | str | None], compress: bool = True, mode: int = 0o644) -> bytes:
    """A tar archive: files by their bytes, symlinks by their target, directories by None."""

    def fill(tar: tarfile.TarFile) -> None:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if content is None else mode
            info.mtime = 1_000_000_000
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    return packed(fill, compress=compress)


def packed(fill: Callable[[tarfile.TarFile], object], *, compress: bool = True) -> bytes:
    """A tar archive of what a function adds to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compress else "w", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    return buffer.getvalue()
