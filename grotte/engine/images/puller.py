"""Images as layers on this machine, each unpacked once, whoever wants it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from grotte.engine.builds.catalogue import Catalogue, new_layer_id
from grotte.engine.builds.request import Credentials
from grotte.engine.host import HostError, SandboxHost
from grotte.engine.host.standalone.archives import BOMB_BYTES, BOMB_RATIO
from grotte.engine.images import debian, rootfs
from grotte.engine.images.layout import read_layout
from grotte.engine.images.reference import ImageError, ImageReference
from grotte.engine.images.skopeo import Config, Skopeo, read_config
from grotte.engine.images.sources import ImageMap
from grotte.engine.lifecycle.templates import MAX_LAYERS

#: What one image may unpack to, in bytes.
MAX_IMAGE = 32 << 30
#: What must stay free on the disk, in bytes.
SPARE_DISK = 1 << 30

#: What the layer of template `debian` is remembered as.
DEBIAN = "debian"

Say = Callable[[str], None]
Hold = Callable[[list[str]], None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here.

    Attributes:
        layers: Topmost first.
        envs: What its processes find in their environment.
    """

    layers: list[str]
    envs: dict[str, str]


class Puller:
    """Fetches images.

    Args:
        directory: For what is under way; what is left in it is of no use.
        host: Where layers lie.
        catalogue: Which there are.
        images: What the names of images mean.
    """

    def __init__(self, directory: Path, host: SandboxHost, catalogue: Catalogue, images: ImageMap) -> None:
        self._directory = directory
        self._host = host
        self._catalogue = catalogue
        self._images = images
        self._fetching: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._unpacking = anyio.Lock()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)

    async def pull(self, name: str, owner: str, credentials: Credentials | None, say: Say, hold: Hold) -> Image:
        """Have an image here.

        Args:
            name: As whoever builds calls it.
            owner: Who that is.
            credentials: Who may have it.
            say: Is told how it goes.
            hold: Is told which layers must not go, whenever there are more.

        Raises:
            ImageError: it cannot be had.
        """
        source = self._images.find(name)
        async with self._stage(str(source)) as stage:
            if isinstance(source, Path):
                say(f"taking in {source}")
                return await self._take_in(await rootfs.pack(source, stage), say, hold)
            return await self._fetch(source, owner, credentials, stage, say, hold)

    async def make_debian(self, say: Say, hold: Hold, *, fresh: bool) -> Image:
        """Have Debian's own packages here, as an image.

        Args:
            say: Is told how it goes.
            hold: Is told which layers must not go.
            fresh: Make it although there is one.

        Raises:
            ImageError: it cannot be made.
        """
        async with self._stage(DEBIAN) as stage:
            layer = None if fresh else self._catalogue.layer(DEBIAN)
            if layer is not None:
                hold([layer])
                return Image([layer], {})
            image = await self._take_in(await debian.make(stage, say), say, hold)
            self._catalogue.add_layer(DEBIAN, image.layers[0])
            return image

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[Path]:
        """A directory for what is fetched under a name; what failed stays, and the next attempt goes on from there."""
        stage = self._directory / hashlib.sha256(name.encode()).hexdigest()[:16]
        async with self._fetching[stage.name]:
            stage.mkdir(mode=0o700, exist_ok=True)
            try:
                yield stage
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):  # one tree, which nobody writes to any more
                    await to_thread.run_sync(shutil.rmtree, stage)
                raise
            await to_thread.run_sync(shutil.rmtree, stage)

    async def _take_in(self, archive: Path, say: Say, hold: Hold) -> Image:
        with archive.open("rb") as file:
            digest = await to_thread.run_sync(rootfs.digest, file)
        return Image(await self._layers([digest], [archive], say, hold, proven=True), {})

    async def _fetch(
        self, source: ImageReference, owner: str, credentials: Credentials | None, stage: Path, say: Say, hold: Hold
    ) -> Image:
        skopeo = Skopeo(source, credentials, stage)
        told = await skopeo.inspect()
        config = read_config(told)
        pulled = f"pulled:{owner}:{hashlib.sha256(told).hexdigest()}"
        known = self._known(config) if self._catalogue.layer(pulled) is not None else None
        if known is None:
            self._check_disk()
            await skopeo.copy(stage, say)
            data, blobs = await to_thread.run_sync(read_layout, stage)
            fetched = read_config(data)
            known = await self._layers(fetched.rootfs.diff_ids, blobs, say, hold)
            if known and fetched.rootfs == config.rootfs:
                self._catalogue.add_layer(pulled, known[0])
            config = fetched
        hold(known)
        return Image(known, _envs(config))

    def _known(self, config: Config) -> list[str] | None:
        """The layers of an image, if all are here.

        That they are named says nothing: anybody can name those of anybody else. Whoever asks must have had them once.
        """
        found = [self._catalogue.layer(_key(digest)) for digest in distinct(config.rootfs.diff_ids)]
        layers = [layer for layer in found if layer is not None]
        return layers[::-1] if len(layers) == len(found) else None

    def _check_disk(self) -> None:
        info = os.statvfs(self._directory)
        if info.f_bavail * info.f_frsize < SPARE_DISK:
            raise ImageError("the disk is nearly full: there is no room for an image")

    async def _layers(
        self, digests: list[str], archives: list[Path], say: Say, hold: Hold, *, proven: bool = False
    ) -> list[str]:
        """Unpack what is not here yet; the layers, topmost first.

        Args:
            digests: What the archives unpack to, as somebody says.
            archives: Lowest first, as the digests are.
            say: Is told how it goes.
            hold: Is told which layers must not go.
            proven: The digests were made of the archives.
        """
        if len(digests) != len(archives):
            raise ImageError(f"the image has {len(archives)} layers, and digests for {len(digests)}")
        by_digest = dict(zip(digests, archives, strict=True))
        wanted = distinct(digests)
        if len(wanted) > MAX_LAYERS - 2:
            raise ImageError(f"the image has {len(wanted)} layers; at most {MAX_LAYERS - 2} can be used")
        layers: list[str] = []
        async with self._unpacking:
            left = MAX_IMAGE
            for number, digest in enumerate(wanted, 1):
                layer = self._catalogue.layer(_key(digest))
                if layer is None:
                    say(f"unpacking layer {number} of {len(wanted)}")
                    layer, size = await self._unpack(by_digest[digest], digest, left)
                    left -= size
                elif not proven:
                    await to_thread.run_sync(_prove, by_digest[digest], digest)
                layers.insert(0, layer)
                hold(layers)
        return layers

    async def _unpack(self, archive: Path, digest: str, limit: int) -> tuple[str, int]:
        layer = new_layer_id()
        try:
            handle = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"the image was not fetched whole: {error.strerror}") from None
        try:
            size = await self._host.unpack_layer(handle, layer, limit, digest.removeprefix("sha256:"))
        except HostError as error:
            raise ImageError(f"the image was refused: layer {digest[:19]}…: {error}") from None
        finally:
            os.close(handle)
        self._catalogue.add_layer(_key(digest), layer)
        return layer, size


def _prove(archive: Path, digest: str) -> None:
    """See to it that whoever names a layer has it.

    Raises:
        ImageError: the archive is another.
    """
    with archive.open("rb") as file:
        limit = min(MAX_IMAGE, max(BOMB_BYTES, BOMB_RATIO * archive.stat().st_size))
        if rootfs.digest(file, limit) != digest:
            raise ImageError(f"the image was refused: layer {digest[:19]}… is not what its digest says")


def distinct(digests: list[str]) -> list[str]:
    """Layers in their order, each once: the last time that one comes, it covers all that it covered before."""
    return list(dict.fromkeys(digests[::-1]))[::-1]


def _key(digest: str) -> str:
    return f"image:{digest}"


def _envs(config: Config) -> dict[str, str]:
    given = (config.config.env if config.config else None) or []
    pairs = (line.partition("=") for line in given if "\0" not in line)
    return {name: value for name, equals, value in pairs if equals and name}
