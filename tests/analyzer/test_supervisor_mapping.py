"""What `fencepost record` saw befall processes becomes events of the workers that lived in them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from benchmarks.telling import SPANS

from fencepost_analyzer.check import opened
from fencepost_analyzer.database import GAPS


class Fake:
    id = "fake"

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def spans(self) -> pa.Table:
        return pa.Table.from_pylist(self._rows, schema=SPANS)

    def gaps(self) -> pa.Table:
        return GAPS.empty_table()


def seen(name: str, span_id: str, **attributes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "scope_name": "fencepost.supervisor",
        "span_id": span_id,
        "start_time_unix_nano": 100,
        "duration_time_unix_nano": 5,
        "span_attributes": json.dumps(attributes),
        "resource_attributes": '{"host.name":"here"}',
        "producer": "supervisor-1",
        "producer_seq": 3,
    }


def worker(producer: str, pid: int, host: str | None = "here") -> dict[str, Any]:
    resource = {"process.pid": pid} | ({"host.name": host} if host is not None else {})
    return {"name": "x", "scope_name": "shop", "producer": producer, "resource_attributes": json.dumps(resource)}


def events(*rows: dict[str, Any]) -> list[tuple[Any, ...]]:
    with opened(Fake(list(rows))) as (connection, _):
        found = connection.sql('SELECT event, worker_id, reason, "at", decided_by FROM events').fetchall()
    return sorted(found, key=str)


def test_a_crash_befalls_the_workers_whose_logs_the_process_wrote() -> None:
    """Each log that the dead process wrote is a worker that crashed, some time before it was seen."""
    crash = seen("crash", "s", **{"process.pid": 7, "process.signal": "SIGKILL", "fencepost.producers": ["a-7", "b-7"]})
    assert events(crash, worker("other-7", 7)) == [
        ("crash", "a-7", "SIGKILL", 100, 105),
        ("crash", "b-7", "SIGKILL", 100, 105),
    ]


def test_a_crash_is_told_on_the_host_that_the_dead_process_named() -> None:
    """Who wrote a log here ran here, though its resource calls this host otherwise: the clock is the same."""
    crash = seen("crash", "s", **{"process.pid": 7, "fencepost.producers": ["a-7", "b-7", "c-7", "silent-7"]})
    rows = (worker("a-7", 7, "one"), worker("b-7", 7, None), worker("c-7", 7, "one"), worker("c-7", 7, "two"))
    with opened(Fake([crash, *rows])) as (connection, _):
        hosts = connection.sql("SELECT worker_id, host FROM events ORDER BY worker_id").fetchall()
    assert hosts == [("a-7", "one"), ("b-7", "here"), ("c-7", "here"), ("silent-7", "here")]


def test_a_process_that_sent_its_spans_is_known_by_the_id_in_their_resource() -> None:
    """Without a log the process id and the host of the spans' resource tell which worker it was."""
    crash = seen("crash", "s", **{"process.pid": 7, "process.signal": "SIGSEGV"})
    rows = (worker("mine", 7), worker("unsaid", 7, None), worker("elsewhere", 7, "there"), worker("other", 8))
    assert events(crash, *rows) == [("crash", "mine", "SIGSEGV", 100, 105), ("crash", "unsaid", "SIGSEGV", 100, 105)]


def test_a_process_that_told_nothing_crashes_without_a_worker() -> None:
    """A death of somebody unknown is an event all the same; pauses and resumes are told alike."""
    rows = [seen(name, name, **{"process.pid": 7}) for name in ("crash", "pause", "resume")]
    assert events(*rows) == [
        ("crash", None, None, 100, 105),
        ("pause", None, None, 100, 105),
        ("resume", None, None, 100, 105),
    ]


def test_an_orderly_exit_is_no_event() -> None:
    """`exit` and `supervise` are in the recording, and are no events."""
    assert events(seen("exit", "a", **{"process.exit.code": 1}), seen("supervise", "b")) == []


def test_hostile_spans_of_that_scope_break_nothing() -> None:
    """Attributes of other types, or none that can be read, are unknown."""
    hostile = seen("crash", "s") | {"span_attributes": "{", "resource_attributes": "[", "duration_time_unix_nano": None}
    typed = seen("crash", "t", **{"process.pid": "seven", "fencepost.producers": 5})
    assert events(hostile, typed, worker("x", 7)) == [
        ("crash", None, None, 100, 105),
        ("crash", None, None, None, None),
    ]
