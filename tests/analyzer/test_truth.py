"""No false verdict: what the SQL says of a simulated history agrees with what really became of queue and store.

The truth is taken from the model of the queue itself, not from what its actors told: a spy sees each write applied
and each settle accepted, told or not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from random_scenarios import random_scenario

from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_table
from fencepost_analyzer.verdicts import Judgement
from fencepost_runtime import world
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import Answer, Batch, Clock, Effect, Operation, Result, Retry, Settle, WriteAll
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate


@dataclass
class Truth:
    """What really happened, by invariant: True where it was broken."""

    applied: Counter[str] = field(default_factory=Counter)
    stale_write: bool = False
    foreign_settle: bool = False
    states: dict[str, str] = field(default_factory=dict)
    overdue: bool = False

    @property
    def stuck(self) -> bool:
        """Whether a job is leased though nobody is left to take it back, and stock was taken long after."""
        return not self.overdue and "leased" in self.states.values()

    def broken(self, scenario: Scenario) -> dict[str, bool]:
        # A producer that was never answered was promised nothing.
        unpromised = {
            fault.at.job
            for fault in scenario.faults
            if fault.at.step == "enqueue" and fault.at.when != "after" and fault.kind not in ("pause", "slow")
        }
        partial = lost = False
        for queue in scenario.queues:
            for job in queue.jobs:
                done = sum(1 for effect in job.effects if self.applied[effect.key])
                state = self.states.get(job.id)
                partial |= state in ("done", "dead") and 0 < done < len(job.effects)
                forgotten = state == "done" and queue.policy.ack == "early" and job.id not in unpromised
                lost |= forgotten and done < len(job.effects)
        return {
            "INV-001": any(times > 1 for times in self.applied.values()),
            "INV-003": self.stale_write,
            "INV-004": self.foreign_settle,
            "INV-005": lost,
            "INV-007": partial,
            "INV-018": False,
        }


class _Spied(MemoryBackend):
    """The model, with its truth written down."""

    latest: Truth

    def __init__(self) -> None:
        super().__init__()
        self.truth = _Spied.latest = Truth()

    def apply(self, operation: Operation, clock: Clock) -> Result:
        before = self._rows.get(getattr(operation, "job_id", ""))
        token = before.token if before else 0
        result = super().apply(operation, clock)
        settled = result.settled if isinstance(operation, WriteAll) and isinstance(result, Batch) else None
        if isinstance(operation, Settle | Retry) and isinstance(result, Answer):
            settled = result
        if settled is not None and settled.accepted and getattr(operation, "token", 0) != token:
            self.truth.foreign_settle = True
        self.truth.states = {row.id: row.state for row in self._rows.values()}
        return result

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None:
        super().add_effect(effect, job_id, token, position)
        self.truth.applied[effect.key] += 1
        self.truth.stale_write |= token != self._rows[job_id].token


def _histories(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Scenario], list[Truth], pa.Table]:
    monkeypatch.setattr(world, "MemoryBackend", _Spied)
    scenarios = [random_scenario(seed * 1_000_000 + number) for number in range(count)]
    truths, rows = [], []
    for number, scenario in enumerate(scenarios):
        sink = ColumnSink(number)
        overdue = simulate(scenario, sink, number).overdue
        _Spied.latest.overdue = overdue
        truths.append(_Spied.latest)
        rows += sink.rows()
    return scenarios, truths, events_table(rows)


def _false_verdicts(scenario: Scenario, truth: Truth, judgement: Judgement) -> list[str]:
    wrong = []
    for name, broken in truth.broken(scenario).items():
        if broken and name not in (*judgement.violated, *judgement.unknown):
            wrong.append(f"{name} is said to hold")
        if not broken and name in judgement.violated:
            wrong.append(f"{name} is said to be violated")
    if truth.stuck and "INV-010" not in (*judgement.violated, *judgement.unknown):
        wrong.append("INV-010 is said to hold")
    # Where one is taken back, it is in time, unless nobody was there to.
    reclaimed = all(queue.policy.reclaim != "none" for queue in scenario.queues)
    if reclaimed and not truth.stuck and "INV-010" in judgement.violated:
        wrong.append("INV-010 is said to be violated")
    return wrong


def _assert_no_false_verdict(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    scenarios, truths, events = _histories(seed, count, monkeypatch)
    judged = judge_many(events)
    wrong = {
        number: (found, scenarios[number])
        for number in range(count)
        if (found := _false_verdicts(scenarios[number], truths[number], judged[number]))
    }
    assert wrong == {}
    broken = [truth.broken(scenario) for scenario, truth in zip(scenarios, truths, strict=True)]
    return Counter(name for truth in broken for name, is_broken in truth.items() if is_broken)


def test_no_verdict_on_four_hundred_random_histories_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _assert_no_false_verdict(7, 400, monkeypatch)
    # The sample means something only if everything that can break did break in it.
    assert set(broken) == {"INV-001", "INV-003", "INV-004", "INV-005", "INV-007"}


@pytest.mark.campaign
@pytest.mark.parametrize("block", range(10))
def test_no_verdict_on_twenty_thousand_random_histories_is_false(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _assert_no_false_verdict(1_000 + block, 2_000, monkeypatch)
