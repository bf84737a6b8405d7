"""``multipart/form-data`` for uploads: every part is named ``file``, its file name is the path in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence


def can_name(path: str) -> bool:
    """Whether a path can stand in a part's header as it is: servers unescape differently."""
    return path.isprintable() and '"' not in path and "\\" not in path


class Multipart:
    """A body of several files, made of pieces so that no content is copied.

    Attributes:
        content_type: With the boundary.
        length: Of the whole body, in bytes.
    """

    def __init__(self, files: Sequence[tuple[str, bytes]]) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._pieces: list[bytes] = []
        for path, content in files:
            head = (
                f"--{boundary}\r\n"
                f'Content-Disposition: form-data; name="file"; filename="{path}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            )
            self._pieces += [head.encode(), content, b"\r\n"]
        self._pieces.append(f"--{boundary}--\r\n".encode())
        self.length = sum(map(len, self._pieces))

    def pieces(self) -> Iterator[bytes]:
        """The body in order."""
        return iter(self._pieces)

    def body(self) -> bytes:
        """The body in one piece."""
        return b"".join(self._pieces)
