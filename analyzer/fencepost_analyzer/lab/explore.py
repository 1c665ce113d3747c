"""Explore: every schedule within a bound around an incident, each simulated, all of them judged in bulk.

The work is cut into units, one for each first fault: a unit needs nothing of another, so that they run on any number of
processes, in any order, and an interrupted exploration goes on where it stopped, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.lab.found import Broken, Found, Shortest, Way
from fencepost_analyzer.lab.histories import Histories
from fencepost_analyzer.lab.lineage import concerns, lineage
from fencepost_analyzer.lab.processes import processes
from fencepost_analyzer.lab.space import Bound, following, in_order, lasting, merged, plain, shorter
from fencepost_analyzer.placing import Ways, striking
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.course import Course
from fencepost_runtime.scenario import Fault, Scenario
from fencepost_runtime.simulate import Passed, explored, simulate
from fencepost_runtime.world import Simulated

# Schedules that are judged in one query of each invariant, at most, and units whose schedules are judged together.
BATCH, CHUNK = 16_000, 32


class NotRepeated(AnalyzerError):
    """The same schedule gave two different histories: that is a bug of fencepost, not a verdict."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The schedules whose first added fault is `first`; with None the one schedule without any. `base`: which of the
    exploration's scenarios they start from."""

    base: int
    first: Fault | None

    def to_dict(self) -> dict[str, Any]:
        return {"base": self.base, "first": plain(self.first) if self.first is not None else None}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be explored: `bases` are the scenarios to which faults are added, each with the bound of what may be
    added; `invariants` the directories of the user's own. `by_lineage`: only what could prevent one job's good end.
    `every`: whether the incident is among them in every way in which its faults may have struck."""

    bases: tuple[tuple[Scenario, Bound], ...]
    seed: int
    invariants: tuple[Path, ...] = ()
    by_lineage: bool = False
    every: bool = True

    def units(self) -> tuple[Unit, ...]:
        """All units, in the order of the runs without a fault added. Raises NotRepeated."""
        found: list[Unit] = []
        for number, (scenario, bound) in enumerate(self.bases):
            found.append(Unit(number, None))
            ran, trail, sink = _run(scenario, self.seed)
            _repeat(scenario, self.seed)
            further = self.worth_trying(following(scenario, (), ran, trail), scenario, (), trail, sink)
            found += [Unit(number, fault) for fault in further if bound.allows([fault])]
        return tuple(found)

    def worth_trying(
        self,
        further: Iterable[Fault],
        scenario: Scenario,
        added: Sequence[Fault],
        trail: Sequence[Passed],
        sink: ColumnSink,
    ) -> list[Fault]:
        """All that could strike a run further, or of these only what its lineage names."""
        if not self.by_lineage:
            return list(further)
        found = lineage(sink.rows(), trail)
        return [fault for fault in further if concerns(fault, (*scenario.faults, *added), found)]


@dataclass(frozen=True, slots=True)
class Exploration:
    """`complete`: whether every unit of the plan was explored; `found` is all that the explored ones came to."""

    plan: Plan
    units: int
    explored: int
    found: Found

    @property
    def complete(self) -> bool:
        return self.explored == self.units

    @property
    def certified(self) -> bool:
        """Whether nothing breaks in any schedule within the bound: all were run, to their end, and all decided."""
        found, all_tried = self.found, self.complete and self.plan.every and not self.plan.by_lineage
        return all_tried and not (found.violated or found.undecided or found.overdue)

    @property
    def exit_code(self) -> int:
        """0 certified, 1 something breaks, 3 nothing was seen to break, but not all was seen."""
        return 1 if self.found.violated else 0 if self.certified else 3

    def scenario(self, name: str) -> Scenario:
        """The shortest schedule that breaks an invariant, as a scenario to run with the plan's seed."""
        one = self.found.shortest[name]
        return striking(_with(self.plan.bases[one.base][0], one.added))


def around(
    incident: Scenario | Ways, seed: int, bound: Bound, invariants: Iterable[Path] = (), *, by_lineage: bool = False
) -> Plan:
    """A plan around an incident: its work with up to so many faults, and with its own faults, wherever these may have
    struck, up to one fewer added."""
    scenarios = [one.scenario for one in incident.placed] if isinstance(incident, Ways) else [incident]
    every = not isinstance(incident, Ways) or incident.every
    lasted = [lasting(one, bound) for one in scenarios]
    return Plan(bases(lasted, bound), seed, tuple(invariants), by_lineage, every)


def bases(ways: Sequence[Scenario], bound: Bound) -> tuple[tuple[Scenario, Bound], ...]:
    """To what faults are added around an incident, and how many: to its calm run, and to those with its own faults, one
    for each way in which they may have struck. Those that are added to a calm run do not stand for these: an incident
    may have more faults than the bound allows, and other pauses."""
    calm = (replace(ways[0], faults=()), bound)
    fewer = replace(bound, faults=max(0, bound.faults - 1))
    return (calm, *((one, fewer) for one in ways if one.faults))


def explore(
    plan: Plan,
    *,
    workers: int = 1,
    known: Mapping[Unit, Found] | None = None,
    at_most: int | None = None,
    begun: Callable[[int, int], None] = lambda *_: None,
    explored: Callable[[Unit, Found, int, int], None] = lambda *_: None,
) -> Exploration:
    """Explores all units that are not `known`, by `workers` processes. `begun(number, of)` is called once it is known
    how many units there are and how many of them are known, `explored(unit, found, number, of)` as each is done.
    `at_most`: no new unit is begun after so many schedules.

    Raises NotRepeated if a schedule does not repeat itself."""
    units = plan.units()
    done = {unit: found for unit, found in (known or {}).items() if unit in set(units)}
    total = Found()
    for unit in units:
        if unit in done:
            total.add(done[unit])
    begun(len(done), len(units))
    left = [unit for unit in units if unit not in done]
    for unit, found in _explored(plan, left, workers, lambda: at_most is None or total.schedules < at_most):
        done[unit] = found
        total.add(found)
        explored(unit, found, len(done), len(units))
    return Exploration(plan, len(units), len(done), total)


def _explored(
    plan: Plan, units: Sequence[Unit], workers: int, going: Callable[[], bool]
) -> Iterator[tuple[Unit, Found]]:
    # With one fault a unit is one schedule, and a query costs the same for one as for hundreds. With three it is
    # thousands, whose time should not be lost when somebody interrupts.
    most = max(bound.faults for _, bound in plan.bases)
    size = 1 if most > 2 else CHUNK if most > 1 else 4 * CHUNK
    chunks = [units[start : start + size] for start in range(0, len(units), size)]
    if workers <= 1:
        for chunk in chunks:
            if not going():
                return
            yield from zip(chunk, explore_units(plan, chunk), strict=True)
        return
    with processes(workers) as pool:
        waiting: dict[Future[list[Found]], Sequence[Unit]] = {}
        coming = iter(chunks)  # Never an empty one.
        while True:
            while going() and len(waiting) < 2 * workers and (chunk := next(coming, ())):
                waiting[pool.submit(explore_units, plan, chunk)] = chunk
            if not waiting:
                return
            future = next(as_completed(waiting))
            yield from zip(waiting.pop(future), future.result(), strict=True)


def explore_units(plan: Plan, units: Sequence[Unit]) -> list[Found]:
    """All schedules of some units, what each of them came to."""
    batch = _Batch(plan)
    found = [_schedules(plan, unit, batch) for unit in units]
    batch.judge()
    return found


def _schedules(plan: Plan, unit: Unit, batch: _Batch) -> Found:
    """Runs a unit's schedules, depth first, and hands them over to be judged."""
    scenario, bound = plan.bases[unit.base]
    found = Found()
    # Each with the course of the run that its last fault is added to.
    stack: list[tuple[tuple[Fault, ...], Course | None]] = [(() if unit.first is None else (unit.first,), None)]
    # Those that outlast everything; what ends sooner is made of them, once.
    longest = {unit.first} if unit.first is not None and unit.first.kind in ("pause", "slow") else set[Fault]()
    while stack:
        added, like = stack.pop()
        course = Course() if unit.first is not None and len(added) < bound.faults else None
        sink, trail = ColumnSink(), list[Passed]()
        ran = explored(_with(scenario, added), sink, plan.seed, trail=trail, like=like, course=course)
        if not in_order(added, ran):
            found.equivalent += 1
            continue
        batch.add(_Ran(found, unit.base, added), ran, sink)
        if len(added) < bound.faults:
            every = list(following(scenario, added, ran, trail))
            further = plan.worth_trying(every, scenario, added, trail, sink)
            # What lineage leaves out leaves something else behind: it is no equivalent of what is tried.
            found.equivalent += merged(added, ran, trail, every, bound)
            if plan.by_lineage:
                tried = set(further)
                found.left_out_by_lineage += sum(bound.allows([*added, one]) for one in every if one not in tried)
            if unit.first is None:
                continue  # Each of these begins a unit of its own.
            longest.update(fault for fault in further if fault.kind in ("pause", "slow"))
            stack += [((*added, fault), course) for fault in further if bound.allows([*added, fault])]
        if added and added[-1] in longest:
            stack += [((*added[:-1], fault), like) for fault in shorter(added[-1], trail)]
    return found


def _with(scenario: Scenario, added: Sequence[Fault]) -> Scenario:
    return replace(scenario, faults=(*scenario.faults, *added))


def _run(scenario: Scenario, seed: int) -> tuple[Simulated, list[Passed], ColumnSink]:
    sink, trail = ColumnSink(), list[Passed]()
    # What is true counts here, not what spans could show of it: a lost reply leaves no doubt.
    return simulate(scenario, sink, seed, trail=trail, all_told=True), trail, sink


def _repeat(scenario: Scenario, seed: int) -> None:
    first, second = ColumnSink(), ColumnSink()
    simulate(scenario, first, seed)
    simulate(scenario, second, seed)
    if first.rows() != second.rows():
        raise NotRepeated


@dataclass(frozen=True, slots=True)
class _Ran:
    """One schedule that was run: where it counts, and what it was."""

    found: Found
    base: int
    added: tuple[Fault, ...]


class _Batch:
    """Schedules on their way to be judged, all in one query of each invariant."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._schedules: list[_Ran] = []
        self._histories = Histories()

    def add(self, one: _Ran, ran: Simulated, sink: ColumnSink) -> None:
        self._schedules.append(one)
        one.found.schedules += 1
        one.found.events += self._histories.add(sink, overdue=ran.overdue)
        one.found.overdue += ran.overdue
        if len(self._schedules) >= BATCH:
            self.judge()

    def judge(self) -> None:
        """Raises InvariantError if an invariant cannot be judged."""
        for one, judgement in zip(self._schedules, self._histories.judge(self._plan.invariants), strict=True):
            one.found.broken += bool(judgement.violated)
            faults = (*self._plan.bases[one.base][0].faults, *one.added)
            kinds = tuple(sorted({fault.kind for fault in faults}))
            for name in judgement.violated:
                one.found.keep(Way(name, kinds), Broken(1, Shortest(len(faults), one.base, one.added)))
            for name in judgement.unknown:
                if name not in judgement.vacuous:
                    one.found.undecided[name] += 1
        self._schedules.clear()
