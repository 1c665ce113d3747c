"""No guard of the runtime can go missing, be negated or be off by one without a test that notices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULES = ("rules", "actors")


def test_a_missing_guard_is_noticed() -> None:
    """A sample of the mutants, the same each time, fails the fast tests."""
    result = _run(step=34)
    assert result["tried"] >= 8
    assert result["survivors"] == []


@pytest.mark.campaign
def test_no_guard_can_go_missing() -> None:
    """Every mutant of the rules, the actors and the SQL statements fails the fast tests."""
    result = _run(step=1, modules=(*MODULES, "sqlite.sql"))
    assert result["tried"] == result["mutants"] > 250
    assert result["survivors"] == []


def _run(step: int, modules: Sequence[str] = MODULES) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "mutants.py"), str(step), *modules]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
