"""Celery's publish spans when the broker is down: they do not tell, so the mapping must not either."""

from __future__ import annotations

from pathlib import Path

import pytest
from outside.servers import Shop, free_port

from fencepost_analyzer.check import check
from fencepost_analyzer.query import query
from fencepost_recorder import Recording, begin, seal


def publish_in_vain(task: str, directory: Path) -> Recording:
    """Record a producer whose broker refuses its connection."""
    recording = begin(directory, "unsent")
    shop = Shop(f"redis://127.0.0.1:{free_port()}/0", recording / "wal", "recorder", directory / "log")
    with pytest.raises(RuntimeError, match="OperationalError"):
        shop.publish(task)
    return seal(recording, tool_version="test")


@pytest.mark.parametrize(("task", "ended"), [("mail", False), ("unregistered", True)])
def test_a_publish_that_failed_is_unknown(task: str, ended: bool, tmp_path: Path) -> None:
    """A publish that failed is an enqueue of unknown outcome: its span stays open, or, for a task that the producer
    knows only by name, ended well before anything was sent."""
    recording = publish_in_vain(task, tmp_path)
    (span,) = query(recording, "SELECT duration_time_unix_nano, status_code FROM spans").to_pylist()
    assert (span["duration_time_unix_nano"] is not None, span["status_code"]) == (ended, 0)
    (event,) = query(recording, "SELECT event, outcome FROM events").to_pylist()
    assert event == {"event": "enqueue", "outcome": "unknown"}
    assert check(recording).verdict == "unknown"
