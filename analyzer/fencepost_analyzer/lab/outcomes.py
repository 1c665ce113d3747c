"""Verdicts that tables state, computed: scenarios under policies, in the simulator, judged by every invariant.

A cell is stated only if it comes out alike under several seeds, that is, under several schedules.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_table
from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.placing import unstruck
from fencepost_analyzer.replay import undone
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate
from fencepost_runtime.world import Simulated

SEEDS = (1, 2, 3)


class Unsteady(AnalyzerError):
    """A verdict depends on the schedule: no table may state it."""


K = TypeVar("K", bound=Hashable)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario comes to: broken invariants, undecided ones, and jobs whose effects are not all applied.
    `overdue`: it was cut off by its time, and may break more. `missed`: its faults, in words, that never struck, whose
    absence may be all that made a difference; under other schedules these may be others."""

    violated: tuple[str, ...]
    unknown: tuple[str, ...]
    undone: tuple[str, ...]
    overdue: bool = False
    missed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def holds(self) -> bool:
        """Whether every invariant holds; jobs may still be undone, buried where people can find them."""
        return not self.violated and not self.unknown and not self.overdue

    def __or__(self, other: Outcome) -> Outcome:
        """What it comes to if nobody knows which of the two it is."""
        violated = {*self.violated, *other.violated}
        return Outcome(
            tuple(sorted(violated)),
            tuple(sorted({*self.unknown, *other.unknown} - violated)),
            _all(self.undone, other.undone),
            self.overdue or other.overdue,
            _all(self.missed, other.missed),
        )

    def cell(self) -> str:
        """As a table states it: "holds", or what does not."""
        said = [", ".join(self.violated)] if self.violated else []
        said += [f"unknown: {', '.join(self.unknown)}"] if self.unknown else []
        said += ["cut off by its time"] if self.overdue else []
        verdict = "; ".join(said) or "holds"
        return verdict + (f" ({len(self.undone)} not done)" if self.undone else "")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: leases granted, and done or what the queue still holds it as: ready, leased, dead."""

    job_id: str
    leases: int
    state: str


def outcomes(
    cases: Mapping[K, Scenario], seeds: Sequence[int] = SEEDS, invariants: Sequence[Path] = ()
) -> dict[K, Outcome]:
    """Runs every case under every seed and judges all of them in one pass, by our invariants and those in the
    directories `invariants`. Raises Unsteady where seeds disagree."""
    rows: list[dict[str, Any]] = []
    runs: list[tuple[K, tuple[str, ...], Simulated]] = []
    for case, scenario in cases.items():
        for seed in seeds:
            sink = ColumnSink(len(runs))
            simulated = simulate(scenario, sink, seed)
            told = sink.rows()
            runs.append((case, undone(scenario, told), simulated))
            rows += told
    found: dict[K, Outcome] = {}
    for schedule, judgement in judge_many(events_table(rows), extra=invariants).items():
        case, left, simulated = runs[schedule]
        unknown = tuple(name for name in judgement.unknown if name not in judgement.vacuous)
        _, missed = unstruck(simulated.unstruck, cases[case])
        outcome = Outcome(judgement.violated, unknown, left, simulated.overdue, missed)
        before = found.setdefault(case, outcome)
        if before != outcome:
            raise Unsteady(f"The verdict on {case} depends on the schedule: {before.cell()}, {outcome.cell()}.")
        found[case] = replace(before, missed=_all(before.missed, missed))
    return found


def events(scenario: Scenario, seed: int) -> list[dict[str, Any]]:
    """The events of one simulated run."""
    sink = ColumnSink()
    simulate(scenario, sink, seed)
    return sink.rows()


def endings(scenario: Scenario) -> tuple[list[Ending], int]:
    """How each job of one simulated run ended, by the inventory taken after it; and how many workers died in it."""
    rows = events(scenario, SEEDS[0])
    deaths = sum(1 for row in rows if row["event"] == "crash")
    held = {row["job_id"]: row["reason"] for row in rows if row["event"] == "inventory"}
    return [Ending(job.id, _leases(rows, job.id), held.get(job.id, "done")) for job in scenario.jobs], deaths


def _all(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *others)))


def _leases(rows: Iterable[Row], job_id: str) -> int:
    return sum(1 for row in rows if row["event"] == "lease" and row["job_id"] == job_id)
