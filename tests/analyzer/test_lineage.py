"""Lineage: fewer schedules, the same violations, and never a certificate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from analyzer.lab import fencepost

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.lab.explore import Exploration, around, explore
from fencepost_analyzer.lab.space import Bound
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario


def both(scenario: Scenario, bound: Bound) -> tuple[Exploration, Exploration]:
    return explore(around(scenario, 1, bound)), explore(around(scenario, 1, bound, by_lineage=True))


def shortest(done: Exploration) -> dict[str, int]:
    return {name: one.faults for name, one in done.found.shortest.items()}


@pytest.mark.parametrize("policy", ["safe", "transactional", "early-ack"])
def test_fewer_schedules_find_the_same(policy: str) -> None:
    """A quarter saved at least, and each invariant breaks with as few faults."""
    everything, chosen = both(failure_modes()["FM-002"].scenario.with_policy(preset(policy)), Bound())
    assert shortest(everything) == shortest(chosen)
    assert shortest(chosen)
    assert chosen.found.schedules < 0.75 * everything.found.schedules


def test_what_was_chosen_certifies_nothing() -> None:
    """Nothing breaks in what was run, but not all was: unknown."""
    everything, chosen = both(failure_modes()["FM-003"].scenario.with_policy(preset("safe")), Bound(1, 1, 0, 0))
    assert (everything.certified, everything.exit_code) == (True, 0)
    assert (chosen.certified, chosen.exit_code) == (False, 3)


def test_what_lineage_saves_is_counted() -> None:
    """With one crash every schedule is tried or left out; of what leaves the same behind there is as much as ever."""
    everything, chosen = both(failure_modes()["FM-003"].scenario.with_policy(preset("safe")), Bound(1, 1, 0, 0))
    assert chosen.found.left_out_by_lineage > 0
    assert chosen.found.schedules + chosen.found.left_out_by_lineage == everything.found.schedules
    assert chosen.found.equivalent == everything.found.equivalent
    assert everything.found.left_out_by_lineage == 0


def test_the_command_says_what_lineage_saved(tmp_path: Path) -> None:
    """In words and as data, also where it comes from what was explored before."""
    arguments = ("explore", "FM-003", "--faults", "1", "--lineage", "--workers", "1", "--into", tmp_path)
    told = fencepost(*arguments, "--json").json["left_out_by_lineage"]
    assert told > 0
    assert f"Lineage left out {told:,} schedules that an exhaustive search would have gone on from" in " ".join(
        fencepost(*arguments).out.split()
    )


@pytest.mark.campaign
def test_how_many_schedules_lineage_saves(capsys: pytest.CaptureFixture[str]) -> None:
    """Every failure mode under its own policy and four others, within the default bound."""
    every = fewer = cases = 0
    for mode in failure_modes().values():
        for name in (None, "safe", "transactional", "deduped", "early-ack"):
            scenario = mode.scenario if name is None else mode.scenario.with_policy(preset(name))
            everything, chosen = both(scenario, Bound())
            every, fewer = every + everything.found.schedules, fewer + chosen.found.schedules
            assert shortest(everything) == shortest(chosen)
            cases += 1
    with capsys.disabled():
        told = {"figure": "schedules_saved_by_lineage", "value": every - fewer, "of": every}
        sys.stdout.write(json.dumps({**told, "cases_with_the_same_violations": cases}) + "\n")
