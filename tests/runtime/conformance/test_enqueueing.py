"""Conformance: what enqueueing stores and refuses, and what a queue says that it holds."""

from __future__ import annotations

from runtime.support import START, Desk, a_job

from fencepost_runtime.operations import Answer, Effect, Enqueue, Held, Inventory, Job


def test_an_enqueue_is_accepted_at_the_clock_s_time(desk: Desk) -> None:
    """Enqueueing a new job is accepted, at the time of the clock, and takes the database's first position."""
    assert desk.do(Enqueue(a_job())) == Answer(START, 1, True)


def test_an_enqueued_job_is_ready(desk: Desk) -> None:
    """What was enqueued is held, ready."""
    desk.enqueue("a")
    assert desk.held() == {"a": "ready"}


def test_an_id_is_taken_once(desk: Desk) -> None:
    """A second job under the same id is refused as a duplicate; the refusal has its time and position too."""
    desk.enqueue("a")
    desk.clock.pass_ns(5)
    assert desk.do(Enqueue(a_job("a"))) == Answer(START + 5, 2, False, "duplicate")


def test_a_refused_duplicate_changes_nothing(desk: Desk) -> None:
    """The first job under an id stays as it was, whatever the second one asked for."""
    desk.enqueue("a")
    desk.answer(Enqueue(Job("a", "q", "other", (Effect("else", "else", 1),))))
    assert desk.lease().job == a_job("a")
    assert desk.held() == {"a": "leased"}


def test_an_id_is_taken_across_queues_and_for_ever(desk: Desk) -> None:
    """An id stays taken in other queues, and after its job is done."""
    desk.enqueue("a")
    assert desk.answer(Enqueue(a_job("a", "other"))).reason == "duplicate"
    desk.settle(desk.lease())
    assert desk.answer(Enqueue(a_job("a"))).reason == "duplicate"
    assert desk.held() == desk.held("other") == {}


def test_a_job_comes_back_as_it_was_enqueued(desk: Desk) -> None:
    """A lease carries the whole job: name, effects in order, amounts, work and trace context."""
    job = Job("a", "q", "pay", (Effect("k1", "acc", -(10**12)), Effect("k2", "acc", 0)), 250, "00-aa-bb-01")
    desk.do(Enqueue(job))
    assert desk.lease().job == job


def test_a_job_without_effects_is_a_job(desk: Desk) -> None:
    """Having no effects is allowed, from enqueue to settle."""
    desk.do(Enqueue(Job("a", "q", "nothing", ())))
    leased = desk.lease()
    assert leased.job.effects == ()
    assert desk.write_all(leased, settle=True).writes == ()
    assert desk.held() == {}


def test_an_inventory_lists_what_is_not_done(desk: Desk) -> None:
    """An inventory names each held job with its state, in the order of enqueueing, and leaves out what is done."""
    desk.enqueue("z", "y", "x", "w")
    desk.settle(desk.lease())
    desk.settle(desk.lease(), "dead_letter")
    desk.lease()
    desk.clock.pass_ns(7)
    before = desk.position()
    held = desk.do(Inventory("q"))
    assert held == Held(START + 7, before + 1, (("y", "dead"), ("x", "leased"), ("w", "ready")))


def test_an_inventory_is_of_one_queue(desk: Desk) -> None:
    """Other queues' jobs are not in an inventory; a queue that nobody used holds nothing."""
    desk.enqueue("a")
    desk.enqueue("b", queue="other")
    assert (desk.held(), desk.held("other"), desk.held("unused")) == ({"a": "ready"}, {"b": "ready"}, {})
