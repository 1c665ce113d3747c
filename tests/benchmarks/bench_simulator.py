"""How many schedules a second one core simulates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate

SCHEDULES = 500
SCENARIO = Scenario.from_dict(
    {
        "id": "three jobs, two workers, one crash",
        "queues": [{"name": "payments", "workload": "payments", "jobs": 3, "workers": 2, "policy": "naive"}],
        "faults": [{"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 0, "when": "after"}],
    }
)


def figures() -> Iterator[dict[str, Any]]:
    events = 0
    before = time.process_time()
    for seed in range(SCHEDULES):
        sink = ColumnSink()
        simulate(SCENARIO, sink, seed)
        events += len(sink.rows())
    seconds = time.process_time() - before
    yield {"figure": "schedules", "unit": "schedules/s on one core", "rate": round(SCHEDULES / seconds)}
    yield {"figure": "simulated_events", "unit": "events/s on one core", "rate": round(events / seconds)}
