"""Real Celery recorded by fencepost inside its processes: the attempts that were killed are there, too."""

from __future__ import annotations

import pytest
from outside.story import Played, events_of, told

from fencepost_analyzer.check import check
from fencepost_analyzer.query import query
from fencepost_analyzer.verdicts import Report
from fencepost_recorder import Recording, seal


@pytest.fixture(scope="module")
def recording(recorded: Played) -> Recording:
    return seal(recorded.spans.parent, tool_version="test")


@pytest.fixture(scope="module")
def report(recording: Recording) -> Report:
    return check(recording)


def test_nothing_recorded_is_missing(recording: Recording, report: Report) -> None:
    """Two SIGKILLs leave no gap: every frame that a killed process wrote is in the recording."""
    assert recording.gaps().num_rows == 0
    assert report.unmapped == ()


def test_a_killed_attempt_is_seen_as_started_and_never_ended(recorded: Played, recording: Recording) -> None:
    """The attempt that was killed after its early acknowledgement is a run of its job that has no end."""
    assert told(recording, recorded.ids["charge"]) == [("enqueue", "ok", None), ("run", "unknown", None)]
    _, run = events_of(recording, recorded.ids["charge"])
    assert (run["until"], run["producer_end_seq"], run["attempt"]) == (None, None, None)


def test_a_killed_attempt_and_the_redelivery_are_two_runs(recorded: Played, recording: Recording) -> None:
    """A late acknowledgement's lost attempt and the one that made up for it stand side by side, in two processes."""
    assert told(recording, recorded.ids["thumbnail"]) == [
        ("enqueue", "ok", None),
        ("run", "unknown", None),
        ("run", "ok", None),
    ]
    _, killed, again = events_of(recording, recorded.ids["thumbnail"])
    assert killed["worker_id"] != again["worker_id"]


def test_jobs_that_nobody_killed_look_the_same(recorded: Played, recording: Recording) -> None:
    """Success, retry, failure and the task that no worker knows are told as by the stock exporter."""
    ids = recorded.ids
    assert told(recording, ids["mail"]) == [("enqueue", "ok", None), ("run", "ok", None)]
    assert told(recording, ids["broken"]) == [("enqueue", "ok", None), ("run", "failed", "error")]
    assert told(recording, ids["unregistered"]) == [("enqueue", "unknown", None)]
    assert [event for event, *_ in told(recording, ids["flaky"])] == ["enqueue", "run", "retry", "run"]


def test_the_visibility_timeout_ran_a_job_twice_at_once(recorded: Played, recording: Recording, report: Report) -> None:
    """A task that outlasts the visibility timeout is proved to have run twice at once; nothing else is violated."""
    assert report.violated == ("INV-002",)
    proved = [one for one in report.finding("INV-002").witnesses if one.verdict == "violated"]
    runs = {row["span_id"] for row in events_of(recording, recorded.ids["report"]) if row["event"] == "run"}
    assert [set(witness.span_ids) for witness in proved] == [runs]


def test_a_killed_attempt_is_not_called_concurrent(recorded: Played, report: Report) -> None:
    """Nobody saw the killed attempt end, so whether it overlapped the redelivered one is unknown, not violated."""
    about = [one for one in report.finding("INV-002").witnesses if one.job_id == recorded.ids["thumbnail"]]
    assert [witness.verdict for witness in about] == ["unknown"]


def test_a_job_that_did_not_finish_is_not_called_lost(recorded: Played, report: Report) -> None:
    """Without an inventory nobody knows whether Redis still holds the killed job: unknown, and it says why."""
    finding = report.finding("INV-005")
    assert finding.verdict == "unknown"
    assert {recorded.ids["charge"], recorded.ids["broken"]} <= {one.job_id for one in finding.witnesses}
    assert any("inventory" in span for span in finding.missing)


def test_a_span_without_an_end_names_the_killed_process(recorded: Played, recording: Recording) -> None:
    """Exactly the two killed processes have spans that never ended, and their resource tells which they were."""
    pid = "json_extract_string(resource_attributes, '$.\"process.pid\"')"
    open_spans = query(recording, f"SELECT {pid} AS pid FROM spans WHERE duration_time_unix_nano IS NULL")
    assert sorted(map(int, open_spans.column("pid").to_pylist())) == sorted(recorded.killed.values())
