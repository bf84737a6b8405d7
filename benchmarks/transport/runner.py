"""Runs jobs, each in a process of its own, and keeps what came of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks import peers, report
from benchmarks.samples import median
from benchmarks.transport import plan
from benchmarks.transport.job import BODY_SIZE, DOMAIN, Client, Job, Outcome, Scenario
from benchmarks.transport.nginx import Nginx
from benchmarks.transport.plan import Group

#: A process that has not ended by then is ended, and reported.
JOB_SECONDS = 75.0
MAX_REQUESTS = 60_000
SDK_CHILD = Path(__file__).with_name("sdk_child.py")
SDK_KINDS = ("calls", "sync_calls", "sandboxes", "sdk_download")
NEED_NAMES = ("hosts", *SDK_KINDS)
#: What the keys of each SDK begin with.
KEY_STARTS = {"GROTTE": "grt_", "E2B": "e2b_"}


@dataclass(slots=True)
class Result:
    """All rounds of one client in one scenario."""

    scenario: Scenario
    client: Client
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every request of every round was answered."""
        return bool(self.outcomes) and not any(outcome.failed for outcome in self.outcomes)

    @property
    def error(self) -> str | None:
        """A reason for a failure, if there was one."""
        return next((outcome.error for outcome in self.outcomes if outcome.error), None)

    @property
    def failed(self) -> int:
        """Failed requests of the worst round."""
        return max((outcome.failed for outcome in self.outcomes), default=0)

    def median(self, name: str) -> float | None:
        """The median, over the rounds that answered anything, of a field of the outcome or of a rate below."""
        useful = [outcome for outcome in self.outcomes if outcome.requests]
        return median(RATES[name](outcome) if name in RATES else getattr(outcome, name) for outcome in useful)


def per_second(outcome: Outcome) -> float | None:
    """Requests a second."""
    return outcome.requests / outcome.wall if outcome.wall else None


def cpu_each(outcome: Outcome) -> float | None:
    """Microseconds of CPU a request."""
    return outcome.cpu / outcome.requests * 1e6 if outcome.requests else None


RATES = {"per_second": per_second, "cpu_each": cpu_each}


class Runner:
    """Measures group by group: every client once, then every client again, so that a noisy moment hits all alike.

    Args:
        nginx: The running server.
        ports: Delay of a round trip in ms → the port that has it.
        wrapper: What makes the names of the hosts known to a process; None when nothing does.
        seconds: How long each measurement takes.
        sdks: SDKs of others.
    """

    def __init__(
        self,
        nginx: Nginx,
        ports: dict[int, int],
        wrapper: list[str] | None,
        seconds: float,
        sdks: Sequence[peers.Peer] = (),
    ) -> None:
        self._nginx, self._ports, self._wrapper, self._seconds = nginx, ports, wrapper, seconds
        self._sdks = {plan.OURS: peers.OURS, **{peer.name: peer for peer in sdks}}

    def measure(self, group: Group, libraries: Collection[str], rounds: int) -> list[Result]:
        """Measure all scenarios of a group with these libraries."""
        pairs = [(scenario, client) for scenario in group.scenarios for client in group.clients(libraries)]
        results = [Result(scenario, client) for scenario, client in pairs]
        for turn in range(rounds):
            for result in results:
                given_up = bool(result.outcomes) and not result.outcomes[-1].requests
                if given_up or (turn and result.scenario.once):
                    continue
                report.progress(f"{result.scenario.name}: {result.client.name} ({turn + 1} of {rounds})")
                result.outcomes.append(self._run(result.scenario, result.client))
        return results

    def _run(self, scenario: Scenario, client: Client) -> Outcome:
        if scenario.kind in NEED_NAMES and self._wrapper is None:
            return Outcome(failed=1, error="this machine gives a process no /etc/hosts of its own (unshare --mount)")
        job = Job(client, scenario, self._ports[scenario.delay_ms], str(self._nginx.ca), self._seconds, MAX_REQUESTS)
        command = [sys.executable, "-m", "benchmarks.transport.child", msgspec.json.encode(job).decode()]
        before = self._nginx.accepted()
        if scenario.kind in SDK_KINDS:
            outcome = self._run_sdk(job)
        else:
            outcome = run_job([*(self._wrapper or []), *command] if scenario.kind == "hosts" else command)
        outcome.connections = self._nginx.accepted() - before - 1  # the 1 is the second question itself
        return outcome

    def _run_sdk(self, job: Job) -> Outcome:
        sdk = self._sdks[job.client.library]
        prefix = sdk.module.upper() if sdk != peers.OURS else "GROTTE"
        domain, key = f"{DOMAIN}:{job.port}", f"{KEY_STARTS[prefix]}{'0' * 40}"
        environment = {f"{prefix}_DOMAIN": domain, f"{prefix}_API_KEY": key, "SSL_CERT_FILE": job.ca}
        task = {"kind": job.scenario.kind, "amount": job.scenario.amount, "size": BODY_SIZE, "count": job.count}
        answer = peers.run_script(
            sdk, SDK_CHILD, {**task, "seconds": job.seconds}, environment, JOB_SECONDS, self._wrapper or []
        )
        return Outcome(failed=1, error=str(answer)) if isinstance(answer, str) else msgspec.convert(answer, Outcome)


def run_job(command: Sequence[str]) -> Outcome:
    """Run one job; whatever goes wrong is an outcome."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=JOB_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(failed=1, error=f"still busy after {JOB_SECONDS:.0f} s")
    try:
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Outcome)
    except (IndexError, msgspec.DecodeError):
        return Outcome(failed=1, error=f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
