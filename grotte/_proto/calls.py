"""What every call into a sandbox accepts, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from grotte._proto import arguments


class CallParams(TypedDict, total=False):
    """What every call into a sandbox accepts besides its own arguments.

    Attributes:
        api_key: Accepted as everywhere, and checked, but not sent: into a sandbox leads its own token, and nothing in
            there shall see the key of the account.
    """

    api_key: str | None


class RequestParams(CallParams, total=False):
    """The same for calls that send nothing by themselves.

    Attributes:
        request_timeout: Accepted as everywhere, and checked.
    """

    request_timeout: float | None


def check_call(options: Mapping[str, object], kind: type = CallParams) -> None:
    """Refuse what a call does not accept.

    Args:
        options: The arguments that were given by name.
        kind: The names that it has.

    Raises:
        TypeError: one of them is another one.
        InvalidArgumentException: a value cannot be right.
    """
    for name, value in options.items():
        if name not in kind.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}")
        if name == "api_key" and value is not None:
            arguments.secret(value, "api_key")
        elif name == "request_timeout":
            arguments.seconds(value, "request_timeout")
