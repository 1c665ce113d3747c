"""Conformance: every backend answers every sequence of operations as the model in memory does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.conformance.conftest import Opens
from runtime.random_operations import JOBS, KEYS, QUEUES, random_operations
from runtime.support import ManualClock

from fencepost_runtime.errors import BackendError
from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import (
    Backend,
    Clock,
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

_queue = st.sampled_from(QUEUES)
_job = st.sampled_from(JOBS)
_token = st.integers(0, 6)
_small = st.integers(0, 12)
_some = st.lists(st.sampled_from(KEYS), max_size=3).map(tuple)
OPERATIONS = st.one_of(
    st.builds(Enqueue, st.builds(Job, st.sampled_from(JOBS[:-1]), _queue, st.just("work"), _some)),
    st.builds(Lease, _queue, st.just("w"), _small),
    st.builds(Lease, _queue, st.just("w"), _small),
    st.builds(Renew, _job, _token, _small),
    st.builds(Write, _job, st.sampled_from(KEYS), _token, st.booleans(), st.booleans()),
    st.builds(WriteAll, _job, _some, _token, st.booleans(), st.booleans(), st.booleans()),
    st.builds(Settle, _job, _token, st.sampled_from(["ack", "dead_letter"]), st.booleans()),
    st.builds(Retry, _job, _token, _small, st.integers(1, 3), st.booleans()),
    st.builds(Expired, _queue),
    st.builds(Reclaim, _job, _token, st.booleans(), st.integers(1, 3)),
    st.builds(Inventory, _queue),
)


def answered(backend: Backend, operation: Operation, clock: Clock) -> Any:
    try:
        return backend.apply(operation, clock)
    except BackendError as error:
        return type(error).__name__, str(error)


def in_step(model: Backend, other: Backend, sequence: list[tuple[Operation, int]]) -> None:
    """Both answer each operation alike, and agree on every account and every job at the end."""
    clock = ManualClock()
    for number, (operation, passed) in enumerate(sequence):
        clock.pass_ns(passed)
        expected, actual = (answered(backend, operation, clock) for backend in (model, other))
        assert actual == expected, f"step {number}, {operation}"
    assert other.balances() == model.balances()
    for queue in QUEUES:
        assert other.apply(Inventory(queue), clock) == model.apply(Inventory(queue), clock)


@given(sequence=st.lists(st.tuples(OPERATIONS, st.sampled_from([0, 1, 5])), max_size=25))
@settings(max_examples=60)
def test_short_sequences_are_answered_alike(
    other: Opens, tmp_path_factory: pytest.TempPathFactory, sequence: list[tuple[Operation, int]]
) -> None:
    """For any short sequence of operations on a few jobs the answers, errors included, are the model's."""
    with other(tmp_path_factory.mktemp("backend")) as backend:
        in_step(MemoryBackend(), backend, sequence)


@pytest.mark.parametrize("seed", range(3))
def test_long_sequences_are_answered_alike(other: Opens, seed: int, tmp_path: Path) -> None:
    """Over five hundred random operations on a growing queue the answers stay the model's."""
    with other(tmp_path) as backend:
        in_step(MemoryBackend(), backend, list(random_operations(random.Random(seed), 500)))
