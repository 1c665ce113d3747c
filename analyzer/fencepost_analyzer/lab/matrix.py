"""The matrix: one incident, or every failure mode, under every policy, and which promises hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.inference import Inference
from fencepost_analyzer.lab.costs import Cost, cost
from fencepost_analyzer.lab.explore import Exploration, Plan, around
from fencepost_analyzer.lab.outcomes import Outcome, outcomes
from fencepost_analyzer.lab.space import Bound, lasting
from fencepost_analyzer.placing import Ways, everywhere
from fencepost_analyzer.strategies import strategies
from fencepost_runtime.policy import presets
from fencepost_runtime.scenario import Scenario

RECORDED = "as recorded"


@dataclass(frozen=True, slots=True)
class Row:
    """An incident under one policy, wherever its faults may have struck. `left_out`: faults that the policy has no
    place for; `elsewhere`: those that strike elsewhere than told for something of the outcome, in words; `every`:
    whether all ways to place them were tried. `exploration`: of everything within a bound around it, if that was asked
    for."""

    policy: str
    outcome: Outcome
    cost: Cost
    left_out: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()
    every: bool = True
    exploration: Exploration | None = None

    @property
    def heals(self) -> bool:
        """Whether in the incident itself every promise holds and every job was done, though all its faults struck."""
        outcome = self.outcome
        return outcome.holds and not outcome.undone and not outcome.missed and self.every

    @property
    def share(self) -> float:
        """In how many of the explored schedules anything breaks, from 0 to 1; 0 if none were."""
        found = self.exploration.found if self.exploration is not None else None
        return found.broken / found.schedules if found is not None and found.schedules else 0.0

    def to_dict(self) -> dict[str, Any]:
        found = self.exploration.found if self.exploration is not None else None
        return {
            "policy": self.policy,
            "heals": self.heals,
            "violated": list(self.outcome.violated),
            "unknown": list(self.outcome.unknown),
            "not_done": list(self.outcome.undone),
            "overdue": self.outcome.overdue,
            "costs": self.cost.to_dict(),
            "left_out": list(self.left_out),
            "elsewhere": list(self.elsewhere),
            "every_way": self.every,
            "missed": list(self.outcome.missed),
            "explored": {"schedules": found.schedules, "broken": found.broken, "violated": dict(found.violated)}
            if found is not None
            else None,
        }


def matrix(
    scenario: Scenario,
    seed: int,
    inferences: Sequence[Inference],
    invariants: Sequence[Path] = (),
    *,
    bound: Bound | None = None,
    explorer: Callable[[Sequence[Plan]], Iterable[Exploration]] | None = None,
) -> tuple[Row, ...]:
    """The incident as recorded and under every preset. With a bound, everything within it is explored around each."""
    found = {RECORDED: everywhere(scenario, scenario, inferences)}
    found |= {name: everywhere(scenario, scenario.with_policy(one), inferences) for name, one in presets().items()}
    cases = {(name, way): lasting(one.scenario) for name, ways in found.items() for way, one in enumerate(ways.placed)}
    judged = outcomes(cases, (seed,), invariants)
    explored: Iterable[Exploration | None] = [None] * len(found)
    if bound is not None and explorer is not None:
        explored = explorer([around(ways, seed, bound, invariants) for ways in found.values()])
    return tuple(
        _row(
            name, ways, [judged[name, way] for way in range(len(ways.placed))], cost(cases[name, 0], seed), exploration
        )
        for (name, ways), exploration in zip(found.items(), explored, strict=True)
    )


def _row(name: str, ways: Ways, came: Sequence[Outcome], paid: Cost, exploration: Exploration | None) -> Row:
    told = came[0]
    worse = (way.moved for way, outcome in zip(ways.placed, came, strict=True) if told | outcome != told | told)
    return Row(name, reduce(or_, came), paid, ways.told.homeless, next(worse, ()), ways.every, exploration)


def cheapest(rows: Iterable[Row]) -> Row | None:
    """Of the policies that heal the one that commits least, then the one that repeats least, then the plainest."""
    return min((row for row in rows if row.heals), key=_price, default=None)


def safest(rows: Iterable[Row]) -> Row | None:
    """Of the policies that heal the one under which the smallest share of the explored schedules breaks anything."""
    return min((row for row in rows if row.heals), key=lambda one: (one.share, *_price(one)), default=None)


def catalogue() -> Mapping[tuple[str, str], Outcome]:
    """Every failure mode under every preset: by failure mode and policy. Raises Unsteady where schedules disagree."""
    modes = failure_modes().values()
    return outcomes(
        {(mode.id, name): mode.scenario.with_policy(one) for mode in modes for name, one in presets().items()}
    )


def _price(row: Row) -> tuple[int, int, float, int]:
    policy = presets().get(row.policy)
    on = sum(one.is_on(policy) for one in strategies().values()) if policy is not None else 0
    return row.cost.commits, row.cost.writes, row.cost.mean_ms, on
