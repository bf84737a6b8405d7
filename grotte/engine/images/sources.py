"""What the names of images mean on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grotte.engine.images.reference import ImageError, ImageReference, parse_image


@dataclass(frozen=True, slots=True)
class ImageMap:
    """Names of images and what they stand for, as the engine was told.

    Attributes:
        entries: By name, with or without a tag: another name, or the absolute path of a root file system, which is
            a directory or a tar archive.
    """

    entries: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> ImageReference | Path:
        """What a name stands for: the longest entry that fits it wins; without one, it stands for itself.

        An entry fits the name with and without its tag; one that ends with a slash fits all names that begin with it.

        Raises:
            ImageError: it stands for nothing that could be an image.

        Example:
            >>> images = ImageMap((("debian", "localhost:5000/debian"), ("team/", "localhost:5000/")))
            >>> str(images.find("debian:12")), str(images.find("team/app:1"))
            ('localhost:5000/debian:12', 'localhost:5000/app:1')
        """
        for known, meant in sorted(self.entries, key=lambda entry: -len(entry[0])):
            rest = name.removeprefix(known)
            fits = name.startswith(known) and (known.endswith("/") or not rest or rest[0] in ":@")
            if fits and meant.startswith("/"):
                return Path(meant)
            if fits:
                return parse_image(meant if _is_exact(meant) else meant + rest)
        return parse_image(name)


def _is_exact(meant: str) -> bool:
    """Whether a name says its tag or digest itself."""
    return "@" in meant or ":" in meant.rpartition("/")[2]


def read_image_map(entries: list[str]) -> ImageMap:
    """Read ``NAME=REF`` and ``NAME=DIR``.

    Raises:
        ValueError: one is neither.
    """
    found = []
    for entry in entries:
        name, equals, meant = entry.partition("=")
        if not name or not equals or not meant:
            raise ValueError(f"expected NAME=IMAGE or NAME=PATH, not {entry!r}")
        if meant.startswith(("/", "./", "../", "~")):
            meant = str(Path(meant).expanduser().absolute())
            if not Path(meant).exists():
                raise ValueError(f"there is no root file system at {meant}")
        elif not meant.endswith("/"):
            try:
                parse_image(meant)
            except ImageError as error:
                raise ValueError(str(error)) from None
        found.append((name, meant))
    return ImageMap(tuple(found))
