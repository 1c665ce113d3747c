"""Healed is said only where every recorded fault struck again, or the policy has no place for it, and that is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from analyzer.lab import forked, verified

from fencepost_analyzer import replay
from fencepost_analyzer.catalogue import failure_mode
from fencepost_analyzer.reports import conclusion
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import Recording
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario


def _with(recording: Recording, rows: list[dict[str, Any]]) -> Any:
    """The recording with other spans."""
    spans = pa.Table.from_pylist(rows, schema=recording.spans().schema)
    return SimpleNamespace(id=recording.id, spans=lambda: spans, gaps=recording.gaps)


def _befallen(policy: str, *faults: dict[str, Any], workers: int = 2) -> Scenario:
    """One payment whose first attempt is slow between debit and credit, beside what else befalls it."""
    slow = {"kind": "slow", "job": "pay-1", "attempt": 1, "step": "work", "index": 1, "at_most_ms": 1_600}
    queue = {"name": "payments", "workload": "payments", "jobs": 1, "workers": workers, "policy": policy}
    return Scenario.from_dict({"id": "befallen", "queues": [queue], "faults": [slow, *faults]})


def _in_renewal(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "job": "pay-1", "attempt": 1, "step": "renew", **more}


IN_A_RENEWAL = {
    "killed in it": _in_renewal("kill", when="begun"),
    "killed after it": _in_renewal("kill", when="after"),
    "killed in its third": _in_renewal("kill", when="begun", index=2),
    "request lost": _in_renewal("lost_request"),
    "refused by the database": _in_renewal("db_error", index=1),
}


EACH = [
    one if one in ("killed in it", "request lost") else pytest.param(one, marks=pytest.mark.campaign)
    for one in IN_A_RENEWAL
]


@pytest.mark.parametrize("fault", EACH)
def test_what_struck_in_a_renewal_strikes_again_under_every_policy(fault: str, tmp_path: Path) -> None:
    recording = run_simulated(_befallen("renewed", IN_A_RENEWAL[fault]), tmp_path, seed=1)
    again = verified(recording)
    assert (again.equal, again.before.violated) == (True, ("INV-001",))
    for policy in ("renewed", "naive", "fenced", "celery-redis"):
        assert not forked(recording, preset(policy)).heals, policy
    assert forked(recording, preset("safe")).heals
    deduped = forked(recording, preset("deduped"))
    # Where a write is lost instead of a renewal, nobody can know whether it was applied.
    assert (deduped.heals, deduped.undecided) == ((False, ("INV-001",)) if "lost" in fault else (True, ()))


def test_who_is_killed_at_the_end_of_a_long_silence_is_so_in_a_fork(tmp_path: Path) -> None:
    """Slow past its lease, so that another overlaps with it, then dead: the work was done until then."""
    dead = {"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 1}
    recording = run_simulated(_befallen("naive", dead), tmp_path, seed=1)
    same = forked(recording, preset("naive"))
    assert same.before.violated == same.after.violated == ("INV-001", "INV-002")
    assert any("worked 1" in fault for fault in same.faults)
    assert not forked(recording, preset("deduped")).heals


def _killed_early(tmp_path: Path, step: str, when: str = "before") -> Recording:
    """A mail that was acknowledged early, or is about to be, when its worker died."""
    dead = {"kind": "kill", "job": "mail-1", "attempt": 1, "step": step, "when": when}
    queue = {"name": "reports", "workload": "background", "jobs": 1, "workers": 2, "policy": "early-ack"}
    scenario = Scenario.from_dict({"id": "early", "queues": [queue], "faults": [dead]})
    return run_simulated(scenario, tmp_path, recording_id=f"{step}-{when}", seed=1)


def test_who_dies_after_an_early_acknowledgement_has_done_nothing(tmp_path: Path) -> None:
    """Late acknowledgement is no cure without somebody who takes the lease back: it comes after all work, the death in
    front of it. Bound to the acknowledgement the death would come when everything is done."""
    recording = _killed_early(tmp_path, "work")
    assert verified(recording).equal
    left = forked(recording, changes={"ack": "late", "reclaim": "none"})
    assert (left.before.violated, left.after.violated) == (("INV-005",), ("INV-010",))
    healed = forked(recording, changes={"ack": "late", "reclaim": "guarded"})
    assert (healed.heals, healed.events) == (True, 7)


@pytest.mark.parametrize("when", ["begun", "committed"])
def test_who_dies_in_an_early_acknowledgement_has_done_nothing(when: str, tmp_path: Path) -> None:
    """Where a policy acknowledges later the death strikes the work, and that is said."""
    recording = _killed_early(tmp_path, "settle", when)
    assert verified(recording).equal
    late = forked(recording, changes={"ack": "late", "reclaim": "none"})
    assert late.after.violated == ("INV-010",)
    (moved,) = late.moved
    assert moved.endswith('with ack = "late" it comes after the work, so it strikes at work 1 of mail-1, attempt 1')


def test_how_far_the_work_was_before_a_transaction_nobody_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded was no write of the dead worker, for all of them are one transaction; where they are made one by one,
    some may have been: it heals only where it does so wherever the death came."""
    dead = {"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 1}
    policy = {"ack": "early", "writes": "atomic"}
    queue = {"name": "payments", "workload": "payments", "jobs": 1, "workers": 2, "policy": policy}
    recording = run_simulated(Scenario.from_dict({"id": "one", "queues": [queue], "faults": [dead]}), tmp_path, seed=1)
    naive = forked(recording, preset("naive"))
    assert (naive.before.violated, naive.after.violated) == (("INV-005",), ("INV-001",))
    assert naive.moved == (
        "the kill at work 1 of pay-1, attempt 1: how far the work was nobody told, so it strikes at work 2 of pay-1, "
        "attempt 1",
    )
    for name in ("deduped", "atomic", "safe"):
        healed = forked(recording, preset(name))
        assert (healed.heals, healed.moved) == (True, ()), name
    monkeypatch.setattr(replay, "MAX_WAYS", 1)
    few = forked(recording, preset("deduped"))
    assert (few.heals, few.doubts) == (False, ("deaths and stops may have come at more than 1 sets of places",))


def test_an_enqueue_that_is_lost_is_of_no_attempt(tmp_path: Path) -> None:
    lost = {"kind": "db_error", "job": "pay-1", "step": "enqueue"}
    recording = run_simulated(_befallen("naive", lost), tmp_path, seed=1)
    (said,) = (fault for fault in verified(recording).faults if "enqueue" in fault)
    assert said == "payments-producer: enqueue of pay-1: the database refused it."


def test_a_fault_that_never_struck_is_said_and_nothing_is_healed(tmp_path: Path) -> None:
    """The reclaimer dies taking back the lease of a slow worker; who renews loses no lease, so nobody takes it back."""
    reclaimed = {"kind": "kill", "job": "pay-1", "attempt": 0, "step": "reclaim", "when": "after"}
    recording = run_simulated(_befallen("naive", reclaimed), tmp_path, seed=1)
    done = forked(recording, preset("renewed"))
    assert (done.before.violated, done.after.violated, done.heals) == (("INV-001", "INV-002", "INV-003"), (), False)
    assert done.doubts == ("the kill after reclaim of pay-1 never struck: its step did not come",)
    assert conclusion(done).startswith("Not shown to be healed: under policy renewed nothing breaks, but the kill")


def test_a_fault_that_a_policy_has_no_place_for_is_said(tmp_path: Path) -> None:
    """Two attempts die; where there is but one attempt, the second death has no place."""
    deaths = [
        {"kind": "kill", "job": "pay-1", "attempt": attempt, "step": "write", "index": 0, "when": "after"}
        for attempt in (1, 2)
    ]
    recording = run_simulated(_befallen("naive", *deaths, workers=3), tmp_path, seed=1)
    done = forked(recording, changes={"max_attempts": 1, "writes": "atomic", "dedupe": "effect_key"})
    assert done.homeless == ("the kill after write 1 of pay-1, attempt 2: under policy naive* there is no attempt 2",)


def test_a_death_that_is_bound_to_no_job_bars_a_cure(tmp_path: Path) -> None:
    recording = run_simulated(_befallen("renewed", IN_A_RENEWAL["killed in it"], workers=3), tmp_path, seed=1)
    rows = recording.spans().to_pylist()
    idle = {"payments-worker-1", "payments-worker-2", "payments-worker-3"} - {
        json.loads(row["span_attributes"])["job.worker.id"] for row in rows if row["name"].startswith("receive")
    }
    crash = next(row for row in rows if row["name"] == "crash")
    attributes = json.loads(crash["span_attributes"]) | {"job.worker.id": min(idle)}
    rows.append(crash | {"span_id": "f" * 16, "span_attributes": json.dumps(attributes)})
    edited = _with(recording, rows)
    assert verified(edited).equal
    done = forked(edited, preset("safe"))
    assert not done.heals
    assert done.doubts == (f"{min(idle)} was killed (SIGKILL) before it had done anything for a job",)


def test_a_fork_that_runs_out_of_time_shows_nothing(tmp_path: Path) -> None:
    torn = run_simulated(failure_mode("FM-003").scenario, tmp_path, seed=3)
    rows = torn.spans().to_pylist()
    announced = next(row for row in rows if row["name"].startswith("scenario "))
    announced["span_attributes"] = announced["span_attributes"].replace("60000", "100")
    done = forked(_with(torn, rows), preset("atomic"))
    assert not done.heals
    assert any("ran out of the scenario's time" in doubt for doubt in done.doubts)
