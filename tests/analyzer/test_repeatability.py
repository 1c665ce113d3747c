"""The demo's incident on real processes gives the same verdicts every time, loses no span and is always verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import verified

from fencepost_analyzer.catalogue import demo_scenario
from fencepost_analyzer.run import run_processes


def _outcome(recordings: Path) -> tuple[dict[str, str], int, bool]:
    recording = run_processes(demo_scenario(), recordings)
    replay = verified(recording)
    verdicts = {finding.id: finding.verdict for finding in replay.before.findings}
    return verdicts, recording.gaps().num_rows, replay.equal


def _repeat(recordings: Path, times: int) -> dict[str, Any]:
    outcomes = [_outcome(recordings) for _ in range(times)]
    return {
        "figure": "demo_on_processes",
        "runs": times,
        "distinct_verdicts": len({tuple(sorted(verdicts.items())) for verdicts, _, _ in outcomes}),
        "gaps": sum(gaps for _, gaps, _ in outcomes),
        "verified": sum(equal for _, _, equal in outcomes),
    }


@pytest.mark.campaign
def test_twenty_demos_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = _repeat(tmp_path, 20)
    with capsys.disabled():
        print(json.dumps(figure))  # noqa: T201 a campaign prints its figures
    assert figure == {"figure": "demo_on_processes", "runs": 20, "distinct_verdicts": 1, "gaps": 0, "verified": 20}


def test_two_demos_agree(tmp_path: Path) -> None:
    figure = _repeat(tmp_path, 2)
    assert (figure["distinct_verdicts"], figure["gaps"], figure["verified"]) == (1, 0, 2)
