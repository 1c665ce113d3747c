"""Replay: the recorded incident again, under the policy that produced it (verify) or under another one (fork).

Every replay runs twice and its digests must agree: a simulator that does not repeat itself proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Literal

from fencepost_analyzer.canonical import Canonical, Divergence, Row, canonical, compare, shared, size
from fencepost_analyzer.case import Case
from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.extent import cut_off, under_way
from fencepost_analyzer.placing import MAX_WAYS, Placed, unstruck, ways
from fencepost_analyzer.scenario_from import Incident
from fencepost_analyzer.verdicts import Report
from fencepost_analyzer.why import Change, changes
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.errors import Diverged
from fencepost_runtime.following import follow
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate
from fencepost_runtime.world import Simulated

# Ways to read an ambiguous recording that verify tries before it says that none of them fits.
MAX_READINGS = 64


class NotDeterministic(AnalyzerError):
    """The same replay gave two different histories: that is a bug of fencepost, not a verdict."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A replayed incident. `before` judges what was recorded, `after` what the replay came to.

    `equal`: verify's answer: the same canonical history and the same broken invariants. `reused` counts the job
    events that the replay repeats from the recording, `new` those that it has instead of the rest.
    `balances_before` and `balances_after` are the accounts as the applied writes leave them.
    `moved` and `homeless`: recorded faults that strike elsewhere, or have no place, under a fork's policies. `doubts`:
    why a fork in which nothing breaks would show nothing. `unknown`: what the recording cannot tell, for it is cut off.
    `undone`: the jobs of which the replay did not apply every effect: no violation where they can still be found.
    `changes`: of a fork, why verdicts are other than the recording's.
    """

    mode: Literal["verify", "fork"]
    recording: str
    policies: Mapping[str, str]
    recorded_digest: str
    digest: str
    equal: bool
    divergence: Divergence | None
    before: Report
    after: Report
    events: int
    reused: int
    new: int
    faults: tuple[str, ...]
    balances_before: Mapping[str, int]
    balances_after: Mapping[str, int]
    moved: tuple[str, ...] = ()
    homeless: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def heals(self) -> bool:
        """Whether what was violated in the recording holds in the replay, nothing is violated or left open in it, and
        nothing speaks against taking the one for the cure of the other."""
        return not self.doubts and not self.after.violated and not self.undecided

    @property
    def undecided(self) -> tuple[str, ...]:
        """The invariants that the replay should have decided and did not: they were violated, or there are cases."""
        broken = self.before.violated
        return tuple(
            finding.id
            for finding in self.after.findings
            if finding.verdict == "unknown" and (finding.id in broken or finding.unknowns)
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "recording": self.recording,
            "policies": dict(self.policies),
            "recorded_digest": self.recorded_digest,
            "digest": self.digest,
            "equal": self.equal,
            "divergence": self.divergence.to_dict() if self.divergence else None,
            "heals": self.heals,
            "moved": list(self.moved),
            "homeless": list(self.homeless),
            "doubts": list(self.doubts),
            "unknown": list(self.unknown),
            "undone": list(self.undone),
            "changes": [change.to_dict() for change in self.changes],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "events": self.events,
            "reused": self.reused,
            "new": self.new,
            "faults": list(self.faults),
            "balances_before": dict(self.balances_before),
            "balances_after": dict(self.balances_after),
        }


def verify(case: Case) -> Replay:
    """Replay under the same policy, in the recorded order: the histories must be equal.

    Raises NotReplayable if the recording cannot be run again, NotDeterministic if two replays differ.
    """
    tried = (_along(case, found) for found in islice(case.readings(), MAX_READINGS))
    first = next(tried)
    return next((replay for replay in chain((first,), tried) if replay.equal), first)


def _along(case: Case, found: Incident) -> Replay:
    return _replayed("verify", case, found, found.scenario, _followed(found))


def _followed(found: Incident) -> Callable[[ColumnSink], object]:
    def run(sink: ColumnSink) -> None:
        # Where the schedule cannot be followed the replayed history ends, and the comparison says where that was.
        with suppress(Diverged):
            follow(found.scenario, found.schedule, sink)

    return run


def fork(case: Case, policy: Policy | None = None, fields: Mapping[str, Any] | None = None) -> Replay:
    """Replay the recorded work and faults under another policy, or under the recorded ones with other `fields`.

    Of a recording that can be read in several ways, each that explains it is tried until one is not healed.
    Raises as `verify` does, and PolicyError for changes that no policy allows.
    """
    done, readings = None, case.readings()
    for found in islice(readings, MAX_READINGS):
        if explains(case, found):
            done = _each(case, found, policy, fields)
            if not done.heals:
                return done
    if done is not None:
        done = _if_all_were_tried(done, readings, f"the recording can be read in more than {MAX_READINGS} ways")
    else:
        strange = "the recorded history cannot be repeated under its own policies: see the verify"
        done = _each(case, case.incident, policy, fields)
        done = replace(done, doubts=(strange, *done.doubts))
    return done


def explains(case: Case, found: Incident) -> bool:
    """Whether a reading, followed under the recorded policies, gives the recorded history."""
    sink = ColumnSink()
    _followed(found)(sink)
    return compare(case.recorded, canonical(sink.rows())) is None


def _each(case: Case, found: Incident, policy: Policy | None, fields: Mapping[str, Any] | None) -> Replay:
    """The fork in which a death or a stop strikes where it was told, if that heals in each other place, too, in which
    it may have been; else the first that does not."""
    scenario = found.scenario.with_policy(policy) if policy is not None else found.scenario
    scenario = scenario.with_changes(fields) if fields else scenario
    found_ways = ways(found.scenario, scenario, found.inferences)
    done = _forked(case, found, next(found_ways))
    for other in islice(found_ways, MAX_WAYS - 1) if done.heals else ():
        once_more = _forked(case, found, other)
        if not once_more.heals:
            return once_more
    doubt = f"deaths and stops may have come at more than {MAX_WAYS} sets of places"
    return _if_all_were_tried(done, found_ways, doubt)


def _if_all_were_tried(done: Replay, left: Iterator[object], doubt: str) -> Replay:
    """What heals as often as was tried, with a doubt if there is more to try."""
    return replace(done, doubts=(*done.doubts, doubt)) if done.heals and next(left, None) is not None else done


def _forked(case: Case, found: Incident, placed: Placed) -> Replay:
    results: list[Simulated] = []
    done = _replayed(
        "fork", case, found, placed.scenario, lambda sink: results.append(simulate(placed.scenario, sink, found.seed))
    )
    excused, missed = unstruck(results[-1].unstruck, placed.scenario)
    doubts = [*found.unplaced, *cut_off(found, case.gaps), *missed]
    if results[-1].overdue:
        doubts.append("the replay ran out of the scenario's time before its work was done")
    if not done.after.violated and not doubts:
        doubts += _uncontrolled(case, found)
    return replace(done, moved=placed.moved, homeless=(*placed.homeless, *excused), doubts=tuple(doubts))


def _uncontrolled(case: Case, found: Incident) -> list[str]:
    """What the inferred faults alone do not break again under the recorded policies: of that a cure shows nothing."""
    if not case.report.violated:
        return []
    sink = ColumnSink()
    simulate(found.scenario, sink, found.seed)
    again = case.judge(sink.rows()).violated
    return [
        f"{name} does not break either where the same faults are replayed under the recorded policies"
        for name in case.report.violated
        if name not in again
    ]


def _replayed(
    mode: Literal["verify", "fork"],
    case: Case,
    found: Incident,
    scenario: Scenario,
    run: Callable[[ColumnSink], object],
) -> Replay:
    rows, replayed = _twice(run)
    divergence = compare(case.recorded, replayed)
    before, after = case.report, case.judge(rows)
    reused = shared(case.recorded, replayed)
    return Replay(
        mode=mode,
        recording=case.recording.id,
        policies={queue.name: queue.policy.name for queue in scenario.queues},
        recorded_digest=case.recorded.digest,
        digest=replayed.digest,
        equal=divergence is None and set(before.violated) - case.beyond.keys() == set(after.violated),
        divergence=divergence if mode == "verify" else None,
        before=before,
        after=after,
        events=size(replayed),
        reused=reused,
        new=size(replayed) - reused,
        faults=tuple(inference.sentence for inference in found.inferences),
        balances_before=balances(scenario, found.rows),
        balances_after=balances(scenario, rows),
        changes=changes(before, after, case.recorded, replayed) if mode == "fork" else (),
        unknown=(*cut_off(found, case.gaps), *under_way(found)),
        undone=undone(scenario, rows),
    )


def _twice(run: Callable[[ColumnSink], object]) -> tuple[list[dict[str, Any]], Canonical]:
    """The replayed events and their canonical form, which a second replay must have come to as well."""
    first, second = ColumnSink(), ColumnSink()
    run(first)
    run(second)
    rows = first.rows()
    form = canonical(rows)
    if form != canonical(second.rows()):
        raise NotDeterministic
    return rows, form


def balances(scenario: Scenario, rows: tuple[Row, ...] | list[dict[str, Any]]) -> dict[str, int]:
    """Every account of the scenario as the applied writes leave it."""
    effects = {effect.key: effect for job in scenario.jobs for effect in job.effects}
    accounts = {effect.account: 0 for effect in effects.values()}
    for row in rows:
        effect = effects.get(row["effect_key"] or "")
        if effect is not None and row["event"] == "write" and row["outcome"] == "ok":
            accounts[effect.account] += effect.amount
    return accounts


def undone(scenario: Scenario, rows: Iterable[Row]) -> tuple[str, ...]:
    """The jobs of which not every effect was applied."""
    applied = {row["effect_key"] for row in rows if row["event"] == "write" and row["outcome"] == "ok"}
    return tuple(job.id for job in scenario.jobs if not {effect.key for effect in job.effects} <= applied)
