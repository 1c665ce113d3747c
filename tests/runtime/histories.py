"""Histories of scenarios: simulated, written down as rows, and named by a digest.

`histories.py FROM TO` prints the digest of the histories of the random scenarios with these seeds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate
from fencepost_runtime.world import Simulated

Rows = list[dict[str, Any]]


def history(scenario: Scenario, seed: int = 0) -> tuple[Rows, Simulated]:
    sink = ColumnSink()
    result = simulate(scenario, sink, seed)
    return sink.rows(), result


def digest(seeds: range) -> str:
    from random_scenarios import random_scenario

    state = hashlib.sha256()
    for seed in seeds:
        rows, result = history(random_scenario(seed), seed)
        state.update(json.dumps([rows, result.balances, result.ended_at], sort_keys=False).encode())
    return state.hexdigest()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.stdout.write(digest(range(int(sys.argv[1]), int(sys.argv[2]))))
