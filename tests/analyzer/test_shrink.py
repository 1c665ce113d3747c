"""Shrink: nothing that an incident's violation does not need is left, and the same promise still breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from analyzer.lab import fencepost

from fencepost_analyzer.catalogue import demo_scenario, failure_modes
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.shrink import NothingToShrink, broken_by, shrink, ways
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Fault, Point, Scenario

CASES = [(mode.id, name) for mode in failure_modes().values() for name in mode.violates]


@pytest.mark.parametrize(("mode", "invariant"), CASES)
def test_without_any_one_thing_it_no_longer_breaks(mode: str, invariant: str) -> None:
    """What is left breaks the invariant in at most 14 events, and no job, fault, worker, effect or wait can go."""
    done = shrink(failure_modes()[mode].scenario, 1, invariant)
    assert invariant in broken_by(done.scenario, 1)
    assert done.events <= 14 <= done.events_before + 1
    fewer = judged(ways(done.scenario), 1, only=(invariant,))
    assert [one for one, _, judgement in fewer if judgement.violated] == []


def test_an_incident_of_several_queues_comes_down_to_one_job() -> None:
    """Of the demo's ten jobs and three faults, one of each is left for each promise."""
    for invariant in ("INV-001", "INV-005"):
        done = shrink(demo_scenario(), 1, invariant)
        assert (len(done.scenario.jobs), len(done.scenario.faults)) == (1, 1)


def test_a_long_incident_comes_down_to_few_events() -> None:
    """A history of 2,000 events with many harmless faults shrinks to the one that matters."""
    queue = {"name": "payments", "workload": "payments", "jobs": 300, "workers": 4, "policy": "naive"}
    harmless = [{"kind": "pause", "job": f"pay-{n}", "attempt": 1, "step": "write", "at_most_ms": 20} for n in (5, 99)]
    lost = {"kind": "lost_reply", "job": "pay-150", "attempt": 1, "step": "settle"}
    scenario = Scenario.from_dict({"id": "long", "queues": [queue], "faults": [*harmless, lost]})
    kill = Fault("kill", Point("pay-200", 1, "write", 1))
    scenario = Scenario.from_dict({**scenario.to_dict(), "faults": [*scenario.to_dict()["faults"], kill_of(kill)]})
    done = shrink(scenario, 1, "INV-001")
    assert done.events_before > 2_000
    assert done.events <= 20
    assert len(done.scenario.faults) == 1


def kill_of(fault: Fault) -> dict[str, object]:
    at = fault.at
    return {"kind": fault.kind, "at": {"job": at.job, "attempt": at.attempt, "step": at.step, "index": at.index}}


def test_what_does_not_break_is_not_shrunk() -> None:
    """Under the healing policy there is nothing to shrink, and the error names the way out."""
    healed = failure_modes()["FM-002"].scenario.with_policy(preset("fenced"))
    with pytest.raises(NothingToShrink, match="explore"):
        shrink(healed, 1, "INV-003")


def test_the_command_writes_a_scenario_that_still_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is run and judged like any other; a second time it is not replaced without --force."""
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-002", "--simulate", "--id", "was")
    done = fencepost("shrink", "was", "--invariant", "INV-003", "--out", "small.toml")
    assert done.code == 0, done.err
    assert "INV-003 still breaks" in done.out
    fencepost("run", "small.toml", "--simulate", "--id", "small")
    assert "INV-003" in fencepost("check", "small", "--json").json["violated"]
    assert fencepost("shrink", "was", "--out", "small.toml").code == 2
    again = fencepost("shrink", "small.toml", "--invariant", "INV-003", "--json")
    assert again.json["events"] == again.json["events_before"]


def test_bad_input_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing violated, an invariant that is not there, a name that nothing runs: exit code 2, no traceback."""
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-002", "--near-miss", "--simulate", "--id", "calm")
    for arguments in (("calm",), ("calm", "--invariant", "INV-999"), ("calm", "--out", "x.txt"), ("no.toml",)):
        done = fencepost("shrink", *arguments)
        assert done.code == 2, done.out
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
