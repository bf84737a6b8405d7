"""What the benchmarks say must follow from what they measured."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from benchmarks import peers, report
from benchmarks.engine import memory
from benchmarks.samples import median, percentile
from benchmarks.transport import nginx, plan, verdict
from benchmarks.transport.job import Client, Outcome, Scenario
from benchmarks.transport.runner import Result, run_job
from benchmarks.transport.slow import run_slow


def result(library: str, *outcomes: Outcome, scenario: Scenario = plan.GET[50]) -> Result:
    return Result(scenario, Client(library, "asyncio"), list(outcomes))


def test_a_bar_holds_on_its_own_side_of_the_bound() -> None:
    assert report.Bar("", 0.2, 0.25, "less").holds is True
    assert report.Bar("", 0.3, 0.25, "less").holds is False
    assert report.Bar("", 8, 8, "more").holds is True
    assert report.Bar("", None, 8, "more").holds is None
    assert "DOES NOT HOLD" in report.Bar("", 7, 8, "more").line()


def test_a_peer_that_is_ahead_is_named() -> None:
    ours = result("grotte", Outcome(requests=100, wall=1, cpu=0.5, p99=0.1))
    fast = result("aiohttp", Outcome(requests=200, wall=1, cpu=1.2, p99=0.1))
    lines = verdict.not_first(verdict.Results([ours, fast]))
    assert len(lines) == 1
    assert "aiohttp" in lines[0]
    assert "requests/s" in lines[0]


def test_a_peer_that_failed_somewhere_is_not_ahead() -> None:
    ours = result("grotte", Outcome(requests=100, wall=1, cpu=0.5, p99=0.1))
    fast = result("aiohttp", Outcome(requests=200, wall=1, cpu=0.1, p99=0.05, failed=1))
    assert verdict.not_first(verdict.Results([ours, fast])) == []


def test_our_own_failures_are_named() -> None:
    ours = result("grotte", Outcome(failed=3, error="ConnectFailed: no"))
    assert "ConnectFailed" in verdict.not_first(verdict.Results([ours]))[0]


@pytest.mark.parametrize(("measured", "named"), [(True, "e2b's"), (False, "pyqwest's")])
def test_an_sdk_is_compared_with_itself_where_it_was_measured(measured: bool, named: str) -> None:
    ours, theirs = Outcome(requests=100, wall=1, cpu=1), Outcome(requests=100, wall=1, cpu=8)
    results = [result("grotte", ours), result("pyqwest", theirs)]
    if measured:
        results += [result(name, ours, scenario=plan.CALLS[50]) for name in ("grotte", "e2b")]
    bars = {bar.text: bar for bar in verdict.bars(verdict.Results(results)) if named in bar.text and bar.measured}
    assert [bar.holds for bar in bars.values()] == [not measured]


def test_sdks_take_part_where_they_are_given() -> None:
    groups = plan.sdk_groups(["e2b", "grotte-0.2.0"])
    assert [client.name for client in groups[1].clients(())] == ["grotte, sync", "e2b, sync", "grotte-0.2.0, sync"]


def test_what_was_not_measured_does_not_hold_by_accident() -> None:
    assert {bar.holds for bar in verdict.bars(verdict.Results([]))} == {None}


def test_rates_are_medians_over_the_rounds_that_answered() -> None:
    rounds = [Outcome(requests=count, wall=1, cpu=1) for count in (100, 400, 200)]
    assert result("grotte", *rounds, Outcome(failed=5)).median("per_second") == 200
    assert median([None, 3.0, 1.0]) == 2
    assert median([None]) is None
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5


def test_a_client_that_cannot_be_imported_is_a_result() -> None:
    outcome = run_job(["python3", "-c", "import no_such_module_at_all"])
    assert outcome.failed == 1
    assert outcome.error is not None
    assert "no_such_module_at_all" in outcome.error


def test_a_missing_program_names_the_line_that_installs_it() -> None:
    with pytest.raises(nginx.ServerError, match="apt-get install"):
        nginx.require("no-such-program-at-all")


def test_a_peer_without_an_interpreter_is_reported() -> None:
    everybody = peers.everybody([])
    assert [peer.name for peer in everybody] == ["ours", *peers.EXPECTED]
    assert "not measured" in str(peers.run_script(everybody[1], Path("x"), {}, {}, 1))


def test_the_slow_server_holds_answers_and_its_link_passes_bytes_both_ways(tmp_path: Path) -> None:
    with run_slow(tmp_path / "slow") as slow, socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=echo_once, args=(server,))
        echo.start()
        with socket.create_connection(("127.0.0.1", slow.link(server.getsockname()[1], 2)), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        echo.join(10)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(tmp_path / "slow"))
            client.sendall(b"GET /held/0.01 HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"\r\n\r\n..")


def echo_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(connection.recv(100))


def test_memory_counts_this_process_and_its_children() -> None:
    assert os.getpid() in memory.family(os.getppid())
    assert memory.proportional([os.getpid()]) > 1 << 20
