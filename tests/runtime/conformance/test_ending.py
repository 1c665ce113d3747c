"""Conformance: how a lease ends: settled, given back, found expired, taken back."""

from __future__ import annotations

import pytest
from runtime.support import LEASE, START, Desk

from fencepost_runtime.operations import Answer, Effect, Expired, Reclaim, Retry, Scanned, Settle, Settlement, Write


def test_an_ack_ends_a_job(desk: Desk) -> None:
    """An acknowledged job is done and no longer held."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.pass_ns(2)
    assert desk.settle(leased) == Answer(START + 2, 3, True)
    assert desk.held() == {}


@pytest.mark.parametrize("by_token", [True, False])
def test_a_dead_letter_is_kept(desk: Desk, by_token: bool) -> None:
    """A dead-lettered job is over, yet still held as dead."""
    desk.enqueue("a")
    assert desk.settle(desk.lease(), "dead_letter", by_token=by_token).accepted
    assert desk.held() == {"a": "dead"}


@pytest.mark.parametrize("offset", [-1, 1])
def test_a_settle_by_token_needs_the_current_one(desk: Desk, offset: int) -> None:
    """By token, a token one off settles nothing."""
    desk.enqueue("a", "b")
    desk.lease()
    leased = desk.lease()
    refusal = desk.answer(Settle("b", leased.token + offset, "ack", by_token=True))
    assert (refusal.accepted, refusal.reason) == (False, "stale_token")
    assert desk.held()["b"] == "leased"


@pytest.mark.parametrize("settlement", ["ack", "dead_letter"])
def test_a_settle_by_token_happens_once(desk: Desk, settlement: Settlement) -> None:
    """By token, a second settle of either kind is stale."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.settle(leased, settlement)
    held = desk.held()
    assert desk.settle(leased).reason == "stale_token"
    assert desk.settle(leased, "dead_letter").reason == "stale_token"
    assert desk.held() == held


def test_a_settle_by_token_needs_a_lease(desk: Desk) -> None:
    """By token, a job that was taken back cannot be settled though its token is still the newest."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    desk.reclaim(leased)
    assert desk.settle(leased).reason == "stale_token"
    assert desk.held() == {"a": "ready"}


def test_a_settle_by_token_does_not_ask_the_time(desk: Desk) -> None:
    """An expired lease that nobody took back still settles."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    assert desk.settle(leased).accepted


def test_a_settle_by_job_ends_another_s_lease(desk: Desk) -> None:
    """By job, whoever names the job ends it: also a former holder, under the new holder's lease."""
    desk.enqueue("a")
    former = desk.lease()
    holder = desk.take_over(former)
    assert desk.settle(former, by_token=False).accepted
    assert desk.settle(holder).reason == "stale_token"
    assert desk.held() == {}


def test_a_settle_by_job_needs_no_lease(desk: Desk) -> None:
    """By job, a ready job can be settled too."""
    desk.enqueue("a")
    assert desk.answer(Settle("a", 0, "ack", by_token=False)).accepted
    assert desk.held() == {}


@pytest.mark.parametrize("settlement", ["ack", "dead_letter"])
def test_a_settle_by_job_happens_once(desk: Desk, settlement: Settlement) -> None:
    """By job, a job that is done or dead is already settled and stays what it is."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.settle(leased, settlement, by_token=False)
    held = desk.held()
    assert desk.settle(leased, by_token=False).reason == "already_settled"
    assert desk.settle(leased, "dead_letter", by_token=False).reason == "already_settled"
    assert desk.held() == held


def test_a_retry_gives_the_job_back(desk: Desk) -> None:
    """A retried job is ready again after the delay, and the answer says when."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.pass_ns(5)
    assert desk.retry(leased, delay_ns=30) == Answer(START + 5, 3, True, until=START + 35)
    assert desk.held() == {"a": "ready"}


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize(("max_attempts", "state"), [(1, "dead"), (2, "dead"), (3, "ready")])
def test_a_retry_counts_leases(desk: Desk, max_attempts: int, state: str, by_token: bool) -> None:
    """After the last allowed lease a retry buries the job; one lease earlier it gives it back."""
    desk.enqueue("a")
    desk.retry(desk.lease())
    answer = desk.retry(desk.lease(), max_attempts=max_attempts, by_token=by_token)
    assert desk.held() == {"a": state}
    assert (answer.accepted, answer.buried) == (True, state == "dead")


def test_a_burial_is_an_answer_of_its_own(desk: Desk) -> None:
    """A retry that buries is accepted, says so and why, and promises no later attempt."""
    desk.enqueue("a")
    leased = desk.lease()
    assert desk.retry(leased, delay_ns=9, max_attempts=1) == Answer(START, 3, True, "attempts_exhausted", buried=True)
    assert desk.position() == 4


@pytest.mark.parametrize(("by_token", "reason"), [(True, "stale_token"), (False, "already_settled")])
def test_a_settled_job_is_not_retried(desk: Desk, by_token: bool, reason: str) -> None:
    """A done job stays done, whichever way the retry names it; and a refused retry buries nothing."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.settle(leased)
    refusal = desk.retry(leased, max_attempts=1, by_token=by_token)
    assert (refusal.accepted, refusal.reason, refusal.buried) == (False, reason, False)
    assert desk.held() == {}


def test_a_retry_by_token_of_a_former_holder_is_refused(desk: Desk) -> None:
    """By token a former holder cannot give back the new holder's job; by job it can."""
    desk.enqueue("a")
    former = desk.lease()
    desk.take_over(former)
    assert desk.retry(former).reason == "stale_token"
    assert desk.held() == {"a": "leased"}
    assert desk.retry(former, by_token=False).accepted
    assert desk.held() == {"a": "ready"}


def test_a_scan_finds_nothing_before_its_time(desk: Desk) -> None:
    """A lease is expired from the very moment that it ends on, not before; finding none takes no position."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.now = leased.expires_at - 1
    assert desk.do(Expired("q")) is None
    desk.clock.pass_ns(1)
    assert desk.do(Expired("q")) == Scanned(leased.expires_at, 3, (("a", leased.token),))


def test_a_scan_lists_the_longest_expired_first(desk: Desk) -> None:
    """Expired leases are listed by their ends, equal ends by the order of enqueueing; live leases are not listed."""
    desk.enqueue("a", "b", "c", "d")
    for lease_ns in (30, 10, 10, 99):
        desk.lease(lease_ns=lease_ns)
    desk.clock.pass_ns(30)
    assert desk.expired() == (("b", 2), ("c", 3), ("a", 1))


def test_a_scan_is_of_one_queue_and_of_leases(desk: Desk) -> None:
    """Other queues' leases are not found, nor are jobs whose lease has ended in any way."""
    desk.enqueue("a", queue="other")
    desk.enqueue("done", "dead", "retried")
    desk.lease("other")
    desk.settle(desk.lease())
    desk.settle(desk.lease(), "dead_letter")
    desk.retry(desk.lease())
    desk.clock.pass_ns(LEASE)
    assert desk.expired() == ()
    assert desk.expired("other") == (("a", 1),)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_reclaimed_job_is_ready_at_once(desk: Desk, guarded: bool) -> None:
    """A job whose lease was taken back can be leased at the same moment, under the next attempt and token."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    assert desk.reclaim(leased, guarded=guarded) == Answer(leased.expires_at, 3, True, until=leased.expires_at)
    again = desk.lease()
    assert (again.attempt, again.token) == (2, 2)


def test_a_guarded_reclaim_waits_for_the_end(desk: Desk) -> None:
    """Guarded, a lease that still lives is not taken back, not even a nanosecond before its end."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.now = leased.expires_at - 1
    refusal = desk.reclaim(leased)
    assert (refusal.accepted, refusal.reason) == (False, "lease_changed")
    assert desk.held() == {"a": "leased"}
    desk.clock.pass_ns(1)
    assert desk.reclaim(leased).accepted


def test_a_guarded_reclaim_spares_a_renewed_lease(desk: Desk) -> None:
    """Guarded, a lease renewed since the scan stays."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.now = leased.expires_at - 1
    desk.renew(leased)
    desk.clock.pass_ns(1)
    assert desk.reclaim(leased).reason == "lease_changed"


@pytest.mark.parametrize("offset", [-1, 1])
def test_a_guarded_reclaim_compares_the_token(desk: Desk, offset: int) -> None:
    """Guarded, an expired lease is not taken back under a token one off."""
    desk.enqueue("a", "b")
    desk.lease()
    leased = desk.lease()
    desk.expire(leased)
    assert desk.answer(Reclaim("b", leased.token + offset, True, 9)).reason == "lease_changed"


def test_a_guarded_reclaim_spares_what_was_settled(desk: Desk) -> None:
    """Guarded, a job that was settled after the scan stays settled, and one that was taken back is not again."""
    desk.enqueue("a", "b")
    a, b = desk.lease(), desk.lease()
    desk.expire(b)
    desk.settle(a)
    desk.reclaim(b)
    assert desk.reclaim(a).reason == desk.reclaim(b).reason == "lease_changed"
    assert desk.held() == {"b": "ready"}


@pytest.mark.parametrize("state", ["live", "done", "dead"])
def test_an_unguarded_reclaim_takes_whatever_is_there(desk: Desk, state: str) -> None:
    """Unguarded, a live lease, a done job and a dead one all become ready again."""
    desk.enqueue("a")
    leased = desk.lease()
    if state != "live":
        desk.settle(leased, "ack" if state == "done" else "dead_letter")
    assert desk.reclaim(leased, guarded=False).accepted
    assert desk.lease().token == leased.token + 1


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize(("max_attempts", "state"), [(1, "dead"), (2, "dead"), (3, "ready")])
def test_a_reclaim_counts_leases(desk: Desk, max_attempts: int, state: str, guarded: bool) -> None:
    """Leases that ended in silence count: a reclaim after the last allowed one buries the job."""
    desk.enqueue("a")
    leased = desk.take_over(desk.lease())
    desk.expire(leased)
    before = desk.position()
    answer = desk.reclaim(leased, guarded=guarded, max_attempts=max_attempts)
    assert desk.held() == {"a": state}
    buried = ("attempts_exhausted", True) if state == "dead" else (None, False)
    assert (answer.accepted, answer.position, answer.reason, answer.buried) == (True, before + 1, *buried)


def test_a_token_of_a_job_that_was_never_leased_is_none(desk: Desk) -> None:
    """Nothing that goes by token settles a job that nobody leased yet, and nothing fences it."""
    desk.enqueue("a")
    assert desk.answer(Settle("a", 0, "ack", True)).reason == "stale_token"
    assert desk.answer(Retry("a", 0, 0, 9, True)).reason == "stale_token"
    assert desk.answer(Reclaim("a", 0, True, 9)).reason == "lease_changed"
    assert desk.answer(Write("a", Effect("k", "acc", 1), 0, fencing=True, dedupe=False)).accepted
    assert desk.held() == {"a": "ready"}
