"""Random operations on a few jobs in two queues, drawn so that they meet: tokens near the live ones, known keys."""

from __future__ import annotations

import random
from collections.abc import Iterator

from runtime.support import effects

from fencepost_runtime.operations import (
    Enqueue,
    Expired,
    Inventory,
    Job,
    Lease,
    Operation,
    Reclaim,
    Renew,
    Retry,
    Settle,
    Write,
    WriteAll,
)

QUEUES = ("q", "other")
JOBS = ("a", "b", "c", "d", "ghost")
KEYS = effects("k/x", "k/y", "l/x")
KINDS = (Enqueue, Lease, Lease, Lease, Renew, Write, WriteAll, Settle, Retry, Expired, Reclaim, Inventory)


def random_operations(draw: random.Random, count: int) -> Iterator[tuple[Operation, int]]:
    """`count` operations, each with the nanoseconds that pass before it."""
    for number in range(count):
        yield _operation(draw, number), draw.choice((0, 0, 1, 5))


def _operation(draw: random.Random, number: int) -> Operation:
    kind = draw.choice(KINDS)
    queue, job, token = draw.choice(QUEUES), draw.choice(JOBS), draw.randint(0, 2 + number // 12)
    first, second = draw.random() < 0.5, draw.random() < 0.5
    if kind is Enqueue:
        # New names keep the queues supplied for as long as the sequence lasts.
        name = draw.choice(JOBS[:-1]) if first else f"job-{number}"
        return Enqueue(Job(name, queue, "work", tuple(draw.sample(KEYS, draw.randint(0, 3)))))
    if kind is Lease:
        return Lease(queue, "w", draw.choice((1, 10, 100)))
    if kind is Renew:
        return Renew(job, token, draw.choice((1, 10)))
    if kind is Write:
        return Write(job, draw.choice(KEYS), token, first, second)
    if kind is WriteAll:
        return WriteAll(job, tuple(draw.choices(KEYS, k=draw.randint(0, 3))), token, first, second, draw.random() < 0.5)
    if kind is Settle:
        return Settle(job, token, draw.choice(("ack", "dead_letter")), first)
    if kind is Retry:
        return Retry(job, token, draw.choice((0, 10)), draw.randint(1, 4), first)
    if kind is Reclaim:
        return Reclaim(job, token, first, draw.randint(1, 4))
    return Expired(queue) if kind is Expired else Inventory(queue)
