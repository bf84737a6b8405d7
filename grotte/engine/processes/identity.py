"""What every process finds in its environment about whose it is."""

from __future__ import annotations

from grotte.engine.host import UserEntry

#: Programs start with this search path, as on every Debian.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def identity(user: UserEntry) -> dict[str, str]:
    """The first variables of a user's process; all others may override them."""
    return {"PATH": PATH, "HOME": user.home, "USER": user.name, "LOGNAME": user.name}
