"""The failure modes: one `.toml` file each, with the scenario that reproduces it and what must come of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.strategies import not_yet, strategies
from fencepost_analyzer.text import nearest
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario


class UnknownFailureMode(AnalyzerError):
    """There is no such failure mode."""


@dataclass(frozen=True, slots=True)
class Seeming:
    """A policy that looks as if it healed, why it does not, and the invariants that it leaves broken."""

    policy: str
    why: str
    violates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailureMode:
    """`violates`: the invariants that the scenario breaks, exactly. `heals`: the policy under which none breaks.

    `near_miss` comes as close as it can without failing: under it every invariant must hold.
    """

    id: str
    title: str
    story: str
    sources: tuple[str, ...]
    violates: tuple[str, ...]
    heals: str
    seems: tuple[Seeming, ...]
    scenario: Scenario
    near_miss: Scenario
    near_miss_story: str

    @property
    def strategies(self) -> tuple[str, ...]:
        """The ids of the recovery strategies that the healing policy has and the scenario's own has not."""
        healing = preset(self.heals)
        ran = [queue.policy for queue in self.scenario.queues]
        return tuple(one.id for one in strategies().values() if one.is_on(healing) and not all(map(one.is_on, ran)))


@cache
def failure_modes() -> dict[str, FailureMode]:
    """All of them by id, in the order of the ids."""
    folder = files(__package__).joinpath("failure_modes")
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name)
    modes = [_failure_mode(tomllib.loads(path.read_text("utf-8"))) for path in paths]
    return {mode.id: mode for mode in modes}


def failure_mode(name: str) -> FailureMode:
    """The failure mode called `name`. Raises UnknownFailureMode, naming the nearest, if there is none."""
    known = failure_modes()
    wanted = name.upper()
    if wanted not in known:
        planned = not_yet()["failure_modes"].get(wanted)
        hint = nearest(wanted, known, see="fencepost failure-modes")
        if planned is not None:
            hint = f"it is in the catalogue ({planned}), but cannot be run yet; there are {', '.join(known)}"
        raise UnknownFailureMode(f"There is no failure mode {name!r}: {hint}")
    return known[wanted]


@cache
def demo_scenario() -> Scenario:
    """The incident that `fencepost demo` tells."""
    return Scenario.from_dict(tomllib.loads(files(__package__).joinpath("demo.toml").read_text("utf-8")))


def _failure_mode(data: dict[str, Any]) -> FailureMode:
    scenario, near_miss = data["scenario"], data["near_miss"]
    missed = {**scenario, **near_miss, "id": f"{scenario['id']}-near-miss"}
    seems = tuple(Seeming(entry["policy"], entry["why"], tuple(entry["violates"])) for entry in data["seems"])
    return FailureMode(
        id=data["id"],
        title=data["title"],
        story=" ".join(data["story"].split()),
        sources=tuple(data["sources"]),
        violates=tuple(data["violates"]),
        heals=data["heals"],
        seems=seems,
        scenario=Scenario.from_dict(scenario),
        near_miss=Scenario.from_dict(missed),
        near_miss_story=data["near_miss_story"],
    )
