"""Commands that succeed when what a template starts is ready."""

from __future__ import annotations

import shlex

from grotte._proto import arguments
from grotte.errors import InvalidArgumentException

MILLISECONDS = 1000


class ReadyCmd:
    """A command that is repeated until it succeeds."""

    def __init__(self, cmd: str) -> None:
        self._cmd = arguments.command_line(cmd)

    def __repr__(self) -> str:
        return f"ReadyCmd({self._cmd!r})"

    def get_cmd(self) -> str:
        """The command line."""
        return self._cmd


def wait_for_port(port: int) -> ReadyCmd:
    """Ready when something listens on a port.

    Args:
        port: The TCP or UDP port.

    Example:
        ```python
        Template().from_base_image().set_start_cmd("python3 -m http.server 8000", wait_for_port(8000))
        ```
    """
    return ReadyCmd(f"ss -tuln | grep -q ':{arguments.port_number(port)} '")


def wait_for_url(url: str, status_code: int = 200) -> ReadyCmd:
    """Ready when a URL answers.

    Args:
        url: The address, as seen from inside the sandbox.
        status_code: The status that it must answer with.
    """
    status = arguments.whole(status_code, "status_code", 100, 599)
    url = shlex.quote(arguments.text(url, "url"))
    return ReadyCmd(f'curl -s -o /dev/null -w "%{{http_code}}" {url} | grep -q "{status}"')


def wait_for_process(process_name: str) -> ReadyCmd:
    """Ready when a process of that name runs.

    Args:
        process_name: The name, as `pgrep` finds it.
    """
    return ReadyCmd(f"pgrep {shlex.quote(arguments.text(process_name, 'process_name'))} > /dev/null")


def wait_for_file(filename: str) -> ReadyCmd:
    """Ready when a file is there.

    Args:
        filename: Its path in the sandbox.
    """
    return ReadyCmd(f"[ -f {shlex.quote(arguments.path(filename, 'filename'))} ]")


def wait_for_timeout(timeout: int) -> ReadyCmd:
    """Ready after some time.

    Args:
        timeout: In milliseconds; at least a second is waited.
    """
    seconds = arguments.whole(timeout, "timeout", 0, 24 * 3600 * MILLISECONDS) // MILLISECONDS
    return ReadyCmd(f"sleep {max(1, seconds)}")


def ready_line(ready_cmd: object) -> str:
    """The command line of a check, which may be given as one."""
    if isinstance(ready_cmd, ReadyCmd):
        return ready_cmd.get_cmd()
    if not isinstance(ready_cmd, str):
        raise InvalidArgumentException(
            f"ready_cmd must be a str or what wait_for_port and the like return, not {type(ready_cmd).__name__}"
        )
    return arguments.command_line(ready_cmd)
