"""What an exploration has come to so far, on disk: one JSON line a unit, so that it can be interrupted and go on.

A ledger is of one plan: the scenarios, the seed, the bound, the invariants and the version that judged. Whatever in it
is not of this plan, or was cut off by a kill, is explored again.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from fencepost_analyzer.invariants import load
from fencepost_analyzer.lab.explore import Plan, Unit
from fencepost_analyzer.lab.found import Found
from fencepost_analyzer.lab.space import fault_of
from fencepost_analyzer.version import __version__


class Ledger:
    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._digest = digest(plan)

    def known(self) -> dict[Unit, Found]:
        """The units that are in it already. What cannot be read is not known."""
        found: dict[Unit, Found] = {}
        try:
            lines = self._path.read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            # A line that a kill cut off, or somebody else's.
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                data = json.loads(line)
                if data["plan"] == self._digest:
                    found[_unit(data["unit"])] = Found.from_dict(data["found"])
        return found

    def note(self, unit: Unit, found: Found) -> None:
        """Raises OSError if it cannot be kept."""
        line = {"plan": self._digest, "unit": unit.to_dict(), "found": found.to_dict()}
        # A line of its own even after one that was cut off.
        with self._path.open("ab") as stream:
            stream.write(b"\n" + json.dumps(line, separators=(",", ":")).encode() + b"\n")


def digest(plan: Plan) -> str:
    """What a ledger is of, as a SHA-256."""
    told = {
        "version": __version__,
        "seed": plan.seed,
        "by_lineage": plan.by_lineage,
        "bases": [[scenario.to_dict(), bound.to_dict()] for scenario, bound in plan.bases],
        "invariants": [[one.id, one.sql] for one in load(plan.invariants)],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _unit(data: dict[str, Any]) -> Unit:
    return Unit(int(data["base"]), fault_of(data["first"]) if data["first"] is not None else None)
