"""Conformance: which writes are applied, one by one or all in one transaction."""

from __future__ import annotations

import pytest
from runtime.support import START, Desk, a_job

from fencepost_runtime.operations import Answer, Batch, Effect, Enqueue, Job, Write, WriteAll


def test_a_write_is_applied_once_it_is_asked(desk: Desk) -> None:
    """A write adds its amount to its account, at the clock's time and the next position."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.clock.pass_ns(4)
    assert desk.write(leased) == Answer(START + 4, 3, True)
    assert desk.backend.balances() == {"debit": 10}


def test_balances_add_up_by_account(desk: Desk) -> None:
    """An account's balance is the sum of all writes to it, of either sign; one that sums to nothing is still there."""
    for number, (account, amount) in enumerate([("y", 7), ("x", 7), ("y", -7), ("x", 5)]):
        desk.answer(Write("a", Effect(f"k{number}", account, amount), 1, False, False))
    assert list(desk.backend.balances().items()) == [("x", 12), ("y", 0)], "in the order of their names"


def test_nothing_was_written_at_first(desk: Desk) -> None:
    """A new store has no accounts."""
    assert desk.backend.balances() == {}


def test_without_guards_everything_is_applied(desk: Desk) -> None:
    """With neither fencing nor dedupe a write is applied again, by a former holder, and after the end."""
    desk.enqueue("a")
    former = desk.lease()
    holder = desk.take_over(former)
    assert desk.write(former).accepted
    assert desk.write(holder).accepted
    desk.settle(holder)
    assert desk.write(former).accepted
    assert desk.backend.balances() == {"debit": 30}


def test_dedupe_refuses_a_second_write_of_one_key(desk: Desk) -> None:
    """With dedupe an effect key is written once: the second is refused as a duplicate and adds nothing."""
    desk.enqueue("a")
    leased = desk.lease()
    assert desk.write(leased, dedupe=True).accepted
    second = desk.write(leased, dedupe=True)
    assert (second.accepted, second.reason, second.position) == (False, "duplicate", 4)
    assert desk.write(leased, 1, dedupe=True).accepted
    assert desk.backend.balances() == {"debit": 10, "credit": 20}


def test_dedupe_sees_writes_made_without_it(desk: Desk) -> None:
    """A key written by an unguarded write counts for dedupe; an unguarded write does not ask."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.write(leased)
    assert desk.write(leased, dedupe=True).reason == "duplicate"
    assert desk.write(leased).accepted


def test_dedupe_is_by_key_not_by_job(desk: Desk) -> None:
    """Two jobs that name the same effect write it once between them."""
    effect = Effect("shared", "acc", 3)
    assert desk.answer(Write("a", effect, 1, False, True)).accepted
    assert desk.answer(Write("b", effect, 1, False, True)).reason == "duplicate"


def test_fencing_refuses_an_older_token(desk: Desk) -> None:
    """With fencing a former holder's write is refused as fenced and adds nothing; the holder's own is applied."""
    desk.enqueue("a")
    former = desk.lease()
    holder = desk.take_over(former)
    refusal = desk.write(former, fencing=True)
    assert (refusal.accepted, refusal.reason) == (False, "fenced")
    assert desk.write(holder, fencing=True).accepted
    assert desk.backend.balances() == {"debit": 10}


def test_fencing_asks_for_the_newest_token_only(desk: Desk) -> None:
    """An expired or reclaimed lease still writes under fencing until the next lease is granted."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    assert desk.write(leased, fencing=True).accepted
    desk.reclaim(leased)
    assert desk.write(leased, fencing=True).accepted
    desk.lease()
    assert desk.write(leased, fencing=True).reason == "fenced"


def test_a_newer_lease_of_another_job_fences_nobody(desk: Desk) -> None:
    """A token is compared with its own job's newest, not with the queue's."""
    desk.enqueue("a", "b")
    a = desk.lease()
    desk.lease()
    assert desk.write(a, fencing=True).accepted


def test_a_fenced_duplicate_is_fenced(desk: Desk) -> None:
    """Where both guards would refuse, the answer is fenced: the writer must stop, not go on."""
    desk.enqueue("a")
    former = desk.lease()
    desk.write(former)
    desk.take_over(former)
    assert desk.write(former, fencing=True, dedupe=True).reason == "fenced"


def test_a_transaction_writes_all_in_order(desk: Desk) -> None:
    """A WriteAll applies every effect, each at a position of its own, in the order given, and settles nothing."""
    desk.enqueue("a")
    batch = desk.write_all(desk.lease())
    assert batch.writes == (Answer(START, 3, True), Answer(START, 4, True))
    assert batch.settled is None
    assert desk.held() == {"a": "leased"}
    assert desk.backend.balances() == {"debit": 10, "credit": 20}


def test_a_transaction_settles_with_its_writes(desk: Desk) -> None:
    """With settle, the job is done in the transaction of its writes, at the last of its positions."""
    desk.enqueue("a")
    batch = desk.write_all(desk.lease(), settle=True)
    assert batch.settled == Answer(START, 5, True)
    assert desk.held() == {}
    assert desk.backend.balances() == {"debit": 10, "credit": 20}


def test_a_settling_transaction_of_a_former_holder_is_refused_whole(desk: Desk) -> None:
    """Of a WriteAll that may not settle nothing is applied; each part is refused at a position of its own."""
    desk.enqueue("a")
    former = desk.lease()
    desk.take_over(former)
    before = desk.position()
    batch = desk.write_all(former, settle=True)
    answers = (*batch.writes, batch.settled)
    assert [(a.position - before, a.accepted, a.reason) for a in answers if a] == [
        (number, False, "stale_token") for number in (1, 2, 3)
    ]
    assert desk.backend.balances() == {}
    assert desk.held() == {"a": "leased"}


@pytest.mark.parametrize("ending", ["reclaim", "settle"])
def test_a_settling_transaction_needs_a_lease_that_lives(desk: Desk, ending: str) -> None:
    """A WriteAll with settle is refused after its lease was taken back or its job was settled: nothing runs twice."""
    desk.enqueue("a")
    leased = desk.lease()
    if ending == "reclaim":
        desk.expire(leased)
        desk.reclaim(leased)
    else:
        desk.write_all(leased, settle=True)
    balances = desk.backend.balances()
    batch = desk.write_all(leased, settle=True)
    assert batch.settled is not None
    assert batch.settled.reason == "stale_token"
    assert desk.backend.balances() == balances


def test_an_expired_lease_may_settle_until_it_is_taken_back(desk: Desk) -> None:
    """Expiry alone takes nothing away: as long as nobody reclaimed the lease its holder commits."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.expire(leased)
    batch = desk.write_all(leased, settle=True)
    assert batch.settled is not None
    assert batch.settled.accepted


def test_a_transaction_is_fenced_as_a_whole(desk: Desk) -> None:
    """Under fencing every write of a former holder's transaction is refused."""
    desk.enqueue("a")
    former = desk.lease()
    desk.take_over(former)
    batch = desk.write_all(former, fencing=True)
    assert [answer.reason for answer in batch.writes] == ["fenced", "fenced"]
    assert desk.backend.balances() == {}


def test_a_transaction_writes_what_is_missing(desk: Desk) -> None:
    """With dedupe a transaction leaves out the effects that are there, applies the rest, and settles."""
    desk.enqueue("a")
    leased = desk.lease()
    desk.write(leased, 0)
    batch = desk.write_all(leased, dedupe=True, settle=True)
    assert [answer.reason for answer in batch.writes] == ["duplicate", None]
    assert desk.backend.balances() == {"debit": 10, "credit": 20}
    assert desk.held() == {}


def test_a_transaction_dedupes_within_itself(desk: Desk) -> None:
    """Of two effects with one key in one transaction the second is a duplicate."""
    effect = Effect("k", "acc", 1)
    desk.do(Enqueue(Job("a", "q", "work", (effect,))))
    leased = desk.lease()
    batch = desk.do(WriteAll("a", (effect, effect), leased.token, False, True, False))
    assert isinstance(batch, Batch)
    assert [answer.reason for answer in batch.writes] == [None, "duplicate"]


def test_a_transaction_may_be_empty(desk: Desk) -> None:
    """A job without effects settles by an empty transaction, once."""
    desk.do(Enqueue(a_job("a", keys=())))
    leased = desk.lease()
    assert desk.write_all(leased).writes == ()
    first, second = desk.write_all(leased, settle=True), desk.write_all(leased, settle=True)
    assert (first.settled and first.settled.accepted, second.settled and second.settled.reason) == (True, "stale_token")
