"""The display of a build: its steps from its log, their lines, and what a terminal shows in the end."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grotte import LogEntry, LogEntryEnd, LogEntryStart
from grotte._proto.templates.drawing import (
    WIDEST,
    Canvas,
    Screen,
    encoding_of,
    finished_lines,
    running_lines,
    step_line,
    visible,
    width,
)
from grotte._proto.templates.logger import BuildLogger
from grotte._proto.templates.progress import Mark, Progress, Step
from grotte._proto.templates.results import LogEntryLevel
from tests.support.engine import Engine

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
PLAIN = Screen(40, 24, coloured=False)
CODES = re.compile(r"\x1b\[(\d*)([AJKm])|(\r)|(\n)|([^\x1b\r\n]+)")


def fed(*messages: str | tuple[LogEntryLevel, str], ended: bool = False) -> tuple[Progress, list[Step | LogEntry]]:
    """A second lies between the messages."""
    progress, settled = Progress(), list[Step | LogEntry]()
    for number, message in enumerate(messages):
        level: LogEntryLevel
        level, text = ("info", message) if isinstance(message, str) else message
        settled += progress.take(LogEntry(EPOCH + timedelta(seconds=number), level, text), number)
    if ended:
        settled += progress.take(LogEntryEnd(datetime.now(UTC), "end"), len(messages))
    return progress, settled


def seen(settled: list[Step | LogEntry]) -> list[tuple[str, str]]:
    return [(one.mark, one.text) if isinstance(one, Step) else (one.level, one.message) for one in settled]


def shown(written: str) -> list[str]:
    """The lines of a terminal on which this was written."""
    lines, row = [""], 0
    for code in CODES.finditer(written.replace("\r\n", "\n")):
        count, letter, start, new, text = code.groups()
        if letter == "A":
            row -= int(count or 1)
        elif letter == "J":
            lines[row:] = [""]
        elif letter == "K":
            lines[row] = ""
        elif new:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text and not start:
            lines[row] += text
    return lines


def test_steps_of_a_build() -> None:
    progress, settled = fed(
        "Waiting for logs...", "FROM base", "CACHED preparing the image", "[1/2] RUN make\nall", "out",
        ("warn", "err\nor"), "CACHED [2/2] ENV A", "start: serve; ready: true", "up", "the template is ready",
    )  # fmt: skip
    assert seen(settled) == [
        ("info", "Waiting for logs..."),
        ("done", "FROM base"),
        ("cached", "preparing the image"),
        ("done", "[1/2] RUN make\nall"),
        ("cached", "[2/2] ENV A"),
        ("done", "start: serve; ready: true"),
        ("info", "the template is ready"),
    ]
    made = settled[3]
    assert isinstance(made, Step)
    assert (made.seconds, list(made.output)) == (3.0, ["out", "err", "or"])
    assert progress.running is None


@pytest.mark.parametrize(
    "output",
    ["[2/9] Building C object", "[3/3] RUN x", "[2/4] RUN x", "[1/3] RUN x", "FROM nowhere", "preparing the image"],
)
def test_output_that_looks_like_a_step(output: str) -> None:
    progress, settled = fed("FROM base", "[1/3] RUN make", output)
    assert seen(settled) == [("done", "FROM base")]
    assert progress.running is not None
    assert list(progress.running.output) == [output]


def test_steps_under_the_names_of_another_service() -> None:
    _, settled = fed("[base] FROM x", "CACHED [builder 1/2] RUN a", "[builder 2/2] COPY b c", "[finalize] End", "Bye",
                     ended=True)  # fmt: skip
    assert seen(settled) == [
        ("done", "[base] FROM x"),
        ("cached", "[builder 1/2] RUN a"),
        ("done", "[builder 2/2] COPY b c"),
        ("ended", "[finalize] End"),
    ]


def test_a_log_without_any_step() -> None:
    assert seen(fed("hello", ("error", "bad"), ended=True)[1]) == [("info", "hello"), ("error", "bad")]


def test_a_step_that_fails_keeps_its_output() -> None:
    _, settled = fed("FROM base", "[1/1] RUN x", "one", "two", ("error", "step 1: status 4\ntwo"), ended=True)
    step = settled[-1]
    assert isinstance(step, Step)
    assert step.mark == Mark.FAILED
    assert finished_lines(step, PLAIN)[1:] == ["    one", "    two", "    step 1: status 4"]
    assert finished_lines(step, Screen())[-1] == "    \x1b[31mstep 1: status 4\x1b[0m"


def test_the_seconds_go_on_while_nothing_is_written() -> None:
    progress, _ = fed("FROM base", "[1/1] RUN x", "out")
    assert progress.seconds(2) == 1
    assert progress.seconds(5) == 4
    assert Progress().seconds(7) == 0


@pytest.mark.parametrize("columns", [1, 2, 5, 11, 12, 13, 30, 80, 500])
@pytest.mark.parametrize("text", ["RUN x", "RUN " + "long " * 99, "RUN " + "世界" * 99, "RUN e\u0301\n\ttwo"])
def test_a_line_fits_its_terminal(columns: int, text: str) -> None:
    screen = Screen(columns, 24, coloured=False)
    step = Step(text, 0)
    step.output.extend([text, "x" * 1000])
    lines = running_lines(step, 1234.5, screen)
    assert all(width(line) < max(columns, 2) for line in lines)
    assert all(width(line) <= WIDEST for line in lines)
    assert columns < 30 or lines[0].endswith("1234.5s")


def test_the_last_of_the_output_is_shown() -> None:
    step = Step("RUN x", 0)
    step.output.extend(["", *map(str, range(9)), "10 %\r20 %\a"])
    assert running_lines(step, 0, Screen())[1:] == [f"    \x1b[2m{text}\x1b[0m" for text in (5, 6, 7, 8, "20 %")]
    assert len(running_lines(step, 0, Screen(80, 5))) == 3
    assert len(running_lines(step, 0, Screen(80, 2))) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_line_in_the_characters_that_there_are(encoding: str) -> None:
    line = step_line(Step("RUN écho 世 " + "x" * 99, 0, Mark.DONE), 1, Screen(40, 24, encoding, coloured=False))
    assert line.encode(encoding).decode(encoding) == line
    assert line.startswith("✓ RUN é" if encoding == "utf-8" else "+ RUN ")
    assert ("…" if encoding == "utf-8" else "...") in line


def test_what_a_terminal_would_obey_is_left_out() -> None:
    assert visible("a\x1b[2Jb\u202ec\x00\td\n") == "a[2Jbc d"
    assert width("世e\u0301…") == 4
    assert encoding_of(None) == "utf-8"
    assert encoding_of("klingon") == "ascii"


def test_lines_are_replaced_and_stay() -> None:
    canvas = Canvas()
    written = canvas.draw([], ["a", "b"], PLAIN)
    assert canvas.draw([], ["a", "b"], PLAIN) == ""
    written += canvas.draw(["stays"], ["c"], PLAIN) + canvas.draw(["too"], ["d"], PLAIN)
    assert shown(written) == ["stays", "too", "d"]


def test_a_terminal_that_became_narrower() -> None:
    canvas = Canvas()
    canvas.draw([], ["x" * 39, "y"], PLAIN)
    assert canvas.draw([], ["z"], Screen(10, 24)).startswith("\r\x1b[4A\x1b[J")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(level: LogEntryLevel = "info") -> str:
    stream = Terminal()
    log = BuildLogger(level, stream)
    log.refresh()  # before the build, there is nothing to show
    assert stream.getvalue() == ""
    log(LogEntryStart(EPOCH, "start"))
    for text in ("FROM base", "[1/1] RUN é"):
        log(LogEntry(EPOCH, "info", text))
    log(LogEntry(EPOCH, "warn", "careful"))
    log.refresh()
    log(LogEntryEnd(EPOCH, "end"))
    return stream.getvalue()


def test_a_terminal_that_can_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    written = logged()
    assert "\x1b" not in written
    ends = ["INFO  FROM base", "INFO  [1/1] RUN é", "WARN  careful"]
    assert [line.partition(" | ")[2][9:] for line in written.splitlines()] == ends


def test_a_display_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[3" in logged()
    monkeypatch.setenv("NO_COLOR", "1")
    assert {code[2] for code in CODES.finditer(logged()) if code[2]} == {"A", "J", "K"}


def test_warnings_alone_have_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    (line, rest) = shown(logged("warn"))
    assert line.endswith("WARN  careful")
    assert rest == ""


def on_a_terminal(engine: Engine, room: Path, columns: int, **more: str) -> str:
    """What `grotte template build` writes on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = os.environ | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key, "TERM": "xterm"}
    env |= {"NO_COLOR": "", "PYTHONIOENCODING": "utf-8"} | more
    command = [sys.executable, "-m", "grotte", "template", "build", str(room), "--name", "drawn"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=theirs):
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # nobody has the other end any more
            pass
        finally:
            os.close(ours)
    return written.decode()


def test_a_real_build_on_a_terminal(engine: Engine, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM base\nRUN echo one of many; sleep 1; {'x' * 99}=1\n")
    built = on_a_terminal(engine, tmp_path, 50)
    assert built.count("RUN echo") > 3, "begun, one line, over: the others are the seconds of a silent step"
    assert "    \x1b[2mone of many\x1b[0m" in built
    lines = shown(built)
    (step,) = [line for line in lines if "RUN echo" in line]
    assert re.fullmatch(r"✓ \[\d/\d\] RUN echo one of many; sleep.*… +\d+\.\ds", step)
    assert len(step) == 49
    assert not [line for line in lines if line.startswith(("    ", "●", "Building"))]
    assert lines[-2].endswith("the template is ready")
    again = shown(on_a_terminal(engine, tmp_path, 50, PYTHONIOENCODING="ascii", NO_COLOR="1"))
    (step,) = [line for line in again if "RUN echo" in line]
    assert re.fullmatch(r"= \[\d/\d\] RUN echo one of many; sle.*\.\.\. +CACHED", step)
    dockerfile.write_text("FROM base\nRUN echo so sad; exit 7\n")
    lines = shown(on_a_terminal(engine, tmp_path, 60))
    place = next(number for number, line in enumerate(lines) if line.startswith("✗"))
    assert "RUN echo so sad; exit 7" in lines[place]
    assert lines[place + 1] == "    so sad"
    assert lines[place + 2].endswith("exit status 7")
