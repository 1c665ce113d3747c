"""Where a recording leaves open where a fault struck, nothing heals that does not wherever it may have struck."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import fencepost, forked, verified

from fencepost_analyzer import placing
from fencepost_analyzer.case import open_case
from fencepost_analyzer.inference import Inference, as_written, where
from fencepost_analyzer.lab.explore import around, explore
from fencepost_analyzer.lab.lattice import above
from fencepost_analyzer.lab.matrix import Row, matrix
from fencepost_analyzer.lab.regression import NoRecovery, hold_elsewhere
from fencepost_analyzer.lab.space import Bound
from fencepost_analyzer.live import live
from fencepost_analyzer.placing import everywhere
from fencepost_analyzer.retelling import Retelling, retell
from fencepost_analyzer.run import run_processes, run_simulated
from fencepost_recorder import Recording
from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import WHENS, Fault, Kind, Point, Scenario

# All writes are one transaction, so that of a worker who died before it no write is told.
ONE_TRANSACTION = {"ack": "early", "writes": "atomic"}
DEAD = {"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 1}
AT_THE_FIRST, AT_THE_SECOND = "the kill at work 1 of pay-1, attempt 1", "work 2 of pay-1, attempt 1"
MISSED = "the kill after reclaim of pay-1"
MOVED = f"{AT_THE_FIRST}: how far the work was nobody told, so it strikes at {AT_THE_SECOND}"


def payments(policy: Any, *faults: dict[str, Any], jobs: int = 1) -> Scenario:
    queue = {"name": "payments", "workload": "payments", "jobs": jobs, "workers": 3, "policy": policy}
    return Scenario.from_dict({"id": "payments", "queues": [queue], "faults": list(faults)})


def recorded(folder: Path, policy: Any, *faults: dict[str, Any], jobs: int = 1) -> Recording:
    recording = run_simulated(payments(policy, *faults, jobs=jobs), folder, recording_id="recorded", seed=1)
    assert verified(recording).equal
    return recording


def retold(recording: Recording) -> Retelling:
    with open_case(recording) as case:
        return retell(case)


def rows_of(told: Retelling) -> dict[str, Row]:
    return {row.policy: row for row in matrix(told.scenario, told.seed, told.found.inferences)}


def befall(step: str, **more: Any) -> dict[str, Any]:
    return {"kind": "kill", "job": "pay-1", "attempt": 1, "step": step, **more}


@pytest.mark.parametrize("when", WHENS)
def test_who_dies_in_a_late_acknowledgement_had_done_the_work(when: str, tmp_path: Path) -> None:
    """Acknowledged early, the job is done as well when its worker dies after the work: that loses and repeats nothing,
    though a death in the early acknowledgement itself would."""
    done = forked(recorded(tmp_path, "naive", befall("settle", when=when)), preset("early-ack"))
    assert (done.after.violated, done.heals) == ((), True)
    assert done.balances_after == {"customer": -100, "merchant": 100, "receipts": 1}
    if when != "before":  # Nobody told more than the last write then.
        (moved,) = done.moved
        assert moved.endswith(
            'with ack = "early" it comes before the work, so it strikes before finish of pay-1, attempt 1'
        )


def test_a_settle_that_somebody_wrote_is_the_settle() -> None:
    """Who names the step means it, whenever a policy comes to it; and nothing else about a written fault is open."""
    for policy, fault in (("naive", befall("settle", when="begun")), (ONE_TRANSACTION, befall("work"))):
        scenario = payments(policy, fault)
        for name in presets():
            found = everywhere(scenario, scenario.with_policy(preset(name)), as_written(scenario))
            assert (found.told.scenario.faults, found.others, found.every) == (scenario.faults, (), True), name


def test_whether_work_had_begun_nobody_tells(tmp_path: Path) -> None:
    """Acknowledged early, a job is lost whose worker dies in its work; whose worker dies before the acknowledgement is
    done again. Recorded is in both cases an attempt that told nothing any more."""
    refused = {"kind": "db_error", "job": "pay-1", "attempt": 1, "step": "settle"}
    dead = {"kind": "kill", "job": "pay-2", "attempt": 1, "step": "work"}
    recording = recorded(tmp_path, "naive", refused, dead, jobs=2)
    early = forked(recording, preset("early-ack"))
    assert (early.before.violated, early.after.violated, early.heals) == (("INV-001",), ("INV-005",), False)
    assert rows_of(retold(recording))["early-ack"].outcome.violated == ("INV-005",)
    assert forked(recording, preset("deduped")).heals


SLOW = {"kind": "slow", "job": "pay-1", "attempt": 1, "step": "work", "index": 1, "at_most_ms": 1_600}
IN_SLOW_WORK = {
    "killed in a renewal": (True, befall("renew", index=1, when="begun")),
    "a renewal refused": (True, {"kind": "db_error", "job": "pay-1", "attempt": 1, "step": "renew", "index": 1}),
    "killed at its end": (False, befall("write", index=1)),
}


@pytest.mark.parametrize("what", IN_SLOW_WORK)
def test_which_work_was_slow_before_one_transaction_nobody_tells(what: str, tmp_path: Path) -> None:
    """In the first work step nothing was written yet, and the job begins anew; in the second something was."""
    renew, fault = IN_SLOW_WORK[what]
    recording = recorded(tmp_path, {"writes": "atomic", "renew": renew}, SLOW, fault)
    renewed = forked(recording, preset("renewed"))
    assert (renewed.after.violated, renewed.heals) == (("INV-001",), False)
    assert forked(recording, changes={"writes": "stepwise", "renew": True, "dedupe": "effect_key"}).heals


def test_faults_of_one_attempt_keep_their_order() -> None:
    """A worker is not killed before it is stopped; what is slow strikes with what ended it."""
    scenario = payments({"writes": "atomic"})
    stopped, killed = (
        Inference(Fault(kind, Point("pay-1", 1, "start", 0, "after")), kind, ("a span",)) for kind in ("pause", "kill")
    )
    found = everywhere(scenario, scenario.with_policy(preset("naive")), [stopped, killed])
    places = [[fault.at.index for fault in one.scenario.faults] for one in found.placed]
    assert places == [[stop, death] for stop in range(4) for death in range(stop, 4)]


def test_a_renewal_that_somebody_wrote_is_in_the_work_that_is_slow() -> None:
    """The third renewal of a lease is not the third work step: without renewals it strikes the slow one."""
    scenario = payments("renewed", SLOW, befall("renew", index=2))
    placed = everywhere(scenario, scenario.with_policy(preset("naive")), as_written(scenario)).told
    assert placed.scenario.faults[1].at == Point("pay-1", 1, "work", 1, "after")


def test_the_matrix_holds_only_what_holds_wherever_a_death_may_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The death as it was told is before all work, where every policy heals it that does the job again."""
    told = retold(recorded(tmp_path, ONE_TRANSACTION, DEAD))
    rows = rows_of(told)
    assert {name for name, row in rows.items() if row.heals} == {"deduped", "safe", "transactional"}
    assert (rows["naive"].outcome.violated, rows["naive"].elsewhere) == (("INV-001",), (MOVED,))
    assert (rows["deduped"].elsewhere, rows["as recorded"].elsewhere) == ((), ())
    printed = fencepost("--recordings", tmp_path, "matrix", "recorded")
    assert f"naive: worst if {MOVED}" in " ".join(printed.out.split())
    monkeypatch.setattr(placing, "MAX_WAYS", 1)
    few = rows_of(told)
    assert {name for name, row in few.items() if row.heals} == {"safe", "transactional"}
    assert (few["deduped"].outcome.holds, few["deduped"].every) == (True, False)
    assert "open: its faults may" in fencepost("--recordings", tmp_path, "matrix", "recorded").out


def test_exploring_begins_wherever_a_death_may_have_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults that are added to a calm run do not stand for the incident's own: here none may be."""
    told = retold(recorded(tmp_path, ONE_TRANSACTION, DEAD))

    def explored(policy: str) -> tuple[tuple[str, ...], bool]:
        ways = everywhere(told.scenario, told.scenario.with_policy(preset(policy)), told.found.inferences)
        done = explore(around(ways, told.seed, Bound(0, 0, 0, 0)))
        return tuple(done.found.violated), done.certified

    assert explored("naive") == (("INV-001",), False)
    assert explored("deduped") == ((), True)
    arguments = (
        "explore",
        "recorded",
        "--policy",
        "naive",
        "--faults",
        "0",
        "--workers",
        "1",
        "--into",
        tmp_path / "x",
    )
    done = fencepost("--recordings", tmp_path, *arguments)
    assert (done.code, "the incident, struck elsewhere than told" in " ".join(done.out.split())) == (1, True)
    monkeypatch.setattr(placing, "MAX_WAYS", 1)
    assert explored("deduped") == ((), False)


def test_no_stronger_policy_leaves_open_where_a_fault_struck() -> None:
    """So whatever `recommend` compares has one way to place the incident, and its certificate is of the incident."""
    for policy in presets().values():
        scenario, told = payments(policy.to_dict()), list(struck_anywhere(policy))
        for choice in above(policy):
            found = everywhere(scenario, scenario.with_policy(choice.policy), told)
            assert found.others == (), (policy.name, dict(choice.changes))


def struck_anywhere(policy: Policy) -> Iterator[Inference]:
    kinds: tuple[Kind, ...] = ("slow", "kill", "pause")
    for kind in kinds:
        for step in ("work",) if kind == "slow" else ("start", "work", "write", "settle", *["renew"] * policy.renews):
            yield Inference(Fault(kind, Point("pay-1", 1, step)), kind, ("a span",))


def test_a_regression_test_is_of_what_heals_wherever_a_death_may_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the death as it was told; it is not written where it would pass for being there."""
    told = retold(recorded(tmp_path, ONE_TRANSACTION, DEAD))
    naive = {name: value for name, value in preset("naive").to_dict().items() if name != "name"}
    deduped = naive | {"dedupe": "effect_key"}
    told_only = f"breaks INV-001 where it may have been struck as well: {MOVED}"
    with pytest.raises(NoRecovery, match=told_only):
        hold_elsewhere(told.scenario, told.seed, told.found.inferences, naive)
    hold_elsewhere(told.scenario, told.seed, told.found.inferences, deduped)
    hold_elsewhere(told.scenario, told.seed, as_written(told.scenario), naive)
    path = tmp_path / "test_a.py"
    done = fencepost("--recordings", tmp_path, "regression", "recorded", "--policy", "naive", "--out", path)
    assert (done.code, told_only in done.err, path.exists()) == (2, True, False)
    monkeypatch.setattr(placing, "MAX_WAYS", 1)
    with pytest.raises(NoRecovery, match="nobody knows whether all are healed"):
        hold_elsewhere(told.scenario, told.seed, told.found.inferences, deduped)


def test_a_live_run_is_one_of_the_ways_and_says_so(tmp_path: Path) -> None:
    """It shows nothing of the others: where the simulator breaks something there, the live run heals nothing."""

    def run(wanted: Scenario, seed: int) -> Recording:
        return run_processes(wanted, tmp_path, seed=seed)

    with open_case(recorded(tmp_path, ONE_TRANSACTION, DEAD)) as case:
        naive, deduped = (live(case, run, preset(name)) for name in ("naive", "deduped"))
    assert (naive.after.violated, naive.exit_code, naive.ways) == ((), 3, 4)
    assert naive.doubts == (f"in the simulator INV-001 would break otherwise: {MOVED}",)
    assert (deduped.doubts, deduped.exit_code, deduped.ways) == ((), 0, 4)


def test_matrix_and_fork_agree_that_a_fault_which_never_struck_heals_nothing(tmp_path: Path) -> None:
    """A lease that is renewed is not taken back, so nobody knows what the reclaimer's death would have done then."""
    slow = {"kind": "slow", "job": "pay-1", "attempt": 1, "step": "work", "index": 1, "at_most_ms": 2_000}
    reclaimer_dies = {"kind": "kill", "job": "pay-1", "step": "reclaim", "when": "after"}
    recording = recorded(tmp_path, "naive", slow, reclaimer_dies)
    row, done = rows_of(retold(recording))["renewed"], forked(recording, preset("renewed"))
    assert (row.outcome.holds, row.outcome.undone, done.after.violated) == (True, (), ())
    assert not (row.heals or done.heals)
    assert [*row.outcome.missed] == [*done.doubts] == [f"{MISSED} never struck: its step did not come"]


@pytest.mark.parametrize(
    ("kind", "policy", "place"),
    [
        ("kill", "naive", "after settle of pay-1, attempt 1"),
        ("lost_reply", "naive", "before settle of pay-1, attempt 1"),
        ("kill", "early-ack", "before finish of pay-1, attempt 1"),
        ("lost_reply", "early-ack", None),
    ],
)
def test_a_transaction_that_only_settles_is_the_settlement_elsewhere(
    kind: Kind, policy: str, place: str | None
) -> None:
    """A job without effects has nothing else in it; acknowledged early, it has not even that any more."""
    queue = {"name": "q", "jobs": [{"id": "pay-1", "name": "pay", "effects": []}], "policy": "atomic"}
    fault = {"kind": kind, "job": "pay-1", "step": "apply", "when": "after" if kind == "kill" else "before"}
    scenario = Scenario.from_dict({"id": "empty", "queues": [queue], "faults": [fault]})
    ways = everywhere(scenario, scenario.with_policy(preset(policy)), as_written(scenario))
    assert [where(one.at) for one in ways.told.scenario.faults] == ([place] if place else [])
    assert len(ways.told.homeless) == (place is None)
