"""Recordings that several test modules ask about; each is made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import hostile_lines

from fencepost_analyzer import postmortem
from fencepost_analyzer.case import Case, open_case
from fencepost_analyzer.catalogue import demo_scenario, failure_mode
from fencepost_analyzer.postmortem import standing, writing
from fencepost_analyzer.postmortem.evidence import Derived, derive
from fencepost_analyzer.run import run_simulated
from fencepost_recorder import Recording, import_otlp, open_recording
from fencepost_runtime.policy import preset

KNOWN: dict[tuple[str, str], Derived] = {}
SPECIFICATIONS = [postmortem.specification(), postmortem.specification(preset("safe"))]
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


@pytest.fixture
def derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from a recording always is the same (the example's test shows it): it is derived once for all."""
    monkeypatch.setattr(standing, "derive", _derived)
    monkeypatch.setattr(writing, "derive", _derived)


def _derived(case: Case, specifications: Any, **options: Any) -> Derived:
    if any(options.values()) or case.invariants or case.mappings:
        return derive(case, specifications, **options)
    key = (case.recording.manifest.sha256, json.dumps(specifications))
    if key not in KNOWN:
        KNOWN[key] = derive(case, specifications)
    return KNOWN[key]


@pytest.fixture(scope="session")
def incident(shelf: Path) -> Recording:
    return open_recording(shelf / "incident")


@pytest.fixture(scope="session")
def written(incident: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One postmortem, only to be read; tests that change one take a copy."""
    folder = tmp_path_factory.mktemp("postmortems")
    with open_case(incident) as case:
        return postmortem.new(
            case, postmortems=folder, title="Charged twice", replays=SPECIFICATIONS, today="2026-01-02"
        )


@pytest.fixture
def own_promise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an invariant of the user's, SHOP-1: a job that was leased is never taken back."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "shop.sql").write_text(
        "-- id: SHOP-1\n-- title: nothing is taken back\n-- severity: low\n-- principle: P5\n-- polarity: +\n"
        "-- needs: lease\n-- claim: No job is taken back.\n"
        "SELECT schedule, job_id, \"at\", [span_id] AS span_ids, 'Taken back.' AS sentence\n"
        "FROM events\nWHERE event = 'reclaim'\n",
        "utf-8",
    )
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / written.name)
    return tmp_path / written.name
