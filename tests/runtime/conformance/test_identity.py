"""Conformance: names are data, jobs that are not there are errors, positions and tokens never repeat."""

from __future__ import annotations

import random

import pytest
from runtime.random_operations import random_operations
from runtime.support import Desk, a_job, one_sentence

from fencepost_runtime.errors import BackendError, UnknownJob
from fencepost_runtime.operations import (
    Answer,
    Backend,
    Batch,
    Effect,
    Enqueue,
    Held,
    Leased,
    Operation,
    Reclaim,
    Renew,
    Result,
    Retry,
    Scanned,
    Settle,
    Write,
    WriteAll,
)

HOSTILE = [
    "'; DROP TABLE jobs; --",
    '"quoted" and `back`',
    "%s %(job)s {job} :job_id ?1 $1",
    "new\nline\r\ttab",
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "naïve café 日本語 😀 \u202eright to left",
    "e\u0301 is not \u00e9",
    " ",
    "0",
    "NULL",
    "x" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_only_data(desk: Desk, name: str) -> None:
    """Whatever a job, queue, account or effect is called, it goes through every operation unchanged."""
    effect = Effect(name, name, 1)
    job = a_job(name, name)
    desk.do(Enqueue(job))
    leased = desk.lease(name)
    assert leased.job == job
    assert desk.expired(name) == ()
    assert desk.renew(leased).accepted
    assert desk.answer(Write(name, effect, leased.token, True, True)).accepted
    assert desk.answer(Write(name, effect, leased.token, True, True)).reason == "duplicate"
    desk.clock.pass_ns(10**12)
    assert desk.expired(name) == ((name, leased.token),)
    assert desk.reclaim(leased).accepted
    assert desk.held(name) == {name: "ready"}
    assert desk.settle(desk.lease(name)).accepted
    assert desk.backend.balances() == {name: 1}


def test_names_that_look_alike_are_different(desk: Desk) -> None:
    """Names differ as soon as one of their code points does: case, blanks and accents are not folded."""
    names = ["a", "A", "a ", "\u00e9", "e\u0301", "1", "1.0", "01"]
    for name in names:
        assert desk.answer(Enqueue(a_job(name))).accepted
    assert list(desk.held()) == names


@pytest.mark.parametrize("name", ["a\x00", "a\x00b", "half \ud800 a character"], ids=["last", "inside", "surrogate"])
def test_a_name_is_stored_as_it_is_or_refused(desk: Desk, name: str) -> None:
    """A name that a database has no form for is refused as a BackendError that applied nothing, and never changed."""
    desk.enqueue("a")
    try:
        stored = desk.answer(Enqueue(a_job(name))).accepted
    except BackendError as error:
        stored = False
        assert "refused a step" in one_sentence(error)
    assert list(desk.held()) == (["a", name] if stored else ["a"])
    assert desk.position() == (4 if stored else 3)


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1])
def test_a_number_out_of_range_is_written_as_it_is_or_refused(desk: Desk, amount: int) -> None:
    """An amount that a database has no form for is refused as a BackendError, with all that its transaction did."""
    desk.enqueue("a")
    leased = desk.lease()
    effects = (Effect("small", "acc", 1), Effect("large", "acc", amount))
    try:
        desk.do(WriteAll("a", effects, leased.token, True, True, True))
    except BackendError as error:
        assert "refused a step" in one_sentence(error)
        assert (desk.held(), desk.backend.balances()) == ({"a": "leased"}, {})
        assert desk.position() == 4
    else:
        assert (desk.held(), desk.backend.balances()) == ({}, {"acc": 1 + amount})


@pytest.mark.parametrize(
    "operation",
    [
        Renew("ghost", 1, 1),
        Write("ghost", Effect("k", "acc", 1), 1, fencing=True, dedupe=False),
        WriteAll("ghost", (Effect("k", "acc", 1),), 1, False, False, False),
        Settle("ghost", 1, "ack", True),
        Settle("ghost", 1, "ack", False),
        Retry("ghost", 1, 0, 1, True),
        Reclaim("ghost", 1, True, 1),
        Reclaim("ghost", 1, False, 1),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_a_job_that_is_not_there_is_an_error(desk: Desk, operation: Operation) -> None:
    """What concerns a job that was never enqueued raises UnknownJob, a BackendError, and applies nothing."""
    with pytest.raises(UnknownJob, match="no job 'ghost'") as caught:
        desk.do(operation)
    assert isinstance(caught.value, BackendError)
    assert desk.backend.balances() == {}
    assert desk.position() == 1


def test_positions_are_unbroken_and_tokens_rise(backend: Backend) -> None:
    """Over a thousand random operations every position is given out once, in order, and queues' tokens count up."""
    desk = Desk(backend)
    positions: list[int] = []
    tokens: dict[str, list[int]] = {}
    times: list[int] = []
    for operation, passed in random_operations(random.Random(7), 1_000):
        desk.clock.pass_ns(passed)
        try:
            result = desk.do(operation)
        except UnknownJob:
            continue
        positions += _positions(result)
        times += [result.at] if isinstance(result, Answer | Leased | Held | Scanned) else []
        if isinstance(result, Leased):
            tokens.setdefault(result.job.queue, []).append(result.token)
    assert positions == list(range(1, len(positions) + 1))
    assert times == sorted(times)
    assert len(tokens) > 1
    assert all(given == list(range(1, len(given) + 1)) for given in tokens.values())


def _positions(result: Result) -> list[int]:
    match result:
        case Batch(writes, settled):
            return [answer.position for answer in (*writes, settled) if answer is not None]
        case None:
            return []
    return [result.position]
