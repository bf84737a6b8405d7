"""Bytes and files, as they are counted."""

from __future__ import annotations

import os
import stat

BLOCK = 512


class Count:
    """Bytes and files so far."""

    __slots__ = ("bytes", "files", "links")

    def __init__(self) -> None:
        self.bytes = self.files = 0
        self.links: set[int] = set()  # files with several names count once

    def add(self, info: os.stat_result) -> None:
        """Take a file in, unless it was."""
        if info.st_nlink != 1 and not stat.S_ISDIR(info.st_mode):
            if info.st_ino in self.links:
                return
            self.links.add(info.st_ino)
        self.files += 1
        self.bytes += info.st_blocks * BLOCK
