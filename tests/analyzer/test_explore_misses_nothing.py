"""Explore runs one schedule for many: whatever any schedule within the bound breaks, one of those that it runs breaks.

The schedules tried against it are drawn from everything that a scenario's file can say.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random

import pytest
from analyzer.drawing import struck

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import Plan, explore
from fencepost_analyzer.lab.lattice import above
from fencepost_analyzer.lab.space import Bound
from fencepost_runtime.policy import Policy, preset
from fencepost_runtime.scenario import Scenario

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
