"""Conformance: who is granted which lease, until when, and what renews it."""

from __future__ import annotations

import pytest
from runtime.support import LEASE, START, Desk

from fencepost_runtime.operations import Answer, Lease, Leased, Renew, Settlement


def test_an_empty_queue_grants_nothing(desk: Desk) -> None:
    """With no job there is no lease, and asking takes no position."""
    assert desk.ask_lease() is None
    assert desk.position() == 1


def test_the_first_lease_says_all(desk: Desk) -> None:
    """A lease has the first attempt, the first token, and ends the asked time from now."""
    desk.enqueue("a")
    desk.clock.pass_ns(3)
    leased = desk.do(Lease("q", "w", 777))
    assert isinstance(leased, Leased)
    assert (leased.at, leased.position, leased.job.id) == (START + 3, 2, "a")
    assert (leased.attempt, leased.token, leased.expires_at) == (1, 1, START + 3 + 777)


def test_jobs_are_leased_in_the_order_of_enqueueing(desk: Desk) -> None:
    """Of jobs that became available at the same time, the one enqueued first goes first, whatever its name."""
    desk.enqueue("z", "a", "m")
    assert [desk.lease().job.id for _ in range(3)] == ["z", "a", "m"]


def test_the_longest_available_goes_first(desk: Desk) -> None:
    """A retried job queues by when it became available again: behind those available earlier, before later ones."""
    desk.enqueue("first", "second")
    first, _ = desk.lease(), desk.lease()
    desk.retry(first, delay_ns=10)
    desk.clock.pass_ns(5)
    desk.enqueue("third")
    desk.clock.pass_ns(10)
    desk.enqueue("fourth")
    assert [desk.lease().job.id for _ in range(3)] == ["third", "first", "fourth"]


def test_nothing_is_leased_before_it_is_available(desk: Desk) -> None:
    """A job given back with a delay can be leased from the very moment that the delay ends, and not before."""
    desk.enqueue("a")
    desk.retry(desk.lease(), delay_ns=50)
    desk.clock.pass_ns(49)
    assert desk.ask_lease() is None
    desk.clock.pass_ns(1)
    assert desk.lease().attempt == 2


def test_a_leased_job_is_not_leased_again(desk: Desk) -> None:
    """A lease keeps others away even after it ran out, until it is taken back."""
    desk.enqueue("a")
    leased = desk.lease()
    assert desk.ask_lease() is None
    desk.expire(leased)
    desk.clock.pass_ns(1)
    assert desk.ask_lease() is None


@pytest.mark.parametrize("settlement", ["ack", "dead_letter"])
def test_a_finished_job_is_not_leased_again(desk: Desk, settlement: Settlement) -> None:
    """Neither a done nor a dead job is ever leased."""
    desk.enqueue("a")
    desk.settle(desk.lease(), settlement)
    assert desk.ask_lease() is None


def test_a_lease_is_of_its_queue(desk: Desk) -> None:
    """A worker is granted jobs of the queue it asked, though another queue's have waited longer."""
    desk.enqueue("a", queue="other")
    desk.clock.pass_ns(1)
    desk.enqueue("b")
    assert desk.lease().job.id == "b"
    assert desk.ask_lease() is None


def test_tokens_rise_by_one_within_each_queue(desk: Desk) -> None:
    """Each queue counts its leases from one, over all of its jobs; another queue's leases do not disturb it."""
    desk.enqueue("a", "b")
    desk.enqueue("x", queue="other")
    a, x, b = desk.lease(), desk.lease("other"), desk.lease()
    desk.retry(a)
    assert (a.token, b.token, x.token) == (1, 2, 1)
    assert desk.lease().token == 3


def test_attempts_count_a_job_s_leases(desk: Desk) -> None:
    """Each lease of a job is its next attempt, however the one before ended; other jobs count their own."""
    desk.enqueue("a", "b")
    a = desk.lease()
    desk.lease()
    desk.retry(a)
    second = desk.lease()
    third = desk.take_over(second)
    assert [a.attempt, second.attempt, third.attempt] == [1, 2, 3]


def test_a_renewal_counts_from_now(desk: Desk) -> None:
    """A renewed lease ends the asked time from now, not from its old end, and says so."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.pass_ns(10)
    assert desk.renew(leased, 500) == Answer(START + 10, 3, True, until=START + 510)
    desk.clock.pass_ns(500)
    assert desk.expired() == (("a", leased.token),)


def test_a_renewal_may_come_at_the_last_moment(desk: Desk) -> None:
    """One nanosecond before its end a lease can still be renewed; at its end it cannot."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.now = leased.expires_at - 1
    assert desk.renew(leased, 5).accepted
    desk.clock.pass_ns(5)
    refusal = desk.renew(leased)
    assert (refusal.accepted, refusal.reason, refusal.until) == (False, "expired", None)


def test_a_refused_renewal_extends_nothing(desk: Desk) -> None:
    """After a refused renewal the lease is as expired as before."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    desk.renew(leased)
    assert desk.expired() == (("a", leased.token),)


@pytest.mark.parametrize("offset", [-1, 1])
def test_only_the_current_token_renews(desk: Desk, offset: int) -> None:
    """A token one off, older or newer, renews nothing."""
    desk.enqueue("a", "b")
    desk.lease()
    leased = desk.lease()
    assert desk.answer(Renew("b", leased.token + offset, LEASE)).reason == "stale_token"


def test_a_lease_that_was_taken_over_renews_nothing(desk: Desk) -> None:
    """The former holder cannot renew, and its try does not shorten the new holder's lease."""
    desk.enqueue("a")
    former = desk.lease()
    holder = desk.take_over(former)
    assert desk.renew(former, 1).reason == "stale_token"
    desk.clock.now = holder.expires_at - 1
    assert desk.expired() == ()


@pytest.mark.parametrize("ending", ["retry", "reclaim", "ack", "dead_letter"])
def test_an_ended_lease_cannot_be_renewed(desk: Desk, ending: str) -> None:
    """A lease that was given back, taken back or settled is over, though its token is still the newest."""
    desk.enqueue("a")
    leased = desk.lease()
    match ending:
        case "retry":
            desk.retry(leased)
        case "reclaim":
            desk.reclaim(leased, guarded=False)
        case "ack":
            desk.settle(leased)
        case "dead_letter":
            desk.settle(leased, "dead_letter")
    assert desk.renew(leased).reason == "stale_token"
