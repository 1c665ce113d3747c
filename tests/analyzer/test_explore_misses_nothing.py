"""Explore runs one schedule for many: whatever any schedule within the bound breaks, one of those that it runs breaks.

The schedules tried against it are drawn from everything that a scenario's file can say.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random

import pytest
from analyzer.drawing import point, struck, trail

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import Plan, around, explore
from fencepost_analyzer.lab.lattice import above
from fencepost_analyzer.lab.space import Bound, following, shorter
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import Policy, preset
from fencepost_runtime.scenario import Fault, Point, Scenario
from fencepost_runtime.simulate import Passed, simulate

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


@pytest.mark.parametrize("mode", ["FM-002", "FM-005"])
def test_what_a_pause_of_any_length_breaks_is_found(mode: str) -> None:
    """Every millisecond around a lease's end: one of them lies between a reclaimer's scan and its reclaim."""
    assert missed_by_length(mode, "transactional", seed=1) == []


@pytest.mark.parametrize("poll_ms", [20, 5_000, 60_000])
def test_who_looks_seldom_is_waited_for(poll_ms: int) -> None:
    """Nobody takes over before the reclaimer and then another worker have looked: a short stop would break nothing."""
    calm = replace(failure_modes()["FM-002"].scenario.with_policy(preset("safe")), faults=(), poll_ms=poll_ms)
    for policy, broken in ((preset("safe"), "INV-002"), (preset("naive"), "INV-003")):
        plan = around(calm.with_policy(policy.replace(renew=False)), 1, Bound(1, 0, 1, 0))
        assert broken in explore(plan).found.violated


def test_work_that_takes_longer_than_leases_is_waited_for() -> None:
    """A pause lasts until another has done the work, however long that is: else nobody is stopped until after it."""
    calm = replace(failure_modes()["FM-002"].scenario.with_policy(preset("renewed")), faults=())
    (queue,) = calm.queues
    calm = replace(calm, queues=(replace(queue, jobs=(replace(queue.jobs[0], work_ms=20_000),)),))
    passed = list[Passed]()
    ran = simulate(calm, ColumnSink(), 1, trail=passed, all_told=True)
    held = next(one for one in following(calm, (), ran, passed) if (one.kind, one.at.step) == ("pause", "write"))
    passed.clear()
    simulate(replace(calm, faults=(held,)), ColumnSink(), 1, trail=passed, all_told=True)
    points = [one.until for one in shorter(held, passed)]
    assert Point("pay-1", 2, "write", when="after") in points


@pytest.mark.campaign
def test_what_a_pause_of_any_length_breaks_is_found_under_every_policy(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for all failure modes, seven policies and three seeds."""
    names = (*PRESETS, "naive", "fenced")
    cases = [(mode, name, seed) for mode in failure_modes() for name in names for seed in (1, 2, 3)]
    for mode, name, seed in cases:
        assert missed_by_length(mode, name, seed) == []
    with capsys.disabled():
        told = {"figure": "lengths_of_a_pause_that_break_more_than_explored_ones", "value": 0, "of": len(cases)}
        sys.stdout.write(json.dumps(told) + "\n")


def missed_by_length(mode: str, policy: str, seed: int) -> list[tuple[str, Fault]]:
    """Pauses and slow work that break what explore, with one fault, never saw break; and which invariant."""
    calm = replace(failure_modes()[mode].scenario.with_policy(preset(policy)), faults=())
    known = explore(Plan(((calm, Bound(1, 1, 1, 1)),), seed)).found.violated
    lease_ms = calm.queues[0].policy.lease_ms
    lengths = (*range(10, lease_ms - 30, 37), *range(lease_ms - 30, lease_ms + 130), *range(lease_ms + 130, 3_400, 61))
    faults = [Fault("slow" if at.step == "work" else "pause", at, at_most_ms=ms) for at in held(calm) for ms in lengths]
    scenarios = (replace(calm, faults=(fault,)) for fault in faults)
    return [
        (name, one.faults[0])
        for one, _, judgement in judged(scenarios, seed)
        for name in judgement.violated
        if name not in known
    ]


def held(calm: Scenario) -> list[Point]:
    """Where a worker could be held up."""
    named = [step for step in trail(calm) if step.attempt and (step.name == "work" or step.operation is not None)]
    return list(dict.fromkeys(map(point, named)))


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
