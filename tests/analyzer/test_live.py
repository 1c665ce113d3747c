"""Live replay: the recorded incident once more on real processes, as a recording that is verified like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from analyzer.lab import edit, fencepost, one_line

from fencepost_analyzer.case import open_case
from fencepost_analyzer.catalogue import failure_mode, failure_modes
from fencepost_analyzer.live import Live, live
from fencepost_analyzer.run import run_processes, run_simulated
from fencepost_recorder import Recording
from fencepost_runtime.policy import Policy, preset
from fencepost_runtime.scenario import Fault, Point, Scenario


def relive(folder: Path, scenario: Scenario, policy: Policy | None = None) -> Live:
    def run(wanted: Scenario, seed: int) -> Recording:
        return run_processes(wanted, folder, recording_id="live", seed=seed)

    with open_case(run_simulated(scenario, folder, recording_id="recorded", seed=1)) as case:
        return live(case, run, policy)


@pytest.mark.parametrize("mode", failure_modes())
def test_an_incident_happens_again_on_real_processes(mode: str, tmp_path: Path) -> None:
    """A live replay breaks what the recording broke, nothing else, and the simulator comes to the live history."""
    done = relive(tmp_path, failure_mode(mode).scenario)
    assert done.doubts == ()
    assert done.verified.equal
    assert done.after.violated == done.simulated.violated == failure_mode(mode).violates
    assert done.agrees
    assert done.exit_code == 0


def test_a_cure_is_tried_live(tmp_path: Path) -> None:
    """Under the healing policy the same faults strike real processes and break nothing."""
    done = relive(tmp_path, failure_mode("FM-002").scenario, preset("fenced"))
    assert (done.mode, done.doubts, done.after.violated, done.exit_code) == ("fork", (), (), 0)


def test_a_fault_that_never_strikes_live_is_a_doubt(tmp_path: Path) -> None:
    """Where the faults are left out of the live run nothing is shown: exit code 3, and the fault is named."""
    fault = Fault("kill", Point("pay-1", 1, "write", 1))
    scenario = replace(failure_mode("FM-003").scenario, faults=(fault,))

    def harmless(wanted: Scenario, seed: int) -> Recording:
        return run_processes(replace(wanted, faults=()), tmp_path, recording_id="live", seed=seed)

    with open_case(run_simulated(scenario, tmp_path, recording_id="recorded", seed=1)) as case:
        done = live(case, harmless)
    assert done.exit_code == 3
    assert any("the kill" in doubt and "never struck" in doubt for doubt in done.doubts)


def test_the_command_says_all_three_verdicts(tmp_path: Path) -> None:
    """`replay --live` keeps a recording that `check` finds, and shows recorded, simulated and live verdicts."""
    fencepost("run", "FM-002", "--simulate", "--id", "was", "--recordings", tmp_path)
    done = fencepost("replay", "was", "--live", "--id", "again", "--recordings", tmp_path)
    assert done.code == 0, done.err
    for said in ("recorded", "simulated", "live", "INV-003", "again"):
        assert said in done.out
    assert "the live run was on SQLite, the recording in the simulator" in done.out
    assert fencepost("check", "again", "--recordings", tmp_path).code == 1


def test_an_id_without_a_live_run_is_refused(tmp_path: Path) -> None:
    """What would name nothing is said, with the way out."""
    fencepost("run", "FM-002", "--simulate", "--id", "was", "--recordings", tmp_path)
    done = fencepost("replay", "was", "--id", "again", "--recordings", tmp_path)
    assert done.code == 2
    assert "--live" in done.err


def test_a_database_system_that_nobody_knows_is_never_taken_for_another(tmp_path: Path) -> None:
    """A recording of a run on a database that is neither of ours is refused in one sentence, until one is chosen."""
    run_simulated(failure_mode("FM-002").scenario, tmp_path, recording_id="was", seed=1)
    fencepost("export", "was", "--recordings", tmp_path, "--output", tmp_path / "was.jsonl")
    said = '{"key":"job.scenario.id","value":'
    other = '{"key":"db.system.name","value":{"stringValue":"oracle"}},'
    edit(tmp_path / "was.jsonl", said, other + said)
    fencepost("import", tmp_path / "was.jsonl", "--recordings", tmp_path, "--id", "oracle")
    done = fencepost("replay", "oracle", "--live", "--recordings", tmp_path)
    assert (done.code, done.out, one_line(done.err)) == (2, "", True)
    assert "ran on 'oracle'" in done.err and "--backend sqlite or --backend postgres" in done.err
