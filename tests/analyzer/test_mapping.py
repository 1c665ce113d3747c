"""Spans become events: the reference runtime's mapping, the typed view under it, and mappings of the user's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from benchmarks.damage import lose
from benchmarks.generator import ANOMALIES, HARMLESS, generate, table
from benchmarks.telling import SPANS, spans

from fencepost_analyzer.check import opened
from fencepost_analyzer.database import EVENTS, GAPS
from fencepost_analyzer.errors import MappingError, SqlFileError
from fencepost_analyzer.mapping import load_mappings

OWN = """-- scope: shop.queue
-- attributes: id VARCHAR, try BIGINT, cost DOUBLE, done BOOLEAN, parts VARCHAR[]
-- resource: host.name VARCHAR

SELECT
    'run' AS event, id AS job_id, try AS attempt, cost::VARCHAR AS reason, done::VARCHAR AS outcome,
    array_to_string(parts, '+') AS order_key, "host.name" AS host, start_time_unix_nano AS at, span_id
FROM staged
"""


class Fake:
    id = "fake"

    def __init__(self, spans: pa.Table) -> None:
        self._spans = spans

    def spans(self) -> pa.Table:
        return self._spans

    def gaps(self) -> pa.Table:
        return GAPS.empty_table()


def events(spans: pa.Table, *mappings: Path) -> list[dict[str, Any]]:
    with opened(Fake(spans), mappings=mappings) as (connection, _):
        return connection.sql("FROM events").to_arrow_table().to_pylist()


def span(scope: str, attributes: object, **fields: Any) -> pa.Table:
    text = attributes if isinstance(attributes, str) else json.dumps(attributes)
    row = {"name": "x", "scope_name": scope, "start_time_unix_nano": 1, "span_attributes": text, "span_id": "s"}
    return pa.Table.from_pylist([row | fields], schema=SPANS)


def told(name: str, attributes: object, **fields: Any) -> dict[str, Any]:
    (event,) = events(span("fencepost.runtime", attributes, name=name, **fields))
    return event


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "shop.sql").write_text(OWN)
    return tmp_path


def by_place(row: dict[str, Any]) -> tuple[str, str]:
    return (row["span_id"], row["job_id"] or "")


@pytest.mark.parametrize("life", (*ANOMALIES, *HARMLESS))
def test_the_runtime_s_spans_map_to_exactly_the_events_that_they_were_made_of(life: str) -> None:
    rows, _ = lose(generate(4, 3, {1: life}), 4, 0.1)
    mapped = sorted(events(spans(rows)), key=by_place)
    for row, event in zip(sorted(table(rows).to_pylist(), key=by_place), mapped, strict=True):
        if row["execution_id"] is None and row["event"] == "run":
            row["execution_id"] = event["execution_id"]
        assert event == row


def test_events_have_the_columns_and_types_of_the_schema() -> None:
    with opened(Fake(spans(generate(1, 1).rows))) as (connection, _):
        assert connection.sql("FROM events").to_arrow_table().schema.equals(EVENTS)


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("send orders", "enqueue"),
        ("receive orders", "lease"),
        ("process orders", "run"),
        ("renew orders", "renew"),
        ("write debit", "write"),
        ("settle orders", "ack"),
        ("retry orders", "retry"),
        ("scan orders", "scan"),
        ("reclaim orders", "reclaim"),
        ("inventory orders", "inventory"),
        ("crash", "crash"),
        ("pause", "pause"),
        ("resume", "resume"),
        ("commit", "commit"),
        ("rollback", "rollback"),
    ],
)
def test_the_first_word_of_a_span_s_name_is_its_event(name: str, event: str) -> None:
    assert told(name, {})["event"] == event


@pytest.mark.parametrize("name", ["scenario FM-003", "", "SEND orders", "sender orders", "settled", "\x00"])
def test_other_spans_of_the_runtime_are_no_events(name: str) -> None:
    assert events(span("fencepost.runtime", {}, name=name)) == []


@pytest.mark.parametrize(
    ("attributes", "event", "outcome", "reason"),
    [
        ({"job.outcome": "ok", "job.settle.accepted": True}, "ack", "ok", None),
        ({"job.outcome": "unknown", "job.settle.accepted": True}, "ack", "ok", "early"),
        ({"job.outcome": "failed", "job.settle.accepted": True}, "fail", "ok", None),
        ({"job.outcome": "dead_letter", "job.settle.accepted": True}, "dead_letter", "ok", None),
        (
            {"job.outcome": "ok", "job.settle.accepted": False, "job.reason": "stale_token"},
            "ack",
            "failed",
            "stale_token",
        ),
        ({"job.outcome": "ok"}, "ack", "unknown", None),
        ({"job.outcome": "ok", "error.type": "ConnectionLost"}, "ack", "unknown", "ConnectionLost"),
        ({"job.outcome": "ok", "error.type": "BackendError"}, "ack", "failed", "BackendError"),
        ({"job.outcome": "ok", "error.type": "TimeoutError"}, "ack", "unknown", "TimeoutError"),
        ({"job.outcome": "rejected", "job.settle.accepted": True}, "ack", "unknown", "rejected"),
        ({"job.settle.accepted": True}, "ack", "unknown", None),
        ({"job.outcome": "Failed", "job.settle.accepted": True}, "ack", "unknown", "Failed"),
    ],
)
def test_a_settlement_is_what_its_outcome_says(
    attributes: dict[str, object], event: str, outcome: str, reason: str | None
) -> None:
    found = told("settle orders", attributes, duration_time_unix_nano=5, producer_end_seq=2)
    assert (found["event"], found["outcome"], found["reason"]) == (event, outcome, reason)


@pytest.mark.parametrize(
    ("word", "outcome"), [("ok", "ok"), ("failed", "failed"), ("success", "unknown"), ("OK", "unknown")]
)
def test_a_run_s_outcome_in_another_word_is_unknown(word: str, outcome: str) -> None:
    assert told("process q", {"job.outcome": word}, duration_time_unix_nano=1)["outcome"] == outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("BackendError", "failed"),
        ("RolledBack", "failed"),
        ("TimeoutError", "unknown"),
        ("OperationalError", "unknown"),
    ],
)
def test_only_an_error_that_says_so_proves_that_a_write_was_not_applied(error: str, outcome: str) -> None:
    found = told("write k", {"error.type": error, "job.effect.applied": False}, duration_time_unix_nano=1)
    assert (found["outcome"], found["reason"]) == (outcome, error)


def test_a_span_that_never_ended_has_an_unknown_outcome() -> None:
    for name in ("send q", "process q", "write k", "settle q", "renew q"):
        assert told(name, {"job.effect.applied": True, "job.outcome": "ok"})["outcome"] == "unknown", name


def test_a_write_says_whether_it_was_applied() -> None:
    for applied, outcome in ((True, "ok"), (False, "failed"), (None, "unknown")):
        attributes = {} if applied is None else {"job.effect.applied": applied}
        assert told("write k", attributes, duration_time_unix_nano=1)["outcome"] == outcome


def test_an_event_happened_when_the_queue_decided_it() -> None:
    for length in (None, 90):
        exact = told("settle q", {"job.transaction.time_unix_nano": 77}, duration_time_unix_nano=length)
        assert (exact["at"], exact["decided_by"]) == (77, None)
    assert told("settle q", {}, start_time_unix_nano=5)["at"] == 5


def test_an_event_was_decided_while_its_span_lasted_if_nothing_says_when() -> None:
    at_all = {"start_time_unix_nano": 5, "duration_time_unix_nano": 4}
    other_clock = told("settle q", {"job.transaction.time_unix_nano": 77}, **at_all)
    assert (other_clock["at"], other_clock["decided_by"]) == (5, 9)
    assert told("settle q", {}, **at_all)["decided_by"] == 9
    assert told("process q", {}, **at_all)["decided_by"] is None


def test_a_run_lasts_to_the_end_of_its_span() -> None:
    assert told("process q", {}, start_time_unix_nano=5, duration_time_unix_nano=4)["until"] == 9
    assert told("process q", {}, start_time_unix_nano=5)["until"] is None


def test_an_inventory_is_one_event_for_itself_and_one_for_each_job_it_lists() -> None:
    attributes = {"job.inventory.ids": ["a", "b"], "job.inventory.states": ["ready", "dead"]}
    found = events(span("fencepost.runtime", attributes, name="inventory q"))
    assert sorted((event["job_id"] or "", event["reason"]) for event in found) == [
        ("", None),
        ("a", "ready"),
        ("b", "dead"),
    ]


@pytest.mark.parametrize(
    ("attributes", "ended", "outcome"),
    [
        ({"job.inventory.ids": ["a"], "job.inventory.states": ["ready"]}, True, "ok"),
        ({"job.inventory.ids": [], "job.inventory.states": []}, True, "ok"),
        ({"job.inventory.ids": ["a"], "job.inventory.states": ["ready"]}, False, "unknown"),
        ({"job.inventory.ids": ["a", "b"], "job.inventory.states": ["ready"]}, True, "unknown"),
        ({"job.inventory.ids": ["a", None], "job.inventory.states": ["ready", "ready"]}, True, "unknown"),
        ({"job.inventory.ids": ["a"]}, True, "unknown"),
        ({"job.inventory.ids": "a,b", "job.inventory.states": "ready,ready"}, True, "unknown"),
        ({}, True, "unknown"),
        ({"error.type": "ConnectionLost"}, True, "unknown"),
        ({"error.type": "BackendError"}, True, "failed"),
    ],
)
def test_only_an_inventory_that_can_be_read_whole_says_what_is_held(
    attributes: dict[str, object], ended: bool, outcome: str
) -> None:
    duration = 5 if ended else None
    found = events(span("fencepost.runtime", attributes, name="inventory q", duration_time_unix_nano=duration))
    assert {event["outcome"] for event in found} == {outcome}


def test_an_inventory_with_more_jobs_than_states_loses_no_job() -> None:
    attributes = {"job.inventory.ids": ["a", "b"], "job.inventory.states": ["ready"]}
    found = events(span("fencepost.runtime", attributes, name="inventory q"))
    assert {event["job_id"] for event in found} == {None, "a", "b"}


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "no json",
        "[1, 2]",
        "null",
        '{"job.attempt": ',
        "[" * 5_000,
        '{"job.attempt": 1.5, "job.lease.token": "7x", "job.effect.applied": "yes", "job.inventory.ids": "a"}',
        '{"job.attempt": 9223372036854775808, "job.lease.token": true, "job.effect.applied": 1}',
        '{"job.attempt": {"a": 1}, "job.lease.token": [1], "job.inventory.ids": {"a": 1}}',
        '{"job.retry.delay_ms": 9223372036854775807, "job.transaction.time_unix_nano": -9223372036854775808}',
    ],
)
@pytest.mark.parametrize("name", ["retry q", "inventory q", "process q"])
def test_a_hostile_attribute_is_null_and_no_error(name: str, attributes: str) -> None:
    found = events(
        span(
            "fencepost.runtime",
            attributes,
            name=name,
            start_time_unix_nano=2**63 - 1,
            duration_time_unix_nano=2**63 - 1,
        )
    )
    assert {(event["attempt"], event["token"], event["outcome"]) for event in found} <= {
        (None, None, outcome) for outcome in ("unknown", "ok")
    }


def test_names_and_attributes_never_become_sql(own: Path) -> None:
    text = "'); DROP TABLE mapped; --"
    (event,) = events(span("shop.queue", {"id": text}), own)
    assert event["job_id"] == text
    assert told(f"write {text}", {"job.effect.key": text})["effect_key"] == text


def test_a_user_s_mapping_reads_its_attributes_as_typed_columns(own: Path) -> None:
    attributes = {"id": "j", "try": 2, "cost": 1.5, "done": True, "parts": ["a", "b"]}
    (event,) = events(span("shop.queue", attributes, resource_attributes='{"host.name": "h"}'), own)
    wanted = {"job_id": "j", "attempt": 2, "reason": "1.5", "outcome": "true", "order_key": "a+b", "host": "h"}
    assert {key: event[key] for key in wanted} == wanted
    assert event["execution_id"] == "j@s"


def test_columns_that_a_mapping_leaves_out_are_null(own: Path) -> None:
    (event,) = events(span("shop.queue", {}), own)
    assert (event["queue"], event["token"], event["schedule"]) == (None, None, 0)


def test_a_user_s_mapping_replaces_ours_for_the_same_scope(own: Path) -> None:
    (own / "shop.sql").write_text(OWN.replace("shop.queue", "fencepost.runtime"))
    (event,) = events(span("fencepost.runtime", {"id": "j"}, name="write k"), own)
    assert event["event"] == "run"


def test_two_mappings_of_the_user_s_for_one_scope_are_an_error(own: Path) -> None:
    (own / "again.sql").write_text(OWN)
    with pytest.raises(MappingError, match=r"scope shop\.queue is already mapped by"):
        load_mappings([own])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("-- scope: shop.queue\n", "", ":1: the header lacks 'scope'"),
        ("shop.queue", "shop'queue", ":1: 'shop'queue' is no instrumentation scope"),
        ("id VARCHAR", "id TEXT", ":2: 'id TEXT' must read 'key TYPE'"),
        ("id VARCHAR", "id'); -- VARCHAR", ":2: 'id'); -- VARCHAR' must read"),
        ("try BIGINT", "id BIGINT", ":2: attribute 'id' is declared twice"),
        ("host.name VARCHAR", "id VARCHAR", ":2: attribute 'id' is declared twice"),
        ("-- resource", "-- resources", ":3: unknown header key 'resources'"),
    ],
)
def test_a_header_that_does_not_follow_the_rules_is_an_error_with_file_and_line(
    own: Path, old: str, new: str, problem: str
) -> None:
    (own / "shop.sql").write_text(OWN.replace(old, new, 1))
    with pytest.raises(SqlFileError) as caught:
        load_mappings([own])
    assert f"shop.sql{problem}" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("'run' AS event", "'run' AS evnt", "evnt"),
        ("FROM staged", "FROM nowhere", "nowhere"),
        ("FROM staged", "FROM staged; SELECT 1", "exactly one SELECT"),
        ("FROM staged", "FROM read_csv('/etc/hostname')", "disabled"),
        ("id VARCHAR", "name VARCHAR", "attribute 'name' has the name of a column of spans"),
    ],
)
def test_a_mapping_that_fails_is_an_error_that_names_its_file(own: Path, old: str, new: str, problem: str) -> None:
    (own / "shop.sql").write_text(OWN.replace(old, new, 1))
    with pytest.raises(MappingError, match=r"shop\.sql") as caught:
        events(span("shop.queue", {"id": "j"}), own)
    assert problem in str(caught.value)


def test_a_mapping_whose_scope_is_not_recorded_is_not_run(own: Path) -> None:
    (own / "shop.sql").write_text(OWN.replace("FROM staged", "FROM nowhere"))
    assert len(events(span("fencepost.runtime", {}, name="crash"), own)) == 1


def test_a_later_line_of_a_header_value_continues_it(own: Path) -> None:
    (own / "shop.sql").write_text(OWN.replace("id VARCHAR, ", "id VARCHAR,\n--   "))
    (event,) = events(span("shop.queue", {"id": "j", "try": 3}), own)
    assert (event["job_id"], event["attempt"]) == ("j", 3)


def test_a_file_that_is_no_text_or_too_large_is_an_error(own: Path) -> None:
    (own / "shop.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(SqlFileError, match="is not UTF-8 text"):
        load_mappings([own])
    (own / "shop.sql").write_text(OWN + "-" * 1_000_000)
    with pytest.raises(SqlFileError, match="larger than"):
        load_mappings([own])


@pytest.mark.parametrize(("kind", "words"), [("pipe", "it is no plain file"), ("folder", "it is a folder")])
def test_what_is_no_file_is_refused_and_hangs_nobody(tmp_path: Path, kind: str, words: str) -> None:
    """A pipe or a folder called *.sql among a user's mappings is named, not waited for."""
    path = tmp_path / "x.sql"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(SqlFileError, match=words):
        load_mappings([tmp_path])
