"""Explore finds subtle wrong guards, and finds them where random scheduling with the same budget may not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random

import pytest
from analyzer.drawing import struck
from analyzer.guards import GUARDS, Guard, broken

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import Plan, Unit, explore
from fencepost_analyzer.lab.found import Found
from fencepost_analyzer.lab.space import Bound
from fencepost_runtime.scenario import Scenario

# How often the same number of random schedules is drawn.
DRAWS = 10
BY_NAME = {one.name: one for one in GUARDS}
# The one that random schedules find least often; the others wait for the campaign.
SAMPLE = ("a reclaim that compares the token, not the state",)


def work(guard: Guard) -> Scenario:
    """Two payments, two workers, no fault of their own."""
    return replace(failure_modes()["FM-002"].scenario.with_policy(guard.policy), faults=())


class _Seen(Exception):
    """What was looked for has been found."""


def schedules_until_found(guard: Guard) -> int | None:
    """How many schedules explore runs until the invariant breaks; None if it breaks in none of them."""
    ran = 0

    def look(_: Unit, found: Found, *__: int) -> None:
        nonlocal ran
        ran += found.schedules
        if found.violated[guard.invariant]:
            raise _Seen

    try:
        explore(Plan(((work(guard), guard.bound),), 1), explored=look)
    except _Seen:
        return ran
    return None


def found_at_random(guard: Guard, schedules: int, random: Random) -> bool:
    """Whether so many random schedules within the bound find it."""
    calm, drawn = work(guard), list[Scenario]()
    while len(drawn) < schedules:
        one = struck(calm, random.randint(1, guard.bound.faults), random)
        if Bound(guard.bound.faults, *(guard.bound.faults,) * 3).allows(one.faults) and guard.bound.allows(one.faults):
            drawn.append(one)
    return any(judgement.violated for _, _, judgement in judged(drawn, 1, only=(guard.invariant,)))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_wrong_guard_is_found(name: str) -> None:
    """And where the guard is right, nothing is: no schedule within the bound breaks the invariant."""
    guard = BY_NAME[name]
    assert schedules_until_found(guard) is None
    with broken(guard):
        assert schedules_until_found(guard) is not None


@pytest.mark.campaign
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_wrong_guard_is_found(guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    """Said: after how many schedules, and how many of ten random searches with that budget find it, too."""
    assert schedules_until_found(guard) is None
    with broken(guard):
        ran = schedules_until_found(guard)
        assert ran is not None
        lucky = sum(found_at_random(guard, ran, Random(seed)) for seed in range(DRAWS))
    with capsys.disabled():
        told = {"figure": "wrong_guard_found_after", "value": ran, "unit": "schedules", "guard": guard.name}
        sys.stdout.write(json.dumps({**told, "random_searches_that_find_it": lucky, "of": DRAWS}) + "\n")
