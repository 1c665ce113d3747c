"""OTLP as JSON lines: one ExportTraceServiceRequest a line, in the JSON encoding of the OTLP specification.

ASCII alone, so that a line is safe on a terminal and its separator cannot be within it: what a span holds is
escaped. Names are lowerCamelCase, ids hex, 64-bit integers decimal text; what has its default is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from fencepost_recorder.exporting.otlp import Groups
from fencepost_recorder.exporting.spans import ExportedSpan, Json

_quoted = json.JSONEncoder(ensure_ascii=True).encode
_MAX_CACHED = 16_384
_MAX_CACHED_CHARACTERS = 256


class JsonEncoder:
    """See `otlp.Encoder`."""

    def __init__(self) -> None:
        # Most attributes repeat from span to span; apart by type, because 1 == True == 1.0.
        self._texts: dict[tuple[str, str], str] = {}
        self._others: dict[tuple[str, type, Any], str] = {}

    def resource(self, attributes: Json) -> bytes:
        """The fields of a Resource."""
        return self._some("attributes", self._pairs(attributes)).encode()

    def scope(self, name: str | None, version: str | None, attributes: Json) -> bytes:
        """The fields of an InstrumentationScope."""
        fields = [f'"{key}":{_quoted(value)}' for key, value in (("name", name), ("version", version)) if value]
        return ",".join([*fields, *filter(None, [self._some("attributes", self._pairs(attributes))])]).encode()

    def span(self, span: ExportedSpan, end: int, attributes: Json, events: list[Json], links: list[Json]) -> bytes:
        """A Span."""
        out = [f'{{"traceId":"{span.trace_id}","spanId":"{span.span_id}"']
        if span.trace_state:
            out.append(f',"traceState":{_quoted(span.trace_state)}')
        if span.parent_span_id:
            out.append(f',"parentSpanId":"{span.parent_span_id}"')
        out.append(f',"name":{_quoted(span.name)},"kind":{span.kind}')
        out.append(f',"startTimeUnixNano":"{span.start}","endTimeUnixNano":"{end}"')
        if attributes:
            out.append(f',"attributes":[{self._pairs(attributes)}]')
        out.append(_count("droppedAttributesCount", span.dropped_attributes))
        if events:
            out.append(f',"events":[{",".join(map(self._event, events))}]')
        out.append(_count("droppedEventsCount", span.dropped_events))
        if links:
            out.append(f',"links":[{",".join(map(self._link, links))}]')
        out.append(_count("droppedLinksCount", span.dropped_links))
        if span.status_code or span.status_message:
            message = f'"message":{_quoted(span.status_message)},' if span.status_message else ""
            out.append(f',"status":{{{message}"code":{span.status_code}}}')
        out.append(_count("flags", span.flags))
        out.append("}")
        return "".join(out).encode()

    def message(self, groups: Groups) -> bytes:
        """A line."""
        return b'{"resourceSpans":[%b]}\n' % b",".join(
            b'{"resource":{%b},"scopeSpans":[%b]}' % (resource, b",".join(self._scope_spans(scopes)))
            for resource, scopes in groups
        )

    @staticmethod
    def _scope_spans(scopes: list[tuple[bytes, list[bytes]]]) -> Iterable[bytes]:
        return (b'{"scope":{%b},"spans":[%b]}' % (scope, b",".join(spans)) for scope, spans in scopes)

    @staticmethod
    def _some(name: str, items: str) -> str:
        return f'"{name}":[{items}]' if items else ""

    def _event(self, event: Json) -> str:
        head = f'{{"timeUnixNano":"{int(event["time_unix_nano"])}","name":{_quoted(str(event["name"]))}'
        return head + self._tail(event) + "}"

    def _link(self, link: Json) -> str:
        head = f'{{"traceId":{_quoted(str(link["trace_id"]))},"spanId":{_quoted(str(link["span_id"]))}'
        state = f',"traceState":{_quoted(str(link["trace_state"]))}' if link["trace_state"] else ""
        return head + state + self._tail(link) + _count("flags", link["flags"]) + "}"

    def _tail(self, values: Json) -> str:
        attributes = self._pairs(values["attributes"])
        some = f',"attributes":[{attributes}]' if attributes else ""
        return some + _count("droppedAttributesCount", values["dropped_attributes_count"])

    def _pairs(self, attributes: Json) -> str:
        texts = self._texts
        out: list[str] = []
        for key, value in attributes.items():
            if type(value) is str:
                pair = texts.get((key, value))
                if pair is None:
                    pair = _pair(key, value)
                    if len(pair) <= _MAX_CACHED_CHARACTERS:
                        _room(texts)[key, value] = pair
            else:
                pair = self._other(key, value)
            out.append(pair)
        return ",".join(out)

    def _other(self, key: str, value: Any) -> str:
        if type(value) not in (int, bool):
            return _pair(key, value)
        known = self._others.get((key, type(value), value))
        if known is None:
            known = _room(self._others)[key, type(value), value] = _pair(key, value)
        return known


def _room(cache: dict[Any, str]) -> dict[Any, str]:
    """The cache, emptied when there is too much in it: what users make up must not fill the memory."""
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    return cache


def _count(name: str, number: int) -> str:
    return f',"{name}":{int(number)}' if number else ""


def _pair(key: str, value: Any) -> str:
    return f'{{"key":{_quoted(key)},"value":{_value(value)}}}'


def _value(value: Any) -> str:
    """An AnyValue. Raises KeyError for what JSON has no type for."""
    return _VALUES[type(value)](value)


def _array(items: list[Any]) -> str:
    return f'{{"arrayValue":{{"values":[{",".join(map(_value, items))}]}}}}'


def _map(items: Json) -> str:
    return f'{{"kvlistValue":{{"values":[{",".join(_pair(key, item) for key, item in items.items())}]}}}}'


def _double(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else ('"Infinity"' if value > 0 else '"-Infinity"')


_VALUES: dict[type, Callable[[Any], str]] = {
    str: lambda text: f'{{"stringValue":{_quoted(text)}}}',
    bool: lambda truth: f'{{"boolValue":{"true" if truth else "false"}}}',
    int: lambda number: f'{{"intValue":"{number}"}}',
    float: lambda number: f'{{"doubleValue":{_double(number)}}}',
    type(None): lambda _: "{}",
    list: _array,
    dict: _map,
}
