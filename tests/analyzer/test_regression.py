"""Regression: a file that pytest runs anywhere, holds the recovery to the incident, and fails when either is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from analyzer.lab import HOSTILE, fencepost

from fencepost_analyzer import testing
from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.errors import OutOfTime
from fencepost_analyzer.lab.regression import NoRecovery, regression
from fencepost_analyzer.scenario_file import dump, loads
from fencepost_runtime.operations import Effect, Job
from fencepost_runtime.scenario import Fault, Point, Scenario

# A campaign takes all.
EACH = [mode if mode == "FM-003" else pytest.param(mode, marks=pytest.mark.campaign) for mode in failure_modes()]


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """pytest as the user's own CI would run it, away from this project's settings."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, path.name)
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def test_the_file_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tests that pass; with a recovery that does not heal, or an incident that is none, they fail."""
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-002", "--simulate", "--id", "was")
    heals = ("--set", "fencing=true", "--set", "dedupe=effect_key")
    done = fencepost("regression", "was", "--invariant", "INV-003", *heals, "--out", "test_incident.py")
    assert done.code == 0, done.err
    path = tmp_path / "test_incident.py"
    passed = run(path)
    assert passed.returncode == 0, passed.stdout
    assert "3 passed" in passed.stdout
    content = path.read_text()
    path.write_text(content.replace("'fencing': True, 'dedupe': 'effect_key'", "'renew': True"))
    assert "2 failed, 1 passed" in run(path).stdout
    path.write_text(content.replace('kind = "pause"', 'kind = "kill"').replace("until = ", "# "))
    assert "1 failed, 2 passed" in run(path).stdout


@pytest.mark.parametrize("mode", EACH)
def test_every_failure_mode_makes_one(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its id, with the policy that guards everything; with the policy that fails it is refused."""
    monkeypatch.chdir(tmp_path)
    known = failure_modes()[mode]
    done = fencepost("regression", mode, "--policy", "safe", "--out", "test_it.py", "--json")
    assert done.code == 0, done.err
    assert done.json["invariant"] == known.violates[0]
    compile(Path("test_it.py").read_text(), "test_it.py", "exec")
    failing = known.scenario.queues[0].policy.name
    assert fencepost("regression", mode, "--policy", failing, "--out", "no.py").code == 2
    assert not Path("no.py").exists()


def test_recorded_names_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a job is called, the file's scenario is the scenario, and nothing of it runs."""
    monkeypatch.setattr(testing, "broken_within", lambda *_: ())  # It is of no name that this asks.
    mode = failure_modes()["FM-002"].scenario
    for name in (*HOSTILE, '"""\nraise SystemExit("ran")\n"""', "\\", 'x"', "{name}"):
        job = Job(name[:150], "payments", name[:150], (Effect(name[:150], name[:150], 1), Effect("b", "b", 1)))
        at = Point(job.id, 1, "settle")
        queue = replace(mode.queues[0], jobs=(job,))
        content = dump(Scenario("x", (queue,), (Fault("lost_request", at),)), seed=3)
        made = regression('a"""\nb', content, "INV-001", {"dedupe": "effect_key"})
        names: dict[str, object] = {}
        exec(compile(made.content, "test_it.py", "exec"), names)
        assert names["INCIDENT"] == content
        assert loads(str(names["INCIDENT"]), Path("x.toml"))[1] == 3


def test_what_does_not_heal_is_refused() -> None:
    content = dump(failure_modes()["FM-002"].scenario, seed=1)
    with pytest.raises(NoRecovery, match="recommend"):
        regression("x", content, "INV-003", {"renew": True})


CUT_OFF = """
id = "crash"
seed = 1

[[queues]]
name = "payments"
workload = "payments"
policy = "naive"

[[faults]]
kind = "kill"
job = "pay-1"
attempt = 1
step = "write"
index = 1
"""


def test_a_lease_that_outlasts_the_scenario_heals_nothing() -> None:
    """The job is run again in two minutes, or in two hours: that nothing breaks until then is no recovery."""
    assert testing.broken(CUT_OFF) == ("INV-001",)
    assert testing.broken(CUT_OFF, {"lease_ms": 120_000}) == ("INV-001",)
    with pytest.raises(NoRecovery, match="still breaks INV-001"):
        regression("x", CUT_OFF, "INV-001", {"lease_ms": 120_000})
    with pytest.raises(OutOfTime):
        testing.broken(CUT_OFF, {"lease_ms": 7_200_000})
    with pytest.raises(NoRecovery, match="cut off by its time"):
        regression("x", CUT_OFF, "INV-001", {"lease_ms": 7_200_000})


def test_what_was_not_seen_to_its_end_holds_within_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that ran out of time is no evidence: the file says nothing of faults beside the incident's own."""

    def cut_off(*_: object) -> tuple[str, ...]:
        raise OutOfTime

    atomic = {"writes": "atomic", "ack": "with_writes"}
    with pytest.raises(OutOfTime):
        testing.broken_within(CUT_OFF, {"lease_ms": 7_200_000, **atomic})
    monkeypatch.setattr(testing, "broken_within", cut_off)
    made = regression("x", CUT_OFF, "INV-001", atomic)
    assert not made.within
    assert "broken_within" not in made.content


def test_bad_input_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No recovery, a name that pytest does not collect, a file that is there, nothing violated: exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("there.py").write_text("mine")
    fencepost("run", "FM-002", "--near-miss", "--simulate", "--id", "calm")
    heals = ("--policy", "safe")
    for arguments in (
        ("FM-002", "--out", "a.py"),
        ("FM-002", *heals, "--out", "a.txt"),
        ("FM-002", *heals, "--out", "there.py"),
        ("calm", *heals, "--out", "a.py"),
        ("FM-002", "--policy", "sfae", "--out", "a.py"),
        ("FM-002", "--set", "fencing=perhaps", "--out", "a.py"),
        ("FM-002", *heals, "--invariant", "INV-999", "--out", "a.py"),
    ):
        done = fencepost("regression", *arguments)
        assert done.code == 2, arguments
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
    assert Path("there.py").read_text() == "mine"
    assert json.loads(fencepost("regression", "FM-002", *heals, "--out", "there.py", "--force", "--json").out)["within"]
