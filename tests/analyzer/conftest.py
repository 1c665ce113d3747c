"""Recordings that several test modules ask about; each is made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from analyzer.lab import hostile_lines

from fencepost_analyzer.catalogue import demo_scenario, failure_mode
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import import_otlp

INCIDENT, CLEAN, FOREIGN = "incident", "clean", "hostile"


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three recordings: `incident` (the demo's, simulated: violated), `clean` (a near-miss: holds), and
    `hostile` (an import full of hostile names: violated). Only to be read."""
    folder = tmp_path_factory.mktemp("shelf") / "recordings"
    run_simulated(failure_mode("FM-003").near_miss, folder, recording_id=CLEAN)
    traces = folder.parent / "traces.jsonl"
    traces.write_text("".join(line + "\n" for line in hostile_lines()), "utf-8")
    import_otlp([traces], folder, FOREIGN, tool_version="test")
    run_simulated(demo_scenario(), folder, recording_id=INCIDENT, seed=7)
    return folder


@pytest.fixture
def here(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory from which the shelf is the folder of recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FENCEPOST_RECORDINGS", str(shelf))
    return tmp_path
