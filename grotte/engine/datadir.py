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
            self._check_database()
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
            with temporary.open("w") as new:
                new.write(f"{VERSION}\n")
                new.flush()
                os.fsync(new)  # else there may be a file without content once power has failed
            temporary.rename(file)
            return
        text = file.read_text(errors="replace")[:20].strip()
        if not text.isdecimal():
            raise EngineUnavailableException(
                f"{file} should hold the number of a layout, and says {text!r}: is {self.path} an engine's directory?"
            )
        if int(text) > VERSION:
            raise EngineUnavailableException(
                f"{self.path} has the layout {text!r}, this engine reads up to {VERSION}: use a newer grotte,"
                " or another directory"
            )

    def _check_database(self) -> None:
        """An engine removes what its database does not know: better none starts than one that knows nothing."""
        if self.database.exists() and self.database.stat().st_size:
            return
        for kind in ("sandboxes", "layers", "volumes"):
            place = self.path / "host" / kind
            if place.is_dir() and any(not name.startswith(".") for name in os.listdir(place)):
                raise EngineUnavailableException(
                    f"the database {self.database} is missing or empty, and would be made anew without what is in"
                    f" {place}: put a copy of it in its place, or remove {self.path / 'host'}"
                )


def make_private(path: Path) -> None:
    """Create the file, readable by this user alone, before anything else opens it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
