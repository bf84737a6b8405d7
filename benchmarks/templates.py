"""``python -m benchmarks templates``: building templates and starting from them, beside ``podman build``.

One small image in a registry on loopback, one Dockerfile of a COPY and three RUNs. The engine builds it over its wire
protocol, podman from the file: once with nothing there, once with everything cached.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks import report
from benchmarks.engine.server import Engine, EngineError, run_engine
from benchmarks.samples import median

APPLETS = ("sh", "cat", "cp", "echo", "id", "mkdir", "sleep", "true", "wc")
COMMANDS = ("cat /app/data | wc -c > /tmp/size", "mkdir -p /srv/a && cp /app/data /srv/a", "echo done > /tmp/done")
DATA = bytes(range(256)) * 4096
SECONDS = 300.0
#: How long spares have to be ready between two creations, in seconds.
PAUSE = 0.3
NEEDED = {"docker-registry": "docker-registry", "skopeo": "skopeo", "busybox": "busybox-static"}


class BenchmarkError(Exception):
    """Something that is measured did not work."""


def make_image(room: Path) -> Path:
    """A root file system of one program, as an archive."""
    program = shutil.which("busybox")
    assert program is not None
    target = room / "root.tar"
    with tarfile.open(target, "w") as tar:
        for name in ("bin", "etc", "tmp", "root", "home"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        tar.add(program, "bin/busybox")
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        account = tarfile.TarInfo("etc/passwd")
        line = b"root:x:0:0:root:/root:/bin/sh\n"
        account.size = len(line)
        tar.addfile(account, io.BytesIO(line))
    return target


@contextmanager
def registry(room: Path) -> Iterator[str]:
    """A registry on loopback with the image in it; its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(room / "registry")}}
    config = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": address}}
    (room / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    command = ["docker-registry", "serve", str(room / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        push = ["skopeo", "--insecure-policy", "copy", "--retry-times=5", "--dest-tls-verify=false"]
        run([*push, f"tarball:{make_image(room)}", f"docker://{address}/small:1"])
        yield address
    finally:
        process.terminate()
        process.wait()


def run(command: list[str]) -> str:
    """Run a program to its end.

    Raises:
        BenchmarkError: it failed, with its last words.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


class Builder:
    """The engine's side."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._wire = httpx.Client(base_url=engine.url, headers={"x-api-key": engine.keys["grotte"]}, timeout=SECONDS)
        self._image = image
        self._context = archive({"data": DATA})
        self._digest = hashlib.sha256(self._context).hexdigest()

    def build(self) -> None:
        """Build the template, its upload included.

        Raises:
            BenchmarkError: it failed.
        """
        made = self._wire.post("/v3/templates", json={"name": "built"}).json()
        template, build = made["templateID"], made["buildID"]
        offer = self._wire.get(f"/templates/{template}/files/{self._digest}").json()
        if not offer["present"]:
            self._wire.put(offer["url"], content=self._context).raise_for_status()
        copy = {"type": "COPY", "args": ["data", "/app/", "root", ""], "filesHash": self._digest}
        steps = [copy, *({"type": "RUN", "args": [command, "root"]} for command in COMMANDS)]
        path = f"/templates/{template}/builds/{build}"
        self._wire.post(f"/v2{path}", json={"fromImage": self._image, "steps": steps}).raise_for_status()
        while (status := self._wire.get(f"{path}/status").json())["status"] == "building":
            time.sleep(0.005)
        if status["status"] != "ready":
            raise BenchmarkError(status["reason"]["message"])

    def start(self, template: str) -> None:
        """Start a sandbox and end it."""
        made = self._wire.post("/v2/sandboxes", json={"templateID": template}).raise_for_status().json()
        self._wire.delete(f"/sandboxes/{made['sandboxID']}").raise_for_status()

    def starts(self, template: str, count: int) -> float | None:
        """The median of so many, with spares ready, in seconds."""
        self.start(template)
        times = []
        for _ in range(count):
            time.sleep(PAUSE)
            times.append(timed(lambda: self.start(template)))
        return median(times)

    def close(self) -> None:
        """Hang up."""
        self._wire.close()


def archive(files: dict[str, bytes]) -> bytes:
    """A context."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_engine(image: str, count: int) -> dict[str, float | None]:
    """Builds and starts; times in milliseconds."""
    with run_engine() as engine:
        builder = Builder(engine, image)
        try:
            cold = timed(builder.build)
            cached = median(timed(builder.build) for _ in range(count))
            found: dict[str, float | None] = {"cold": cold, "cached": cached}
            for template in ("base", "built"):
                found[f"start {template}"] = builder.starts(template, count)
        finally:
            builder.close()
    return {name: None if seconds is None else seconds * 1e3 for name, seconds in found.items()}


def measure_podman(image: str, room: Path, count: int, *options: str) -> dict[str, float | None]:
    """The same Dockerfile; times in milliseconds.

    Raises:
        BenchmarkError: podman cannot build here.
    """
    context, store = room / "context", room / "podman"
    context.mkdir(exist_ok=True)
    (context / "data").write_bytes(DATA)
    lines = [f"FROM {image}", "COPY data /app/", *(f"RUN {command}" for command in COMMANDS)]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    podman = ["podman", f"--root={store}", f"--runroot={room}/podman-run"]
    build = [*podman, "build", "--tls-verify=false", "--layers", "--tag=built", *options, str(context)]
    try:
        cold = timed(lambda: run(build))
        cached = median(timed(lambda: run(build)) for _ in range(count))
    finally:
        subprocess.run([*podman, "rmi", "--all", "--force"], capture_output=True, check=False)
        # podman keeps its store mounted on itself
        subprocess.run(["umount", "--lazy", str(store / "overlay")], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", str(store)], capture_output=True, check=False)
    return {"cold": cold * 1e3, "cached": None if cached is None else cached * 1e3}


def add_podman(results: dict[str, dict[str, float | None]], image: str, room: Path, count: int) -> None:
    """Measure podman as it comes, or where its containers do not run, without them."""
    for name, options in (("podman build", ()), ("podman build, chroot only", ("--isolation=chroot",))):
        try:
            results[name] = measure_podman(image, room, count, *options)
        except (BenchmarkError, OSError, subprocess.SubprocessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            return


def main(arguments: list[str]) -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks templates", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all numbers here")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args(arguments)
    if missing := [package for program, package in NEEDED.items() if shutil.which(program) is None]:
        print(f"this needs {', '.join(missing)}; on Debian: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    count = 5 if options.quick else 20
    results: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory(prefix="grotte-benchmark-") as folder, registry(Path(folder)) as address:
        try:
            results["grotte"] = measure_engine(f"{address}/small:1", count)
        except (BenchmarkError, EngineError, httpx.HTTPError) as error:
            print(f"the engine: {error}", file=sys.stderr)
            return 1
        add_podman(results, f"{address}/small:1", Path(folder), count)
    show(results)
    report.write_json(options.json, {"machine": report.machine(), "milliseconds": results})
    return 0


def show(results: dict[str, dict[str, float | None]]) -> None:
    """Print the table."""
    columns = ("cold", "cached", "start base", "start built")
    rows = []
    for name, found in results.items():
        cells = [found.get(column) for column in columns]
        rows.append([name, *("–" if value is None else report.number(value) for value in cells)])
    print(report.table("Templates, milliseconds", ["", "cold build", "cached", "create + kill, base", "… built"], rows))
