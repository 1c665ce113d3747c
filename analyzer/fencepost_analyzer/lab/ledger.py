"""What an exploration has come to so far, on disk: one JSON line a unit, so that it can be interrupted and go on.

A ledger is of one plan: the scenarios, the seed, the bound, the invariants, the version and the very rules by which all
of it was run and judged. Whatever in it is not of this plan, was cut off by a kill or was changed since it was written
is explored again: a certificate must not hang on what somebody's editor made of a line.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import fencepost_analyzer
import fencepost_runtime
from fencepost_analyzer.invariants import load
from fencepost_analyzer.lab.explore import Plan, Unit
from fencepost_analyzer.lab.found import Found
from fencepost_analyzer.lab.space import fault_of
from fencepost_analyzer.version import __version__

_ANALYZER = Path(fencepost_analyzer.__file__).parent
_RUNTIME = Path(fencepost_runtime.__file__).parent


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
                checksum = data.pop("checksum")
                if data["plan"] == self._digest and checksum == _sha256(data):
                    found[_unit(data["unit"])] = Found.from_dict(data["found"])
        return found

    def note(self, unit: Unit, found: Found) -> None:
        """Raises OSError if it cannot be kept."""
        line: dict[str, Any] = {"plan": self._digest, "unit": unit.to_dict(), "found": found.to_dict()}
        line["checksum"] = _sha256(line)
        # A line of its own even after one that was cut off.
        with self._path.open("ab") as stream:
            stream.write(b"\n" + json.dumps(line, separators=(",", ":")).encode() + b"\n")


def digest(plan: Plan) -> str:
    """What a ledger is of, as a SHA-256."""
    return _sha256([asked(plan), rules()])


def asked(plan: Plan) -> str:
    """What of a plan its user has said, as a SHA-256: the same under every state of the rules."""
    return _sha256(
        {
            "version": __version__,
            "seed": plan.seed,
            "by_lineage": plan.by_lineage,
            "bases": [[scenario.to_dict(), bound.to_dict()] for scenario, bound in plan.bases],
            "invariants": [[one.id, one.sql] for one in load(plan.invariants)],
        }
    )


@cache
def rules(analyzer: Path = _ANALYZER, runtime: Path = _RUNTIME) -> str:
    """By which files schedules are chosen, run and judged, as a SHA-256: who changes one of them still has the same
    version."""
    globs = [(analyzer, f"{folder}/*.sql") for folder in ("invariants", "goals", "views")]
    globs += [(analyzer, "*.py"), (analyzer, "lab/*.py"), (runtime, "*.py")]
    files = [(glob, path) for folder, glob in globs for path in sorted(folder.glob(glob))]
    return _sha256([[glob, path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for glob, path in files])


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _unit(data: dict[str, Any]) -> Unit:
    return Unit(int(data["base"]), fault_of(data["first"]) if data["first"] is not None else None)
