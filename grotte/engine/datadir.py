"""The engine's data directory: one version, one owner at a time."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from grotte._local import release, try_exclusive
from grotte.errors import EngineUnavailableException

VERSION = 1


class DataDir:
    """A data directory, held for as long as the context lasts.

    Raises:
        EngineUnavailableException: another engine holds it, a newer one wrote it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        return self.path / "state.sqlite"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = try_exclusive(self.path / "lock")
            if self._lock is None:
                raise EngineUnavailableException(f"another engine uses the data directory {self.path}")
            self._check_version()
        except OSError as error:
            self._release()
            raise EngineUnavailableException(
                f"the data directory {self.path} cannot be used: {error.strerror}"
            ) from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            release(self._lock)
            self._lock = None

    def _check_version(self) -> None:
        file = self.path / "version"
        if not file.exists():
            temporary = self.path / ".version"
            temporary.write_text(f"{VERSION}\n")
            temporary.rename(file)
            return
        text = file.read_text().strip()
        if not text.isdecimal() or int(text) > VERSION:
            raise EngineUnavailableException(
                f"{self.path} has the layout {text[:20]!r}, this engine reads up to {VERSION}: use a newer grotte,"
                " or another directory"
            )


def make_private(path: Path) -> None:
    """Create the file, readable by this user alone, before anything else opens it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
