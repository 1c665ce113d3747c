"""The Celery mapping on a recorded story, with spans rewritten and left out; no server is needed.

data/celery.jsonl is what the stock exporter wrote in such a run, made by scrub.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outside.story import all_events

from fencepost_analyzer.check import check
from fencepost_recorder import Recording, import_otlp

EXAMPLE = Path(__file__).resolve().parent / "data" / "celery.jsonl"

Json = dict[str, Any]


def lines() -> list[Json]:
    return [json.loads(line) for line in EXAMPLE.read_text("utf-8").splitlines()]


def scopes(line: Json) -> list[Json]:
    return [scope for resource in line["resourceSpans"] for scope in resource["scopeSpans"]]


def all_spans() -> list[Json]:
    return [span for line in lines() for scope in scopes(line) for span in scope["spans"]]


def recorded(
    directory: Path,
    *,
    keep: Callable[[Json], bool] = lambda _: True,
    change: Callable[[Json], None] = lambda _: None,
    change_resource: Callable[[Json], None] = lambda _: None,
) -> Recording:
    """The example as a recording, with only the spans that `keep` keeps, each changed by `change`."""
    changed = lines()
    for line in changed:
        for resource in line["resourceSpans"]:
            change_resource(resource["resource"])
        for scope in scopes(line):
            scope["spans"] = [span for span in scope["spans"] if keep(span)]
            for span in scope["spans"]:
                change(span)
    file = directory / "celery.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in changed))
    return import_otlp([file], directory / "recordings", "celery", tool_version="test")


def attribute(span: Json, key: str) -> str | None:
    found = [pair["value"] for pair in span["attributes"] if pair["key"] == key]
    return str(next(iter(found[0].values()))) if found else None


def told(recording: Recording, task: str) -> list[tuple[str, str]]:
    """Event and outcome of each event of the job of this task, in the order of their times."""
    ids = {attribute(span, "messaging.message.id") for span in all_spans() if span["name"].endswith(f".{task}")}
    return [(row["event"], row["outcome"]) for row in all_events(recording) if row["job_id"] in ids]


def is_run(task: str) -> Callable[[Json], bool]:
    return lambda span: span["name"] == f"run/shop.{task}"


def test_the_example_holds_nothing_private() -> None:
    """The example names no machine, user or path."""
    text = EXAMPLE.read_text("utf-8")
    assert not {word for word in ("/home", "/root", "/work", "/tmp", "site-packages", "process.") if word in text}
    assert {attribute(span, "celery.hostname") for span in all_spans()} == {None, "gen1@one"}


def test_the_example_tells_the_story(tmp_path: Path) -> None:
    """Imported as it is, the example gives the events of its run, and finds the one job that ran twice at once."""
    recording = import_otlp([EXAMPLE], tmp_path, "celery", tool_version="test")
    assert told(recording, "mail") == [("enqueue", "ok"), ("run", "ok")]
    assert told(recording, "flaky") == [("enqueue", "ok"), ("run", "failed"), ("retry", "ok"), ("run", "ok")]
    assert told(recording, "report") == [("enqueue", "ok"), ("run", "ok"), ("run", "ok")]
    (witness,) = check(recording).finding("INV-002").witnesses
    assert set(witness.span_ids) == {span["spanId"] for span in all_spans() if is_run("report")(span)}


def test_links_tell_what_parents_tell(tmp_path: Path) -> None:
    """Runs that link to their publish, as the instrumentation does when asked, give the same events as children."""
    (tmp_path / "parents").mkdir()
    (tmp_path / "links").mkdir()

    def link(span: Json) -> None:
        """A run begins a trace of its own; what it publishes is its child there."""
        runs = {one["spanId"]: one["spanId"] * 2 for one in all_spans() if one["kind"] == 5}
        cause = {"traceId": span["traceId"], "spanId": span.get("parentSpanId", "")}
        if span["kind"] == 5:
            cause["traceId"] = next(
                runs.get(one.get("parentSpanId", ""), one["traceId"])
                for one in all_spans()
                if one["spanId"] == cause["spanId"]
            )
            span["links"] = [cause]
            span["traceId"] = runs[span["spanId"]]
            del span["parentSpanId"]
        elif cause["spanId"] in runs:
            span["traceId"] = runs[cause["spanId"]]

    told_twice = (recorded(tmp_path / "parents"), recorded(tmp_path / "links", change=link))
    as_children, as_linked = ([{**row, "trace_id": None} for row in all_events(one)] for one in told_twice)
    assert as_linked == as_children


def test_an_enqueue_is_proved_only_by_a_run(tmp_path: Path) -> None:
    """A publish without any run of its job is of unknown outcome, however well its span ended."""
    recording = recorded(tmp_path, keep=lambda span: not is_run("mail")(span))
    assert told(recording, "mail") == [("enqueue", "unknown")]


def test_a_retry_is_proved_by_the_run_that_asked_for_it(tmp_path: Path) -> None:
    """A run ends in state RETRY only after its successor was published, so the retry needs no second run."""
    recording = recorded(tmp_path, keep=lambda span: attribute(span, "celery.retries") is None)
    assert told(recording, "flaky") == [("enqueue", "ok"), ("run", "failed"), ("retry", "ok")]
    assert [row["until"] for row in all_events(recording) if row["event"] == "retry"] == [None]


@pytest.mark.parametrize(("state", "outcome"), [("SUCCESS", "ok"), ("FAILURE", "failed"), (None, "unknown")])
def test_a_run_that_goes_on_enqueues_its_job_once_more(tmp_path: Path, state: str | None, outcome: str) -> None:
    """Only a run that gives its job up retries it; one that was killed, or ended otherwise, did not end by that."""

    def end_in_state(span: Json) -> None:
        if attribute(span, "celery.state") == "RETRY":
            span["attributes"] = [pair for pair in span["attributes"] if pair["key"] != "celery.state"]
            if state is not None:
                span["attributes"].append({"key": "celery.state", "value": {"stringValue": state}})

    recording = recorded(tmp_path, change=end_in_state)
    assert told(recording, "flaky") == [("enqueue", "ok"), ("run", outcome), ("enqueue", "ok"), ("run", "ok")]


def test_a_run_that_asked_for_a_retry_is_over_when_it_did(tmp_path: Path) -> None:
    """A retry may start on another process before the span of the run that asked for it has ended: no overlap."""
    spans = {span["spanId"]: span for span in all_spans()}
    (first,) = [span for span in spans.values() if attribute(span, "celery.state") == "RETRY"]
    (second,) = [span for span in spans.values() if attribute(span, "celery.retries") == "1"]

    def late(span: Json) -> None:
        if span["spanId"] == first["spanId"]:
            span["endTimeUnixNano"] = str(int(second["startTimeUnixNano"]) + 1)

    recording = recorded(tmp_path, keep=lambda span: span["name"].endswith("flaky"), change=late)
    assert check(recording).finding("INV-002").witnesses == ()


@pytest.mark.parametrize(
    ("state", "outcome"), [("REJECTED", "failed"), ("IGNORED", "unknown"), ("SOMETHING ELSE", "unknown")]
)
def test_other_states_are_not_success(tmp_path: Path, state: str, outcome: str) -> None:
    """Only SUCCESS is a success; a state that says nothing about the work is of unknown outcome."""

    def end_in_state(span: Json) -> None:
        for pair in span["attributes"]:
            if pair["key"] == "celery.state":
                pair["value"] = {"stringValue": state}

    assert told(recorded(tmp_path, change=end_in_state), "mail") == [("enqueue", "ok"), ("run", outcome)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("celery.retries", {"intValue": str(2**63 - 1)}),
        ("celery.retries", {"stringValue": "1; DROP TABLE spans"}),
        ("celery.eta", {"stringValue": "9999-12-31T23:59:59+00:00"}),
        ("celery.eta", {"stringValue": "infinity"}),
        ("celery.eta", {"stringValue": "soon"}),
        ("celery.delivery_info", {"stringValue": "{'redelivered': "}),
        ("celery.state", {"arrayValue": {"values": [{"stringValue": "SUCCESS"}]}}),
    ],
)
def test_attributes_of_any_value_are_survived(tmp_path: Path, key: str, value: Json) -> None:
    """An attribute that says nonsense costs what it would have told, and no more."""

    def replace(span: Json) -> None:
        span["attributes"] = [pair for pair in span["attributes"] if pair["key"] != key]
        span["attributes"].append({"key": key, "value": value})

    recording = recorded(tmp_path, change=replace)
    assert len(all_events(recording)) == len(all_spans())
    assert all(found.verdict != "holds" for found in check(recording).findings)


def test_clocks_of_unknown_hosts_prove_no_overlap(tmp_path: Path) -> None:
    """Without host names the two runs of one job may be of two clocks: unknown, not violated."""

    def forget_host(resource: Json) -> None:
        resource["attributes"] = [pair for pair in resource["attributes"] if pair["key"] != "host.name"]

    report = check(recorded(tmp_path, change_resource=forget_host))
    assert (report.finding("INV-002").verdict, report.violated) == ("unknown", ())


@pytest.mark.parametrize("missing", range(len(all_spans())))
def test_a_missing_span_makes_no_false_verdict(tmp_path: Path, missing: int) -> None:
    """Whichever span was lost, nothing holds or is violated by that; the overlap is found while both runs are there."""
    lost = all_spans()[missing]
    report = check(recorded(tmp_path, keep=lambda span: span["spanId"] != lost["spanId"]))
    verdicts = {found.id: found.verdict for found in report.findings}
    overlap = verdicts.pop("INV-002")
    assert set(verdicts.values()) == {"unknown"}
    assert overlap != "holds"
    assert len(report.finding("INV-002").witnesses) == (0 if is_run("report")(lost) else 1)
