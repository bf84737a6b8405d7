"""Volumes: files that outlive sandboxes, and that many of them can mount."""

from __future__ import annotations

import builtins
from typing import Literal, Self, Unpack, overload

from grotte._core.downloads import AsyncFileStreamReader
from grotte._core.uploads import AsyncWriteData
from grotte._core.volume_api import AsyncVolumePlane
from grotte._core.volume_content import AsyncVolumeContent
from grotte._dual import also_on_class, named_after
from grotte._proto import arguments, volumes
from grotte._proto.pinned import Pinned
from grotte._proto.volumes import EntryPatch, EntryStat
from grotte.config import ApiParams, Bound, ConnectionConfig, VolumeApiParams, VolumeConnectionConfig
from grotte.errors import InvalidArgumentException, VolumePathNotFoundException
from grotte.volume_models import VolumeAndToken, VolumeEntryStat, VolumeInfo


class AsyncVolume(Pinned, Bound):
    """A volume: files that outlive sandboxes. Sandboxes mount it, and its files are reached without one, too.

    Example:
        ```python
        volume = await AsyncVolume.create("datasets")
        await volume.write_file("/numbers.csv", "1,2,3")
        async with await AsyncSandbox.create("base", volume_mounts={"/mnt/data": volume}) as sandbox:
            print((await sandbox.commands.run("cat /mnt/data/numbers.csv")).stdout)
        await AsyncVolume.destroy(volume.volume_id)
        ```
    """

    _instead = "pass on its volume_id, and call connect(volume_id) of its class where it is needed"

    def __new__(cls, *made: object, **options: object) -> Self:
        """Tell whoever calls the class which of its methods makes volumes."""
        if options or not (made and isinstance(made[0], ConnectionConfig)):
            name = cls.__name__
            raise TypeError(f"{name}() makes no volume: call {name}.create(name), or {name}.connect(volume_id)")
        return super().__new__(cls)

    def __init__(self, config: ConnectionConfig, found: VolumeAndToken) -> None:
        """Not to be called: `create` and `connect` make them."""
        self._config = config
        self._found = found

    def __repr__(self) -> str:
        return f"{type(self).__name__}(volume_id={self.volume_id!r}, name={self.name!r})"

    @property
    def volume_id(self) -> str:
        """Its id, for `connect` and `destroy`."""
        return self._found.volume_id

    @property
    def name(self) -> str:
        """Its name, by which sandboxes mount it."""
        return self._found.name

    @property
    def token(self) -> str:
        """What its files are reached with."""
        return self._found.token

    # -- making and finding --------------------------------------------------------------------------------------------

    @classmethod
    async def create(cls, name: str, **options: Unpack[ApiParams]) -> Self:
        """Make a volume.

        Args:
            name: Letters, digits, ``-`` and ``_``.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            VolumeException: there is one of that name.

        Example:
            ```python
            volume = await AsyncVolume.create("results")
            print(volume.volume_id)
            ```
        """
        name = volumes.volume_name(name)
        api = await AsyncVolumePlane.at(cls._configured(options))
        return cls(api.config, volumes.public_volume(await api.create_volume(name)))

    @classmethod
    async def connect(cls, volume_id: str, **options: Unpack[ApiParams]) -> Self:
        """Find a volume.

        Args:
            volume_id: Which.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            VolumeNotFoundException: there is no such volume.

        Example:
            ```python
            first = await AsyncVolume.create("shared")
            volume = await AsyncVolume.connect(first.volume_id)
            print(volume.name)  # shared
            ```
        """
        arguments.identifier(volume_id, "volume_id")
        api = await AsyncVolumePlane.at(cls._configured(options))
        return cls(api.config, volumes.public_volume(await api.get_volume(volume_id)))

    @classmethod
    async def destroy(cls, volume_id: str, **options: Unpack[ApiParams]) -> bool:
        """Throw a volume away, with all its files.

        Args:
            volume_id: Which.
            **options: Where, and with which key; see `ApiParams`.

        Returns:
            True, or False if there was none.

        Example:
            ```python
            volume = await AsyncVolume.create("scratch")
            print(await AsyncVolume.destroy(volume.volume_id))  # True
            ```
        """
        arguments.identifier(volume_id, "volume_id")
        api = await AsyncVolumePlane.at(cls._configured(options))
        return await api.delete_volume(volume_id)

    @classmethod
    async def _list_all(cls, **options: Unpack[ApiParams]) -> Volumes:
        """The volumes of the account."""
        api = await AsyncVolumePlane.at(cls._configured(options))
        return [volumes.public_info(volume) for volume in await api.list_volumes()]

    @classmethod
    async def _info_by_id(cls, volume_id: str, **options: Unpack[ApiParams]) -> VolumeAndToken:
        """What the control plane knows about a volume."""
        arguments.identifier(volume_id, "volume_id")
        api = await AsyncVolumePlane.at(cls._configured(options))
        return volumes.public_volume(await api.get_volume(volume_id))

    # -- files ---------------------------------------------------------------------------------------------------------

    @also_on_class(_list_all)
    async def list(
        self, path: str, depth: int | None = None, **options: Unpack[VolumeApiParams]
    ) -> builtins.list[VolumeEntryStat]:
        """List a directory; on the class: the volumes of the account.

        Args:
            path: The directory.
            depth: How many levels. Default: 1, the directory itself.
            **options: See `VolumeApiParams`.

        Raises:
            VolumePathNotFoundException: there is no such directory.

        Example:
            ```python
            for info in await AsyncVolume.list():
                print(info.name)
            volume = await AsyncVolume.create("letters")
            await volume.write_file("/a.txt", "a")
            for entry in await volume.list("/"):
                print(entry.path, entry.size)
            ```
        """
        query = volumes.listing_query(path, depth)
        found = await self._content(options).call("GET", "dir", query, builtins.list[EntryStat])
        return [volumes.public_stat(stat) for stat in found]

    @also_on_class(_info_by_id)
    async def get_info(self, path: str, **options: Unpack[VolumeApiParams]) -> VolumeEntryStat:
        """What is at a path; on the class: what is known about a volume.

        Args:
            path: Where.
            **options: See `VolumeApiParams`.

        Raises:
            VolumePathNotFoundException: nothing.

        Example:
            ```python
            volume = await AsyncVolume.create("info")
            await volume.write_file("/a.txt", "a")
            print((await volume.get_info("/a.txt")).size)  # 1
            print((await AsyncVolume.get_info(volume.volume_id)).name)  # info
            ```
        """
        query = {"path": arguments.path(path, "path")}
        return volumes.public_stat(await self._content(options).call("GET", "path", query, EntryStat))

    async def exists(self, path: str, **options: Unpack[VolumeApiParams]) -> bool:
        """Whether there is anything at a path.

        Args:
            path: Where.
            **options: See `VolumeApiParams`.

        Example:
            ```python
            volume = await AsyncVolume.create("maybe")
            print(await volume.exists("/a.txt"))  # False
            ```
        """
        try:
            await self.get_info(path, **options)
        except VolumePathNotFoundException:
            return False
        return True

    async def make_dir(
        self,
        path: str,
        uid: int | None = None,
        gid: int | None = None,
        mode: int | None = None,
        force: bool | None = None,
        **options: Unpack[VolumeApiParams],
    ) -> VolumeEntryStat:
        """Make a directory.

        Args:
            path: Where.
            uid: The owner's number.
            gid: The group's number.
            mode: The permission bits, such as ``0o755``.
            force: Make those above it, too.
            **options: See `VolumeApiParams`.

        Raises:
            VolumePathNotFoundException: there is no directory above it, and `force` is not set.

        Example:
            ```python
            volume = await AsyncVolume.create("tree")
            await volume.make_dir("/a/b", mode=0o750, force=True)
            ```
        """
        query = volumes.placing_query(path, uid, gid, mode, force)
        return volumes.public_stat(await self._content(options).call("POST", "dir", query, EntryStat))

    async def update_metadata(
        self,
        path: str,
        uid: int | None = None,
        gid: int | None = None,
        mode: int | None = None,
        **options: Unpack[VolumeApiParams],
    ) -> VolumeEntryStat:
        """Change whose something is, and who may use it.

        Args:
            path: Where.
            uid: The owner's number.
            gid: The group's number.
            mode: The permission bits, such as ``0o644``.
            **options: See `VolumeApiParams`.

        Raises:
            VolumePathNotFoundException: nothing is there.

        Example:
            ```python
            volume = await AsyncVolume.create("modes")
            await volume.write_file("/run.sh", "echo hi")
            print(oct((await volume.update_metadata("/run.sh", mode=0o700)).mode))  # 0o700
            ```
        """
        query = {"path": arguments.path(path, "path")}
        patch = EntryPatch(**volumes.owner_and_mode(uid, gid, mode))
        return volumes.public_stat(await self._content(options).call("PATCH", "path", query, EntryStat, patch))

    @overload
    async def read_file(
        self, path: str, format: Literal["text"] = "text", **options: Unpack[VolumeApiParams]
    ) -> str: ...
    @overload
    async def read_file(self, path: str, format: Literal["bytes"], **options: Unpack[VolumeApiParams]) -> bytes: ...
    @overload
    async def read_file(
        self, path: str, format: Literal["stream"], **options: Unpack[VolumeApiParams]
    ) -> AsyncFileStreamReader: ...
    async def read_file(
        self, path: str, format: Literal["text", "bytes", "stream"] = "text", **options: Unpack[VolumeApiParams]
    ) -> str | bytes | AsyncFileStreamReader:
        """Read a file.

        Args:
            path: Which.
            format: ``"text"`` (invalid UTF-8 appears as U+FFFD), ``"bytes"``, or ``"stream"`` for the pieces as they
                arrive.
            **options: See `VolumeApiParams`. `request_timeout` is how long the transfer may pause, in seconds.

        Raises:
            VolumePathNotFoundException: there is no such file.

        Example:
            ```python
            volume = await AsyncVolume.create("reading")
            await volume.write_file("/a.txt", "text")
            print(await volume.read_file("/a.txt"))  # text
            async with await volume.read_file("/a.txt", "stream") as pieces:
                async for piece in pieces:
                    print(len(piece))
            ```
        """
        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f"format must be 'text', 'bytes' or 'stream', not {arguments.shown(format)}")
        reader = await self._content(options).download({"path": arguments.path(path, "path")})
        if format == "stream":
            return reader
        async with reader:
            content = await reader.aread()
        return content if format == "bytes" else content.decode(errors="replace")

    async def write_file(
        self,
        path: str,
        data: AsyncWriteData,
        uid: int | None = None,
        gid: int | None = None,
        mode: int | None = None,
        force: bool | None = None,
        **options: Unpack[VolumeApiParams],
    ) -> VolumeEntryStat:
        """Write a file.

        Args:
            path: Where.
            data: Text (written as UTF-8), bytes, a file, or an iterable of bytes; files and iterables are sent piece
                by piece.
            uid: The owner's number.
            gid: The group's number.
            mode: The permission bits, such as ``0o644``.
            force: Replace what is there.
            **options: See `VolumeApiParams`. `request_timeout` is how long the transfer may pause, in seconds.

        Raises:
            VolumeException: it cannot be written.
            NotEnoughSpaceException: the volume is full.

        Example:
            ```python
            volume = await AsyncVolume.create("writing")
            await volume.write_file("/a.bin", b"\\x00\\x01", mode=0o600)
            ```
        """
        query = volumes.placing_query(path, uid, gid, mode, force)
        return volumes.public_stat(await self._content(options).upload(query, data))

    async def remove(self, path: str, **options: Unpack[VolumeApiParams]) -> None:
        """Remove a file, or a directory with all that is in it.

        Args:
            path: Which.
            **options: See `VolumeApiParams`.

        Raises:
            VolumePathNotFoundException: nothing is there.

        Example:
            ```python
            volume = await AsyncVolume.create("cleaning")
            await volume.write_file("/a.txt", "a")
            await volume.remove("/a.txt")
            ```
        """
        await self._content(options).delete({"path": arguments.path(path, "path")})

    def _content(self, options: VolumeApiParams) -> AsyncVolumeContent:
        config = VolumeConnectionConfig.of(self._config, self.token or None, self._found.domain, options)
        return AsyncVolumeContent(self.volume_id, config)


named_after(AsyncVolume)
#: `list` is a method there.
Volumes = list[VolumeInfo]
