"""What ``sudo`` and the sandbox's first process agree on.

The client sends ``run`` with five descriptors: its request in a sealed file, the directory, and its standard streams.
It hears ``+``, with the command's terminal if that gets one, or why not; then the wait status in the end. All that it
sends in between are numbers of signals.
"""

from __future__ import annotations

import fcntl
import struct

from .sudo_door import ADDRESS as ADDRESS

STATUS = struct.Struct("i")
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
