"""Real Celery with the stock exporter: what ended is proved, what was killed is missing, and neither is overstated."""

from __future__ import annotations

import pytest
from outside.story import Played, events_of, told

from fencepost_analyzer.check import check
from fencepost_analyzer.query import query
from fencepost_analyzer.verdicts import Report
from fencepost_recorder import Recording, import_otlp


@pytest.fixture(scope="module")
def recording(exported: Played, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    # A process that ended no span leaves an empty file.
    files = sorted(file for file in exported.spans.glob("*.jsonl") if file.stat().st_size)
    return import_otlp(files, tmp_path_factory.mktemp("recordings"), "celery", tool_version="test")


@pytest.fixture(scope="module")
def report(recording: Recording) -> Report:
    return check(recording)


def test_what_ended_is_seen(exported: Played, recording: Recording) -> None:
    """Publishes and finished runs become events with what Celery said of them."""
    ids = exported.ids
    assert told(recording, ids["mail"]) == [("enqueue", "ok", None), ("run", "ok", None)]
    assert told(recording, ids["broken"]) == [("enqueue", "ok", None), ("run", "failed", "error")]


def test_a_retry_is_seen_with_its_delay(exported: Played, recording: Recording) -> None:
    """A task that asks to be retried gives a failed run, a retry with the time it was put off to, and the next run."""
    enqueue, first, retry, second = events_of(recording, exported.ids["flaky"])
    assert (enqueue["event"], enqueue["outcome"]) == ("enqueue", "ok")
    assert (first["event"], first["outcome"], first["reason"], first["attempt"]) == ("run", "failed", "retry", 1)
    assert (retry["event"], retry["outcome"]) == ("retry", "ok")
    assert retry["execution_id"] == first["execution_id"]
    assert "the mail server hung up" in retry["reason"]
    assert retry["at"] < retry["until"] <= second["at"]
    assert (second["event"], second["outcome"], second["attempt"]) == ("run", "ok", 2)


def test_killed_attempts_leave_nothing(exported: Played, recording: Recording) -> None:
    """No span of a killed attempt is exported: of the job acknowledged early there is only a publish, whose outcome
    nothing proves; of the one acknowledged late there is only the attempt that made up for it."""
    assert told(recording, exported.ids["charge"]) == [("enqueue", "unknown", None)]
    assert told(recording, exported.ids["thumbnail"]) == [("enqueue", "ok", None), ("run", "ok", None)]
    assert None not in query(recording, "SELECT duration_time_unix_nano FROM spans").column(0).to_pylist()


def test_a_redelivered_attempt_has_no_number(exported: Played, recording: Recording) -> None:
    """Celery counts retries, not deliveries: the attempt that a redelivery made is of unknown number."""
    _, again = events_of(recording, exported.ids["thumbnail"])
    assert again["attempt"] is None


def test_a_job_that_no_worker_knows_has_no_run(exported: Played, recording: Recording) -> None:
    """The worker that discards an unregistered task emits no span, and nothing is made up for it."""
    assert told(recording, exported.ids["unregistered"]) == [("enqueue", "unknown", None)]


def test_the_visibility_timeout_ran_a_job_twice_at_once(exported: Played, recording: Recording, report: Report) -> None:
    """A task that outlasts the visibility timeout is found to have run twice at once, by its two runs' spans; that
    a file never tells whether it is whole may make this uncertain, but not unseen."""
    finding = report.finding("INV-002")
    runs = {row["span_id"] for row in events_of(recording, exported.ids["report"]) if row["event"] == "run"}
    assert [(one.job_id, set(one.span_ids)) for one in finding.witnesses] == [(exported.ids["report"], runs)]
    assert "ran twice at once" in finding.witnesses[0].sentence
    assert finding.verdict != "holds"


def test_nothing_else_is_judged(report: Report) -> None:
    """Every other verdict is unknown: a killed worker violates nothing, and nothing holds where spans may lack."""
    assert {found.verdict for found in report.findings if found.id != "INV-002"} == {"unknown"}


@pytest.mark.parametrize(
    ("invariant", "span"),
    [
        ("INV-001", "write"),
        ("INV-003", "write"),
        ("INV-003", "receive"),
        ("INV-004", "receive"),
        ("INV-005", "inventory"),
        ("INV-007", "write"),
        ("INV-010", "receive"),
    ],
)
def test_unknown_names_the_missing_span(report: Report, invariant: str, span: str) -> None:
    """A verdict that Celery's spans cannot give names the span that would be needed for it."""
    assert any(f"`{span} " in needed for needed in report.finding(invariant).missing)
