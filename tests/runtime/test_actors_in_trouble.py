"""What an actor does when a step is refused, lost or raises; every test drives the coroutine by hand."""

from __future__ import annotations

from typing import Any

import pytest
from runtime.support import ACCEPTED, MS, START, a_job, attempt, granted, play, refused

from fencepost_runtime.actors import producer, reclaimer, worker
from fencepost_runtime.errors import BackendError, ConnectionLost
from fencepost_runtime.operations import Answer, Batch, Job, Retry
from fencepost_runtime.policy import Policy, presets

NAIVE = Policy()
WITH_WRITES = Policy(writes="atomic", ack="with_writes")
ERRORS = [BackendError(), ConnectionLost()]


def outcome(policy: Policy, script: dict[str, Any], **how: Any) -> tuple[list[str], str, str | None]:
    """What an attempt told, and how it finished."""
    played = attempt(policy, script, **how)
    finish = played.only("finish")
    assert played.ended
    assert played.words[-2:] == ["lease", "idle"], "after an attempt a worker asks for the next job"
    return played.told, finish.outcome, finish.reason


def test_a_smooth_attempt_is_ok() -> None:
    """Under every preset an attempt that nothing disturbs ends ok, with no reason."""
    for policy in presets().values():
        assert outcome(policy, {})[1:] == ("ok", None)


def test_a_fenced_write_stops_the_attempt() -> None:
    """A write refused for any reason but a duplicate ends the attempt at once: no write, settle or retry follows."""
    told = ["start", "write 0", "finish"]
    assert outcome(Policy(fencing=True), {"write 0": refused("fenced")}) == (told, "failed", "fenced")


def test_a_later_write_can_be_fenced() -> None:
    """What was written before a fenced write stays written; nothing is taken back."""
    told = ["start", "write 0", "write 1", "finish"]
    assert outcome(Policy(fencing=True), {"write 1": refused("fenced")}) == (told, "failed", "fenced")


def test_a_refusal_without_a_reason_is_still_a_refusal() -> None:
    """A write that is not accepted ends the attempt though nobody says why."""
    nobody = Answer(START, 1, accepted=False)
    assert outcome(NAIVE, {"write 0": nobody})[1:] == ("failed", "refused")


def test_a_duplicate_is_as_good_as_done() -> None:
    """A write refused as a duplicate was applied before: the attempt goes on and is settled."""
    told = ["start", "write 0", "write 1", "settle", "finish"]
    assert outcome(Policy(dedupe="effect_key"), {"write": refused("duplicate")}) == (told, "ok", None)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (Batch((ACCEPTED, refused("fenced")), None), ("failed", "fenced")),
        (Batch((refused("duplicate"), ACCEPTED), None), ("ok", None)),
    ],
)
def test_a_transaction_answers_for_all_its_writes(batch: Batch, expected: tuple[str, str | None]) -> None:
    """One refused write of a transaction fails the attempt unsettled; duplicates alone do not."""
    told, *ended = outcome(Policy(writes="atomic"), {"apply": batch})
    assert tuple(ended) == expected
    assert ("settle" in told) == (expected[0] == "ok")


def test_a_transaction_that_may_not_settle_fails() -> None:
    """A joined settle that is refused fails the attempt, with or without writes beside it."""
    stale = refused("stale_token")
    told = ["start", "write 0", "write 1", "apply", "finish"]
    assert outcome(WITH_WRITES, {"apply": Batch((stale, stale), stale)}) == (told, "failed", "stale_token")
    empty = Job("job", "q", "work", ())
    assert outcome(WITH_WRITES, {"apply": Batch((), stale)}, job=empty)[1:] == ("failed", "stale_token")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("before", [[], ["write 0"]])
def test_a_failed_write_gives_the_job_back(before: list[str], error: Exception) -> None:
    """A write that raises ends the attempt as failed, by the error's name, after one retry and without a settle."""
    word = f"write {len(before)}"
    told = ["start", *before, word, "retry", "finish"]
    assert outcome(NAIVE, {word: error}) == (told, "failed", type(error).__name__)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("word", ["write 0", "write 1", "apply"])
def test_a_failed_transaction_gives_the_job_back(word: str, error: Exception) -> None:
    """So does anything that raises inside an open transaction, or at its commit."""
    told, *ended = outcome(WITH_WRITES, {word: error})
    assert told[-3:] == [word, "retry", "finish"]
    assert ended == ["failed", type(error).__name__]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_early_settled_job_is_not_given_back(error: Exception) -> None:
    """After an early settle the queue has forgotten the job, so a failed write is followed by no retry."""
    told = ["start", "settle", "write 0", "finish"]
    assert outcome(Policy(ack="early"), {"write 0": error}) == (told, "failed", type(error).__name__)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_failed_early_settle_ends_the_attempt(error: Exception) -> None:
    """When the early settle raises, no work is done and the lease is left to run out."""
    assert outcome(Policy(ack="early"), {"settle": error}) == (
        ["start", "settle", "finish"],
        "failed",
        type(error).__name__,
    )


def test_a_refused_early_settle_stops_nobody() -> None:
    """A worker that acknowledges early does not look at the answer: it works all the same."""
    told = ["start", "settle", "write 0", "write 1", "finish"]
    assert outcome(Policy(ack="early"), {"settle": refused("stale_token")}) == (told, "ok", None)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_lost_late_settle_leaves_the_lease(error: Exception) -> None:
    """When the late settle raises, the work counts as done, the reason is ack_lost, and nothing is retried."""
    told = ["start", "write 0", "write 1", "settle", "finish"]
    assert outcome(NAIVE, {"settle": error}) == (told, "ok", "ack_lost")


def test_a_refused_late_settle_is_told() -> None:
    """A refused late settle changes nothing about the work; its reason becomes the attempt's."""
    assert outcome(NAIVE, {"settle": refused("stale_token")})[1:] == ("ok", "stale_token")


def test_a_refused_renewal_ends_the_attempt() -> None:
    """A worker that learns that its lease is lost writes, settles and retries nothing any more."""
    policy = Policy(renew=True, lease_ms=300)
    told = ["start", "renew", "renew", "finish"]
    script = {"renew": [ACCEPTED, refused("expired")]}
    assert outcome(policy, script, job=a_job(work_ms=1_000)) == (told, "failed", "lease_lost")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_failed_renewal_gives_the_job_back(error: Exception) -> None:
    """A renewal that raises fails the attempt like a write that raises."""
    policy = Policy(renew=True, lease_ms=300)
    told = ["start", "renew", "retry", "finish"]
    assert outcome(policy, {"renew": error}, job=a_job(work_ms=200)) == (told, "failed", type(error).__name__)


@pytest.mark.parametrize("reply", [*ERRORS, refused("stale_token")], ids=repr)
def test_a_failed_retry_is_not_repeated(reply: Any) -> None:
    """Whatever the retry comes to, the attempt finishes with the reason of its own failure, and the worker goes on."""
    told = ["start", "write 0", "retry", "finish"]
    assert outcome(NAIVE, {"write 0": BackendError(), "retry": reply}) == (told, "failed", "BackendError")


@pytest.mark.parametrize(
    ("fields", "number", "delay_ms"),
    [
        ({"backoff_ms": 70}, 1, 70),
        ({"backoff_ms": 70}, 4, 70),
        ({"backoff_ms": 70, "backoff": "exponential"}, 1, 70),
        ({"backoff_ms": 70, "backoff": "exponential"}, 2, 140),
        ({"backoff_ms": 70, "backoff": "exponential"}, 4, 560),
        ({"backoff_ms": 0, "backoff": "exponential"}, 4, 0),
    ],
)
def test_a_retry_waits_as_the_policy_says(fields: dict[str, Any], number: int, delay_ms: int) -> None:
    """The delay is the backoff, doubled with each attempt if it is exponential; the token and budget go along."""
    played = attempt(Policy(max_attempts=8, **fields), {"write 0": BackendError()}, number=number)
    assert played.only("retry").operation == Retry("job", number, delay_ms * MS, 8, by_token=True)


def test_a_retry_by_job_asks_for_no_token() -> None:
    """The policy's settle decides whether a retry must carry the current token."""
    played = attempt(Policy(settle="by_job"), {"write 0": BackendError()})
    assert played.only("retry").operation == Retry("job", 1, 50 * MS, 3, by_token=False)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_lost_lease_is_waited_out(error: Exception) -> None:
    """A lease step that raises is like one that found nothing: the worker idles and asks again."""
    script = {"lease": [error, granted(a_job()), None], "idle": [True, False]}
    words = play(worker("w", "q", NAIVE, 20), script).words
    assert words[:4] == ["lease", "idle", "lease", "start"]


def test_a_worker_polls_until_told_to_stop() -> None:
    """An idle worker asks again after each poll interval, and ends at the first idle step that says no."""
    played = play(worker("w", "q", NAIVE, 35), {"lease": None, "idle": [True, True, False]})
    assert played.words == ["lease", "idle"] * 3
    assert {step.planned_ns for step in played.steps if step.name == "idle"} == {35 * MS}
    assert played.ended


def test_a_worker_does_not_idle_while_there_is_work() -> None:
    """After an attempt, whether it failed or not, the next lease is asked for at once."""
    script = {"lease": [granted(a_job("a")), granted(a_job("b")), None], "write 0": [BackendError(), ACCEPTED]}
    words = play(worker("w", "q", NAIVE, 20), script).words
    assert words.count("start") == 2
    assert words.count("idle") == 1


@pytest.mark.parametrize("word", ["lease", "start", "work 0", "write 0", "settle", "finish"])
def test_an_unexpected_error_is_nobody_s_to_hide(word: str) -> None:
    """An error that is not the queue's passes through a worker unchanged, from any of its steps."""
    with pytest.raises(ZeroDivisionError):
        attempt(NAIVE, {word: ZeroDivisionError()})


def test_an_unexpected_error_passes_through_the_others() -> None:
    """So it does through a producer and a reclaimer."""
    with pytest.raises(ZeroDivisionError):
        play(producer([a_job()]), {"enqueue": ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        play(reclaimer("q", NAIVE, 20), {"scan": ZeroDivisionError()})


@pytest.mark.parametrize("steps", range(1, 12))
def test_an_actor_can_end_at_any_step(steps: int) -> None:
    """A coroutine closed at any step takes no further one: a death has no last words."""
    script = {"lease": [granted(a_job()), None], "idle": True}
    played = play(worker("w", "q", NAIVE, 20), script, at_most=steps)
    assert (len(played.steps), played.ended) == (steps, False)
