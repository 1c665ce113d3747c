"""Verify repeats any recorded history, says where it cannot, and fork changes what it says it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from analyzer.lab import forked, verified
from random_scenarios import random_scenario

from fencepost_analyzer import replay as replay_module
from fencepost_analyzer.announced import Announced
from fencepost_analyzer.canonical import canonical, compare, shared, size
from fencepost_analyzer.case import Case, open_case
from fencepost_analyzer.catalogue import demo_scenario, failure_mode
from fencepost_analyzer.errors import NotReplayable
from fencepost_analyzer.replay import NotDeterministic
from fencepost_analyzer.reports import conclusion
from fencepost_analyzer.run import RunFailed, run_processes, run_simulated
from fencepost_analyzer.scenario_from import readings_of
from fencepost_recorder import Recording, open_recording
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.errors import Diverged, PolicyError
from fencepost_runtime.following import follow
from fencepost_runtime.policy import Policy, preset
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate


def _rows(scenario: Scenario, seed: int) -> list[dict[str, Any]]:
    sink = ColumnSink()
    simulate(scenario, sink, seed)
    return sink.rows()


def _repeats(scenario: Scenario, seed: int) -> bool:
    """Whether one of the readings of a simulated history, followed, gives that history again."""
    rows = _rows(scenario, seed)
    for reading in readings_of(scenario, seed, rows):
        back = ColumnSink()
        try:
            follow(reading.scenario, reading.schedule, back)
        except Diverged:
            continue
        if compare(canonical(rows), canonical(back.rows())) is None:
            return True
    return False


@pytest.mark.parametrize("block", range(6))
def test_any_history_read_back_as_a_scenario_is_repeated(block: int) -> None:
    scenarios = [random_scenario(block * 50 + number) for number in range(50)]
    failed = [scenario for seed, scenario in enumerate(scenarios) if not _repeats(scenario, seed)]
    assert failed == []


@pytest.mark.campaign
def test_ten_thousand_random_histories_are_repeated() -> None:
    scenarios = [random_scenario(2026_0000 + number) for number in range(10_000)]
    failed = [scenario for seed, scenario in enumerate(scenarios) if not _repeats(scenario, seed)]
    assert failed == []


def test_a_simulated_worker_is_stopped_though_others_of_its_process_go_on(tmp_path: Path) -> None:
    """Both were stopped; the one that was back first does the other's job meanwhile: the two never ran at once."""
    pauses = [
        {"kind": "pause", "job": job, "attempt": 1, "step": "write", "index": 1, "at_most_ms": length}
        for job, length in (("pay-1", 5_000), ("pay-2", 200))
    ]
    queue = {"name": "payments", "workload": "payments", "jobs": 2, "workers": 2, "policy": "naive"}
    scenario = Scenario.from_dict({"id": "both", "queues": [queue], "faults": pauses})
    replay = verified(run_simulated(scenario, tmp_path, seed=1))
    assert replay.equal
    assert (replay.before.violated, replay.after.violated) == (("INV-001", "INV-003"), ("INV-001", "INV-003"))


def test_the_faults_of_the_demo_are_read_from_its_spans_alone(tmp_path: Path) -> None:
    with open_case(run_processes(demo_scenario(), tmp_path)) as case:
        (reading,) = case.readings()
    told = sorted((fault.kind, fault.at.job, fault.at.step, fault.at.index) for fault in reading.scenario.faults)
    assert told == [
        ("db_error", "pay-4", "write", 0),
        ("kill", "mail-2", "write", 0),
        ("pause", "pay-2", "write", 0),  # Seen after the debit; the scenario said before the credit.
    ]
    assert all(inference.span_ids for inference in reading.inferences)


class _Edited:
    """A recording whose spans were changed: what an analyzer must not take for the truth."""

    def __init__(self, recording: Recording, spans: pa.Table) -> None:
        self.id = recording.id
        self._recording = recording
        self._spans = spans

    def spans(self) -> pa.Table:
        return self._spans

    def gaps(self) -> pa.Table:
        return self._recording.gaps()


def _edited(recording: Recording, edit: Any) -> Any:
    rows = [row for row in (edit(dict(row)) for row in recording.spans().to_pylist()) if row is not None]
    return _Edited(recording, pa.Table.from_pylist(rows, schema=recording.spans().schema))


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return run_simulated(failure_mode("FM-003").scenario, tmp_path_factory.mktemp("recordings"), seed=3)


def test_verify_names_the_first_place_where_a_changed_history_cannot_be_repeated(torn: Recording) -> None:
    def without_credit(row: dict[str, Any]) -> dict[str, Any] | None:
        return None if row["name"] == "write pay-2/credit" else row

    replay = verified(_edited(torn, without_credit))
    assert not replay.equal
    assert replay.divergence is not None
    assert replay.divergence.where == "job pay-2"
    assert "pay-2/receipt" in (replay.divergence.expected or "")
    assert "pay-2/credit" in (replay.divergence.actual or "")
    assert "effect" in replay.divergence.fields


def test_verify_does_not_believe_an_outcome_that_the_policy_cannot_produce(torn: Recording) -> None:
    def refused(row: dict[str, Any]) -> dict[str, Any]:
        if row["name"] == "write pay-2/debit":
            attributes = json.loads(row["span_attributes"])
            attributes |= {"job.effect.applied": False, "job.reason": "fenced"}
            row["span_attributes"] = json.dumps(attributes)
        return row

    replay = verified(_edited(torn, refused))
    assert not replay.equal
    assert replay.divergence is not None
    assert replay.divergence.fields == ("outcome", "reason")


def _put(key: str, value: Any) -> Any:
    def put(row: dict[str, Any]) -> dict[str, Any]:
        attributes = json.loads(row["span_attributes"])
        if key in attributes:
            attributes[key] = attributes[key] + value if isinstance(value, int) else value
        return row | {"span_attributes": json.dumps(attributes)}

    return put


def _put_order_key(row: dict[str, Any]) -> dict[str, Any]:
    attributes = json.loads(row["span_attributes"]) | {"job.order_key": "customer-7"}
    return row | {"span_attributes": json.dumps(attributes)} if row["name"].startswith("send ") else row


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (_put("messaging.destination.name", "elsewhere"), "queue"),
        (_put("job.lease.expires_at", 3_600_000_000_000), "length"),
        (_put_order_key, "order_key"),
    ],
)
def test_verify_sees_another_queue_another_lease_and_another_order(torn: Recording, edit: Any, field: str) -> None:
    replay = verified(_edited(torn, edit))
    assert not replay.equal
    assert replay.divergence is not None
    assert replay.divergence.fields == (field,)


def _by(signal: str) -> Any:
    put = _put("job.reason", signal)
    return lambda row: put(row) if row["name"] in ("crash", "pause", "resume") else row


def test_verify_sees_a_stop_by_another_signal_and_takes_a_death_by_any(torn: Recording, tmp_path: Path) -> None:
    """Stopped and continued is by one signal each; by which somebody was killed is no promise of the runtime."""
    stopped = run_simulated(failure_mode("FM-002").scenario, tmp_path, seed=1)
    replay = verified(_edited(stopped, _by("SIGTSTP")))
    assert not replay.equal
    assert replay.divergence is not None
    assert replay.divergence.fields == ("reason",)
    assert verified(_edited(torn, _by("SIGSEGV"))).equal


def test_which_of_several_reclaims_was_struck_is_read_from_the_spans(tmp_path: Path) -> None:
    """The reclaimer dies when it takes the job back for the second time, not for the first."""
    deaths = [{"kind": "kill", "job": "pay-1", "attempt": attempt, "step": "start"} for attempt in (1, 2)]
    last = {"kind": "kill", "job": "pay-1", "step": "reclaim", "index": 1, "when": "begun"}
    queue = {"name": "payments", "workload": "payments", "jobs": 1, "workers": 3, "policy": "naive"}
    scenario = Scenario.from_dict({"id": "thrice", "queues": [queue], "faults": [*deaths, last]})
    recording = run_simulated(scenario, tmp_path, seed=1)
    replay = verified(recording)
    assert (replay.equal, replay.before.violated) == (True, ("INV-010",))
    assert "payments-reclaimer was killed (SIGKILL) in the middle of reclaim 2 of pay-1." in replay.faults
    same = forked(recording, preset("naive"))
    assert (same.after.violated, same.doubts) == (("INV-010",), ())


def test_verify_sees_what_no_worker_and_no_position_answers_for(torn: Recording) -> None:
    rows = torn.spans().to_pylist()
    settled = next(row for row in rows if row["name"].startswith("settle "))
    attributes = json.loads(settled["span_attributes"])
    del attributes["job.worker.id"], attributes["job.transaction.position"]
    rows.append(settled | {"span_id": "e" * 16, "span_attributes": json.dumps(attributes)})
    edited: Any = _Edited(torn, pa.Table.from_pylist(rows, schema=torn.spans().schema))
    replay = verified(edited)
    assert not replay.equal
    assert replay.divergence is not None
    assert replay.divergence.where == "nobody"


def _without_scenario(row: dict[str, Any]) -> dict[str, Any] | None:
    return None if row["name"].startswith("scenario ") else row


def _with_hostile_scenario(row: dict[str, Any]) -> dict[str, Any]:
    if row["name"].startswith("scenario "):
        row["span_attributes"] = json.dumps({"job.scenario": "[" * 100_000, "job.scenario.seed": 1})
    return row


def _without_scenario_text(row: dict[str, Any]) -> dict[str, Any]:
    if row["name"].startswith("scenario "):
        row["span_attributes"] = json.dumps({"job.scenario.id": "FM-003", "job.scenario.seed": 1})
    return row


def _without_seed(row: dict[str, Any]) -> dict[str, Any]:
    if row["name"].startswith("scenario "):
        attributes = json.loads(row["span_attributes"])
        del attributes["job.scenario.seed"]
        row["span_attributes"] = json.dumps(attributes)
    return row


def _without_events(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["name"].startswith("scenario ") else None


def _without_start(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"producer_seq": None} if row["name"] == "write pay-2/debit" else row


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (_without_start, "no time or no place"),
        (_without_scenario, "does not say which scenario"),
        (_with_hostile_scenario, "cannot be read"),
        (_without_seed, "states no job.scenario.seed"),
        (_without_scenario_text, "too large for a span: record one of fewer jobs"),
        (_without_events, "no events"),
    ],
)
def test_a_recording_that_cannot_be_replayed_is_refused_in_one_sentence(
    torn: Recording, edit: Any, sentence: str
) -> None:
    with pytest.raises(NotReplayable, match=sentence):
        verified(_edited(torn, edit))


def test_fork_counts_what_it_reuses_and_what_is_new(torn: Recording) -> None:
    same = forked(torn, preset("one-attempt"))
    assert (same.reused, same.new) == (same.events, 0)
    healed = forked(torn, preset("atomic"))
    assert healed.heals
    assert healed.reused + healed.new == healed.events
    assert 0 < healed.reused < same.reused


def test_a_fork_says_which_jobs_nobody_does(torn: Recording) -> None:
    """A job that is buried with nothing of it applied breaks no promise; but whoever reads "healed" must know."""
    assert conclusion(forked(torn, preset("atomic"))).endswith("; INV-007 holds. Not done: pay-1.")
    assert conclusion(forked(torn, preset("transactional"))).endswith("; INV-007 holds.")


def test_fork_changes_single_fields_of_the_recorded_policy(torn: Recording) -> None:
    changed = forked(torn, changes={"writes": "atomic"})
    assert changed.heals
    assert dict(changed.policies) == {"payments": "one-attempt*"}
    with pytest.raises(PolicyError, match="did you mean writes"):
        forked(torn, changes={"write": "atomic"})


def test_a_simulator_that_does_not_repeat_itself_gives_an_error_and_no_verdict(
    torn: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: Iterator[int] = iter(range(100))

    def restless(scenario: Scenario, sink: ColumnSink, seed: int) -> object:
        return simulate(scenario.with_policy(Policy(max_attempts=1 + next(seeds))), sink, seed)

    monkeypatch.setattr(replay_module, "simulate", restless)
    with pytest.raises(NotDeterministic):
        forked(torn, preset("naive"))


def test_a_promise_of_the_user_s_own_is_judged_in_every_replay(incident: Recording, own_promise: Path) -> None:
    again, under_safe = verified(incident, invariants=[own_promise]), forked(incident, preset("safe"))
    assert again.equal
    assert "SHOP-1" in again.after.violated
    assert under_safe.heals
    by_ours_and_theirs = forked(incident, preset("safe"), invariants=[own_promise])
    assert by_ours_and_theirs.after.violated == ("SHOP-1",)
    assert not by_ours_and_theirs.heals


def test_what_rests_on_spans_that_the_simulator_does_not_make_is_unknown_and_never_healed(
    torn: Recording, tmp_path: Path
) -> None:
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "shop.sql").write_text(
        "-- scope: shop\n-- attributes: messaging.message.id VARCHAR\n"
        "SELECT 'refund' AS event, \"messaging.message.id\" AS job_id, span_id FROM staged\n"
    )
    (tmp_path / "invariants").mkdir()
    (tmp_path / "invariants" / "shop.sql").write_text(
        "-- id: SHOP-2\n-- title: no refunds\n-- severity: low\n-- principle: P1\n-- polarity: +\n-- needs: enqueue\n"
        "-- claim: Nothing is refunded.\n"
        "SELECT schedule, job_id, [span_id] AS span_ids, 'Refunded.' AS sentence FROM events WHERE event = 'refund'\n"
    )
    own = {"invariants": [tmp_path / "invariants"], "mappings": [tmp_path / "mappings"]}
    refund = next(row for row in torn.spans().to_pylist() if row["name"] == "write pay-2/debit")
    refund |= {"scope_name": "shop", "span_id": "f" * 16}
    spans = pa.concat_tables([torn.spans(), pa.Table.from_pylist([refund], schema=torn.spans().schema)])
    recording: Any = _Edited(torn, spans)
    again = verified(recording, **own)
    assert again.equal
    assert "SHOP-2" in again.before.violated
    healed = forked(recording, preset("atomic"), **own)
    assert (healed.heals, healed.after.violated) == (False, ())
    finding = healed.after.finding("SHOP-2")
    assert (finding.verdict, healed.after.verdict) == ("unknown", "unknown")
    assert finding.reason == "It rests on events that the simulator does not make: those of shop."
    assert healed.after.finding("INV-007").verdict == "holds"


def test_verify_stops_at_the_first_reading_that_fits(torn: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []

    def counted(*given: Any) -> object:
        followed.append(given)
        return follow(*given)

    real = Case.readings
    monkeypatch.setattr(Case, "readings", lambda case: (found for found in real(case) for _ in range(5)))
    monkeypatch.setattr(replay_module, "follow", counted)
    with open_case(torn) as case:
        assert replay_module.verify(case).equal
    assert len(followed) == 2


def test_a_run_of_very_many_jobs_says_all_of_its_scenario(tmp_path: Path) -> None:
    queue = {"name": "payments", "workload": "background", "jobs": 10_000, "policy": "early-ack"}
    scenario = Scenario.from_dict({"id": "many", "at_most_ms": 100, "queues": [queue]})
    with pytest.raises(RunFailed):  # There is no need to wait for ten thousand jobs.
        run_simulated(scenario, tmp_path, recording_id="many")
    with open_case(open_recording(tmp_path / "many")) as case:
        assert case.announced == Announced(scenario, 0)


class _Counted(str):
    """The name of an event that counts how often anybody compares it."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        _Counted.comparisons += 1
        return str.__eq__(self, other)


class _Moment(int):
    """A time that counts how often anybody compares it."""

    def __lt__(self, other: int) -> bool:
        _Counted.comparisons += 1
        return int.__lt__(self, other)

    def __le__(self, other: int) -> bool:
        _Counted.comparisons += 1
        return int.__le__(self, other)


def _comparisons(jobs: int) -> int:
    queue = {"name": "payments", "workload": "payments", "jobs": jobs, "workers": 1, "policy": "naive"}
    point = {"attempt": 1, "step": "write", "index": 0, "when": "after"}
    faults = [{"kind": "pause", "job": f"pay-{number}", **point, "at_most_ms": 1} for number in range(1, jobs + 1)]
    scenario = Scenario.from_dict({"id": "many", "queues": [queue], "faults": faults})
    rows = [row | {"event": _Counted(row["event"]), "at": _Moment(row["at"])} for row in _rows(scenario, 1)]
    _Counted.comparisons = 0
    next(readings_of(scenario, 1, rows))
    return _Counted.comparisons


def test_a_history_is_read_in_time_proportional_to_its_length() -> None:
    assert _comparisons(200) < 2.4 * _comparisons(100)


def _history(*steps: Sequence[Any]) -> list[dict[str, Any]]:
    """Write events by (worker, job, position)."""
    sequence = iter(range(1_000))
    rows = []
    for worker, job, position in steps:
        row = dict.fromkeys(("until", "token", "execution_id", "effect_key", "effect_index", "effect_total", "reason"))
        row |= dict.fromkeys(("queue", "order_key", "intent"))
        row |= {"event": "write", "worker_id": worker, "job_id": job, "attempt": 1, "at": position, "outcome": "ok"}
        row |= {"position": position, "producer_seq": next(sequence), "producer_end_seq": None, "span_id": "s"}
        rows.append(row)
    return rows


def test_steps_of_different_workers_on_different_jobs_commute() -> None:
    one = canonical(_history(("a", "x", 1), ("b", "y", 2)))
    other = canonical(_history(("b", "y", 1), ("a", "x", 2)))
    assert one.digest == other.digest
    assert compare(one, other) is None


def test_steps_on_one_job_and_steps_of_one_worker_do_not_commute() -> None:
    same_job = _history(("a", "x", 1), ("b", "x", 2)), _history(("b", "x", 1), ("a", "x", 2))
    same_worker = _history(("a", "x", 1), ("a", "y", 2)), _history(("a", "y", 1), ("a", "x", 2))
    for one, other in (same_job, same_worker):
        assert canonical(one).digest != canonical(other).digest
        assert compare(canonical(one), canonical(other)) is not None


def test_shared_events_are_counted_up_to_a_job_s_first_difference() -> None:
    one = canonical(_history(("a", "x", 1), ("a", "x", 2), ("b", "y", 3)))
    other = canonical(_history(("a", "x", 1), ("b", "x", 2), ("b", "y", 3)))
    assert (shared(one, other), size(one)) == (2, 3)
