"""Spans with numbers for names: what was written can be told from a recording's row, to the last field.

Encoded by hand once and stamped with their number, because a campaign writes millions.
"""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

SCOPE = "campaign"
TRACE_ID = bytes.fromhex("c0ffee00c0ffee00c0ffee00c0ffee00")
START_UNIX_NANO = 1_790_000_000_000_000_000
DURATION_NANO = 1_000
ATTRIBUTES = {
    "messaging.system": "fencepost",
    "messaging.destination.name": "payments",
    "messaging.message.id": "pay-1",
    "job.worker.id": "payments-worker-1",
    "job.attempt": 1,
    "job.lease.token": 17,
    "job.effect.key": "pay-1/debit",
    "job.effect.applied": True,
}
_ID_AT = 20  # where in an encoded span its own id lies: the trace id comes before it


def _pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    made = []
    for key, value in attributes.items():
        if isinstance(value, bool):
            made.append(KeyValue(key=key, value=AnyValue(bool_value=value)))
        elif isinstance(value, int):
            made.append(KeyValue(key=key, value=AnyValue(int_value=value)))
        else:
            made.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    return made


def _template(ended: bool) -> bytes:
    span = Span(trace_id=TRACE_ID, span_id=bytes(7) + b"\1", name="write pay-1/debit", kind=Span.SPAN_KIND_CLIENT)
    span.start_time_unix_nano = START_UNIX_NANO
    span.end_time_unix_nano = START_UNIX_NANO + DURATION_NANO if ended else 0
    span.attributes.extend(_pairs(ATTRIBUTES))
    return span.SerializeToString()


_STARTED, _ENDED = _template(ended=False), _template(ended=True)


def started(number: int) -> bytes:
    """The span of that number, from 1, as it starts."""
    return _STARTED[:_ID_AT] + number.to_bytes(8, "big") + _STARTED[_ID_AT + 8 :]


def ended(number: int) -> bytes:
    """The span of that number, as it ends."""
    return _ENDED[:_ID_AT] + number.to_bytes(8, "big") + _ENDED[_ID_AT + 8 :]


def resource(producer: str) -> bytes:
    """A RESOURCE frame's payload."""
    made = ResourceSpans()
    made.resource.attributes.extend(_pairs({"service.name": "campaign", "service.instance.id": producer}))
    return made.SerializeToString()


def scope() -> bytes:
    """A SCOPE frame's payload."""
    made = ScopeSpans()
    made.scope.name = SCOPE
    return made.SerializeToString()


class Requests:
    """Export requests of one client, each of `size` spans, made by stamping numbers into one that was encoded."""

    def __init__(self, producer: str, size: int) -> None:
        self.size = size
        request = ExportTraceServiceRequest()
        one = request.resource_spans.add()
        one.resource.attributes.extend(_pairs({"service.name": "campaign", "service.instance.id": producer}))
        inner = one.scope_spans.add()
        inner.scope.name = SCOPE
        inner.spans.extend(Span.FromString(ended(1)) for _ in range(size))
        self._encoded = request.SerializeToString()
        mark = b"\x12\x08" + bytes(7) + b"\1"
        self._places = []
        at = self._encoded.find(mark)
        while at >= 0:
            self._places.append(at + 2)
            at = self._encoded.find(mark, at + 1)
        assert len(self._places) == size

    def encoded(self, first: int) -> bytes:
        """The request with the spans from `first` on."""
        data = bytearray(self._encoded)
        for number, at in enumerate(self._places, first):
            data[at : at + 8] = number.to_bytes(8, "big")
        return bytes(data)


def wrong(row: dict[str, Any]) -> str:
    """What is wrong with a row of the spans table, as one that was made here; empty when nothing is."""
    expected = {
        "trace_id": TRACE_ID.hex(),
        "parent_span_id": None,
        "name": "write pay-1/debit",
        "kind": 3,
        "status_code": 0,
        "start_time_unix_nano": START_UNIX_NANO,
        "scope_name": SCOPE,
        "service_name": "campaign",
        "events_json": "[]",
        "links_json": "[]",
    }
    for key, value in expected.items():
        if row[key] != value:
            return f"span {row['span_id']} has the {key} {row[key]!r}"
    if row["duration_time_unix_nano"] not in (None, DURATION_NANO):
        return f"span {row['span_id']} lasts {row['duration_time_unix_nano']}"
    if json.loads(row["span_attributes"]) != ATTRIBUTES:
        return f"span {row['span_id']} has other attributes"
    return ""


COLUMNS = (
    *("span_id", "trace_id", "parent_span_id", "name", "kind", "status_code", "start_time_unix_nano", "scope_name"),
    *("service_name", "events_json", "links_json", "duration_time_unix_nano", "span_attributes"),
)
