"""The runtime tells what it does once: its spans, mapped by SQL, are its event columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fencepost_analyzer.catalogue import demo_scenario, failure_modes
from fencepost_analyzer.check import opened
from fencepost_analyzer.run import run_simulated
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Fault, Point, Scenario
from fencepost_runtime.simulate import simulate

# Who wrote an event down, and under which ids, differs between the two ways; the event itself must not.
OF_THE_SINK = {"host", "producer", "producer_seq", "producer_end_seq", "trace_id", "span_id"}


def _everything() -> Scenario:
    """Every kind of event: renewals, retries, burials by retry and by reclaim, lost and refused steps, all crashes."""
    faults = [
        Fault("kill", Point("doc-1", 1, "write", 0, "committed")),
        Fault("kill", Point("doc-2", 1, "settle", 0, "begun")),
        Fault("lost_reply", Point("doc-3", 1, "write", 1)),
        Fault("db_error", Point("doc-4", 1, "write", 0)),
        Fault("db_error", Point("doc-4", 2, "write", 1)),
        Fault("db_error", Point("doc-4", 3, "write", 2)),
        Fault("slow", Point("doc-5", 1, "work", 2), at_most_ms=1_500),
        Fault("pause", Point("doc-6", 1, "write", 1), at_most_ms=1_500),
        Fault("lost_request", Point("doc-7", 1, "settle")),
        Fault("db_error", Point("doc-8", 0, "enqueue")),
    ]
    data = {
        "id": "everything",
        "queues": [{"name": "q", "workload": "ai-pipeline", "jobs": 8, "workers": 5, "policy": "renewed"}],
    }
    scenario = Scenario.from_dict(data)
    return Scenario(scenario.id, scenario.queues, tuple(faults))


SCENARIOS = {
    "everything": _everything(),
    "everything atomic": _everything().with_policy(preset("transactional")),
    "everything early": _everything().with_policy(preset("early-ack")),
    "demo": demo_scenario(),
    **{mode.id: mode.scenario for mode in failure_modes().values()},
}


def _events(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    ordered = sorted(rows, key=lambda row: (row["worker_id"], row["producer_seq"], row["job_id"] or ""))
    return [[(key, value) for key, value in row.items() if key not in OF_THE_SINK] for row in ordered]


@pytest.mark.parametrize("name", SCENARIOS)
def test_mapping_the_spans_of_a_run_gives_its_columns(name: str, tmp_path: Path) -> None:
    columns = ColumnSink()
    simulate(SCENARIOS[name], columns, seed=5)
    recording = run_simulated(SCENARIOS[name], tmp_path, seed=5)
    with opened(recording) as (connection, unmapped):
        cursor = connection.execute("SELECT * FROM events")
        names = [column[0] for column in cursor.description or ()]
        mapped = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert unmapped == ()
    assert recording.gaps().num_rows == 0
    assert _events(mapped) == _events(columns.rows())


def test_the_scenario_of_everything_tells_every_event_that_the_runtime_knows() -> None:
    seen = set()
    for name in ("everything", "everything atomic", "FM-003"):
        sink = ColumnSink()
        simulate(SCENARIOS[name], sink, seed=5)
        seen |= {row["event"] for row in sink.rows()}
    assert seen == {
        "enqueue", "lease", "run", "renew", "write", "ack", "retry", "dead_letter", "scan", "reclaim", "inventory",
        "crash", "pause", "resume",
    }  # fmt: skip
