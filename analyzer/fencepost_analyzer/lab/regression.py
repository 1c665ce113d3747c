"""A pytest file that holds a shrunk incident to its recovery."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fencepost_analyzer import testing
from fencepost_analyzer.errors import AnalyzerError, OutOfTime
from fencepost_analyzer.inference import Inference
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.space import lasting
from fencepost_analyzer.placing import everywhere
from fencepost_analyzer.version import __version__
from fencepost_runtime.scenario import Scenario

_FILE = '''\
"""{invariant} broke in {incident}; with {recovery} it does not.

Written by fencepost {version}; pytest and fencepost are all that it needs.
"""

from fencepost_analyzer.testing import broken{imports}

# The smallest scenario that is left of it and still breaks {invariant}.
INCIDENT = """\\
{scenario}"""

RECOVERY = {fields}


def test_the_incident_breaks_{name}() -> None:
    assert "{invariant}" in broken(INCIDENT)


def test_the_recovery_heals_it() -> None:
    assert broken(INCIDENT, RECOVERY) == ()
'''
_WITHIN = """

def test_no_two_faults_break_it_again() -> None:
    assert "{invariant}" not in broken_within(INCIDENT, RECOVERY)
"""


class NoRecovery(AnalyzerError):
    """The policy does not heal the incident: there is nothing to hold it to."""


@dataclass(frozen=True, slots=True)
class Regression:
    """`within`: whether the invariant holds in everything that two faults around the incident can bring about, too;
    then a third test says so."""

    content: str
    within: bool


def regression(incident: str, scenario: str, invariant: str, recovery: Mapping[str, Any]) -> Regression:
    """The file's text. `scenario`: the shrunk incident as TOML; `incident`: what it is called, an id.

    Raises NoRecovery if anything breaks in the incident with the recovery's fields, or it ran out of time and may."""
    try:
        left = testing.broken(scenario, recovery)
    except OutOfTime as error:
        raise NoRecovery(
            f"With {_words(recovery)} the shrunk incident is cut off by its time, an hour at most, so nobody knows "
            "whether it is healed: choose shorter leases."
        ) from error
    if left:
        raise NoRecovery(
            f"With {_words(recovery)} the shrunk incident still breaks {', '.join(left)}: "
            "`fencepost recommend` looks for a policy that heals it."
        )
    within = False
    with suppress(OutOfTime):
        within = invariant not in testing.broken_within(scenario, recovery)
    content = (_FILE + (_WITHIN if within else "")).format(
        invariant=invariant,
        # A file's name can hold anything.
        incident=re.sub(r"[^A-Za-z0-9_.-]", "_", incident),
        recovery=_words(recovery),
        version=__version__,
        imports=", broken_within" if within else "",
        # So can whatever was recorded: it stays text.
        scenario=scenario.replace("\\", "\\\\").replace('"""', '\\"\\"\\"'),
        fields=repr(dict(recovery)),
        name=invariant.lower().replace("-", "_"),
    )
    return Regression(content, within)


def hold_elsewhere(scenario: Scenario, seed: int, inferences: Sequence[Inference], recovery: Mapping[str, Any]) -> None:
    """Whether a recovery heals an incident only because its faults were told to strike where they did.

    Raises NoRecovery if anything breaks, or may, where they may have struck as well, and does not as they were told."""
    ways = everywhere(scenario, scenario.with_changes(recovery), inferences)
    told, *others = [one.judgement for one in judged((lasting(one.scenario) for one in ways.placed), seed)]
    for way, found in zip(ways.others, others, strict=True):
        fresh = [name for name in found.violated if name not in told.violated]
        if fresh or found.overdue > told.overdue:
            does = f"breaks {', '.join(fresh)}" if fresh else "is cut off by its time"
            raise NoRecovery(
                f"With {_words(recovery)} the incident {does} where it may have been struck as well: "
                f"{'; '.join(way.moved)}."
            )
    if not ways.every:
        tried = f"it may have been struck in more than {len(ways.placed)} ways: nobody knows whether all are healed."
        raise NoRecovery(f"With {_words(recovery)} nothing more breaks in the incident, but {tried}")


def _words(recovery: Mapping[str, Any]) -> str:
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in recovery.items()}
    return ", ".join(f"{name} = {value}" for name, value in values.items())
