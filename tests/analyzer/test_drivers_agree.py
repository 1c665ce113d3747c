"""A fault means the same to real processes, over each database, and to the simulator: so the struck job fares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from fencepost_analyzer.check import opened
from fencepost_analyzer.run import run_processes
from fencepost_recorder import Recording
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate

AT_ONCE = 4


def _at(step: str, index: int = 0, attempt: int = 1) -> dict[str, Any]:
    return {"job": "pay-1", "attempt": attempt, "step": step, "index": index}


CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "killed before a write": ("naive", [{"kind": "kill", **_at("write", 1), "when": "before"}]),
    "killed in the middle of a write": ("naive", [{"kind": "kill", **_at("write", 1), "when": "begun"}]),
    "killed after a commit": ("naive", [{"kind": "kill", **_at("write", 1), "when": "committed"}]),
    "killed after a write": ("naive", [{"kind": "kill", **_at("write", 1), "when": "after"}]),
    "killed in the open transaction": ("atomic", [{"kind": "kill", **_at("write", 1), "when": "after"}]),
    "killed as the transaction commits": ("transactional", [{"kind": "kill", **_at("apply"), "when": "committed"}]),
    "killed after the settle": ("naive", [{"kind": "kill", **_at("settle"), "when": "committed"}]),
    "paused past the lease": (
        "naive",
        [{"kind": "pause", **_at("write", 1), "until": _at("settle", attempt=2)}],
    ),
    "acknowledgement lost": ("naive", [{"kind": "lost_request", **_at("settle")}]),
    "reply to the acknowledgement lost": ("naive", [{"kind": "lost_reply", **_at("settle")}]),
    "write lost": ("naive", [{"kind": "lost_request", **_at("write", 1)}]),
    "reply to a write lost": ("naive", [{"kind": "lost_reply", **_at("write", 1)}]),
    "write refused": ("naive", [{"kind": "db_error", **_at("write", 1)}]),
    "write refused in the open transaction": ("transactional", [{"kind": "db_error", **_at("write", 1)}]),
    "enqueue refused": ("naive", [{"kind": "db_error", **_at("enqueue", attempt=0)}]),
    "slow beyond the lease": ("naive", [{"kind": "slow", **_at("work", 3), "at_most_ms": 2_000}]),
    "slow but renewed": ("renewed", [{"kind": "slow", **_at("work", 3), "at_most_ms": 1_500}]),
}


def _scenario(name: str) -> Scenario:
    policy, faults = CASES[name]
    queue = {"name": "payments", "workload": "payments", "jobs": 1, "workers": 2, "policy": policy}
    return Scenario.from_dict({"id": "agree", "queues": [queue], "faults": faults})


def _meaning(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    """What became of the job, apart from which of the two workers was the first to get it, and when."""
    told: dict[str, list[tuple[Any, ...]]] = {"in order": [], "besides": []}
    ordered = sorted(rows, key=lambda row: (row["position"] or 0, row["at"], row["event"]))
    for row in ordered:
        entry = tuple(row[key] for key in ("event", "job_id", "attempt", "effect_key", "outcome", "reason"))
        told["in order" if row["position"] is not None else "besides"].append(entry)
    told["besides"].sort(key=str)
    return told


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Recording]]]:
    postgres = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    recordings = tmp_path_factory.mktemp("recordings")
    run = partial(run_processes, recordings=recordings, postgres=postgres)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, _scenario(name)) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_processes_and_simulator_agree_on_what_a_fault_does(name: str, recorded: dict[str, Future[Recording]]) -> None:
    sink = ColumnSink()
    simulate(_scenario(name), sink, seed=1)
    with opened(recorded[name].result()) as (connection, _):
        cursor = connection.execute("SELECT * FROM events")
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert _meaning(rows) == _meaning(sink.rows())
