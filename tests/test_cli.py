"""The command line as a user has it: serve, doctor, run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grotte import GrotteException, Sandbox, __version__
from tests.support.engine import Engine, environment, running_engine, serve_command

TIMEOUT = 60


def grotte(*arguments: str, engine: Engine | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    variables = environment()
    if engine is not None:
        variables |= {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    return subprocess.run(
        [sys.executable, "-m", "grotte", *arguments],
        input=stdin,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_run_shows_output_and_returns_the_exit_code(engine: Engine) -> None:
    done = grotte("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", engine=engine)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_run_takes_one_word_for_a_shell_line_and_several_for_arguments(engine: Engine) -> None:
    assert grotte("run", "--", "echo a | tr a b", engine=engine).stdout == "b\n"
    assert grotte("run", "--", "echo", "a | tr a b", "$HOME", engine=engine).stdout == "a | tr a b $HOME\n"


def test_words_after_the_command_belong_to_it(engine: Engine) -> None:
    assert "root" in grotte("run", "ls", "-la", "/", engine=engine).stdout
    words = ["printf", "%s,", "-e", "A=1", "--", "--timeout", "--help"]
    assert grotte("run", "--timeout", "50", "--cwd=/tmp", *words, engine=engine).stdout == "-e,A=1,--,--timeout,--help,"
    assert grotte("run", "-e", "A=1", "--", *words, engine=engine).stdout == "-e,A=1,--,--timeout,--help,"


@pytest.mark.parametrize("arguments", [[], ["--"], ["--timeout", "5"], ["--timeout", "5", "--"]])
def test_run_without_a_command_says_what_to_do(arguments: list[str]) -> None:
    done = grotte("run", *arguments)
    assert done.returncode == 2
    assert "usage: grotte run [OPTION ...] [--] CMD" in done.stderr
    assert "say what to run" in done.stderr


def test_an_option_that_run_does_not_have_is_refused() -> None:
    done = grotte("run", "--no-such-option", "ls")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_run_forwards_what_is_piped_in(engine: Engine) -> None:
    text = "ünïcode\n" * 20_000
    done = grotte("run", "--", "cat", engine=engine, stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text


def test_run_passes_environment_directory_and_user(engine: Engine) -> None:
    done = grotte("run", "-e", "A=1", "--cwd", "/tmp", "--user", "root", "--", "echo $A $PWD $(id -un)", engine=engine)
    assert done.stdout == "1 /tmp root\n"


def test_run_throws_its_sandbox_away(engine: Engine) -> None:
    assert grotte("run", "--", "true", engine=engine).returncode == 0
    assert list(Sandbox.list(**engine.options)) == []


def test_run_ends_its_sandbox_on_ctrl_c(engine: Engine) -> None:
    variables = environment() | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    command = [sys.executable, "-m", "grotte", "run", "--", "echo started; sleep 60"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 128 + signal.SIGINT
    assert list(Sandbox.list(**engine.options)) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--template", "no-such-template"], "no-such-template"),
        (["--env", "=x"], "NAME=VALUE"),
        (["--cwd", "/nowhere"], "/nowhere"),
        (["--timeout", "-1"], "timeout"),
    ],
)
def test_run_says_what_is_wrong(engine: Engine, arguments: list[str], says: str) -> None:
    done = grotte("run", *arguments, "--", "true", engine=engine)
    assert done.returncode == 1
    assert done.stderr.startswith("grotte: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_is_refused_and_not_repeated_in_the_message(engine: Engine) -> None:
    with pytest.raises(GrotteException) as caught:
        Sandbox.create(api_url=engine.url, api_key="grt_not-the-key")
    assert "grt_not-the-key" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running_engine(tmp_path / "data") as engine:
        sandbox = Sandbox.create(**engine.options)
        assert sandbox.commands.run("echo up").stdout == "up\n"
        engine.process.send_signal(number)
        assert engine.process.wait(TIMEOUT) == 0


def test_serve_says_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = grotte("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_that_its_data_directory_is_in_use(tmp_path: Path) -> None:
    with running_engine(tmp_path / "data"):
        done = subprocess.run(
            serve_command(tmp_path / "data"), capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    assert done.returncode == 1
    assert f"another engine uses the data directory {tmp_path / 'data'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_keeps_its_data_to_itself(engine: Engine) -> None:
    # the tokens of sandboxes are in there
    assert engine.data_dir.stat().st_mode & 0o007 == 0
    assert (engine.data_dir / "state.sqlite").stat().st_mode & 0o077 == 0


def test_doctor_names_every_layer() -> None:
    done = grotte("doctor")
    assert done.returncode == 0, done.stdout
    for layer in ("bubblewrap", "user namespaces", "overlayfs", "seccomp", "cgroup"):
        assert layer in done.stdout.lower()


def test_doctor_says_what_to_install_without_bubblewrap(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grotte", "doctor"],
        env=environment() | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 1
    assert "install" in done.stdout
    assert "bubblewrap" in done.stdout


def test_the_engine_of_this_user_starts_on_demand_and_goes_when_idle(tmp_path: Path) -> None:
    variables = environment() | {
        "GROTTE_API_URL": "local",
        "GROTTE_DATA_DIR": str(tmp_path / "data"),
        "GROTTE_ENGINE_IDLE_SECONDS": "1",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "grotte", "run", "--", "echo hello"]
    first, second = (
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    for process in (first, second):
        out, err = process.communicate(timeout=TIMEOUT)
        assert (out, process.returncode) == ("hello\n", 0), err
    assert len(engine_pids(tmp_path)) <= 1, "two programs that start at the same moment share one engine"
    address = tmp_path / "grotte" / "engine.json"
    if address.exists():
        assert address.stat().st_mode & 0o777 == 0o600
    until = time.monotonic() + TIMEOUT
    while engine_pids(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert not engine_pids(tmp_path)
    assert not address.exists()


def engine_pids(runtime_dir: Path) -> list[int]:
    """The engines whose environment has this runtime directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            variables = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if b"\0serve\0" in words and f"XDG_RUNTIME_DIR={runtime_dir}\0".encode() in variables:
            found.append(int(name))
    return found


def test_local_says_why_the_engine_cannot_start(tmp_path: Path) -> None:
    variables = environment() | {
        "GROTTE_API_URL": "local",
        "GROTTE_DATA_DIR": str(tmp_path / "data"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PATH": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "grotte", "run", "--", "true"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 1
    assert "bubblewrap" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version() -> None:
    done = grotte("--version")
    assert (done.returncode, done.stdout) == (0, f"grotte {__version__}\n")


def test_run_ends_when_nobody_reads_its_output(engine: Engine) -> None:
    variables = environment() | {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    command = [sys.executable, "-m", "grotte", "run", "yes"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "y\n"
        process.stdout.close()
        assert process.wait(TIMEOUT) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""
    assert Sandbox.list(api_url=engine.url, api_key=engine.api_key).next_items() == []
