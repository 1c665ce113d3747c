"""Explore runs one schedule for many: whatever any schedule within the bound breaks, one of those that it runs breaks.

The schedules tried against it are drawn from everything that a scenario's file can say: any step, any moment of it, any
length of a pause, any step to wait for.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random

import pytest

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import Plan, explore
from fencepost_analyzer.lab.lattice import above
from fencepost_analyzer.lab.space import Bound
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import Policy, preset
from fencepost_runtime.scenario import DURABLE, OF_NO_JOB, Fault, Point, Scenario
from fencepost_runtime.simulate import Passed, simulate
from fencepost_runtime.steps import Step

# Around the moments at which a lease of a second runs out, is taken back and is given to another.
LENGTHS = (5, 300, 900, 1_001, 1_050, 1_100, 2_000, 4_050, 10_000)
# Under these, what breaks is rare, so that a missing kind of schedule shows.
PRESETS = ("safe", "transactional", "deduped", "renewed", "early-ack")


@pytest.mark.parametrize("mode", sorted(failure_modes()))
def test_what_one_fault_breaks_is_found(mode: str) -> None:
    """120 single faults under each of three policies."""
    for policy in PRESETS[:3]:
        assert missed(mode, preset(policy), faults=1, schedules=120, random=Random(mode + policy)) == []


@pytest.mark.campaign
@pytest.mark.parametrize("faults", [1, 2])
def test_what_any_faults_break_is_found(faults: int, capsys: pytest.CaptureFixture[str]) -> None:
    """500 schedules under each preset and six mixtures of fields, in each failure mode's work."""
    random, tried = Random(faults), 0
    for mode in failure_modes().values():
        mixed = [one.policy for one in random.sample(above(mode.scenario.queues[0].policy), 6)]
        for policy in (*map(preset, PRESETS), *mixed):
            assert missed(mode.id, policy, faults=faults, schedules=500, random=random) == []
            tried += 500
    with capsys.disabled():
        told = {"figure": "random_schedules_that_break_more_than_explored_ones", "value": 0, "of": tried}
        sys.stdout.write(json.dumps(told) + "\n")


def missed(mode: str, policy: Policy, *, faults: int, schedules: int, random: Random) -> list[tuple[str, Scenario]]:
    """Schedules that break what explore never saw break, and which invariant."""
    calm = replace(failure_modes()[mode].scenario.with_policy(policy), faults=())
    known = explore(Plan(((calm, Bound(faults, faults, 1, faults)),), 1)).found.violated
    drawn = [one for one in (struck(calm, faults, random) for _ in range(schedules)) if plausible(one)]
    assert len(drawn) > schedules / 4
    return [(name, one) for one, _, judgement in judged(drawn, 1) for name in judgement.violated if name not in known]


def plausible(scenario: Scenario) -> bool:
    """Whether it is within the bound: no more than one pause."""
    return sum(fault.kind in ("pause", "slow") for fault in scenario.faults) <= 1


def struck(scenario: Scenario, faults: int, random: Random) -> Scenario:
    for _ in range(faults):
        scenario = replace(scenario, faults=(*scenario.faults, drawn_fault(scenario, random)))
    return scenario


def drawn_fault(scenario: Scenario, random: Random) -> Fault:
    """A fault at a step that the scenario comes to."""
    steps = trail(scenario)
    kind = random.choice(("kill", "pause", "pause", "slow", "lost_reply", "db_error"))
    if kind == "slow":
        at = point(random.choice([step for step in steps if step.name == "work"]))
        return Fault("slow", at, at_most_ms=random.choice(LENGTHS))
    step = random.choice(steps)
    at, durable = point(step), step.operation is not None and step.names[0] in DURABLE
    if kind in ("lost_reply", "db_error") and durable:
        return Fault("lost_reply" if kind == "lost_reply" else "db_error", at)
    if kind == "pause":
        return pause(scenario, replace(at, when=random.choice(("before", "after"))), random)
    whens = ("before", "after", "begun", "committed") if durable else ("before", "after")
    return Fault("kill", replace(at, when=random.choice(whens)))


def pause(scenario: Scenario, at: Point, random: Random) -> Fault:
    """A pause of any length, or until any step of the same job that is taken in it."""
    fault = Fault("pause", at, at_most_ms=random.choice(LENGTHS))
    if random.random() < 0.4:
        return fault
    longest = replace(fault, at_most_ms=4_050)
    meanwhile = trail(replace(scenario, faults=(*scenario.faults, longest)))
    until = point(random.choice([step for step in meanwhile if step.job_id == at.job]))
    return replace(longest, until=replace(until, when=random.choice(("before", "after"))))


def trail(scenario: Scenario) -> list[Step]:
    passed = list[Passed]()
    simulate(scenario, ColumnSink(), 1, trail=passed, all_told=True)
    return [one.step for one in passed if one.step.job_id is not None and one.step.name not in OF_NO_JOB]


def point(step: Step) -> Point:
    return Point(step.job_id or "", step.attempt, step.names[0], step.index)
