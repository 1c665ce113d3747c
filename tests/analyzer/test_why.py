"""A fork says why its verdicts are other than the recording's: where the job's history parts from the recorded one."""

from __future__ import annotations

from typing import Any

import pytest
from analyzer.lab import fencepost, forked

from fencepost_analyzer.canonical import canonical
from fencepost_analyzer.case import open_case
from fencepost_analyzer.catalogue import failure_mode
from fencepost_analyzer.run import run_simulated
from fencepost_analyzer.why import changes
from fencepost_recorder import Recording
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import preset
from fencepost_runtime.simulate import simulate


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    folder = tmp_path_factory.mktemp("recordings")
    modes = ("FM-001", "FM-002", "FM-004")
    return {mode: run_simulated(failure_mode(mode).scenario, folder, recording_id=mode, seed=1) for mode in modes}


@pytest.mark.parametrize(
    ("mode", "policy", "said"),
    [
        (
            "FM-002",
            "fenced",
            "INV-003, job pay-1: the write pay-1/debit of attempt 1 was refused (fenced), where the recording has it "
            "applied.",
        ),
        (
            "FM-002",
            "deduped",
            "INV-001, job pay-1: the write pay-1/debit of attempt 1 was refused (duplicate), where the recording has "
            "it applied.",
        ),
        (
            "FM-004",
            "naive",
            "INV-001, job mail-1: the write mail-1/render of attempt 1 was applied, where the recording has the "
            "acknowledgement of attempt 1 accepted (early).",
        ),
        (
            "FM-001",
            "renewed",
            "INV-002, job doc-1: the renewal of attempt 1 was accepted, where the recording has taking back lease 1 "
            "done.",
        ),
    ],
)
def test_a_verdict_that_changed_is_explained_by_an_event(
    recorded: dict[str, Recording], mode: str, policy: str, said: str
) -> None:
    """For what is healed and for what is newly broken: the invariant, the job, and the first event that differs."""
    done = forked(recorded[mode], preset(policy))
    assert said in [change.sentence for change in done.changes]
    violated = set(done.before.violated) ^ set(done.after.violated)
    assert {change.invariant for change in done.changes} == violated
    told = fencepost("replay", recorded[mode].directory, "--policy", policy)
    assert f"\n{said}\n" in told.out
    data = fencepost("replay", recorded[mode].directory, "--policy", policy, "--json").json
    assert [one["sentence"] for one in data["changes"]] == [change.sentence for change in done.changes]
    assert all(one["event"] >= 1 and one["job"] for one in data["changes"])


def test_a_lease_of_another_length_is_named_beside_what_it_led_to(recorded: dict[str, Recording]) -> None:
    """How long a lease lasts parts no histories by itself, or every change of it would hide what came of it."""
    done = forked(recorded["FM-001"], changes={"lease_ms": 50_000})
    (sentence,) = {change.sentence.partition(": ")[2] for change in done.changes}
    assert sentence == (
        "the acknowledgement of attempt 1 was accepted, where the recording has taking back lease 1 done "
        "(its lease was granted for 50,000 ms instead of 1,000 ms)."
    )


def test_who_took_a_job_parts_no_histories(recorded: dict[str, Recording]) -> None:
    """Where the same was done by another worker nothing is said to be new; then only times can have made the change."""
    scenario = failure_mode("FM-002").scenario
    sink = ColumnSink()
    simulate(scenario, sink, 1)
    rows: list[dict[str, Any]] = sink.rows()
    with open_case(recorded["FM-002"]) as case:
        before = case.report
        after = case.judge([row for row in rows if row["event"] != "write"])
        told = changes(before, after, canonical(rows), canonical([_by_another(row) for row in rows]))
    assert {change.invariant for change in told} == {"INV-001", "INV-003"}
    assert all(change.event is None and "the same was done in the same order" in change.sentence for change in told)


def _by_another(row: dict[str, Any]) -> dict[str, Any]:
    names = {"payments-worker-1": "payments-worker-2", "payments-worker-2": "payments-worker-1"}
    return row | {"worker_id": names.get(row["worker_id"], row["worker_id"])}


def test_a_verify_explains_no_changes(recorded: dict[str, Recording]) -> None:
    """Its verdicts are the same, or its divergence says more."""
    assert fencepost("replay", recorded["FM-002"].directory, "--json").json["changes"] == []
