"""Live replay: a recorded incident once more on real processes and a real database, and what that recording comes to.

The live run is judged by its own recording, and that recording is verified like any other: the simulator has to come to
its history. Whether a fault struck is read from its spans, too, never taken from the file that asked for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fencepost_analyzer.announced import SCOPE
from fencepost_analyzer.case import Case, open_case
from fencepost_analyzer.database import resource
from fencepost_analyzer.placing import Placed, Ways, everywhere, unstruck
from fencepost_analyzer.replay import Replay, verify
from fencepost_analyzer.retelling import Retelling, retell
from fencepost_analyzer.text import listed
from fencepost_analyzer.verdicts import Report, exit_code
from fencepost_recorder import Recording
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Scenario
from fencepost_runtime.simulate import simulate


@dataclass(frozen=True, slots=True)
class Live:
    """A recorded incident, simulated and run on real processes. `before` judges what was recorded, `simulated` the same
    work and faults in the simulator, `after` the live run, whose own replay is `verified`.

    `mode`: `same` under the recorded policies, `fork` under others. `expected`: the invariants that the recording
    breaks and a live run can break. `recorded_on` and `ran_on`: the database systems of the recording and of the live
    run, as `system_of` answers them. `moved` and `homeless` as of a fork; `ways`: in how many ways the recording lets
    the faults be placed, of which the run is the first; `doubts`: why its verdicts would show nothing, such as faults
    that never struck, and what the simulator breaks in another of those ways."""

    mode: Literal["same", "fork"]
    recording: str
    live: str
    policies: Mapping[str, str]
    faults: tuple[str, ...]
    before: Report
    simulated: Report
    after: Report
    expected: frozenset[str]
    verified: Replay
    moved: tuple[str, ...]
    homeless: tuple[str, ...]
    ways: int
    doubts: tuple[str, ...]
    recorded_on: str | None
    ran_on: str | None

    @property
    def agrees(self) -> bool:
        """Whether the live run breaks what the recording breaks, and nothing else."""
        return set(self.after.violated) == self.expected

    @property
    def exit_code(self) -> int:
        """As of a verify: 0 the same, 1 not; as of a fork: 0 holds, 1 violated. Of both: 3 nothing can be said."""
        if self.mode == "fork" and self.after.violated:
            return exit_code("violated")
        if self.doubts:
            return exit_code("unknown")
        if self.mode == "fork":
            return self.after.exit_code
        return exit_code("holds" if self.agrees else "violated")

    def to_dict(self) -> dict[str, Any]:
        return {
            "mode": f"live-{self.mode}",
            "recording": self.recording,
            "live": self.live,
            "recorded_on": self.recorded_on,
            "ran_on": self.ran_on,
            "policies": dict(self.policies),
            "faults": list(self.faults),
            "moved": list(self.moved),
            "homeless": list(self.homeless),
            "ways": self.ways,
            "doubts": list(self.doubts),
            "agrees": self.agrees,
            "before": self.before.to_dict(),
            "simulated": self.simulated.to_dict(),
            "after": self.after.to_dict(),
            "verified": self.verified.to_dict(),
        }


def live(
    case: Case,
    run: Callable[[Scenario, int], Recording],
    policy: Policy | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Live:
    """Run the recorded work and faults on real processes, by `run(scenario, seed)`, under the recorded policies, or
    under another one, or with other `fields`.

    Raises NotReplayable, PolicyError, and what `run` raises."""
    told = retell(case)
    scenario = told.scenario.with_policy(policy) if policy is not None else told.scenario
    scenario = scenario.with_changes(fields) if fields else scenario
    ways = everywhere(told.scenario, scenario, told.found.inferences)
    placed = ways.told
    made = run(placed.scenario, told.seed)
    with open_case(made, invariants=case.invariants, mappings=case.mappings) as again:
        verified = verify(again)
        excused, missed = unstruck(_left(placed.scenario, retell(again)), placed.scenario)
        after, ran_on = again.report, system_of(again)
    return Live(
        mode="same" if policy is None and not fields else "fork",
        recording=case.recording.id,
        live=made.id,
        policies={queue.name: queue.policy.name for queue in scenario.queues},
        faults=tuple(inference.sentence for inference in told.found.inferences),
        before=case.report,
        simulated=_simulated(case, placed, told.seed),
        after=after,
        expected=frozenset(case.report.violated) - case.beyond.keys(),
        verified=verified,
        moved=placed.moved,
        homeless=(*placed.homeless, *excused),
        ways=len(ways.placed),
        doubts=(*_doubts(told, verified, missed), *_elsewhere(case, ways, told.seed)),
        recorded_on=system_of(case),
        ran_on=ran_on,
    )


def system_of(case: Case) -> str | None:
    """The database system that a run of the reference runtime says kept its queue, by the name that OpenTelemetry gives
    it and as untrusted as all that a recording says; None if it says none, as a simulated run, or is no such run."""
    if case.announced is None:
        return None
    ((attributes,),) = case.connection.execute(resource("stories/announced.sql"), {"scope": SCOPE}).fetchall()
    said = json.loads(attributes).get("db.system.name")
    return None if said is None else str(said)


def _doubts(told: Retelling, verified: Replay, missed: Iterable[str]) -> Iterator[str]:
    if not told.explained:
        yield "the recorded history cannot be repeated under its own policies: see the verify"
    yield from (*told.found.unplaced, *told.cut_off)
    yield from missed
    if not verified.equal:
        yield "the simulator does not come to the live run's history: see the verify of it"


def _simulated(case: Case, placed: Placed, seed: int) -> Report:
    sink = ColumnSink()
    simulate(placed.scenario, sink, seed)
    return case.judge(sink.rows())


def _elsewhere(case: Case, ways: Ways, seed: int) -> Iterator[str]:
    """What a live run cannot answer for: it is one of the ways to place the faults."""
    for other in ways.others:
        if broken := _simulated(case, other, seed).violated:
            yield f"in the simulator {listed(broken)} would break otherwise: {'; '.join(other.moved)}"
            return
    if not ways.every:
        yield f"deaths and stops may have come at more than {len(ways.placed)} sets of places"


def _left(scenario: Scenario, seen: Retelling) -> list[Fault]:
    """The faults of a scenario that a recording shows nothing of: none of their sort befell that attempt of the job."""
    struck = Counter(map(_sort, seen.scenario.faults))
    left = []
    for fault in scenario.faults:
        if struck[_sort(fault)]:
            struck[_sort(fault)] -= 1
        else:
            left.append(fault)
    return left


def _sort(fault: Fault) -> tuple[str, str, int]:
    """A loss inside of a transaction is seen as a refusal; a step that follows at once, as the one before it."""
    kind = fault.kind if fault.kind in ("kill", "pause", "slow") else "loss"
    return kind, fault.at.job, fault.at.attempt
