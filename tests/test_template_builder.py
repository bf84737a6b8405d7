"""The builder of templates: what it makes of its arguments, and which it refuses."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grotte import (
    AsyncTemplate,
    InvalidArgumentException,
    LogEntry,
    LogEntryEnd,
    LogEntryStart,
    ReadyCmd,
    Template,
    TemplateBase,
    default_build_logger,
    wait_for_file,
    wait_for_port,
    wait_for_process,
    wait_for_timeout,
    wait_for_url,
)
from grotte._proto.templates.base import TemplateClass
from grotte._proto.templates.builder import TemplateBuilder
from grotte._proto.templates.logger import BuildLogger

NASTY = "a b'; echo $HOME"
QUOTED = shlex.quote(NASTY)
APT = "apt-get update && DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y"
Call = Callable[[TemplateBuilder], object]


def sent(template: TemplateClass) -> dict[str, Any]:
    found = json.loads(Template.to_json(template))
    assert isinstance(found, dict)
    return found


def steps_of(call: Call) -> list[tuple[str, list[str]]]:
    builder = Template().from_base_image()
    call(builder)
    steps = sent(builder)["steps"]
    assert isinstance(steps, list)
    return [(step["type"], step["args"]) for step in steps]


@pytest.mark.parametrize(
    ("call", "line", "user"),
    [
        (lambda t: t.run_cmd("make"), "make", None),
        (lambda t: t.run_cmd(["make", "make install"], user="root"), "make && make install", "root"),
        (lambda t: t.apt_install("git curl"), f"{APT} -- git curl", "root"),
        (
            lambda t: t.apt_install([NASTY], no_install_recommends=True, fix_missing=True),
            f"{APT} --no-install-recommends --fix-missing -- {QUOTED}",
            "root",
        ),
        (lambda t: t.pip_install(), "pip install .", "root"),
        (lambda t: t.pip_install("numpy>=1 pandas", g=False), "pip install --user 'numpy>=1' pandas", None),
        (lambda t: t.npm_install(), "npm install", None),
        (lambda t: t.npm_install([NASTY], g=True, dev=True), f"npm install -g --save-dev {QUOTED}", "root"),
        (lambda t: t.bun_install("tsx", dev=True), "bun install --dev tsx", None),
        (lambda t: t.git_clone("https://h/r.git"), "git clone -- https://h/r.git", None),
        (
            lambda t: t.git_clone("u", Path("/a b"), branch=NASTY, depth=1, user="root"),
            f"git clone --branch {QUOTED} --single-branch --depth 1 -- u '/a b'",
            "root",
        ),
        (lambda t: t.make_dir(["/a", NASTY], mode=0o750), f"mkdir -p -m 0750 -- /a {QUOTED}", None),
        (lambda t: t.make_symlink(NASTY, "-b", force=True), f"ln -s -f -- {QUOTED} -b", None),
        (lambda t: t.remove(NASTY, force=True, recursive=True), f"rm -r -f -- {QUOTED}", None),
        (lambda t: t.rename(NASTY, "/b", user="root"), f"mv -- {QUOTED} /b", "root"),
    ],
)
def test_command_lines(call: Call, line: str, user: str | None) -> None:
    assert steps_of(call) == [("RUN", [line] if user is None else [line, user])]


def test_steps_without_a_command() -> None:
    assert steps_of(lambda t: t.set_workdir(Path("/app")).set_user("me").set_envs({"A": "1", "B": "x y"})) == [
        ("WORKDIR", ["/app"]),
        ("USER", ["me"]),
        ("ENV", ["A", "1", "B", "x y"]),
    ]
    assert steps_of(lambda t: t.set_envs({})) == []


def test_what_copy_sends(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    builder = Template(tmp_path).from_base_image().copy(["a", Path("b")], "/x/", user="u:g", mode=0o640)
    builder.copy_items([{"src": "x/../a", "dest": "/y", "forceUpload": True}])
    first, second, third = sent(builder)["steps"]
    assert first["args"] == ["a", "/x/", "u:g", "0640"]
    assert second["args"] == ["b", "/x/", "u:g", "0640"]
    assert third["args"] == ["a", "/y", "", ""]
    assert (first["force"], third["force"], third["forceUpload"]) == (False, True, True)
    assert "forceUpload" not in first
    assert len({step["filesHash"] for step in (first, second, third)}) == 3


@pytest.mark.parametrize(
    ("start", "fields"),
    [
        (lambda t: t.from_base_image(), {"fromImage": "parallactic/base"}),
        (lambda t: t, {"fromImage": "parallactic/base"}),
        (lambda t: t.from_debian_image("bookworm"), {"fromImage": "debian:bookworm"}),
        (lambda t: t.from_ubuntu_image(), {"fromImage": "ubuntu:latest"}),
        (lambda t: t.from_python_image("3.12"), {"fromImage": "python:3.12"}),
        (lambda t: t.from_node_image(), {"fromImage": "node:lts"}),
        (lambda t: t.from_bun_image(), {"fromImage": "oven/bun:latest"}),
        (lambda t: t.from_template("team/mine:v1"), {"fromTemplate": "team/mine:v1"}),
        (
            lambda t: t.from_image("r.example/i", "me", "secret"),
            {
                "fromImage": "r.example/i",
                "fromImageRegistry": {"type": "registry", "username": "me", "password": "secret"},
            },
        ),
        (
            lambda t: t.from_gcp_registry("gcr.io/i", {"key": "k"}),
            {"fromImage": "gcr.io/i", "fromImageRegistry": {"type": "gcp", "serviceAccountJson": '{"key": "k"}'}},
        ),
        (
            lambda t: t.from_aws_registry("i", "id", "key", "eu"),
            {
                "fromImage": "i",
                "fromImageRegistry": {
                    "type": "aws",
                    "awsAccessKeyId": "id",
                    "awsSecretAccessKey": "key",
                    "awsRegion": "eu",
                },
            },
        ),
    ],
)
@pytest.mark.parametrize("kind", [Template, AsyncTemplate])
def test_where_a_template_starts(
    kind: type[TemplateBase], start: Callable[[TemplateBase], TemplateBuilder], fields: dict[str, object]
) -> None:
    assert sent(start(kind())) == {"steps": [], "force": False, **fields}


def test_secrets_are_not_shown() -> None:
    builder = Template().from_image("i", "me", "hunter2")
    assert "hunter2" not in repr(builder) + repr(vars(builder))


def test_the_builder_grows_in_place() -> None:
    builder = Template().from_base_image()
    assert builder.run_cmd("one") is builder
    final = builder.set_ready_cmd("true")
    assert sent(final)["readyCmd"] == "true"
    assert "startCmd" not in sent(builder)


def test_the_cache_is_skipped_from_a_step_on() -> None:
    builder = Template().from_base_image().run_cmd("a").skip_cache().run_cmd("b")
    assert [step["force"] for step in sent(builder)["steps"]] == [False, True]
    assert sent(builder)["force"] is False
    assert sent(Template().skip_cache().from_base_image().run_cmd("a"))["force"] is True


@pytest.mark.parametrize(
    ("ready", "line"),
    [
        (wait_for_port(80), "ss -tuln | grep -q ':80 '"),
        (wait_for_url("http://h/?a&b"), 'curl -s -o /dev/null -w "%{http_code}" \'http://h/?a&b\' | grep -q "200"'),
        (wait_for_process("a b"), "pgrep 'a b' > /dev/null"),
        (wait_for_file("/a b"), "[ -f '/a b' ]"),
        (wait_for_timeout(10), "sleep 1"),
        (wait_for_timeout(2500), "sleep 2"),
        (ReadyCmd("true"), "true"),
    ],
)
def test_checks(ready: ReadyCmd, line: str) -> None:
    final = Template().from_base_image().set_start_cmd("serve", ready)
    fields = sent(final)
    assert (fields["startCmd"], fields["readyCmd"], ready.get_cmd()) == ("serve", line, line)


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.copy("/etc/passwd", "/"),
        lambda t: t.copy("../x", "/"),
        lambda t: t.copy("a/../../x", "/"),
        lambda t: t.copy("C:\\x", "/"),
        lambda t: t.copy("", "/"),
        lambda t: t.copy([], "/"),
        lambda t: t.copy("a\0", "/"),
        lambda t: t.copy(3, "/"),
        lambda t: t.copy("a", None),
        lambda t: t.copy("a", "/", mode="755"),
        lambda t: t.copy("a", "/", mode=0o10000),
        lambda t: t.copy_items([{"src": "a"}]),
        lambda t: t.copy_items([{"src": "a", "dest": "/", "owner": "me"}]),
        lambda t: t.copy_items(["a"]),
        lambda t: t.run_cmd(""),
        lambda t: t.run_cmd([]),
        lambda t: t.run_cmd(["a", 3]),
        lambda t: t.run_cmd("a", user="a:b"),
        lambda t: t.set_envs({"A": 1}),
        lambda t: t.set_envs({"A=B": "c"}),
        lambda t: t.set_envs("A=B"),
        lambda t: t.set_workdir(b"/app"),
        lambda t: t.set_user(0),
        lambda t: t.apt_install([]),
        lambda t: t.pip_install("'open"),
        lambda t: t.npm_install("a", g="yes"),
        lambda t: t.git_clone("u", depth=0),
        lambda t: t.make_dir(None),
        lambda t: t.remove("a", recursive=1),
        lambda t: t.set_start_cmd("", "true"),
        lambda t: t.set_start_cmd("serve", None),
        lambda t: t.set_ready_cmd(8000),
        lambda _: wait_for_port(0),
        lambda _: wait_for_timeout(-1),
        lambda _: wait_for_url("http://h", 20),
        lambda _: Template().from_image("two words"),
        lambda _: Template().from_image("i", username="me"),
        lambda _: Template().from_template(""),
        lambda _: Template().from_gcp_registry("i", "missing.json"),
        lambda _: Template().from_dockerfile("missing"),
        lambda _: Template(file_ignore_patterns="*.py"),
        lambda _: Template(3),  # type: ignore[arg-type]  # wrong on purpose
        lambda _: Template.to_json(3),  # type: ignore[arg-type]  # wrong on purpose
        lambda _: default_build_logger("loud"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_what_is_refused_at_once(call: Call) -> None:
    builder = Template().from_base_image()
    with pytest.raises(InvalidArgumentException):
        call(builder)
    assert sent(builder)["steps"] == []


def test_a_dockerfile_of_a_template(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    builder = Template(tmp_path).from_python_image("3").copy("a", "/a").run_cmd("make").set_user("me")
    builder.set_envs({"A": "1", "B": 'x "y"'}).set_start_cmd("serve", "true")
    assert Template.to_dockerfile(builder) == (
        'FROM python:3\nCOPY a /a\nRUN make\nUSER me\nENV A=1 B="x \\"y\\""\nENTRYPOINT serve\n'
    )
    with pytest.raises(ValueError, match="no Dockerfile"):
        Template.to_dockerfile(Template().from_template("base"))


def test_files_are_looked_for_beside_the_file_that_calls() -> None:
    first = sent(Template().from_base_image().copy(Path(__file__).name, "/"))
    second = sent(Template(Path(__file__).parent).from_base_image().copy(Path(__file__).name, "/"))
    assert first == second


def test_a_log_as_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log, now = default_build_logger(), datetime.now(UTC)
    for entry in (
        LogEntryStart(now, "begin"),
        LogEntry(now, "debug", "unseen"),
        LogEntry(now, "warn", "\x1b[31mred\x1b[0m \x1b]0;title\x07text"),
        LogEntryEnd(now, "end"),
    ):
        log(entry)
    shown = capsys.readouterr().out
    assert shown.endswith(" WARN  red text\n")
    assert shown.count("\n") == 1
    assert str(LogEntry(now, "info", "x")) == f"[{now.isoformat()}] [info] x"


def test_a_log_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, now = Terminal(), datetime.now(UTC)
    log = BuildLogger("debug", stream)
    for entry in (LogEntryStart(now, "begin"), LogEntry(now, "error", "bad"), LogEntryEnd(now, "end")):
        log(entry)
    shown = stream.getvalue()
    assert "Building 0.0s" in shown
    assert "\x1b[31mERROR\x1b[0m bad\n" in shown
    assert shown.endswith("\r\x1b[K")
