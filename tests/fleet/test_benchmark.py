"""What the fleet benchmark says must follow from what it measured."""

from __future__ import annotations

import pytest

from benchmarks import peers
from benchmarks.fleet import command
from tests.support.engine import Engine


@pytest.mark.parametrize("fleet", [False, True])
@pytest.mark.parametrize("gap", [None, 0.01, 0.0])
def test_every_mode_measures_every_sandbox(engine: Engine, gap: float | None, fleet: bool) -> None:
    where = {"GROTTE_API_URL": engine.url, "GROTTE_API_KEY": engine.api_key}
    job = {"count": 3, "gap": gap, "fleet": fleet}
    answer = peers.run_script(peers.OURS, command.CHILD, job, where, 60)
    assert isinstance(answer, dict), answer
    assert answer["failed"] == 0
    assert 0 < answer["median"] <= answer["p95"] <= answer["p99"] <= answer["wall"]
    assert answer["cpu_each"] > 0


def test_failures_are_named_and_nothing_holds_by_accident() -> None:
    failed = {"failed": 2, "error": "RateLimitException: no"}
    answers: command.Answers = {"mode": {"ours": [failed], "e2b": ["not measured: no --peer-python"]}}
    assert command.trouble(answers) == ["ours, mode: RateLimitException: no", "e2b: not measured: no --peer-python"]
    assert {bar.holds for bar in command.bars(answers)} == {None}


def test_values_are_medians_over_the_rounds() -> None:
    assert command.value([{"wall": 3.0}, {"wall": 1.0}, "broken", {"wall": 2.0}], "wall") == 2.0
    assert command.value(["broken"], "wall") is None
