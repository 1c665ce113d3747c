"""The recovery strategies: one `.toml` file for each that a policy of the runtime can turn on.

What a strategy heals is not written there: it is computed, by running each failure mode with it and without it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from fencepost_analyzer.errors import AnalyzerError
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Scenario

NOT_YET = "not-yet.toml"
FAMILIES = ("invariants", "failure_modes", "strategies")


class UnknownStrategy(AnalyzerError):
    """There is no such recovery strategy."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one real system says it; `source` is the page that it was read in, None where there is nothing to cite."""

    system: str
    how: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Proof:
    """A scenario of the strategy's own, for what no failure mode of the catalogue shows."""

    story: str
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Strategy:
    """`on`: each entry is a set of policy fields that turns the strategy on; the first is the one that is tried."""

    id: str
    title: str
    guarantees: str
    limits: str
    on: tuple[Mapping[str, Any], ...]
    spelled: tuple[Spelling, ...]
    proof: Proof | None

    def is_on(self, policy: Policy) -> bool:
        """Whether a policy has the strategy: it has every field of one entry. A number stands for "at most"."""
        return any(all(_has(policy, name, value) for name, value in fields.items()) for fields in self.on)


@cache
def strategies() -> Mapping[str, Strategy]:
    """All of them by id, in the order of the ids."""
    folder = files(__package__).joinpath("strategies")
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(".toml") and path.name != NOT_YET)
    found = [_strategy(tomllib.loads(folder.joinpath(name).read_text("utf-8"))) for name in names]
    return MappingProxyType({one.id: one for one in found})


def strategy(name: str) -> Strategy:
    """The strategy called `name`. Raises UnknownStrategy, naming all of them, if there is none."""
    known = strategies()
    if name not in known:
        raise UnknownStrategy(f"There is no recovery strategy {name!r}. There are: {', '.join(known)}.")
    return known[name]


@cache
def not_yet() -> Mapping[str, Mapping[str, str]]:
    """What has an id in the catalogue and nothing else: for each family, id and title."""
    data = tomllib.loads(files(__package__).joinpath("strategies", NOT_YET).read_text("utf-8"))
    return MappingProxyType({family: MappingProxyType(data[family]) for family in FAMILIES})


def _has(policy: Policy, name: str, value: Any) -> bool:
    actual = getattr(policy, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(actual <= value)
    return bool(actual == value)


def _strategy(data: dict[str, Any]) -> Strategy:
    proof = data.get("proof")
    found = Strategy(
        id=data["id"],
        title=data["title"],
        guarantees=_line(data["guarantees"]),
        limits=_line(data["limits"]),
        on=tuple(MappingProxyType(fields) for fields in data["on"]),
        spelled=tuple(Spelling(one["system"], one["how"], one.get("source")) for one in data["spelled"]),
        proof=Proof(_line(proof["story"]), Scenario.from_dict(proof["scenario"])) if proof else None,
    )
    for fields in found.on:
        # A field that no policy has, or a value that it does not take, is found here and not on a page.
        Policy().replace(**fields)
    return found


def _line(text: str) -> str:
    return " ".join(text.split())
