"""Registries, by way of skopeo: it knows their logins, their lists of platforms and their compressions."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from grotte.engine.builds.request import Credentials
from grotte.engine.images import programs
from grotte.engine.images.reference import ImageError, ImageReference

INSPECT_SECONDS, COPY_SECONDS = 120.0, 3600.0
#: Where the machine says whose signatures it wants; without that file skopeo asks to be told that nobody's are.
POLICIES = ("~/.config/containers/policy.json", "/etc/containers/policy.json")
_MESSAGE = re.compile(r'level=(\w+) msg="((?:[^"\\]|\\.)*)"')


#: The options of a command, whose names begin as its do.
_Options = Callable[[str], list[str]]


class Settings(msgspec.Struct, rename="pascal"):
    """What an image says of its processes."""

    env: list[str] | None = None


class RootFiles(msgspec.Struct):
    """Digests of its layers, unpacked, lowest first."""

    diff_ids: list[str]


class Config(msgspec.Struct):
    """An image's configuration, as far as it matters here."""

    rootfs: RootFiles
    architecture: str = ""
    os: str = ""
    config: Settings | None = None


class Skopeo:
    """Talks to one registry about one image.

    Args:
        image: Which.
        credentials: Who asks; they are written to a file for as long as they are needed.
        room: A directory for that file.
    """

    def __init__(self, image: ImageReference, credentials: Credentials | None, room: Path) -> None:
        self._program = programs.find("skopeo", "skopeo", "an image of a registry")
        self._image = image
        self._credentials = credentials
        self._room = room
        if credentials is not None and not image.registry:
            raise ImageError(f"credentials need the registry's name: HOST/{image.name}, not {image.name}")

    async def inspect(self) -> bytes:
        """The image's configuration, as the registry has it.

        Raises:
            ImageError: there is no such image for this machine, or it cannot be had.
        """
        with self._access() as options:
            command = [*self._command(), "inspect", *options(""), "--config", "--raw", self._address]
            return await self._run(command, _ignore, INSPECT_SECONDS)

    async def copy(self, target: Path, on_line: programs.OnLine) -> None:
        """Fetch the image into an OCI layout, for this machine's architecture; what is there already is not fetched.

        Raises:
            ImageError: it cannot be had, or is not what its digests say.
        """
        with self._access() as options:
            command = [*self._command(), "copy", *options("src-"), "--retry-times", "3"]
            # zstd becomes gzip, which is what layers are unpacked from
            command += ["--dest-compress-format", "gzip", self._address, f"oci:{target}:image"]
            await self._run(command, on_line, COPY_SECONDS)

    @property
    def _address(self) -> str:
        return f"docker://{self._image}"

    def _command(self) -> list[str]:
        known = any(os.path.exists(os.path.expanduser(path)) for path in POLICIES)
        return [self._program, "--override-os", "linux", *([] if known else ["--insecure-policy"])]

    @contextmanager
    def _access(self) -> Iterator[_Options]:
        """How to talk to the registry; credentials are gone when the block ends."""
        options = []
        if self._image.plain_http:
            options.append("tls-verify=false")
        if self._credentials is None:
            yield lambda prefix: [f"--{prefix}{option}" for option in options]
            return
        path = self._room / "auth.json"
        secret = f"{self._credentials.username}:{self._credentials.password}"
        known = {"auths": {self._image.registry: {"auth": base64.b64encode(secret.encode()).decode()}}}
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(msgspec.json.encode(known))
            yield lambda prefix: [*(f"--{prefix}{option}" for option in options), f"--{prefix}authfile={path}"]
        finally:
            path.unlink(missing_ok=True)

    async def _run(self, command: list[str], on_line: programs.OnLine, seconds: float) -> bytes:
        try:
            return await programs.run(command, on_line, seconds=seconds)
        except ImageError as error:
            raise ImageError(f"image {self._image}: {_plain(str(error))}") from None


def read_config(data: bytes) -> Config:
    """An image's configuration.

    Raises:
        ImageError: it makes no sense, or the image is for another kind of machine.
    """
    try:
        config = msgspec.json.decode(data, type=Config)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ImageError(f"the image's configuration makes no sense: {error}") from None
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    if (config.os or "linux", config.architecture or machine) != ("linux", machine):
        raise ImageError(f"the image is for {config.os}/{config.architecture}, this machine is linux/{machine}")
    if not all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in config.rootfs.diff_ids):
        raise ImageError("the image's configuration names a layer by what is no SHA-256")
    return config


def _plain(text: str) -> str:
    """What skopeo means, without what its log looks like."""
    messages = [match[2] for match in _MESSAGE.finditer(text) if match[1] in ("fatal", "error")]
    text = messages[-1].replace('\\"', '"') if messages else text
    text = re.sub(r'^Error parsing image name "[^"]*": ', "", text)
    if "dial tcp" in text:
        return f"{text} (`grotte serve --image-map NAME=IMAGE` names a registry that this machine reaches)"
    return text


def _ignore(line: str) -> None:
    """Asking makes no log."""
