"""Recommend: the weakest changes of a policy under which an incident cannot happen again, and why none of them is idle.

Nothing here knows which strategy heals which failure: the policies come from the lattice, the verdicts from explored
schedules, and the names of strategies from the fields that turned out to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fencepost_analyzer.database import directory
from fencepost_analyzer.inference import Inference
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.cases import Cut
from fencepost_analyzer.lab.costs import Cost, cost
from fencepost_analyzer.lab.found import Found
from fencepost_analyzer.lab.search import Question, Search, Trial
from fencepost_analyzer.lab.space import Bound, lasting, plain
from fencepost_analyzer.placing import place
from fencepost_analyzer.strategies import Strategy
from fencepost_analyzer.verdicts import Judgement
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import MAX_FAULTS, Fault, Scenario


@dataclass(frozen=True, slots=True)
class Break:
    """An invariant that breaks under a policy: in how many of its schedules, whether in the `incident` itself, and the
    shortest schedule that is known: its faults, and the `scenario` that repeats it. `everywhere`: whether every policy
    that was compared is known to break it."""

    invariant: str
    schedules: int
    incident: bool
    faults: tuple[Fault, ...]
    scenario: Scenario
    everywhere: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "invariant": self.invariant,
            "schedules": self.schedules,
            "incident": self.incident,
            "everywhere": self.everywhere,
            "faults": [plain(fault) for fault in self.faults],
            "scenario": self.scenario.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Less:
    """A policy that asks for one change less than an option does, and what breaks there that the option keeps, or that
    takes more faults there; of `schedules`."""

    changes: Mapping[str, Any]
    schedules: int
    breaks: tuple[Break, ...]

    def to_dict(self) -> dict[str, Any]:
        breaks = [one.to_dict() for one in self.breaks]
        return {"changes": dict(self.changes), "schedules": self.schedules, "breaks": breaks}


@dataclass(frozen=True, slots=True)
class Option:
    """A set of changes that nothing weaker can stand for. `remaining`: what breaks under it still, as under every other
    policy; `less`: what breaks under the policies that ask for one change less. `overdue`: the incident itself was cut
    off by its time under it, so that nobody knows what it breaks.
    `calm` and `incident`: what it costs, to be held beside the advice's own `calm` and `incident`."""

    changes: Mapping[str, Any]
    policy: Policy
    strategies: tuple[Strategy, ...]
    found: Found
    remaining: tuple[Break, ...]
    less: tuple[Less, ...]
    calm: Cost
    incident: Cost
    overdue: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "changes": dict(self.changes),
            "strategies": [one.id for one in self.strategies],
            "policy": self.policy.to_dict(),
            "schedules": self.found.schedules,
            "undecided": dict(self.found.undecided),
            "overdue": self.found.overdue,
            "incident_overdue": self.overdue,
            "remaining": [one.to_dict() for one in self.remaining],
            "less": [one.to_dict() for one in self.less],
            "costs": {"calm": self.calm.to_dict(), "incident": self.incident.to_dict()},
        }


@dataclass(frozen=True, slots=True)
class Advice:
    """For one queue. `broke`: what the incident breaks under the recorded policy. `options`: the weakest policies under
    which as little as possible breaks within the bound, the cheapest first; `enough`: the weakest that keep what broke,
    where these are others. `policies` were compared, `explored` of them in full, `tried` schedules simulated."""

    cut: Cut
    bound: Bound
    broke: tuple[str, ...]
    options: tuple[Option, ...]
    enough: tuple[Option, ...]
    policies: int
    explored: int
    tried: int
    calm: Cost
    incident: Cost

    @property
    def healed(self) -> bool:
        """Whether the incident breaks nothing under the first option, and was seen to its end there; what up to so many
        other faults can still break, its `remaining` says."""
        return self.decided and bool(self.options) and not any(one.incident for one in self.options[0].remaining)

    @property
    def decided(self) -> bool:
        """Whether the incident was seen to its end under the first option."""
        return not any(one.overdue for one in self.options[:1])

    def to_dict(self) -> dict[str, Any]:
        return {
            "queue": self.cut.queue,
            "policy": self.cut.policy.to_dict(),
            "jobs": [job.id for job in self.cut.scenario.jobs],
            "of_jobs": self.cut.of,
            "broke": list(self.broke),
            "healed": self.healed,
            "options": [one.to_dict() for one in self.options],
            "enough": [one.to_dict() for one in self.enough],
            "policies": self.policies,
            "explored": self.explored,
            "tried": self.tried,
            "costs": {"calm": self.calm.to_dict(), "incident": self.incident.to_dict()},
        }


def question(cut: Cut, seed: int, bound: Bound, invariants: Iterable[Path] = ()) -> Question:
    """What is asked of a queue: that no invariant breaks, and that no job is given up either."""
    judges = (directory("goals"), *invariants)
    return Question(cut.scenario, cut.policy, cut.inferences, seed, bound, judges)


def recommend(cut: Cut, search: Search) -> Advice:
    """Searches, and explains what was found."""
    broke = tuple(sorted(search.recorded.own))
    best = search.best()
    enough = [one for one in search.best(broke) if one not in best] if broke else []
    # How many schedules break each lesser policy is counted: that takes all of them.
    lesser = [less for one in (*best, *enough) for less in search.lesser(one)]
    search.explore(list({id(one): one for one in lesser}.values()))
    options = sorted((_option(search, one, None) for one in best), key=_price)
    seed, scenario = search.question.seed, search.recorded.scenario
    return Advice(
        cut,
        search.question.bound,
        broke,
        tuple(options),
        tuple(sorted((_option(search, one, broke) for one in enough), key=_price)),
        len(search.trials),
        len(search.explored),
        search.tried,
        cost(replace(scenario, faults=()), seed),
        cost(scenario, seed),
    )


def healed(
    scenario: Scenario, inferences: Sequence[Inference], policies: Mapping[str, Policy], bound: Bound
) -> Scenario:
    """The whole incident with these policies by queue, with time enough: as much as schedules of the search have."""
    queues = tuple(replace(queue, policy=policies.get(queue.name, queue.policy)) for queue in scenario.queues)
    return lasting(place(scenario, replace(scenario, queues=queues), inferences).scenario, bound)


def whole(
    scenario: Scenario,
    seed: int,
    inferences: Sequence[Inference],
    policies: Mapping[str, Policy],
    bound: Bound,
    invariants: Sequence[Path] = (),
) -> Judgement:
    """What the whole incident breaks with these policies by queue, however long it takes."""
    cured = healed(scenario, inferences, policies, bound)
    return next(judged([cured], seed, (directory("goals"), *invariants))).judgement


def _option(search: Search, trial: Trial, aim: Sequence[str] | None) -> Option:
    lesser = search.lesser(trial)
    found, *counted = (search.explored_in_full(one).found for one in (trial, *lesser))
    seed = search.question.seed
    everywhere = frozenset.intersection(*(frozenset(one.breaks) for one in search.trials))
    return Option(
        trial.choice.changes,
        trial.choice.policy,
        trial.choice.strategies(search.question.policy),
        found,
        tuple(replace(one, everywhere=one.invariant in everywhere) for one in _breaks(trial, found, None)),
        tuple(_less(trial, one, found, aim) for one, found in zip(lesser, counted, strict=True)),
        cost(replace(trial.scenario, faults=()), seed),
        cost(trial.scenario, seed),
        trial.own_overdue,
    )


def _less(trial: Trial, lesser: Trial, found: Found, aim: Sequence[str] | None) -> Less:
    kept = {name: one.faults for name, one in trial.breaks.items()}
    again = lesser.own - trial.own
    breaks = [
        one
        for one in _breaks(lesser, found, aim)
        if one.invariant in again or len(one.faults) < kept.get(one.invariant, MAX_FAULTS)
    ]
    return Less(lesser.choice.changes, found.schedules, tuple(breaks))


def _breaks(trial: Trial, found: Found, aim: Sequence[str] | None) -> Iterator[Break]:
    violated = found.violated
    for name in sorted(trial.breaks):
        if aim is None or name in aim:
            scenario = trial.broken_by(name)
            yield Break(name, violated[name], name in trial.own, scenario.faults, scenario)


def _price(option: Option) -> tuple[int, int, float, int, str]:
    """The cheapest first: what it writes in calm times, then what it repeats in the incident."""
    return (
        option.calm.commits,
        option.incident.writes + option.incident.renewals,
        option.calm.mean_ms,
        len(option.changes),
        str(dict(option.changes)),
    )
