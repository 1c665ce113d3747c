"""OTLP `Span` messages to rows of the `spans` table. `schema` says what each column means."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from json import JSONEncoder
from typing import Any, TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_to_json = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


M = TypeVar("M", AnyValue, ExportTraceServiceRequest, KeyValue, ResourceSpans, ScopeSpans, Span, Status, TracesData)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a span's row takes from its resource and scope: computed once per scope, not once per span."""

    service_name: str | None
    service_namespace: str | None
    service_instance_id: str | None
    resource_attributes: str
    scope_name: str | None
    scope_version: str | None
    scope_attributes: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the log a span was found."""

    producer: str
    start_seq: int | None
    end_seq: int | None
    received_unix_nano: int


def origin_of(resource_spans: ResourceSpans, scope_spans: ScopeSpans) -> Origin:
    """The columns of every span of this resource and scope."""
    resource = attributes_of(resource_spans.resource.attributes)
    scope = scope_spans.scope
    return Origin(
        service_name=_text(resource.get("service.name")),
        service_namespace=_text(resource.get("service.namespace")),
        service_instance_id=_text(resource.get("service.instance.id")),
        resource_attributes=_to_json(resource),
        scope_name=scope.name or None,
        scope_version=scope.version or None,
        scope_attributes=_to_json(attributes_of(scope.attributes)),
    )


def row_of(span: Span, origin: Origin, place: Place) -> tuple[Any, ...]:
    """One row, in the order of `schema.SPANS`.

    Raises ValueError for a span that no row can hold: ids of the wrong size or zero, times beyond 63 bits.
    """
    check_span(span)
    ended = span.end_time_unix_nano != 0
    return (
        span.start_time_unix_nano,
        span.end_time_unix_nano - span.start_time_unix_nano if ended else None,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() if any(span.parent_span_id) else None,
        span.trace_state or None,
        origin.service_name,
        origin.service_namespace,
        origin.service_instance_id,
        span.name,
        span.kind,
        span.status.code,
        span.status.message or None,
        origin.resource_attributes,
        origin.scope_name,
        origin.scope_version,
        origin.scope_attributes,
        _to_json(attributes_of(span.attributes)),
        _to_json([_event(event) for event in span.events]) if span.events else "[]",
        _to_json([_link(link) for link in span.links]) if span.links else "[]",
        min(span.dropped_attributes_count, _INT32_MAX),
        min(span.dropped_events_count, _INT32_MAX),
        min(span.dropped_links_count, _INT32_MAX),
        span.flags & _INT32_MAX,
        place.producer,
        place.start_seq,
        place.end_seq if ended else None,
        place.received_unix_nano,
    )


def parsed(kind: type[M], payload: bytes) -> M:
    """An OTLP message of `kind`; raises ValueError when the bytes hold none."""
    try:
        message = kind()
        message.ParseFromString(payload)
    except Exception as error:  # protobuf's own errors derive from nothing more specific
        raise ValueError("its bytes are no OTLP message") from error
    return message


def check_span(span: Span) -> None:
    """Raise ValueError, saying why, when the span can be no row."""
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise ValueError("its trace id is not 16 bytes")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise ValueError("its span id is not 8 bytes")
    if len(span.parent_span_id) not in (0, 8):
        raise ValueError("its parent span id is not 8 bytes")
    if max(span.start_time_unix_nano, span.end_time_unix_nano) > _INT64_MAX:
        raise ValueError("its time does not fit 63 bits")


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON-ready values; of a key given twice, the last."""
    found: dict[str, Any] = {}
    for pair in pairs:
        value = pair.value
        kind = value.WhichOneof("value")
        if kind is None:
            found[pair.key] = None
        else:
            convert = _CONVERSIONS.get(kind)
            found[pair.key] = getattr(value, kind) if convert is None else convert(getattr(value, kind))
    return found


def attribute_json(value: AnyValue) -> str:
    """The JSON text of an attribute's value."""
    return _to_json(_value(value))


def double_json(value: float) -> str:
    """The JSON text of a double."""
    return _to_json(_double(value))


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    plain = getattr(value, kind)
    convert = _CONVERSIONS.get(kind)
    return plain if convert is None else convert(plain)


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


# How each kind of AnyValue becomes JSON; text, booleans and integers are JSON already.
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "array_value": lambda array: [_value(item) for item in array.values],
    "kvlist_value": lambda pairs: attributes_of(pairs.values),
    "bytes_value": lambda data: base64.b64encode(data).decode(),
    "double_value": _double,
}


def _event(event: Span.Event) -> dict[str, Any]:
    return {
        "time_unix_nano": event.time_unix_nano,
        "name": event.name,
        "attributes": attributes_of(event.attributes),
        "dropped_attributes_count": event.dropped_attributes_count,
    }


def _link(link: Span.Link) -> dict[str, Any]:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "trace_state": link.trace_state,
        "attributes": attributes_of(link.attributes),
        "dropped_attributes_count": link.dropped_attributes_count,
        "flags": link.flags,
    }


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else _to_json(value)
