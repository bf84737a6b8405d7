"""Images that tests make themselves, and a registry of their own to have them in."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from grotte.engine.images.debian import suite

HELLO = '#include <stdio.h>\nint main(void) { puts("hello from musl"); return 0; }\n'
APPLETS: tuple[str, ...] = ("sh", "ls", "cat", "echo", "id", "pwd", "touch", "mkdir", "rm", "sleep", "true", "test")
APPLETS += ("readlink", "ln", "stat", "grep", "nc")
ACCOUNTS = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
CONTROL = (
    "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: says so\n"
)
PROGRAMS = ("skopeo", "docker-registry", "musl-gcc", "busybox", "zstd")
PATIENCE = 60.0
DEBIAN_PATIENCE = 300.0
SECRET = "do-not-log-me"
#: The line of a registry's password file for it.
HTPASSWD = "user:$2b$05$oYw5aF9wKPZFWXNK9BYdzO6Ez5KfF9lFaBh0gqgQmr/zD4vwmsCg6\n"
#: Files that take time and that no test looks at.
NOT_IN_DEBIAN = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def missing_programs() -> list[str]:
    """What the tests of images need and this machine does not have."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def skip_without_programs() -> None:
    """Skip a test of images where they cannot be made."""
    if missing := missing_programs():
        pytest.skip(f"images cannot be made without {', '.join(missing)}")


def make_musl_root(root: Path) -> None:
    """A root file system without glibc, as small distributions have it."""
    for name in ("bin", "lib", "etc", "root", "home", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    source = root.with_suffix(".c")
    source.write_text(HELLO)
    subprocess.run(["musl-gcc", "-o", root / "bin/hello", source], check=True, timeout=60)
    machine = os.uname().machine
    loader = next(Path("/lib").glob(f"**/ld-musl-{machine}.so.1"))
    shutil.copy(loader.resolve(), root / f"lib/ld-musl-{machine}.so.1")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    for name, text in ACCOUNTS.items():
        (root / name).write_text(text)


def make_debian(target: Path) -> None:
    """Make an archive of a small Debian with apt; skip the test where its packages cannot be had."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("an image of Debian cannot be made without mmdebstrap")
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_IN_DEBIAN]
    command = ["mmdebstrap", "--variant=apt", "--format=tar", *options, suite(), str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEBIAN_PATIENCE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Debian's packages cannot be had: {error.stderr[-500:]}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"Debian's packages cannot be had within {DEBIAN_PATIENCE:g} s")


def make_packages(root: Path) -> None:
    """Make what an image of Debian needs to install a package ``tiny`` without any mirror."""
    room = root / "srv/packages"
    lists = root / "etc/apt"
    package = root.with_name("tiny")
    for directory in (room, lists / "sources.list.d", package / "DEBIAN", package / "usr/bin"):
        directory.mkdir(parents=True)
    program = package / "usr/bin/tiny"
    program.write_text("#!/bin/sh\necho tiny\n")
    program.chmod(0o755)
    (package / "DEBIAN/control").write_text(CONTROL)
    command = ["dpkg-deb", "--build", "--root-owner-group", str(package), str(room / "tiny.deb")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    blob = (room / "tiny.deb").read_bytes()
    found = f"Filename: ./tiny.deb\nSize: {len(blob)}\nSHA256: {hashlib.sha256(blob).hexdigest()}\n"
    (room / "Packages").write_text(CONTROL + found)
    (lists / "sources.list").write_text("deb [trusted=yes] file:/srv/packages ./\n")
    (lists / "sources.list.d/.wh..wh..opq").touch()


def tar_of(root: Path) -> bytes:
    """A root file system as a layer, its files root's."""
    command = ["tar", "-C", str(root), "--numeric-owner", "--owner=0", "--group=0", "-cf", "-", "."]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored, and what it should be once it is unpacked."""

    blob: bytes
    media: str
    diff_id: str


def layer(tar: bytes, compression: str = "gzip") -> Layer:
    """A layer, compressed with gzip, zstd or not at all."""
    if compression == "zstd":
        blob = subprocess.run(["zstd", "-q", "-c"], input=tar, check=True, capture_output=True, timeout=60).stdout
    else:
        blob = gzip.compress(tar, 1) if compression == "gzip" else tar
    suffix = f"+{compression}" if compression != "none" else ""
    return Layer(blob, f"application/vnd.oci.image.layer.v1.tar{suffix}", digest_of(tar))


class Layout:
    """An image as a directory of the OCI has it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media: str) -> dict[str, object]:
        digest = digest_of(data)
        (self.directory / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def image(
        self, layers: Sequence[Layer], envs: Sequence[str] = (), architecture: str = MACHINE
    ) -> dict[str, object]:
        """Add an image for a kind of machine."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": list(envs), "User": "nobody", "WorkingDir": "/nowhere"},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(layer.blob, layer.media) for layer in layers],
        }
        described = self.blob(json.dumps(manifest).encode(), str(manifest["mediaType"]))
        return described | {"platform": {"os": "linux", "architecture": architecture}}

    def index(self, images: Sequence[dict[str, object]]) -> None:
        """Say which images there are: one, or one for each kind of machine."""
        media = "application/vnd.oci.image.index.v1+json"
        if len(images) > 1:
            listed = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": images}).encode()
            images = [self.blob(listed, media)]
        index = {"schemaVersion": 2, "mediaType": media, "manifests": images}
        (self.directory / "index.json").write_text(json.dumps(index))


@dataclass
class Registry:
    """Debian's registry on loopback."""

    address: str
    room: Path
    count: int = 0

    def push(self, name: str, *layers: Layer, envs: Sequence[str] = (), more: Sequence[str] = ()) -> str:
        """Push an image; return its name.

        Args:
            more: Other architectures that it claims to be for, too, with layers that are not there.
        """
        self.count += 1
        layout = Layout(self.room / f"layout{self.count}")
        images = [layout.image([layer(b"\0" * 1024)], architecture=other) for other in more]
        layout.index([*images, layout.image(layers, envs)])
        return self.push_layout(name, layout)

    def push_layout(self, name: str, layout: Layout, *options: str) -> str:
        command = ["skopeo", "--insecure-policy", "copy", "--all", "--dest-tls-verify=false", *options]
        command += [f"oci:{layout.directory}", f"docker://{self.address}/{name}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return f"{self.address}/{name}"


@contextmanager
def running_registry(room: Path, htpasswd: str = "") -> Iterator[Registry]:
    """A registry for the length of a block; with a password file if there is a line for one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    room.mkdir()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(room / "storage")}},
        "http": {"addr": address},
    }
    if htpasswd:
        (room / "htpasswd").write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(room / "htpasswd")}}
    (room / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (room / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(room / "config.yml")], stdout=log, stderr=log)
    try:
        _wait(address, process)
        yield Registry(address, room)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port))).close()
        except OSError:
            assert process.poll() is None, "the registry ended"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)
        else:
            return
