"""Schedules drawn from all that a scenario's file can say: any step and moment, any pause, any step to wait for."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import DURABLE, OF_NO_JOB, Fault, Point, Scenario
from fencepost_runtime.simulate import Passed, simulate
from fencepost_runtime.steps import Step

# Around the moments at which a lease of a second runs out, is taken back and is given to another.
LENGTHS = (5, 300, 900, 1_001, 1_050, 1_100, 2_000, 4_050, 10_000)


def struck(scenario: Scenario, faults: int, random: Random) -> Scenario:
    for _ in range(faults):
        scenario = replace(scenario, faults=(*scenario.faults, drawn_fault(scenario, random)))
    return scenario


def drawn_fault(scenario: Scenario, random: Random) -> Fault:
    """A fault at a step that the scenario comes to."""
    steps = trail(scenario)
    kind = random.choice(("kill", "pause", "pause", "slow", "lost_reply", "db_error"))
    working = [step for step in steps if step.name == "work"]
    if kind == "slow" and working:
        at = point(random.choice(working))
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
