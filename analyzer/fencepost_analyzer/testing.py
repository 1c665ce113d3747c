"""For tests of your own, such as those that `fencepost regression` writes: a scenario's text in, what breaks out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fencepost_analyzer.errors import OutOfTime
from fencepost_analyzer.inference import as_written
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.explore import around, explore
from fencepost_analyzer.lab.space import Bound, lasting
from fencepost_analyzer.placing import place
from fencepost_analyzer.scenario_file import loads
from fencepost_runtime.scenario import Scenario


def broken(scenario: str, policy: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The invariants that a scenario (TOML, as in its file) breaks in the simulator, under its own policies or with the
    fields of `policy` changed in every queue, however long that takes.

    Raises ScenarioFileError for a text that is no scenario, PolicyError for fields that no policy has, OutOfTime if
    nothing breaks in an hour, and more would come."""
    chosen, seed = _read(scenario, policy)
    found = next(judged([lasting(chosen)], seed)).judgement
    if found.overdue and not found.violated:
        raise OutOfTime
    return found.violated


def broken_within(
    scenario: str,
    policy: Mapping[str, Any] | None = None,
    *,
    faults: int = 2,
    crashes: int = 2,
    pauses: int = 1,
    losses: int = 1,
) -> tuple[str, ...]:
    """The invariants that break in any schedule of up to so many faults around the scenario, as `fencepost explore`
    counts them; raises as `broken` does, OutOfTime if any of them ran out of time: what it broke later nobody knows."""
    chosen, seed = _read(scenario, policy)
    done = explore(around(chosen, seed, Bound(faults, crashes, pauses, losses)))
    if done.found.overdue:
        raise OutOfTime
    return tuple(sorted(done.found.violated))


def _read(scenario: str, policy: Mapping[str, Any] | None) -> tuple[Scenario, int]:
    found, seed = loads(scenario, Path("scenario.toml"))
    changed = found.with_changes(policy) if policy else found
    return place(found, changed, as_written(found)).scenario, seed
