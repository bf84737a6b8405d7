"""Which kernels can isolate sandboxes in the way that is done here."""

from __future__ import annotations

import platform
import re

#: The first whose overlays can be mounted in a user namespace.
MINIMUM = (5, 11)


def why_not(system: str = "", release: str = "") -> str:
    """Return why this kernel will not do, with what helps, or nothing.

    Args:
        system: As ``uname -s`` says it; by default, this machine's.
        release: The same of ``uname -r``.
    """
    system, release = system or platform.system(), release or platform.release()
    if system != "Linux":
        return f"{system} has no sandboxes of this kind; use Linux"
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers < MINIMUM:
        return f"Linux {release} is too old; use Linux {MINIMUM[0]}.{MINIMUM[1]} or newer"
    return ""
