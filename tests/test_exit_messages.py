"""What the exception of a failed command says in words."""

from __future__ import annotations

import copy
import pickle

import pytest

from grotte import CommandExitException
from grotte._proto.signals import manner_of_end
from grotte.errors import SHOWN_STDERR


@pytest.mark.parametrize(
    ("exit_code", "error", "says"),
    [
        (3, "exit status 3", ""),
        (3, None, ""),
        (-1, "signal: killed", "SIGKILL"),
        (-1, "signal: segmentation fault (core dumped)", "SIGSEGV (core dumped)"),
        (-1, "signal: killed (out of memory)", "SIGKILL (out of memory)"),
        (-1, "signal: killed (core dumped) (why)", "SIGKILL (core dumped) (why)"),
        (-1, "signal: signal 31", "SIGSYS"),
        (-1, "signal: signal 42", "signal 42"),
        (-1, "signal: something new", "something new"),
        (137, "exit status 137", "as shells report SIGKILL"),
        (143, "exit status 143", "as shells report SIGTERM"),
        (200, "exit status 200", ""),
        (1, "the disk is full", "the disk is full"),
    ],
)
def test_how_a_command_ended(exit_code: int, error: str | None, says: str) -> None:
    assert manner_of_end(exit_code, error) == says
    message = str(CommandExitException("", "", exit_code, error))
    assert message.startswith(f"Command exited with code {exit_code}{says and f' ({says})'}; ")


def test_the_message_has_the_sandbox_and_the_end_of_stderr() -> None:
    failure = CommandExitException("oops\n", "out", -1, "signal: killed", "i1")
    assert str(failure) == "Command exited with code -1 (SIGKILL) in sandbox i1 and error:\noops\n"
    assert (failure.stderr, failure.stdout, failure.exit_code, failure.error) == ("oops\n", "out", -1, "signal: killed")
    for twin in (copy.copy(failure), pickle.loads(pickle.dumps(failure))):
        assert (str(twin), twin.sandbox_id, twin.stderr) == (str(failure), "i1", "oops\n")


def test_a_long_stderr_is_cut_in_the_message_alone() -> None:
    text = "a" * SHOWN_STDERR + "b" * SHOWN_STDERR
    failure = CommandExitException(text, "", 1)
    assert str(failure) == f"Command exited with code 1 and error:\n[4000 characters before this]\n{'b' * SHOWN_STDERR}"
    assert failure.stderr == text
    assert "[7 characters before this]\nc" in str(CommandExitException("c", "", 1, stderr_dropped=7))
    assert str(CommandExitException("b" * SHOWN_STDERR, "", 1)).endswith(":\n" + "b" * SHOWN_STDERR)
