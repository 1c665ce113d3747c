"""How long a recording of ten thousand events takes to verify: read, follow twice, compare, judge before and after."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fencepost_analyzer.case import open_case
from fencepost_analyzer.replay import verify
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import open_recording
from fencepost_runtime.scenario import Scenario

SCENARIO = Scenario.from_dict(
    {
        "id": "many jobs",
        "at_most_ms": 3_600_000,
        "queues": [{"name": "payments", "workload": "payments", "jobs": 1_700, "workers": 4, "policy": "naive"}],
        "faults": [
            {"kind": "pause", "job": f"pay-{number}", "attempt": 1, "step": "write", "index": 1, "at_most_ms": 2_000}
            for number in range(1, 1_700, 20)
        ],
    }
)


def figures() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        directory = run_simulated(SCENARIO, Path(folder), seed=1).directory
        found = []
        for _ in range(3):
            began = time.process_time()
            with open_case(open_recording(directory)) as case:
                replay = verify(case)
            found.append(time.process_time() - began)
    assert replay.equal
    yield {"figure": "verify", "unit": "s of processor time", "events": replay.events, "seconds": round(min(found), 2)}
