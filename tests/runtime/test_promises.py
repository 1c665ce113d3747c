"""What the policies promise, over many random scenarios with any faults: the safe one keeps everything."""

from __future__ import annotations

import pytest
from random_scenarios import random_scenario
from runtime.histories import Rows, history

from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario

SAFE = preset("safe").replace(lease_ms=300, backoff_ms=10)


def broken(scenario: Scenario, rows: Rows, balances: dict[str, int]) -> list[str]:
    """The promises of the safe policy that a history breaks, judged by the model's own books."""
    wrong: list[str] = []
    expected: dict[str, int] = {}
    states = {row["job_id"]: row["reason"] for row in rows if row["event"] == "inventory" and row["job_id"]}
    acknowledged = {row["job_id"] for row in rows if row["event"] == "enqueue" and row["outcome"] == "ok"}
    leased = {row["job_id"] for row in rows if row["event"] == "lease"}
    wrong += [f"{job_id} is lost" for job_id in sorted(acknowledged - leased - set(states))]
    for job in scenario.jobs:
        # What was leased and is not held any more must be done.
        for effect in job.effects if job.id in leased and job.id not in states else ():
            expected[effect.account] = expected.get(effect.account, 0) + effect.amount
    if balances != dict(sorted(expected.items())):
        wrong.append(f"the books say {balances}, the finished jobs {expected}")
    return wrong


def _breaks(seed: int) -> list[str]:
    scenario = random_scenario(seed).with_policy(SAFE)
    rows, result = history(scenario, seed)
    return [f"seed {seed}: {promise}" for promise in broken(scenario, rows, result.balances)]


def test_the_safe_policy_keeps_its_promises() -> None:
    """Under any faults the books are those of the finished jobs, each counted once, and no job is lost."""
    assert [promise for seed in range(200) for promise in _breaks(seed)] == []


@pytest.mark.campaign
def test_the_safe_policy_keeps_its_promises_for_long() -> None:
    """The same for 10,000 scenarios."""
    assert [promise for seed in range(200, 10_200) for promise in _breaks(seed)] == []


@pytest.mark.parametrize("name", ["naive", "atomic", "early-ack", "renewed", "fenced"])
def test_the_others_break_them(name: str) -> None:
    """The same check finds broken promises under the policies that do not keep them: it is not blind."""
    found = []
    for seed in range(200):
        scenario = random_scenario(seed).with_policy(preset(name))
        rows, result = history(scenario, seed)
        found += broken(scenario, rows, result.balances)
    assert found
