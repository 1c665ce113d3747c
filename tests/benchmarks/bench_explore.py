"""The laboratory: schedules simulated and judged, beside Hypothesis on the same queue; events judged; shrinking."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_table
from fencepost_analyzer.lab.explore import around, explore
from fencepost_analyzer.lab.shrink import shrink
from fencepost_analyzer.lab.space import Bound
from fencepost_runtime.actors import MS
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import Effect, Enqueue, Expired, Job, Lease, Leased, Reclaim, Settle, Write
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate

JOBS, WORKERS, EFFECTS, LEASE_NS = 3, 2, 3, 1_000 * MS
# As many steps as the simulated actors take in a schedule with two faults, more or less, polls left out.
STEPS, EXAMPLES = 40, 150


def figures() -> Iterator[dict[str, Any]]:
    schedules = _schedules_per_second()
    yield {"figure": "explored", "unit": "schedules/s on one core, simulated and judged", "rate": round(schedules)}
    examples = _examples_per_second()
    yield {
        "figure": "explored_beside_hypothesis",
        "unit": "schedules for one of its examples",
        "ratio": round(schedules / examples, 1),
        "examples_per_second": round(examples, 1),
        "steps": STEPS,
    }
    yield _judged()
    yield _shrunk()


def _three_jobs(policy: str) -> Scenario:
    queue = {"name": "payments", "workload": "payments", "jobs": JOBS, "workers": WORKERS, "policy": policy}
    return Scenario.from_dict({"id": "three jobs, two workers", "queues": [queue]})


def _schedules_per_second() -> float:
    seconds, done = _timed(lambda: explore(around(_three_jobs("fenced"), 1, Bound())))
    return float(done.found.schedules) / seconds


class _Queue(RuleBasedStateMachine):
    """The same queue under the same policy: two workers, who lease, write, settle, and may stop at any step."""

    leases: Bundle[Leased] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.backend, self.now = MemoryBackend(), 0
        self.written = Counter[str]()
        self.owners: dict[str, int] = {}
        self.stale = False

    def apply(self, operation: Any) -> Any:
        self.now += MS
        return self.backend.apply(operation, lambda: self.now)

    @initialize()
    def enqueue(self) -> None:
        for number in range(JOBS):
            name = f"pay-{number}"
            effects = tuple(Effect(f"{name}/{index}", name, 1) for index in range(EFFECTS))
            self.apply(Enqueue(Job(name, "payments", name, effects)))

    @rule(target=leases, worker=st.integers(1, WORKERS))
    def lease(self, worker: int) -> Leased | None:
        leased = self.apply(Lease("payments", f"worker-{worker}", LEASE_NS))
        if leased is not None:
            self.owners[leased.job.id] = leased.token
        return leased  # type: ignore[no-any-return]

    @rule(leased=leases, index=st.integers(0, EFFECTS - 1))
    def write(self, leased: Leased | None, index: int) -> None:
        if leased is not None:
            effect = leased.job.effects[index]
            if self.apply(Write(leased.job.id, effect, leased.token, True, False)).accepted:
                self.written[effect.key] += 1
                self.stale |= self.owners[leased.job.id] != leased.token

    @rule(leased=leases)
    def settle(self, leased: Leased | None) -> None:
        if leased is not None:
            self.apply(Settle(leased.job.id, leased.token, "ack", True))

    @rule(leases=st.sampled_from((10, 1_100)))
    def wait(self, leases: int) -> None:
        self.now += leases * MS

    @rule()
    def reclaim(self) -> None:
        found = self.apply(Expired("payments"))
        for job_id, token in found.leases if found is not None else ():
            self.apply(Reclaim(job_id, token, False, 3))

    @invariant()
    def no_stale_write(self) -> None:
        """One promise; explore judges eight."""
        assert not self.stale


def _examples_per_second() -> float:
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seconds, _ = _timed(lambda: run_state_machine_as_test(_Queue, settings=chosen))  # type: ignore[no-untyped-call]
    return EXAMPLES / seconds


def _judged() -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for number in range(4_000):
        sink = ColumnSink(number)
        simulate(_three_jobs("naive"), sink, number)
        rows += sink.rows()
    table = events_table(rows)
    seconds, _ = _timed(lambda: judge_many(table))
    return {"figure": "judged", "unit": "events/s by all invariants", "rate": round(table.num_rows / seconds)}


def _shrunk() -> dict[str, Any]:
    """An incident of more than ten thousand events, one fault of which matters."""
    queue = {"name": "payments", "workload": "payments", "jobs": 1_600, "workers": 4, "policy": "naive"}
    at = {"attempt": 1, "step": "write", "index": 1}
    harmless = [{"kind": "pause", "job": f"pay-{n}", **at, "at_most_ms": 20} for n in range(1, 1_600, 50)]
    kill = {"kind": "kill", "job": "pay-777", **at}
    told = {"id": "long", "queues": [queue], "faults": [*harmless, kill], "at_most_ms": 3_600_000}
    seconds, done = _timed(lambda: shrink(Scenario.from_dict(told), 1, "INV-001"))
    sizes = {"events_before": done.events_before, "events": done.events, "scenarios_tried": done.tried}
    return {"figure": "shrink", "unit": "s", "seconds": round(seconds, 1), **sizes}


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = run()
    return time.perf_counter() - began, done
