"""What an actor does next, step by step, under each policy; every test drives the coroutine by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from runtime.support import ACCEPTED, MS, START, a_job, attempt, effects, granted, play, refused

from fencepost_runtime.actors import producer, reclaimer, stocktaking, worker
from fencepost_runtime.errors import BackendError, ConnectionLost
from fencepost_runtime.operations import (
    Enqueue,
    Expired,
    Inventory,
    Job,
    Lease,
    Reclaim,
    Renew,
    Scanned,
    Settle,
    Write,
    WriteAll,
)
from fencepost_runtime.policy import Policy
from fencepost_runtime.steps import STEPS, Execution, Step

NAIVE = Policy()
JOB = Job("job", "q", "work", effects("job/debit", "job/credit"), work_ms=500, carrier="trace")


def test_a_naive_attempt() -> None:
    """Lease, start, then work and write in turn, work once more, settle, finish, and poll until told to stop."""
    played = attempt(NAIVE)
    assert played.words == [
        *("lease", "start", "work 0", "write 0", "work 1", "write 1", "work 2", "settle", "finish"),
        *("lease", "idle"),
    ]
    assert played.ended


def test_every_step_of_an_attempt_says_whose_it_is() -> None:
    """Between start and finish each step carries the job, attempt, token and trace context; others carry none."""
    leased = granted(JOB, attempt=2, token=7)
    policy = Policy(renew=True, lease_ms=300)
    steps = play(worker("w", "q", policy, 20), {"lease": [leased, None]}).steps
    first, last = (next(n for n, step in enumerate(steps) if step.name == name) for name in ("start", "finish"))
    assert {step.execution for step in steps[first : last + 1]} == {Execution("job", 2, 7, "trace")}
    assert {step.execution for step in steps[:first] + steps[last + 1 :]} == {None}
    assert {(step.queue, step.name in STEPS) for step in steps} == {("q", True)}


def test_what_a_naive_attempt_asks_for() -> None:
    """The operations name worker, job, effects in order and token; every guard but the settle's is off."""
    debit, credit = JOB.effects
    operations = [step.operation for step in attempt(NAIVE, job=JOB).steps if step.operation]
    assert operations == [
        Lease("q", "w", 1_000 * MS),
        Write("job", debit, 1, fencing=False, dedupe=False),
        Write("job", credit, 1, fencing=False, dedupe=False),
        Settle("job", 1, "ack", by_token=True),
        Lease("q", "w", 1_000 * MS),
    ]


def test_work_is_planned_before_the_first_write() -> None:
    """A job's work lies before its first write; later work steps take no time unless a driver says so."""
    works = [step for step in attempt(NAIVE, job=JOB).steps if step.name == "work"]
    assert [(step.index, step.planned_ns) for step in works] == [(0, 500 * MS), (1, 0), (2, 0)]


# For each policy field, the steps of an attempt as they differ from the naive one's.
ORDERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "late": ({}, ["start", "write 0", "write 1", "settle", "finish"]),
    "early": ({"ack": "early"}, ["start", "settle", "write 0", "write 1", "finish"]),
    "atomic": ({"writes": "atomic"}, ["start", "write 0", "write 1", "apply", "settle", "finish"]),
    "atomic early": (
        {"writes": "atomic", "ack": "early"},
        ["start", "settle", "write 0", "write 1", "apply", "finish"],
    ),
    "with writes": ({"writes": "atomic", "ack": "with_writes"}, ["start", "write 0", "write 1", "apply", "finish"]),
    "fencing": ({"fencing": True}, ["start", "write 0", "write 1", "settle", "finish"]),
    "dedupe": ({"dedupe": "effect_key"}, ["start", "write 0", "write 1", "settle", "finish"]),
    "by job": ({"settle": "by_job"}, ["start", "write 0", "write 1", "settle", "finish"]),
    "unreclaimed": ({"reclaim": "none"}, ["start", "write 0", "write 1", "settle", "finish"]),
    "renewed": ({"renew": True}, ["start", "renew", "write 0", "write 1", "settle", "finish"]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_policy_orders_the_steps(name: str) -> None:
    """Acknowledgement and writes decide the order of an attempt's steps; guards change none of it."""
    fields, expected = ORDERS[name]
    assert attempt(Policy(**fields), job=JOB).told == expected


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"fencing": True}, {"fencing": True}),
        ({"dedupe": "effect_key"}, {"dedupe": True}),
        ({"settle": "by_job"}, {"by_token": False}),
        ({"lease_ms": 2_000}, {"lease_ns": 2_000 * MS}),
        ({"max_attempts": 9}, {}),
        ({"backoff": "exponential"}, {}),
        ({"backoff_ms": 9}, {}),
        ({"reclaim": "guarded"}, {}),
    ],
    ids=lambda value: next(iter(value), "nothing"),
)
def test_a_guard_changes_only_its_own_operations(fields: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Each guard reaches exactly the operations that it is for, and nothing else of a smooth attempt differs."""
    plain, guarded = attempt(NAIVE, job=JOB).steps, attempt(Policy(**fields), job=JOB).steps
    assert [_with(step, changed) for step in plain] == guarded
    assert (plain != guarded) == bool(changed)


def _with(step: Step, changes: Mapping[str, Any]) -> Step:
    values = {name: getattr(step, name) for name in Step.__slots__}
    operation = step.operation
    if operation is not None:
        fields = {name: getattr(operation, name) for name in operation.__slots__}
        values["operation"] = type(operation)(**{**fields, **{k: v for k, v in changes.items() if k in fields}})
    return Step(**values)


def test_an_early_settle_is_marked() -> None:
    """A settle before the work says that it is early; one after the work does not."""
    assert attempt(Policy(ack="early")).only("settle").early
    assert not attempt(NAIVE).only("settle").early


@pytest.mark.parametrize("settle", [True, False])
def test_a_transaction_takes_all_effects(settle: bool) -> None:
    """Atomic writes have no operation of their own; the apply step has them all, and the settle if it is joined."""
    policy = Policy(writes="atomic", ack="with_writes" if settle else "late", fencing=True, dedupe="effect_key")
    played = attempt(policy, job=JOB)
    writes = [step for step in played.steps if step.name == "write"]
    assert [(step.operation, step.effect) for step in writes] == [(None, effect) for effect in JOB.effects]
    assert played.words[1:9] == ["start", "work 0", "sleep", "write 0", "work 1", "write 1", "work 2", "apply"]
    assert played.only("apply").operation == WriteAll("job", JOB.effects, 1, True, True, settle)
    assert played.only("apply").names == (("apply", "settle") if settle else ("apply",))


def test_stepwise_writes_stage_nothing() -> None:
    """A stepwise write is a transaction of its own, so no effect waits in an open one."""
    assert [step.effect for step in attempt(NAIVE).steps] == [None] * len(attempt(NAIVE).steps)


def test_a_job_without_effects_is_worked_and_settled() -> None:
    """With nothing to write an attempt is one work step, then the settle: no transaction is opened for nothing."""
    job = Job("job", "q", "work", ())
    assert attempt(NAIVE, job=job).words[1:5] == ["start", "work 0", "settle", "finish"]
    assert attempt(Policy(writes="atomic"), job=job).words[1:5] == ["start", "work 0", "settle", "finish"]
    joined = attempt(Policy(writes="atomic", ack="with_writes"), job=job)
    assert joined.words[1:5] == ["start", "work 0", "apply", "finish"]


THIRD = 100 * MS


@pytest.mark.parametrize(
    ("work_ns", "renewals", "slept"),
    [
        (0, 0, []),
        (1, 0, [1]),
        (THIRD, 0, [THIRD]),
        (THIRD + 1, 1, [THIRD, 1]),
        (2 * THIRD, 1, [THIRD, THIRD]),
        (2 * THIRD + 1, 2, [THIRD, THIRD, 1]),
        (7 * THIRD // 2, 3, [THIRD, THIRD, THIRD, THIRD // 2]),
    ],
)
def test_a_lease_is_renewed_between_thirds_of_it(work_ns: int, renewals: int, slept: list[int]) -> None:
    """Work is slept in slices of a third of the lease, with one renewal between two slices and none after the last."""
    played = attempt(Policy(renew=True, lease_ms=300), {"work 0": work_ns})
    sleeps = [step.planned_ns for step in played.steps if step.name == "sleep"]
    assert sleeps == slept
    renews = [step.operation for step in played.steps if step.name == "renew"]
    assert renews == [Renew("job", 1, 300 * MS)] * renewals
    assert [step.index for step in played.steps if step.name == "renew"] == list(range(renewals))
    middle = [step.name for step in played.steps if step.name in ("sleep", "renew")]
    assert middle == (["sleep", "renew"] * len(sleeps))[: len(sleeps) + renewals]


def test_an_early_settle_leaves_nothing_to_renew() -> None:
    """Whoever acknowledged before the work holds no lease any more, so it renews none and works on."""
    played = attempt(Policy(ack="early", renew=True, lease_ms=300), job=a_job(work_ms=1_000))
    assert played.told == ["start", "settle", "write 0", "write 1", "finish"]
    assert [step.planned_ns for step in played.steps if step.name == "sleep"] == [1_000 * MS]


def test_without_renewal_work_is_slept_at_once() -> None:
    """Without renewal the whole work is one sleep, however long the lease."""
    played = attempt(Policy(lease_ms=300), job=a_job(work_ms=1_000))
    assert [step.planned_ns for step in played.steps if step.name == "sleep"] == [1_000 * MS]
    assert "renew" not in played.words


def test_the_driver_says_how_long_work_takes() -> None:
    """What the work step answers is slept, at any index, whatever was planned."""
    played = attempt(Policy(renew=True, lease_ms=300), {"work 0": 0, "work 2": 150 * MS}, job=a_job(work_ms=1_000))
    assert played.words[2:-2] == [
        *("work 0", "write 0", "work 1", "write 1", "work 2", "sleep", "renew", "sleep"),
        *("settle", "finish"),
    ]


def test_producers_enqueue_each_job_once() -> None:
    """A producer hands over its jobs in order, each once, to the queue that each names, then ends."""
    jobs = (a_job("a"), a_job("b", "other"))
    played = play(producer(jobs), {})
    assert [(step.name, step.queue, step.operation) for step in played.steps] == [
        ("enqueue", "q", Enqueue(jobs[0])),
        ("enqueue", "other", Enqueue(jobs[1])),
    ]
    assert played.ended


@pytest.mark.parametrize("reply", [BackendError(), ConnectionLost(), refused("duplicate")], ids=repr)
def test_producers_go_on_after_a_failed_enqueue(reply: Any) -> None:
    """An enqueue that was refused or lost is not repeated, and keeps no other job from its queue."""
    played = play(producer((a_job("a"), a_job("b"))), {"enqueue": [reply, ACCEPTED]})
    assert [step.job_id for step in played.steps] == ["a", "b"]
    assert played.ended


def test_reclaimers_take_back_what_a_scan_finds() -> None:
    """A reclaimer takes back each lease found, in the order found, and scans again after a poll, until told to stop."""
    found = Scanned(START, 1, (("a", 4), ("b", 2)))
    played = play(
        reclaimer("q", Policy(max_attempts=5), 20), {"scan": [None, found, None], "idle": [True, True, False]}
    )
    assert played.words == ["scan", "idle", "scan", "reclaim", "reclaim", "idle", "scan", "idle"]
    operations = [step.operation for step in played.steps if step.operation]
    assert operations[:4] == [Expired("q"), Expired("q"), Reclaim("a", 4, False, 5), Reclaim("b", 2, False, 5)]
    assert {step.planned_ns for step in played.steps if step.name == "idle"} == {20 * MS}
    assert {step.queue for step in played.steps} == {"q"}
    assert played.ended


@pytest.mark.parametrize(("reclaim", "guarded"), [("on_expiry", False), ("guarded", True)])
def test_the_policy_guards_reclaims(reclaim: str, guarded: bool) -> None:
    """Only a guarded policy's reclaims compare the lease."""
    script = {"scan": Scanned(START, 1, (("a", 1),))}
    played = play(reclaimer("q", Policy.from_dict({"reclaim": reclaim}), 20), {**script, "idle": False})
    assert played.only("reclaim").operation == Reclaim("a", 1, guarded, 3)


@pytest.mark.parametrize("error", [BackendError(), ConnectionLost()], ids=repr)
def test_a_failed_reclaim_waits_for_the_next_scan(error: Exception) -> None:
    """When a scan or a reclaim fails, a reclaimer leaves the rest of that scan and polls again."""
    found = Scanned(START, 1, (("a", 1), ("b", 2)))
    script = {"scan": [error, found, None], "reclaim": error, "idle": [True, True, False]}
    played = play(reclaimer("q", NAIVE, 20), script)
    assert played.words == ["scan", "idle", "scan", "reclaim", "idle", "scan", "idle"]
    assert played.ended


def test_stocktaking_asks_every_queue() -> None:
    """Stocktaking takes one inventory a queue, in the order given, and ends."""
    played = play(stocktaking(["b", "a"]), {})
    assert [(step.name, step.queue, step.operation) for step in played.steps] == [
        ("inventory", "b", Inventory("b")),
        ("inventory", "a", Inventory("a")),
    ]
    assert played.ended
