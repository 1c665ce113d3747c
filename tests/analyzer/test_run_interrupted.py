"""A run that somebody ends while it seals is sealed all the same."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from fencepost_analyzer import run
from fencepost_recorder import Recording, open_recording, seal
from fencepost_runtime.scenario import Scenario


def test_ctrl_c_while_a_run_seals_leaves_a_sealed_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(directory: Path, **more: Any) -> Recording:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return seal(directory, **more)

    monkeypatch.setattr(run, "seal", interrupted)
    queue = {"name": "mail", "workload": "background", "jobs": 1}
    with pytest.raises(KeyboardInterrupt):
        run.run_simulated(Scenario.from_dict({"id": "mail", "queues": [queue]}), tmp_path, recording_id="mine")
    assert open_recording(tmp_path / "mine").manifest.spans > 3
