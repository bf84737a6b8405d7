"""An image in a directory, as the OCI has it: blobs by digest, and an index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from grotte.engine.images.reference import ImageError

MAX_JSON = 8 << 20
T = TypeVar("T")


class Descriptor(msgspec.Struct):
    """A blob by its digest."""

    digest: str


class Index(msgspec.Struct):
    """The file that names the image."""

    manifests: list[Descriptor]


class Manifest(msgspec.Struct):
    """What an image is made of; layers lowest first."""

    config: Descriptor
    layers: list[Descriptor]


def read_layout(directory: Path) -> tuple[bytes, list[Path]]:
    """The configuration of the image in a directory, and its layers, lowest first.

    Raises:
        ImageError: it is not as it should be.
    """
    index = _decode(_read(directory / "index.json"), Index)
    if not index.manifests:
        raise ImageError("the image was not fetched")
    manifest = _decode(_read(_blob(directory, index.manifests[-1])), Manifest)
    return _read(_blob(directory, manifest.config)), [_blob(directory, layer) for layer in manifest.layers]


def _blob(directory: Path, descriptor: Descriptor) -> Path:
    if not re.fullmatch("sha256:[0-9a-f]{64}", descriptor.digest):
        raise ImageError("the image names a part by what is no SHA-256")
    return directory / "blobs" / "sha256" / descriptor.digest.removeprefix("sha256:")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ImageError("the image's description is too long")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the image was not fetched whole: {error.strerror}") from None


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ImageError(f"the image's description makes no sense: {error}") from None
