"""What a fault means in the simulator, kind by kind and moment by moment, and when a simulated run ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from runtime.histories import Rows, history

from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.world import EPOCH

MS = 1_000_000
PAID = {"customer": -100, "merchant": 100, "receipts": 1}


def scenario(*faults: dict[str, Any], policy: Policy | str = "naive", **fields: Any) -> Scenario:
    """One payment and one worker, unless `fields` say otherwise; faults are of pay-1's first attempt."""
    queue = {"name": "q", "workload": "payments", "jobs": 1, "workers": 1, "policy": policy}
    queue |= {key: fields.pop(key) for key in list(fields) if key in ("jobs", "workers", "work_ms", "name")}
    if isinstance(policy, Policy):
        queue["policy"] = policy.to_dict()
    return Scenario.from_dict({"id": "s", "queues": [queue], "faults": [_of_pay_1(f) for f in faults], **fields})


def _of_pay_1(fault: dict[str, Any]) -> dict[str, Any]:
    return {"job": "pay-1", **fault}


def events(rows: Rows, event: str, **fields: Any) -> Rows:
    """The rows of one event, of an attempt or worker if `fields` name it; held jobs of an inventory left out."""
    return [
        row
        for row in rows
        if row["event"] == event
        and (event != "inventory" or row["job_id"] is None)
        and all(row[key] == value for key, value in fields.items())
    ]


def held(rows: Rows) -> dict[str, str]:
    """What the inventories at the end say."""
    return {row["job_id"]: row["reason"] for row in rows if row["event"] == "inventory" and row["job_id"] is not None}


# Where each durable step of pay-1's first attempt can be struck: the event that tells it, and how to come there.
FAILS_ONCE = {"kind": "db_error", "step": "write", "index": 0, "attempt": 1}
STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "enqueue": ("enqueue", {"attempt": 0}, {}),
    "write": ("write", {"index": 1}, {}),
    "apply": ("write", {}, {"policy": "atomic"}),
    "renew": ("renew", {}, {"policy": "renewed", "work_ms": 600}),
    "settle": ("ack", {}, {}),
    "retry": ("retry", {}, {"first": FAILS_ONCE}),
    "reclaim": ("reclaim", {"attempt": 0}, {"first": {"kind": "kill", "step": "start", "when": "after"}, "workers": 2}),
}


def struck(step: str, **fault: Any) -> tuple[Rows, Rows, bool]:
    """A history with this fault at this step: all rows, those that tell the struck step, whether it was applied."""
    event, point, how = STEPS[step]
    fields = {**how}
    first = [fields.pop("first")] if "first" in fields else []
    rows, _ = history(scenario(*first, {"step": step, **point, **fault}, **fields))
    told = [
        row
        for row in events(rows, event)
        if row["outcome"] in ("unknown", "failed") and row["reason"] != "BackendError"
    ]
    told = told or [row for row in events(rows, event) if row["outcome"] != "ok"]
    return rows, told, _missing(rows) > 0


def _missing(rows: Rows) -> int:
    """How many positions were taken by steps that nobody told the end of."""
    positions = {row["position"] for row in rows if row["position"] is not None}
    return max(positions) - len(positions)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_in_the_middle_begun(step: str) -> None:
    """Killed when its step had begun, an actor leaves the step told but open, and nothing of it applied."""
    rows, told, applied = struck(step, kind="kill", when="begun")
    assert {row["outcome"] for row in told} == {"unknown"}
    assert {row["producer_end_seq"] for row in told} == {None}
    assert not applied
    assert told[-1]["worker_id"] in [row["worker_id"] for row in events(rows, "crash")]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_in_the_middle_committed(step: str) -> None:
    """Killed when its step was committed, an actor leaves the same open step, but all of it is applied."""
    rows, told, applied = struck(step, kind="kill", when="committed")
    assert {row["outcome"] for row in told} == {"unknown"}
    assert {row["producer_end_seq"] for row in told} == {None}
    assert applied
    assert told[-1]["worker_id"] in [row["worker_id"] for row in events(rows, "crash")]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_before_a_step(step: str) -> None:
    """Killed before the step, an actor never tells it."""
    rows, told, applied = struck(step, kind="kill", when="before")
    assert told == []
    assert not applied
    assert events(rows, "crash")[-1]["reason"] == "SIGKILL"


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_a_step(step: str) -> None:
    """Killed after the step, an actor has told its end, and tells nothing more."""
    rows, _, applied = struck(step, kind="kill", when="after")
    crash = events(rows, "crash")[-1]
    last = [row for row in rows if row["worker_id"] == crash["worker_id"]][-2]
    assert (last["event"], last["outcome"]) == (STEPS[step][0], "ok")
    assert last["producer_end_seq"] + 1 == crash["producer_seq"]
    assert not applied, "what was told is not missing"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("kind", "outcome", "reason", "applied"),
    [
        ("lost_request", "unknown", "ConnectionLost", False),
        ("lost_reply", "unknown", "ConnectionLost", True),
        ("db_error", "failed", "BackendError", False),
    ],
)
def test_a_lost_step(step: str, kind: str, outcome: str, reason: str, applied: bool) -> None:
    """A lost request is not applied, a lost reply is, neither is known; a database error is known to have failed."""
    _, told, was_applied = struck(step, kind=kind)
    assert {(row["outcome"], row["reason"]) for row in told if row["reason"] == reason} == {(outcome, reason)}
    assert all(row["producer_end_seq"] is not None for row in told)
    assert was_applied == applied


@pytest.mark.parametrize(
    ("fault", "balances"),
    [
        ({"kind": "kill", "step": "write", "index": 0, "when": "before"}, PAID),
        ({"kind": "kill", "step": "write", "index": 0, "when": "begun"}, PAID),
        ({"kind": "kill", "step": "write", "index": 0, "when": "committed"}, {**PAID, "customer": -200}),
        ({"kind": "kill", "step": "write", "index": 0, "when": "after"}, {**PAID, "customer": -200}),
        ({"kind": "lost_request", "step": "write", "index": 0}, PAID),
        ({"kind": "lost_reply", "step": "write", "index": 0}, {**PAID, "customer": -200}),
        ({"kind": "db_error", "step": "write", "index": 0}, PAID),
        ({"kind": "lost_request", "step": "settle"}, {"customer": -200, "merchant": 200, "receipts": 2}),
        ({"kind": "lost_reply", "step": "settle"}, PAID),
    ],
)
def test_what_a_fault_does_to_the_money(fault: dict[str, Any], balances: dict[str, int]) -> None:
    """A naive retry repeats exactly the writes that were applied before it."""
    rows, result = history(scenario(fault, workers=2))
    assert result.balances == balances
    assert held(rows) == {}


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("when", ["before", "begun", "committed", "after"])
def test_a_death_inside_a_transaction_undoes_it(index: int, when: str) -> None:
    """Killed at any write inside an open transaction, a worker leaves no write; the next attempt makes each once."""
    fault = {"kind": "kill", "step": "write", "index": index, "when": when}
    rows, result = history(scenario(fault, policy="transactional", workers=2))
    assert {row["attempt"] for row in events(rows, "write")} == {2}
    assert result.balances == PAID


@pytest.mark.parametrize("kind", ["lost_request", "lost_reply", "db_error"])
def test_an_error_inside_a_transaction_rolls_it_back(kind: str) -> None:
    """Whatever goes wrong at a write inside an open transaction, that write is told as rolled back, and it is known."""
    rows, result = history(scenario({"kind": kind, "step": "write", "index": 1}, policy="transactional"))
    (rolled_back,) = events(rows, "write", attempt=1)
    assert (rolled_back["outcome"], rolled_back["reason"]) == ("failed", "RolledBack")
    assert (rolled_back["effect_index"], rolled_back["position"]) == (1, None)
    assert result.balances == PAID


def test_a_fault_strikes_once() -> None:
    """A fault bound to one attempt leaves the others alone, and one bound to a job leaves other jobs alone."""
    rows, _ = history(scenario({"kind": "db_error", "step": "settle"}, jobs=3))
    failed = [(row["job_id"], row["attempt"]) for row in events(rows, "ack") if row["outcome"] == "failed"]
    assert failed == [("pay-1", 1)]


def test_a_joined_settle_can_be_struck_by_its_name() -> None:
    """A transaction that settles is the settle as well: a fault that names either strikes it."""
    for step in ("apply", "settle"):
        rows, result = history(scenario({"kind": "db_error", "step": step}, policy="transactional"))
        assert {row["outcome"] for row in events(rows, "ack", attempt=1)} == {"failed"}
        assert result.balances == PAID


@pytest.mark.parametrize("length_ms", [1, 700])
def test_a_pause_ends_after_a_while(length_ms: int) -> None:
    """Without an until, a pause lasts exactly at_most_ms, and the worker goes on where it was."""
    fault = {"kind": "pause", "step": "write", "index": 1, "when": "before", "at_most_ms": length_ms}
    rows, result = history(scenario(fault))
    (pause,), (resume,) = events(rows, "pause"), events(rows, "resume")
    assert (pause["worker_id"], pause["reason"]) == ("q-worker-1", "SIGSTOP")
    assert (resume["worker_id"], resume["reason"]) == ("q-worker-1", "SIGCONT")
    assert resume["at"] - pause["at"] == length_ms * MS
    before, after = (
        [row["effect_index"] for row in events(rows, "write") if (row["at"] < resume["at"]) == early]
        for early in (True, False)
    )
    assert (before, after) == ([0], [1, 2])
    assert result.balances == PAID


def test_a_pause_after_a_step_comes_after_it() -> None:
    """With when = after the step is told before the worker stops."""
    rows, _ = history(scenario({"kind": "pause", "step": "write", "index": 1, "when": "after", "at_most_ms": 50}))
    (resume,) = events(rows, "resume")
    assert [row["effect_index"] for row in events(rows, "write") if row["at"] < resume["at"]] == [0, 1]


def test_a_pause_lasts_until_its_point() -> None:
    """With an until, a worker sleeps until somebody has done that step, and is resumed at that moment."""
    until = {"job": "pay-1", "attempt": 2, "step": "settle"}
    fault = {"kind": "pause", "step": "write", "index": 1, "until": until, "at_most_ms": 30_000}
    rows, result = history(scenario(fault, workers=2))
    (resume,), (settled,) = events(rows, "resume"), events(rows, "ack", attempt=2)
    assert resume["at"] == settled["at"]
    assert rows.index(resume) > rows.index(settled)
    assert result.balances == {"customer": -200, "merchant": 200, "receipts": 2}


def test_a_pause_does_not_wait_longer_than_at_most() -> None:
    """An until that never comes ends the pause after at_most_ms all the same."""
    until = {"job": "pay-1", "attempt": 9, "step": "settle"}
    fault = {"kind": "pause", "step": "write", "index": 1, "until": until, "at_most_ms": 400}
    rows, _ = history(scenario(fault))
    (pause,), (resume,) = events(rows, "pause"), events(rows, "resume")
    assert resume["at"] - pause["at"] == 400 * MS


def test_a_pause_until_what_has_happened_is_short() -> None:
    """An until that was reached before the pause does not make anybody wait for it again."""
    until = {"job": "pay-1", "attempt": 1, "step": "write", "index": 0}
    fault = {"kind": "pause", "step": "write", "index": 1, "when": "after", "until": until, "at_most_ms": 30_000}
    rows, _ = history(scenario(fault))
    (pause,), (resume,) = events(rows, "pause"), events(rows, "resume")
    assert resume["at"] - pause["at"] <= 2 * MS


def test_a_pause_after_the_last_step_ends_too() -> None:
    """A producer stopped after its last enqueue is resumed before it ends."""
    fault = {"kind": "pause", "step": "enqueue", "when": "after", "at_most_ms": 50, "attempt": 0}
    rows, _ = history(scenario(fault))
    assert [row["worker_id"] for row in events(rows, "resume")] == ["q-producer"]


def test_a_stopped_worker_loses_its_lease() -> None:
    """A pause longer than the lease lets another worker take the job, though the sleeper renews."""
    policy = preset("safe").replace(lease_ms=200)
    fault = {"kind": "pause", "step": "apply", "when": "before", "at_most_ms": 2_000}
    rows, result = history(scenario(fault, policy=policy, workers=2))
    assert [(row["attempt"], row["outcome"]) for row in events(rows, "ack")] == [(2, "ok"), (1, "failed")]
    assert result.balances == PAID


@pytest.mark.parametrize("index", [0, 3])
def test_slow_work_takes_as_long_as_it_says(index: int) -> None:
    """A slow fault makes its work step take at_most_ms, instead of what was planned."""
    rows, _ = history(scenario({"kind": "slow", "step": "work", "index": index, "at_most_ms": 300}, work_ms=10))
    moments = [events(rows, "run")[0]["at"], *(row["at"] for row in events(rows, "write") + events(rows, "ack"))]
    lengths = [(later - earlier) // MS for earlier, later in pairwise(moments)]
    expected = [300 if number == index else 10 if number == 0 else 0 for number in range(4)]
    assert all(wanted <= length <= wanted + 4 for length, wanted in zip(lengths, expected, strict=True))


def test_different_seeds_give_different_schedules() -> None:
    """The seed draws the order in which actors act: of twenty seeds hardly two agree."""
    orders = {
        tuple((row["worker_id"], row["event"], row["job_id"]) for row in history(scenario(jobs=4, workers=3), seed)[0])
        for seed in range(20)
    }
    assert len(orders) > 15


@pytest.mark.parametrize("name", presets())
def test_an_undisturbed_run_does_each_job_once(name: str) -> None:
    """Under every preset, with nothing in the way, each job is leased, done and settled once, and nothing is held."""
    rows, result = history(scenario(policy=name, jobs=5, workers=3))
    assert [len(events(rows, event)) for event in ("enqueue", "lease", "run", "write", "ack")] == [5, 5, 5, 15, 5]
    assert held(rows) == {}
    assert _missing(rows) == 0
    assert result.balances == {account: 5 * amount for account, amount in PAID.items()}


def test_time_and_positions_only_rise() -> None:
    """In the order of positions no time goes backwards; nothing happens before virtual time begins."""
    rows, result = history(scenario(FAILS_ONCE, jobs=5, workers=3, policy="renewed", work_ms=500))
    decided = sorted((row["position"], row["at"]) for row in rows if row["position"] is not None)
    times = [at for _, at in decided]
    assert times == sorted(times)
    assert times[0] > EPOCH
    assert max(row["at"] for row in rows) == result.ended_at


def test_a_run_ends_at_its_horizon() -> None:
    """No actor acts after at_most_ms of virtual time; what is then unfinished is in the inventory."""
    rows, result = history(scenario(policy="naive", work_ms=5_000, at_most_ms=1_000, workers=2))
    assert result.ended_at <= EPOCH + 1_000 * MS
    assert held(rows) == {"pay-1": "leased"}
    assert events(rows, "run")[0]["outcome"] == "unknown"


def test_a_run_without_workers_left_ends() -> None:
    """When every worker is dead nobody waits for the deadline: the jobs are counted as they lie."""
    faults = [{"kind": "kill", "step": "start", "when": "after", "attempt": number} for number in (1, 2)]
    rows, result = history(scenario(*faults, workers=2))
    assert len(events(rows, "crash")) == 2
    assert held(rows) == {"pay-1": "ready"}
    assert result.ended_at < EPOCH + 5_000 * MS


def test_a_fault_strikes_the_reclaim_that_it_names() -> None:
    """The second time that a job is taken back is a moment of its own."""
    deaths = [{"kind": "kill", "attempt": attempt, "step": "start", "when": "after"} for attempt in (1, 2)]
    lost = {"kind": "db_error", "attempt": 0, "step": "reclaim", "index": 1}
    rows, result = history(scenario(*deaths, lost, workers=3))
    assert [row["outcome"] for row in events(rows, "reclaim")] == ["ok", "failed", "ok"]
    assert (result.unstruck, held(rows)) == ((), {})


def test_a_run_without_its_reclaimer_ends() -> None:
    """When the reclaimer is dead, or there is none, a dead worker's job stays leased; nobody works on, and stock is
    taken so late that the lease can be seen to be stuck: a second, and five of grace, after it was granted."""
    crash = {"kind": "kill", "step": "start", "when": "after"}
    death = {"kind": "kill", "step": "reclaim", "when": "before", "attempt": 0}
    for faults, policy in (((crash, death), "naive"), ((crash,), preset("naive").replace(reclaim="none"))):
        rows, result = history(scenario(*faults, policy=policy, workers=2))
        assert held(rows) == {"pay-1": "leased"}
        assert {row["event"] for row in rows if row["at"] > EPOCH + 5_000 * MS} == {"inventory"}
        assert EPOCH + 6_000 * MS < result.ended_at < EPOCH + 6_100 * MS


def test_actors_are_known_by_their_whole_names() -> None:
    """A queue whose name looks like a worker's has no more workers for it: its run ends when they are dead."""
    faults = [{"kind": "kill", "step": "start", "when": "after"}]
    _, result = history(scenario(*faults, name="a-worker-b"))
    assert result.ended_at < EPOCH + 5_000 * MS


def test_a_retry_waits_for_its_backoff() -> None:
    """A failed attempt's successor is not leased before the delay that the retry told has passed."""
    rows, _ = history(scenario(FAILS_ONCE, policy=Policy(backoff_ms=400)))
    (retry,), (second,) = events(rows, "retry"), events(rows, "lease", attempt=2)
    assert retry["until"] == retry["at"] + 400 * MS
    assert retry["until"] <= second["at"] <= retry["until"] + 25 * MS


def test_the_last_attempt_is_buried() -> None:
    """With no attempt left, the retry of a failed one is told as a dead letter, and the job is held as dead."""
    rows, _ = history(scenario(FAILS_ONCE, policy=Policy(max_attempts=1)))
    assert events(rows, "retry") == []
    assert [row["reason"] for row in events(rows, "dead_letter")] == ["attempts_exhausted"]
    assert held(rows) == {"pay-1": "dead"}


def test_a_reclaim_that_buries_is_told_as_both() -> None:
    """A reclaim after the last attempt is told as a reclaim and as a dead letter of the same moment and position."""
    crash = {"kind": "kill", "step": "start", "when": "after"}
    rows, _ = history(scenario(crash, policy="one-attempt", workers=2))
    (reclaim,), (burial,) = events(rows, "reclaim"), events(rows, "dead_letter")
    assert (reclaim["position"], reclaim["at"]) == (burial["position"], burial["at"])
    assert held(rows) == {"pay-1": "dead"}


def test_each_queue_is_counted_at_the_end() -> None:
    """The last thing told is one inventory a queue, in the scenario's order."""
    two = {"id": "two", "queues": [{"name": name, "workload": shape} for name, shape in TWO]}
    rows, _ = history(Scenario.from_dict(two))
    assert [(row["event"], row["queue"]) for row in rows[-2:]] == [("inventory", "b"), ("inventory", "a")]


TWO = (("b", "payments"), ("a", "background"))


def test_a_pause_lasts_until_a_scan_finds_the_lease_run_out() -> None:
    """Then the worker goes on before the reclaimer can act on what it found, and before anybody else."""
    until = {"job": "pay-1", "step": "scan"}
    stopped = {"kind": "pause", "attempt": 1, "step": "settle", "until": until}
    rows, _ = history(scenario(stopped, policy=preset("naive")))
    (resume,), (settled, *_), (scan, *_), (reclaim,) = (
        events(rows, name) for name in ("resume", "ack", "scan", "reclaim")
    )
    assert scan["at"] <= resume["at"] < settled["at"] < reclaim["at"]
    assert settled["at"] - resume["at"] == 1


def test_a_pause_waits_for_the_next_of_what_comes_again() -> None:
    """The lease of a first attempt was taken back before; the second attempt waits until its own is."""
    killed = {"kind": "kill", "attempt": 1, "step": "start"}
    until = {"job": "pay-1", "step": "reclaim"}
    stopped = {"kind": "pause", "attempt": 2, "step": "write", "index": 0, "until": until}
    rows, _ = history(scenario(killed, stopped, workers=2))
    first, second = events(rows, "reclaim")
    (pause,), (resume,) = events(rows, "pause"), events(rows, "resume")
    assert first["at"] < pause["at"] < second["at"] <= resume["at"]
