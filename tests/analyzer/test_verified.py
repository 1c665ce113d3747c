"""Every run is understood: recorded anew under any policy and seed, it verifies, digest and verdicts.

The work and the faults are those of the failure modes or drawn, the policy is a preset, a mixture of fields or the
failure mode's own; one run in five is made by real processes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from analyzer.lab import verified
from random_scenarios import random_policy, random_scenario

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.run import RunFailed, run_processes, run_simulated
from fencepost_recorder import open_recording
from fencepost_runtime.policy import preset, presets
from fencepost_runtime.scenario import Scenario

RUNS = 1_000


@dataclass(frozen=True)
class Drawn:
    scenario: Scenario
    seed: int
    real: bool


def drawn(number: int) -> Drawn:
    """Run `number`: the failure modes in turn, and every fourth a scenario drawn from all that there can be."""
    random = Random(number)
    modes = list(failure_modes().values())
    real = number % 5 == 0
    if number % 4 == 3:
        return Drawn(random_scenario(random.randrange(10**9)), number, real)
    mode = modes[number % len(modes)]
    scenario = random.choice((mode.scenario, mode.scenario, mode.near_miss))
    match random.randrange(3):
        case 0:
            scenario = scenario.with_policy(preset(random.choice(sorted(presets()))))
        case 1:
            # Shorter leases than the work would make every run a retry storm.
            scenario = scenario.with_policy(random_policy(random).replace(lease_ms=1_000))
    return Drawn(scenario, number, real)


def recorded(one: Drawn, folder: Path) -> Iterator[str]:
    """Runs and verifies; what is wrong, if anything is."""
    name = f"run-{one.seed}"
    run = run_processes if one.real else run_simulated
    try:
        recording = run(one.scenario, folder, recording_id=name, seed=one.seed)
    except RunFailed:
        # Its time was up: what happened until then is recorded all the same, and has to verify.
        recording = open_recording(folder / name)
    done = verified(recording)
    if not done.equal or done.recorded_digest != done.digest:
        yield f"{name} {'real' if one.real else 'simulated'} {one.scenario.to_json()} {done.divergence}"


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.campaign) for block in range(1, 4))])
def test_recorded_runs_verify(block: int, tmp_path: Path) -> None:
    """Ten a block, two of them on real processes."""
    assert [wrong for number in range(10) for wrong in recorded(drawn(10 * block + number), tmp_path)] == []


@pytest.mark.campaign
def test_a_thousand_recorded_runs_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One in five on real processes."""
    wrong, made = list[str](), Counter[str]()
    for number in range(1_000, 1_000 + RUNS):
        one = drawn(number)
        wrong += recorded(one, tmp_path)
        made["real" if one.real else "simulated"] += 1
    with capsys.disabled():
        told = {"figure": "recorded_runs_that_do_not_verify", "value": len(wrong), "of": RUNS, **made}
        sys.stdout.write(json.dumps(told) + "\n")
    assert wrong == []
