"""What cannot be copied: it holds connections, and its place in what goes on over them."""

from __future__ import annotations

from typing import ClassVar, NoReturn


class Pinned:
    """A base of what stays in its process: who pickles or copies it is told what to do instead."""

    __slots__ = ()

    #: What to do instead, as a clause.
    _instead: ClassVar[str]

    def __reduce__(self) -> NoReturn:
        # what `copy` asks for, too; TypeError is what programs expect that try whether a thing can be pickled
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: {self._instead}")


#: For what belongs to one sandbox.
BY_SANDBOX = "pass on the sandbox_id, and call connect(sandbox_id) of the sandbox's class where it is needed"
#: For a running process in it; the room is where such processes are found.
BY_PID = BY_SANDBOX + ", then {room}.connect(pid)"
