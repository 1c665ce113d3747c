"""What spans say was left out becomes gaps: dropped counts at every level, and the marks that samplers leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from fencepost_recorder import RecordingSpanProcessor, begin, import_otlp, seal
from fencepost_recorder.left_out import sampling


class RecordOnly(Sampler):
    """Has every span recorded and none sampled."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "record only"


def gaps_of(recordings: Path, *documents: Any) -> list[tuple[str, str | None, int | None, int | None]]:
    """Cause, producer, count and beginning of the gaps of an import of these, those apart that every import has."""
    file = recordings.parent / "in.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in documents))
    rows = import_otlp([file], recordings, "left-out", tool_version="1").gaps().to_pylist()
    found = [(row["cause"], row["producer"], row["lost"], row["since_unix_nano"]) for row in rows]
    return [one for one in found if one[0] != "unsequenced"]


def document(resource: Any = None, scope: Any = None, service: str = "s", number: int = 1, **span: Any) -> Any:
    ids = {"traceId": f"{1:032x}", "spanId": f"{number:016x}", "startTimeUnixNano": "5", "endTimeUnixNano": "9"}
    named = {"attributes": [{"key": "service.instance.id", "value": {"stringValue": service}}], **(resource or {})}
    scopes = [{"scope": scope or {}, "spans": [{**ids, **span}]}]
    return {"resourceSpans": [{"resource": named, "scopeSpans": scopes}]}


def test_each_kind_of_dropped_count_is_a_gap_with_its_number(recordings: Path) -> None:
    """A span's own counts bound a gap by its times and say how many, attributes of events and links among them."""
    events = [{"timeUnixNano": "6", "name": "e", "droppedAttributesCount": 2}]
    links = [{"traceId": f"{7:032x}", "spanId": f"{7:016x}", "droppedAttributesCount": 4}]
    counts = {"droppedAttributesCount": 1, "droppedEventsCount": 5, "droppedLinksCount": 6}
    assert gaps_of(recordings, document(events=events, links=links, **counts)) == [
        ("dropped_attributes", "s", 7, 5),
        ("dropped_events", "s", 5, 5),
        ("dropped_links", "s", 6, 5),
    ]


def test_a_part_of_a_trace_in_an_answer_of_tempos_is_a_gap_of_anybody(recordings: Path) -> None:
    """However many such answers a file has: whose spans are missing nobody knows."""
    parts = [{"trace": document(number=number), "status": "PARTIAL", "message": "too large"} for number in (1, 2)]
    whole = {"trace": document(number=3), "status": "COMPLETE"}
    assert gaps_of(recordings, whole, *parts) == [("not_in_file", None, None, None)]


def test_a_whole_trace_in_an_answer_of_tempos_is_none(recordings: Path) -> None:
    assert gaps_of(recordings, {"trace": document(), "status": "COMPLETE"}, {"trace": document(number=2)}) == []


def test_attributes_dropped_from_a_resource_or_scope_are_a_gap_of_its_producer_once(recordings: Path) -> None:
    """They lack from all that this producer told: without bounds, and said again they are no second gap."""
    resource, scope = {"droppedAttributesCount": 3}, {"name": "x", "droppedAttributesCount": 2}
    lines = [document(resource, scope, number=number) for number in (1, 2)]
    assert gaps_of(recordings, *lines, document(service="other", number=3)) == [("dropped_attributes", "s", 5, None)]


@pytest.mark.parametrize(
    ("trace_state", "said"),
    [
        ("ot=th:8", "keeps 0.5 of all traces (th:8)"),
        ("vendor=x, ot=rv:abcdefabcdef12;th:c", "keeps 0.25 of all traces"),
        ("ot=th:ffffffffffffff", "keeps 1.38778e-17 of all traces"),
        ("ot=p:3;r:7", "keeps 0.125 of all traces"),
        ("ot=p:63", "keeps none"),
        ("ot=th:0", None),
        ("ot=th:00000000000000", None),
        ("ot=p:0", None),
        ("", None),
        ("other=th:8", None),
        ("ot=th:", None),
        ("ot=th:xyz", None),
        ("ot=th:123456789abcdef", None),
        ("ot=p:-1,p:8", None),
        ("ot=p:²", None),
        (",;=:ot", None),
    ],
)
def test_a_span_tells_by_its_tracestate_that_a_sampler_was_at_work(trace_state: str, said: str | None) -> None:
    """The threshold of consistent sampling or the older power of two; what is neither says nothing."""
    why = sampling(Span(span_id=b"12345678", trace_state=trace_state), told=True)
    assert why == said if said is None or why is None else said in why


def test_a_span_recorded_but_not_sampled_tells_it_only_of_its_own_process(recordings: Path) -> None:
    """Our processor writes the sampled bit; OTLP from elsewhere may lack it though everything was sampled."""
    unsampled = Span(span_id=b"12345678", flags=0x100)
    assert "though it was not sampled" in (sampling(unsampled, told=False) or "")
    assert sampling(unsampled, told=True) is None
    assert sampling(Span(flags=0x101), told=False) is None
    directory = begin(recordings, "sampled")
    provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
    provider.add_span_processor(RecordingSpanProcessor(directory / "wal"))
    provider.get_tracer("t").start_span("kept out of every export").end()
    provider.shutdown()
    [gap] = seal(directory, tool_version="1").gaps().to_pylist()
    assert (gap["cause"], gap["lost"]) == ("sampled", None)


def test_sampling_is_one_gap_a_producer_without_bounds(recordings: Path) -> None:
    """However many spans say so; producers whose spans say nothing of the kind have none."""
    lines = [document(number=number, traceState="ot=th:c") for number in (1, 2, 3)]
    assert gaps_of(recordings, *lines, document(service="other", number=4, traceState="ot=th:0")) == [
        ("sampled", "s", None, None)
    ]
