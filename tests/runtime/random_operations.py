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


def random_operations(draw: random.Random, count: int) -> Iterator[tuple[Operation, int]]:
    """`count` operations, each with the nanoseconds that pass before it."""
    for number in range(count):
        yield _operation(draw, number), draw.choice((0, 0, 1, 5))


def _operation(draw: random.Random, number: int) -> Operation:
    queue, job, token = draw.choice(QUEUES), draw.choice(JOBS), draw.randint(0, 2 + number // 12)
    # New names keep the queues supplied for as long as the sequence lasts.
    name = draw.choice((*JOBS[:-1], f"job-{number}", f"job-{number}"))
    return draw.choice(
        (
            Enqueue(Job(name, queue, "work", tuple(draw.sample(KEYS, draw.randint(0, 3))))),
            *[Lease(queue, "w", draw.choice((1, 10, 100)))] * 3,
            Renew(job, token, draw.choice((1, 10))),
            Write(job, draw.choice(KEYS), token, _yes(draw), _yes(draw)),
            WriteAll(job, tuple(draw.choices(KEYS, k=draw.randint(0, 3))), token, _yes(draw), _yes(draw), _yes(draw)),
            Settle(job, token, draw.choice(("ack", "dead_letter")), _yes(draw)),
            Retry(job, token, draw.choice((0, 10)), draw.randint(1, 4), _yes(draw)),
            Reclaim(job, token, _yes(draw), draw.randint(1, 4)),
            Expired(queue),
            Inventory(queue),
        )
    )


def _yes(draw: random.Random) -> bool:
    return draw.random() < 0.5
