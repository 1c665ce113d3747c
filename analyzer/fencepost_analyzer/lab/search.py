"""The search for the weakest policies under which an incident cannot fail, counterexample first.

Every policy above the recorded one is a trial. A schedule that breaks one trial is tried on all others at once, which
refutes most of them for the price of one simulated run each; only the most promising are explored in full, and what
breaks these is tried on the others again. The search ends when nothing that was not explored could be better than what
was: best first, as A* (Hart, Nilsson and Raphael, 1968), for what is known to break a policy never exaggerates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fencepost_analyzer.inference import Inference
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import Exploration, Plan, bases, explore
from fencepost_analyzer.lab.found import Found, Shortest
from fencepost_analyzer.lab.lattice import Choice, above
from fencepost_analyzer.lab.space import Bound, lasting
from fencepost_analyzer.placing import place, striking
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Scenario

# Of the incident itself how many invariants break; then how many do with no fault at all, with up to one, two, …
Loss = tuple[int, ...]
Explorer = Callable[[Sequence[Plan]], Iterable[Exploration]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be healed: a `scenario` whose queues are all under `policy`, with the faults that its `inferences`
    name, against everything that faults within `bound` can bring about, judged by our invariants and those in the
    directories `invariants`."""

    scenario: Scenario
    policy: Policy
    inferences: tuple[Inference, ...]
    seed: int
    bound: Bound
    invariants: tuple[Path, ...] = ()

    def under(self, policy: Policy) -> Scenario:
        """The scenario under a stronger policy, its faults where they strike then, with time enough for all of them.

        There is one way to place them: only a weaker policy has steps between those that the recorded one tells."""
        return lasting(place(self.scenario, self.scenario.with_policy(policy), self.inferences).scenario, self.bound)


@dataclass(slots=True)
class Trial:
    """One policy, and what is known of it: the shortest schedule seen to break each invariant. `own`: the invariants
    that the incident itself breaks under it; `own_overdue`: it was cut off by its time, and may break more.
    `exploration` is None until every schedule was run."""

    choice: Choice
    scenario: Scenario
    own: frozenset[str] = frozenset()
    own_overdue: bool = False
    breaks: dict[str, Shortest] = field(default_factory=dict)
    exploration: Exploration | None = None

    def note(self, invariant: str, schedule: Shortest) -> None:
        self.breaks[invariant] = min(schedule, self.breaks.get(invariant, schedule), key=lambda one: one.rank)

    def loss(self, aim: Collection[str] | None, most: int) -> Loss:
        """What is known to be lost of the aim (None: of everything), with up to `most` faults."""
        lost = [one.faults for name, one in self.breaks.items() if aim is None or name in aim]
        own = len([name for name in self.own if aim is None or name in aim])
        return (own, *(sum(needed <= faults for needed in lost) for faults in range(most + 1)))

    def broken_by(self, invariant: str) -> Scenario:
        """The shortest schedule seen to break an invariant, as a scenario."""
        one = self.breaks[invariant]
        return striking(struck(self.scenario, one.base, one.added))


def one_by_one(plans: Sequence[Plan]) -> Iterator[Exploration]:
    return map(explore, plans)


class Search:
    """The trials of one question. `explorer` explores several plans, `at_once` of them at a time; `progress(explored,
    policies, schedules)` is called as it goes. `tried`: schedules that were simulated."""

    def __init__(
        self,
        question: Question,
        explorer: Explorer = one_by_one,
        at_once: int = 1,
        progress: Callable[[int, int, int], None] = lambda *_: None,
    ) -> None:
        self.question = question
        self.trials = [Trial(choice, question.under(choice.policy)) for choice in above(question.policy)]
        self.tried = 0
        self._explorer, self._at_once, self._progress = explorer, at_once, progress
        self._shown: set[tuple[int, tuple[Fault, ...]]] = set()
        # Faults that a schedule can have, the incident's own among them.
        self._most = max(question.bound.faults, len(question.inferences) + question.bound.faults - 1)
        self._show([Shortest(0, 0, ()), Shortest(0, 1, ())])

    @property
    def recorded(self) -> Trial:
        """The policy as it was."""
        return self.trials[0]

    def best(self, aim: Collection[str] | None = None) -> list[Trial]:
        """The trials that lose least of the aim (invariants; None: everything), each explored in full, and of those the
        weakest: none of them promises all that another one does. Those with few changes come first."""
        while True:
            least = min((self.loss(one, aim) for one in self.explored), default=None)
            best = [one for one in self.explored if self.loss(one, aim) == least]
            waiting = [
                one
                for one in self.trials
                if one.exploration is None
                and (least is None or self.loss(one, aim) <= least)
                and not (self.loss(one, aim) == least and any(other.choice.within(one.choice) for other in best))
            ]
            if not waiting:
                return [one for one in best if not any(_weaker(other, one) for other in best)]
            waiting.sort(key=lambda one: (self.loss(one, aim), len(one.choice.changes)))
            self.explore(waiting[: self._at_once])

    def explore(self, trials: Sequence[Trial]) -> None:
        """Run everything within the bound under these policies; what breaks them is tried on all others."""
        question = self.question
        trials = [one for one in trials if one.exploration is None]
        plans = [Plan(bases([one.scenario], question.bound), question.seed, question.invariants) for one in trials]
        for trial, done in zip(trials, self._explorer(plans), strict=True):
            trial.exploration = done
            self.tried += done.found.schedules
            for way, broken in done.found.ways.items():
                trial.note(way.invariant, broken.shortest)
        self._show([one for trial in trials if trial.exploration for one in _telling(trial.exploration.found)])

    def explored_in_full(self, trial: Trial) -> Exploration:
        """All schedules of one policy, run now if they were not."""
        if trial.exploration is None:
            self.explore([trial])
        assert trial.exploration is not None
        return trial.exploration

    def lesser(self, trial: Trial) -> list[Trial]:
        """The policies that ask for one change less than a trial does, where there are such policies."""
        fewer = len(trial.choice.changes) - 1
        return [one for one in self.trials if len(one.choice.changes) == fewer and one.choice.within(trial.choice)]

    def loss(self, trial: Trial, aim: Collection[str] | None = None) -> Loss:
        return trial.loss(aim, self._most)

    @property
    def explored(self) -> list[Trial]:
        return [one for one in self.trials if one.exploration is not None]

    def _show(self, schedules: Iterable[Shortest]) -> None:
        """Try schedules on every policy that was not explored: what they break there is known then."""
        new = dict.fromkeys((one.base, one.added) for one in schedules if (one.base, one.added) not in self._shown)
        self._shown.update(new)
        cases = [(trial, *one) for one in new for trial in self.trials if trial.exploration is None]
        scenarios = (struck(trial.scenario, base, added) for trial, base, added in cases)
        verdicts = judged(scenarios, self.question.seed, self.question.invariants)
        for (trial, base, added), (scenario, _, judgement) in zip(cases, verdicts, strict=True):
            for name in judgement.violated:
                trial.note(name, Shortest(len(scenario.faults), base, added))
            if base and not added:
                trial.own, trial.own_overdue = frozenset(judgement.violated), judgement.overdue
        self.tried += len(cases)
        self._progress(len(self.explored), len(self.trials), self.tried)


def struck(scenario: Scenario, base: int, added: tuple[Fault, ...]) -> Scenario:
    """Added faults on a calm run of the scenario (base 0), or on top of its own."""
    return replace(scenario, faults=(*scenario.faults, *added) if base else added)


def _weaker(one: Trial, other: Trial) -> bool:
    return one is not other and one.choice.within(other.choice)


def _telling(found: Found) -> Iterator[Shortest]:
    """The shortest schedules, for each invariant one for each set of kinds of which no part would do."""
    for way, broken in found.ways.items():
        smaller = (one for one in found.ways if one.invariant == way.invariant and set(one.kinds) < set(way.kinds))
        if not any(smaller):
            yield broken.shortest
