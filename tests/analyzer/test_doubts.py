"""What could be otherwise than it looks: spans told twice with two contents, and events without a name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from analyzer.judging import Fake, gap, verdicts, write_of
from analyzer.lab import span
from benchmarks.generator import START, S, generate, table

from fencepost_analyzer.check import check, judge, judge_many, opened
from fencepost_analyzer.database import events_table
from fencepost_recorder import Recording, import_otlp
from fencepost_recorder.schema import SPANS


def told_twice(tmp_path: Path, *contents: Mapping[str, object]) -> Recording:
    """An import of one job, enqueued once, whose write has one id and several contents."""
    about = {"job.effect.key": "pay/debit", "job.effect.index": 0}
    spans = [
        span(0, 0, "send q", "pay", {"job.settle.accepted": True, "job.effects.total": 1}),
        *(span(0, 1, "write debit", "pay", {**about, **content}) for content in contents),
    ]
    scope = {"scope": {"name": "fencepost.runtime"}, "spans": spans}
    (tmp_path / "traces.jsonl").write_text(json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}))
    return import_otlp([tmp_path / "traces.jsonl"], tmp_path / "recordings", "twice", tool_version="test")


def test_a_span_that_was_sent_twice_with_other_content_is_no_second_effect(tmp_path: Path) -> None:
    applied = {"job.effect.applied": True}
    recording = told_twice(tmp_path, applied, {**applied, "another": "attribute"})
    assert recording.spans().num_rows == 3
    report = check(recording)
    assert report.finding("INV-001").verdict == "unknown"
    assert report.violated == ()
    with opened(recording) as (connection, _):
        assert connection.execute("SELECT count(*) FROM events WHERE event = 'write'").fetchone() == (1,)


def test_of_one_id_the_span_that_ended_is_judged_else_the_first() -> None:
    base = {"name": "write k", "scope_name": "fencepost.runtime", "trace_id": "t", "producer": "p"}
    told = [
        {"span_id": "a", "producer_seq": 1, "span_attributes": "open"},
        {"span_id": "a", "producer_seq": 2, "span_attributes": "ended", "duration_time_unix_nano": 1},
        {"span_id": "b", "producer_seq": 4, "span_attributes": "second", "duration_time_unix_nano": 1},
        {"span_id": "b", "producer_seq": 3, "span_attributes": "first", "duration_time_unix_nano": 1},
        {"span_id": "c", "producer_seq": 5, "span_attributes": "late", "received_time_unix_nano": 2},
        {"span_id": "c", "producer_seq": 5, "span_attributes": "early", "received_time_unix_nano": 1},
        {"span_id": "d", "producer_seq": 6, "span_attributes": "only"},
    ]
    rows = pa.Table.from_pylist([base | row for row in told], schema=SPANS)
    for gaps, kept in (
        (gap(cause="conflicting_duplicate"), ["early", "ended", "first", "only"]),
        (gap(cause="torn_tail"), sorted(row["span_attributes"] for row in told)),
    ):
        with opened(Fake(rows, gaps)) as (connection, _):
            found = connection.execute("SELECT span_attributes FROM spans ORDER BY ALL").fetchall()
        assert [content for (content,) in found] == kept


def test_a_violation_that_shows_a_span_of_two_contents_is_unknown(tmp_path: Path) -> None:
    """Two writes of one effect, but of one of them there is a copy that says it was refused."""
    applied = {"job.effect.applied": True}
    recording = told_twice(tmp_path, applied, {"job.effect.applied": False, "job.reason": "fenced"})
    rows = recording.spans().to_pylist()
    again = next(row for row in rows if row["name"] == "write debit") | {"span_id": "e" * 16}
    twice = pa.concat_tables([recording.spans(), pa.Table.from_pylist([again], schema=recording.spans().schema)])
    finding = check(Fake(twice, recording.gaps())).finding("INV-001")
    assert (finding.verdict, finding.violations, finding.unknowns) == ("unknown", 0, 1)
    assert "recorded twice, with different content" in finding.witnesses[0].sentence


def nameless(event: str, **fields: object) -> dict[str, object]:
    told = {"event": event, "at": START + S, "outcome": "ok", "span_id": "nameless", "effect_key": None}
    return told | fields


@pytest.mark.parametrize(
    ("event", "doubted"),
    [
        ("enqueue", {"INV-005", "INV-007", "INV-018"}),
        ("lease", {"INV-003", "INV-004", "INV-010", "INV-018"}),
        ("run", {"INV-002", "INV-018"}),
        ("write", {"INV-001", "INV-003", "INV-007", "INV-018"}),
        ("ack", {"INV-004"}),
        ("crash", set()),
        ("inventory", set()),
    ],
)
def test_an_event_without_a_name_could_be_a_violation_of_what_needs_its_kind(event: str, doubted: set[str]) -> None:
    history = generate(1, 3, {1: "healthy", 2: "healthy"})
    report = judge(table([*history.rows, nameless(event)]))
    assert {name for name, verdict in verdicts(report).items() if verdict != "holds"} == doubted
    (again,) = judge_many(table([*history.rows, nameless(event)])).values()
    assert set(again.unknown) == doubted


def test_the_verdict_counts_the_events_without_a_name_and_says_what_they_lack() -> None:
    rows = [write_of("k"), *(nameless("write", job_id="j", span_id=str(number)) for number in range(2))]
    finding = judge(events_table(rows), only=["INV-001"]).finding("INV-001")
    assert finding.verdict == "unknown"
    assert finding.reason == (
        "No violation was seen, but 2 events without a name could be one; "
        "it would need the spans `write {effect}` with `job.effect.key`."
    )
    assert finding.missing == ("`write {effect}` with `job.effect.key`",)


def test_what_was_refused_needs_no_name() -> None:
    rows = [write_of("k"), nameless("write", outcome="failed")]
    assert judge(events_table(rows), only=["INV-001"]).finding("INV-001").verdict == "holds"


def test_an_event_without_a_job_could_be_what_seems_to_be_absent() -> None:
    history = generate(1, 3, {1: "lost"})
    first, last = (pick(row["at"] for row in history.rows) for pick in (min, max))
    for at, verdict in ((first - S, "violated"), (last - S, "unknown"), (last + S, "violated")):
        finding = judge(table([*history.rows, nameless("renew", at=at)])).finding("INV-005")
        assert finding.verdict == verdict
        assert ("does not say which job" in finding.witnesses[0].sentence) == (verdict == "unknown")
    elsewhere = nameless("renew", at=last - S, schedule=1)
    assert judge(table([*history.rows, elsewhere])).violated == ()
    assert "INV-005" in judge_many(table([*history.rows, elsewhere]))[0].violated


def test_a_run_without_a_job_lasts_to_its_end() -> None:
    history = generate(1, 3, {1: "lost"})
    first = min(row["at"] for row in history.rows)
    for until, verdict in ((first - S, "violated"), (first + 60 * S, "unknown"), (None, "unknown")):
        run = nameless("run", at=first - 2 * S, until=until, outcome="failed")
        assert judge(table([*history.rows, run])).finding("INV-005").verdict == verdict
