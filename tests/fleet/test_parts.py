"""The rules of a fleet that need no sandbox: limits, the line, verdicts, numbers, and how they are shown."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections import deque
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte import (
    ApiUnreachableException,
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    DoNotRetryException,
    EngineUnavailableException,
    FleetStats,
    GrotteException,
    InvalidArgumentException,
    RateLimitException,
    SandboxesLeftException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TemplateException,
    TimeoutException,
)
from grotte._proto.fleet.admission import Admission, Limits
from grotte._proto.fleet.desk import Desk, Ticket
from grotte._proto.fleet.tally import percentile, progress_line
from grotte._proto.fleet.verdicts import creation_failure, is_infrastructure
from grotte._sync._sio_crew import open_crew
from tests.support.engine import Engine, environment
from tests.support.stub_service import as_json, running_stub

# -- limits --------------------------------------------------------------------------------------------------------


def test_a_burst_of_refusals_is_one_and_successes_win_the_room_back() -> None:
    admission = Admission(Limits(100, 16))
    starts = [admission.start(0.0) for _ in range(16)]
    assert admission.opening(0.0) is None
    for start in starts:
        admission.refused(start, 1.0)
    assert admission.start_limit == 8
    assert admission.alive == admission.starting == 0
    assert 1.0 < (admission.opening(1.0) or 0) <= 1.25
    now = 10.0
    for _ in range(3):
        admission.refused(admission.start(now), now)
        now += 20
    assert admission.start_limit == 1
    for _ in range(200):
        admission.start(now)
        admission.succeeded()
        admission.ended(now)
    assert admission.start_limit == 16


def test_the_servers_wish_stands_whatever_else_happens() -> None:
    admission = Admission(Limits(10, 10))
    first, second = admission.start(0.0), admission.start(0.0)
    admission.start(0.0)
    admission.succeeded()
    admission.refused(first, 1.0, retry_after=20)
    admission.refused(second, 1.0)
    admission.ended(1.0)
    opening = admission.opening(1.0)
    assert opening is not None
    assert 21.0 <= opening <= 26.0


def test_without_a_wish_room_that_appears_is_used_soon() -> None:
    admission = Admission(Limits(10, 10))
    admission.start(0.0)
    admission.succeeded()
    for now in (0.0, 20.0, 40.0, 60.0, 80.0):
        admission.refused(admission.start(now), now)
    assert (admission.opening(80.0) or 0) > 81
    admission.ended(80.0)
    assert (admission.opening(80.0) or 0) < 80.1
    assert admission.stuck_for(80.0) == 80.0
    admission.start(90.0)
    admission.succeeded()
    assert admission.stuck_for(100.0) == 0


# -- the line ------------------------------------------------------------------------------------------------------

steps = st.lists(st.one_of(st.just("ask"), st.just("offer"), st.tuples(st.just("withdraw"), st.integers(0, 30))))


@given(steps)
def test_the_line_against_a_model(wanted: list[Any]) -> None:
    desk: Desk[int] = Desk()
    tickets: list[Ticket[int]] = []
    waiting: deque[Ticket[int]] = deque()
    ready: deque[int] = deque()
    notified: list[int] = []
    for number, step in enumerate(wanted):
        if step == "ask":
            ticket = desk.ask(partial(notified.append, len(tickets)))
            tickets.append(ticket)
            if ready:
                assert ticket.served == ready.popleft()
            else:
                waiting.append(ticket)
        elif step == "offer":
            desk.offer(number)
            if waiting:
                assert waiting.popleft().served == number
            else:
                ready.append(number)
        elif tickets:
            ticket = tickets[step[1] % len(tickets)]
            held = ticket.served
            assert desk.withdraw(ticket) == held
            assert desk.withdraw(ticket) is None
            if ticket in waiting:
                waiting.remove(ticket)
        assert (desk.waiting, desk.ready) == (len(waiting), len(ready))
        assert not (desk.waiting and desk.ready)
    assert len(notified) == len(set(notified))


def test_troubles_are_those_of_the_first_in_line() -> None:
    desk: Desk[int] = Desk()
    assert desk.trouble(ValueError(), 0) is False
    first, second = desk.ask(lambda: None), desk.ask(lambda: None)
    error = ValueError()
    assert [desk.trouble(error, 1) for _ in range(3)] == [True] * 3
    assert first.error is error
    assert second.error is None
    assert second.troubles == 1


# -- threads -------------------------------------------------------------------------------------------------------


def test_a_thread_that_never_began_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        with open_crew(grace=30) as crew:
            crew.start_soon(done.append, 1)
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            crew.start_soon(done.append, 2)
    assert done == [1]


# -- verdicts ------------------------------------------------------------------------------------------------------


def gone(sandbox_id: str | None) -> SandboxNotRunningException:
    return SandboxNotRunningException("gone", sandbox_id=sandbox_id)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "infrastructure"),
    [
        (gone("mine"), True),
        (gone(None), True),
        (gone("another"), False),
        (SandboxUnreachableException("broken", sandbox_id="mine"), True),
        (ApiUnreachableException("broken"), True),
        (TimeoutException("the command took too long", sandbox_id="mine"), False),
        (CommandExitException("", "", 1), False),
        (ValueError(), False),
        (caused(ValueError(), gone("mine")), True),
        (ExceptionGroup("several", [ValueError(), gone("mine")]), True),
        (ExceptionGroup("several", [ValueError(), TypeError()]), False),
        (caused(DoNotRetryException("no"), gone("mine")), False),
        (caused(ValueError(), caused(DoNotRetryException("no"), gone("mine"))), False),
    ],
)
def test_whose_failure_it_is(error: Exception, infrastructure: bool) -> None:
    assert is_infrastructure(error, "mine") is infrastructure


def test_what_a_function_put_behind_itself_does_not_count() -> None:
    with pytest.raises(ValueError) as caught:
        try:
            raise gone("mine")
        except SandboxNotRunningException:
            raise ValueError("mine alone") from None
    assert not is_infrastructure(caught.value, "mine")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (RateLimitException("429"), "no room"),
        (ServiceBusyException("503"), "no room"),
        (EngineUnavailableException("no"), "no room"),
        (ApiUnreachableException("no"), "broken"),
        (TimeoutException("late"), "broken"),
        (SandboxException("500", status_code=500), "broken"),
        (SandboxException("501", status_code=501), "wrong"),
        (TemplateException("404", status_code=404), "wrong"),
        (AuthenticationException("401"), "wrong"),
        (InvalidArgumentException("400", status_code=400), "wrong"),
        (ValueError(), "wrong"),
    ],
)
def test_why_there_is_no_sandbox(error: Exception, verdict: str) -> None:
    assert creation_failure(error) == verdict


@pytest.mark.parametrize(("header", "wished"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), (None, None)])
async def test_an_exception_carries_the_servers_wish(header: str | None, wished: float | None) -> None:
    with running_stub() as stub:
        headers = {} if header is None else {"Retry_After": header}
        stub.answers["POST /sandboxes"] = as_json({"code": 429, "message": "later"}, 429, **headers)
        with pytest.raises(RateLimitException) as caught:
            await AsyncSandbox.create(api_url=stub.url, api_key="k")
    assert caught.value.retry_after == wished


# -- numbers -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200))
def test_percentiles_are_values_that_were_measured(values: list[float]) -> None:
    half, most = percentile(deque(values), 0.5), percentile(deque(values), 0.99)
    assert half in values
    assert most in values
    assert half is not None
    assert most is not None
    assert half <= most
    assert percentile(deque(), 0.5) is None


STATS = FleetStats(
    alive=12,
    starting=3,
    ready=1,
    in_use=8,
    waiting=4,
    created=40,
    lost=1,
    refused=2,
    broken=0,
    done=31,
    failed=2,
    retries=1,
    start_limit=8,
    create_p50=0.0625,
    create_p99=1.25,
    item_p50=None,
    item_p99=None,
)


def test_the_line_on_a_terminal() -> None:
    line = progress_line(STATS)
    for part in ("12 alive (3 starting, 1 ready)", "4 waiting", "31 done", "2 failed", "1 retries", "62ms/1.2s", "–"):
        assert part in line
    assert len(progress_line(STATS, 40)) < 40
    assert progress_line(STATS, 1000) == line


def test_exceptions_of_fleets_have_the_one_root() -> None:
    error = SandboxesLeftException("2 are left", sandbox_ids=("a", "b"))
    assert isinstance(error, GrotteException)
    assert error.sandbox_ids == ("a", "b")


PROGRAM = """
import json, logging, sys
from grotte import Fleet

logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
from grotte._sync.fleet import show
show.LOG_SECONDS = 0.1
with Fleet(size=2, progress=True, **json.loads(sys.argv[1])) as fleet:
    for result in fleet.map(lambda sandbox, item: sandbox.commands.run("sleep 0.3"), range(3)):
        result.unwrap()
"""


def run_program(engine: Engine, stderr: int) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(engine.options)]
    variables = environment() | {"COLUMNS": "120"}
    subprocess.run(command, env=variables, stderr=stderr, timeout=60, check=True)


def test_progress_on_a_terminal_is_one_line(engine: Engine) -> None:
    ours, theirs = pty.openpty()
    try:
        run_program(engine, theirs)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    lines = [line for line in shown.split("\r\n") if "\r\x1b[K" in line]
    assert len(lines) == 1, shown
    assert "3 done" in lines[0].rpartition("\x1b[K")[2]


def test_progress_elsewhere_is_logged(engine: Engine) -> None:
    read, write = os.pipe()
    try:
        run_program(engine, write)
        os.close(write)
        with open(read, closefd=False) as file:
            shown = file.read()
    finally:
        os.close(read)
    assert "\x1b" not in shown
    assert any(line.startswith("grotte.fleet") and "alive" in line for line in shown.splitlines())
