"""A run that goes on from another one's course is the run that it would have been from its beginning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from random_scenarios import random_scenario

from fencepost_runtime import course as courses
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.course import Course
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import Passed, explored, simulate

SCENARIOS = range(120)


def told(scenario: Scenario, seed: int, like: Course | None, course: Course | None) -> list[Any]:
    sink, trail = ColumnSink(), list[Passed]()
    ran = explored(scenario, sink, seed, trail=trail, like=like, course=course)
    return [sink.records(), trail, ran, ran.struck, ran.unstruck]


def from_the_beginning(scenario: Scenario, seed: int) -> list[Any]:
    sink, trail = ColumnSink(), list[Passed]()
    ran = simulate(scenario, sink, seed, trail=trail, all_told=True)
    return [sink.records(), trail, ran, ran.struck, ran.unstruck]


@pytest.mark.parametrize("seed", SCENARIOS)
def test_one_fault_after_the_other_is_added_to_what_was_run(seed: int) -> None:
    whole = random_scenario(seed)
    like = None
    for number in range(len(whole.faults) + 1):
        scenario, course = replace(whole, faults=whole.faults[:number]), Course()
        assert told(scenario, seed, like, course) == from_the_beginning(scenario, seed)
        like = course


@pytest.mark.parametrize("seed", SCENARIOS)
def test_several_go_on_from_one_course(seed: int) -> None:
    whole, course = random_scenario(seed), Course()
    told(replace(whole, faults=()), seed, None, course)
    for fault in whole.faults:
        scenario = replace(whole, faults=(fault,))
        assert told(scenario, seed, course, None) == from_the_beginning(scenario, seed)


def test_runs_do_go_on_from_moments() -> None:
    shared = 0
    for seed in SCENARIOS:
        whole, course = random_scenario(seed), Course()
        told(replace(whole, faults=()), seed, None, course)
        shared += sum(course.before(fault) is not None for fault in whole.faults)
    assert shared > len(SCENARIOS)


def test_only_so_many_moments_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "MAX_MOMENTS", 3)
    for seed in SCENARIOS[:20]:
        test_one_fault_after_the_other_is_added_to_what_was_run(seed)
