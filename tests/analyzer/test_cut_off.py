"""Recordings that end in the middle are read as far as their evidence goes, and say where that is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from analyzer.cutting import killed, logged, over
from analyzer.lab import fencepost

from fencepost_analyzer.case import open_case
from fencepost_analyzer.catalogue import failure_mode
from fencepost_analyzer.replay import fork, verify
from fencepost_analyzer.retelling import retell
from fencepost_analyzer.run import RunFailed, run_simulated
from fencepost_recorder import Recording, open_recording
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario


def cut(folder: Path, end: signal.Signals = signal.SIGKILL) -> Recording:
    """FM-002, ended while the worker of pay-1 is stopped, before anybody took its lease back; pay-2 is done by then, so
    that nobody is ended in the middle of a step."""

    def stopped(directory: Path) -> bool:
        return logged(directory, "SIGSTOP") and over(directory, "process payments")

    return killed(failure_mode("FM-002").scenario, folder / "recordings", "cut", stopped, end=end)


def test_a_killed_run_is_retold_as_far_as_it_went(tmp_path: Path) -> None:
    """Its scenario has the fault that was seen, follows the recorded history, and says that no inventory is there."""
    with open_case(cut(tmp_path)) as case:
        told = retell(case)
        assert told.explained
        assert [fault.kind for fault in told.scenario.faults] == ["pause"]
        assert any("no inventory" in clause for clause in told.cut_off)
        assert any("attempt 1 of pay-1" in clause for clause in told.under_way)
        assert verify(case).equal


def test_a_killed_run_heals_nothing(tmp_path: Path) -> None:
    """What came after the end may have been the fault: a fork of it has a doubt, whatever holds in it."""
    with open_case(cut(tmp_path)) as case:
        done = fork(case, preset("safe"))
    assert not done.heals
    assert any("no inventory" in doubt for doubt in done.doubts)


def test_an_interrupted_run_says_who_was_ended_with_it(tmp_path: Path) -> None:
    """A supervisor that is interrupted kills its actors: these deaths are no faults of the scenario."""
    with open_case(cut(tmp_path, signal.SIGTERM)) as case:
        told = retell(case)
    assert [fault.kind for fault in told.scenario.faults] == ["pause"]
    assert any("was interrupted" in clause for clause in told.cut_off)


def test_a_run_out_of_time_in_the_middle_of_an_attempt_heals_nothing(tmp_path: Path) -> None:
    """The queue has forgotten the job, so its inventory is empty; how long the worker was at it nobody told."""
    slow = {"kind": "slow", "job": "mail-1", "attempt": 1, "step": "work", "index": 1, "at_most_ms": 9_000}
    queue = {"name": "reports", "workload": "background", "jobs": 1, "workers": 2, "policy": "early-ack"}
    endless = Scenario.from_dict({"id": "endless", "queues": [queue], "faults": [slow], "at_most_ms": 1_500})
    with pytest.raises(RunFailed):
        run_simulated(endless, tmp_path, recording_id="endless")
    with open_case(open_recording(tmp_path / "endless")) as case:
        done = fork(case, preset("celery-redis"))
    assert done.after.violated == () and not done.heals
    assert done.doubts == ("the run ended before its work did: reports-worker-1 was still at it",)


@pytest.mark.parametrize("command", [("scenario", "cut"), ("replay", "cut"), ("replay", "cut", "--policy", "safe")])
def test_the_commands_take_a_killed_run(command: tuple[str, ...], tmp_path: Path) -> None:
    """No command fails on it: it says what it can, and a fork exits with 3, for nothing is shown."""
    cut(tmp_path)
    done = fencepost(*command, "--recordings", tmp_path / "recordings")
    assert done.code == (3 if "--policy" in command else 0), done.err
    assert "Traceback" not in done.out + done.err
