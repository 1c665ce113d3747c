"""The runtime's own vocabulary: which span and which row tell which event, with which attributes."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from runtime.histories import Rows, history

from fencepost_runtime import spans
from fencepost_runtime.columns import COLUMNS
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate
from fencepost_runtime.world import EPOCH

MS = 1_000_000
JOB = {"id": "a", "name": "pay", "effects": [{"key": "a/x", "amount": 1}, {"key": "a/y", "amount": 2}]}


def scenario(*faults: dict[str, Any], job: dict[str, Any] | None = None, **policy: Any) -> Scenario:
    """One job with two effects and two workers; faults are of its first attempt."""
    queue = {"name": "q", "jobs": [{**JOB, **(job or {})}], "workers": 2, "policy": policy}
    return Scenario.from_dict({"id": "s", "queues": [queue], "faults": [{"job": "a", **fault} for fault in faults]})


class Kept(SpanProcessor):
    """Keeps every span that was started, in order."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.spans.append(span)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    provider = TracerProvider(shutdown_on_exit=False)
    processor = Kept()
    provider.add_span_processor(processor)
    monkeypatch.setattr(spans.trace, "get_tracer", provider.get_tracer)
    return processor


def told(kept: Kept, name: str, scenario: Scenario) -> list[ReadableSpan]:
    simulate(scenario, spans.SpanSink())
    return [span for span in kept.spans if span.name.startswith(name)]


def attributes(span: ReadableSpan, *names: str) -> list[Any]:
    return [(span.attributes or {}).get(name) for name in names]


def test_each_event_has_its_span(kept: Kept) -> None:
    """Every event has one span name and kind; sends, receives, processings and settles say which operation they are."""
    faults = [
        {"kind": "db_error", "step": "write", "index": 1},
        {"kind": "kill", "step": "write", "attempt": 2, "index": 1, "when": "after"},
        {"kind": "pause", "step": "start", "attempt": 3, "at_most_ms": 5},
    ]
    told(kept, "", scenario(*faults, job={"work_ms": 90}, renew=True, lease_ms=200, max_attempts=4))
    operation = "messaging.operation.type"
    assert {(span.name, span.kind, *attributes(span, operation)) for span in kept.spans} == {
        ("send q", SpanKind.PRODUCER, "send"),
        ("receive q", SpanKind.CLIENT, "receive"),
        ("process q", SpanKind.CONSUMER, "process"),
        ("renew q", SpanKind.CLIENT, None),
        ("write a/x", SpanKind.CLIENT, None),
        ("write a/y", SpanKind.CLIENT, None),
        ("settle q", SpanKind.CLIENT, "settle"),
        ("retry q", SpanKind.CLIENT, None),
        ("scan q", SpanKind.CLIENT, None),
        ("reclaim q", SpanKind.CLIENT, None),
        ("inventory q", SpanKind.CLIENT, None),
        ("crash", SpanKind.INTERNAL, None),
        ("pause", SpanKind.INTERNAL, None),
        ("resume", SpanKind.INTERNAL, None),
    }


def test_every_span_is_of_the_runtime_s_scope(kept: Kept) -> None:
    """Spans carry the scope by which the analyzer knows them, the system, and the worker that tells them."""
    told(kept, "", scenario())
    assert {span.instrumentation_scope.name for span in kept.spans if span.instrumentation_scope} == {spans.SCOPE}
    assert {attributes(span, "messaging.system")[0] for span in kept.spans} == {"fencepost"}
    assert all(attributes(span, "job.worker.id")[0] for span in kept.spans)


def test_an_enqueue_declares_its_effects(kept: Kept) -> None:
    """The send span names the job and all the effects that it must have."""
    (send,) = told(kept, "send", scenario())
    assert attributes(send, "messaging.message.id", "messaging.destination.name", "job.name") == ["a", "q", "pay"]
    assert attributes(send, "job.effects.total", "job.effects.keys") == [2, ("a/x", "a/y")]
    assert attributes(send, "job.settle.accepted", "job.transaction.position") == [True, 1]


def test_a_lease_says_what_it_grants(kept: Kept) -> None:
    """The receive span has attempt, token and end of the lease, and the moment and position of the decision."""
    (receive,) = told(kept, "receive", scenario(lease_ms=250))
    at, expires = attributes(receive, "job.transaction.time_unix_nano", "job.lease.expires_at")
    assert expires - at == 250 * MS
    assert at == receive.start_time
    assert attributes(receive, "job.attempt", "job.lease.token", "job.transaction.position") == [1, 1, 2]


def test_spans_hang_together(kept: Kept) -> None:
    """What an attempt does are children of its process span, which is linked to the send, as the receive is."""
    simulate(scenario(), spans.SpanSink())
    by_name = {span.name: span for span in kept.spans}
    send, process = by_name["send q"].get_span_context(), by_name["process q"].get_span_context()
    for name in ("receive q", "process q"):
        assert [link.context.span_id for link in by_name[name].links] == [send.span_id]
        assert [link.context.trace_id for link in by_name[name].links] == [send.trace_id]
    for name in ("write a/x", "write a/y", "settle q"):
        parent = by_name[name].parent
        assert parent is not None
        assert parent.span_id == process.span_id
    assert {by_name[name].parent for name in ("send q", "receive q", "process q", "inventory q")} == {None}


def test_an_attempt_says_how_it_ended(kept: Kept) -> None:
    """The process span has the outcome of the work and its reason; it lasts from the attempt's start to its end."""
    failed, passed = told(kept, "process", scenario({"kind": "db_error", "step": "write", "index": 1}))
    assert attributes(failed, "job.outcome", "job.reason", "job.attempt") == ["failed", "BackendError", 1]
    assert attributes(passed, "job.outcome", "job.reason", "job.attempt") == ["ok", None, 2]
    assert all((span.end_time or 0) > (span.start_time or 0) > EPOCH for span in (failed, passed))


@pytest.mark.parametrize(
    ("kind", "error"),
    [("lost_request", "ConnectionLost"), ("lost_reply", "ConnectionLost"), ("db_error", "BackendError")],
)
def test_a_lost_write_is_an_error(kept: Kept, kind: str, error: str) -> None:
    """A write that raised has the error's name and status and claims nothing about being applied."""
    write = told(kept, "write a/y", scenario({"kind": kind, "step": "write", "index": 1}))[0]
    assert attributes(write, "error.type", "job.reason", "job.effect.applied") == [error, error, None]
    assert (write.status.status_code, write.status.description) == (StatusCode.ERROR, error)


@pytest.mark.parametrize(("system", "said"), [("postgresql", ["postgresql"]), (None, [None])])
def test_a_write_says_which_database_keeps_it(kept: Kept, system: str | None, said: list[str | None]) -> None:
    """On real processes the write spans and the run's own name the database system; in the simulator there is none."""
    simulate(scenario(), spans.SpanSink(system))
    spans.announce("s", 0, "{}", EPOCH, system)
    for span in kept.spans:
        expected = said if span.name.split()[0] in ("write", "scenario") else [None]
        assert attributes(span, "db.system.name") == expected, span.name


def test_a_write_says_what_it_wrote(kept: Kept) -> None:
    """The write span has the effect's key and index, the token, and whether it was applied or why not."""
    fault = {"kind": "lost_request", "step": "settle"}
    first, second = told(kept, "write a/y", scenario(fault, dedupe="effect_key"))
    names = ("job.effect.key", "job.effect.index", "job.lease.token", "job.effect.applied", "job.reason")
    assert attributes(first, *names) == ["a/y", 1, 1, True, None]
    assert attributes(second, *names) == ["a/y", 1, 2, False, "duplicate"]
    assert attributes(first, "db.operation.name") == ["write"]
    assert first.status.status_code == StatusCode.UNSET


def test_a_retry_says_how_long_it_waits(kept: Kept) -> None:
    """The retry span has the delay in milliseconds; one that buried the job is a settle span instead."""
    fault = {"kind": "db_error", "step": "write", "index": 1}
    (retry,) = told(kept, "retry", scenario(fault, backoff_ms=70))
    assert attributes(retry, "job.retry.delay_ms", "job.settle.accepted") == [70, True]
    kept.spans.clear()
    (burial,) = told(kept, "settle", scenario(fault, max_attempts=1))
    assert attributes(burial, "job.outcome", "job.reason") == ["dead_letter", "attempts_exhausted"]


@pytest.mark.parametrize(("ack", "outcome"), [("late", "ok"), ("early", "unknown")])
def test_a_settle_says_what_it_acknowledges(kept: Kept, ack: str, outcome: str) -> None:
    """The settle span's outcome is that of the work: unknown when it is acknowledged before it is done."""
    (settle,) = told(kept, "settle", scenario(ack=ack))
    assert attributes(settle, "job.outcome", "job.settle.accepted", "job.lease.token") == [outcome, True, 1]


def test_a_reclaim_names_the_token_taken_back(kept: Kept) -> None:
    """The reclaim span has the job and the token of the lease that ran out."""
    (reclaim,) = told(kept, "reclaim", scenario({"kind": "kill", "step": "start", "when": "after"}))
    assert attributes(reclaim, "messaging.message.id", "job.lease.token", "job.settle.accepted") == ["a", 1, True]


def test_an_inventory_lists_what_is_held(kept: Kept) -> None:
    """The inventory span has the held jobs and their states side by side; an empty one says so."""
    faults = [{"kind": "db_error", "step": "write", "index": 0}]
    (held,) = told(kept, "inventory", scenario(*faults, max_attempts=1))
    assert attributes(held, "job.inventory.ids", "job.inventory.states") == [("a",), ("dead",)]
    kept.spans.clear()
    (empty,) = told(kept, "inventory", scenario())
    assert attributes(empty, "job.inventory.ids", "job.inventory.states") == [(), ()]


def test_a_killed_attempt_never_ends(kept: Kept) -> None:
    """The spans of what a killed worker had begun are started and never ended; its crash names it and the signal."""
    simulate(scenario({"kind": "kill", "step": "write", "index": 0, "when": "committed"}), spans.SpanSink())
    assert [span.name for span in kept.spans if span.end_time is None] == ["process q", "write a/x"]
    (crash,) = [span for span in kept.spans if span.name == "crash"]
    killed = next(span for span in kept.spans if span.name == "process q")
    assert attributes(crash, "job.worker.id") == attributes(killed, "job.worker.id")
    assert attributes(crash, "job.signal") == ["SIGKILL"]


def test_a_run_is_announced(kept: Kept) -> None:
    """The scenario's own span has its id, its seed, and all of it as text."""
    spans.announce("FM-001", 7, '{"id": "FM-001"}', EPOCH)
    (span,) = kept.spans
    assert (span.name, span.start_time, span.end_time) == ("scenario FM-001", EPOCH, EPOCH)
    assert attributes(span, "job.scenario.id", "job.scenario.seed", "job.scenario") == ["FM-001", 7, '{"id": "FM-001"}']


def test_a_scenario_too_long_for_one_attribute_goes_on_in_others_and_one_too_long_for_a_span_is_left_out(
    kept: Kept,
) -> None:
    """No value is longer than a recorder takes, and together they are the text."""
    for length in (spans.PART_CHARACTERS, 2 * spans.PART_CHARACTERS + 1, spans.MAX_PARTS * spans.PART_CHARACTERS + 1):
        spans.announce("long", 7, "x" * length, EPOCH)
    one, three, none = ({**span.attributes} for span in kept.spans)
    assert "job.scenario.2" not in one
    parts = [three[f"job.scenario{suffix}"] for suffix in ("", ".2", ".3")]
    assert [len(part) for part in parts] == [spans.PART_CHARACTERS, spans.PART_CHARACTERS, 1]
    assert none.keys() == {"job.scenario.id", "job.scenario.seed"}


def test_without_a_provider_nothing_is_told() -> None:
    """With the bare API, no provider configured, a run goes the same way and tells nobody."""
    rows, result = history(scenario())
    assert simulate(scenario(), spans.SpanSink()) == result
    assert rows


def rows_of(event: str, rows: Rows) -> Rows:
    return [row for row in rows if row["event"] == event]


def test_columns_are_the_events_relation() -> None:
    """Every row has every column, in order; an execution is named by job and token, a row by its actor and count."""
    rows, _ = history(scenario())
    assert all(tuple(row) == COLUMNS for row in rows)
    (write, _), (enqueue,), (crash, *_) = (rows_of(event, rows) for event in ("write", "enqueue", "inventory"))
    assert (write["execution_id"], write["token"], write["attempt"], write["effect_total"]) == ("a#1", 1, 1, None)
    assert (enqueue["execution_id"], enqueue["effect_total"], enqueue["queue"]) == (None, 2, "q")
    assert crash["execution_id"] is None
    assert len({row["span_id"] for row in rows if row["event"] != "inventory"}) == len(rows) - 1
    assert write["span_id"] == f"{write['worker_id']}:{write['producer_seq']}"


def test_an_early_ack_is_marked_unless_refused() -> None:
    """An acknowledgement before the work has the reason early; one that failed has the reason of its failure."""
    (early,) = rows_of("ack", history(scenario(ack="early"))[0])
    assert (early["outcome"], early["reason"]) == ("ok", "early")
    failed = rows_of("ack", history(scenario({"kind": "db_error", "step": "settle"}, ack="early"))[0])[0]
    assert (failed["outcome"], failed["reason"]) == ("failed", "BackendError")
    (late,) = rows_of("ack", history(scenario())[0])
    assert late["reason"] is None


def test_an_inventory_has_a_row_a_job() -> None:
    """An inventory is one row for itself and one for each held job, with its state, of one moment and position."""
    fault = {"kind": "db_error", "step": "write", "index": 0}
    taken, held = rows_of("inventory", history(scenario(fault, **Policy(max_attempts=1).to_dict()))[0])
    assert (taken["job_id"], taken["reason"]) == (None, None)
    assert (held["job_id"], held["reason"]) == ("a", "dead")
    assert (taken["at"], taken["position"]) == (held["at"], held["position"])
