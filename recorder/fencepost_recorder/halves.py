"""A span's start and its end, each encoded for about the price of what is new in it.

The end repeats the start and adds a little. What was encoded at the start is kept while the span is open, and used
again wherever it still holds; where it does not, or was forgotten, the end is encoded from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import is_
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from fencepost_recorder import encode

# Spans that never end must not fill the memory: the oldest are forgotten, all at once, and cost a little more.
_MAX_STARTED = 4096
_MAX_KEPT_BYTES = 16 * 1024

# Context, name, links ever given, attributes, and the bytes: of head and links, of the attributes; attributes dropped.
_Started = tuple[SpanContext, str, int, dict[str, Any], bytes, bytes, int]


class SpanHalves:
    """Encodes spans as they start and end. Thread-safe as far as dict operations are atomic."""

    def __init__(self) -> None:
        self._started: dict[int, _Started] = {}

    def start(self, span: ReadableSpan) -> bytes:
        """OTLP `Span` bytes of a span that has just started. Raises as `encode_span` does."""
        context = span.context
        if context is None:
            raise encode.Unencodable("a span without a context")
        attributes = encode.attributes_of(span)
        head, body = [encode.encode_head(span, context)], [b""]
        encode.encode_links(span, head)
        lost = encode.encode_attributes(attributes, body)
        first, second = b"".join(head), b"".join(body)
        if len(first) + len(second) <= _MAX_KEPT_BYTES:
            if len(self._started) >= _MAX_STARTED:
                self._started.clear()
            links = _links_ever(span)
            self._started[context.span_id] = (context, span.name, links, attributes, first, second, lost)
        elif len(first) + len(second) > encode.MAX_SPAN_BYTES:
            return encode.encode_span(span, content=False)
        dropped = span.dropped_attributes + lost
        if dropped:
            encode.encode_dropped_attributes(dropped, tail := [first, second])
            return b"".join(tail)
        return first + second

    def end(self, span: ReadableSpan) -> bytes:
        """OTLP `Span` bytes of a span that has ended. Raises as `encode_span` does."""
        context = span.context
        started = self._started.pop(context.span_id, None) if context is not None else None
        if started is None:
            return encode.encode_span(span)
        known, name, links, before, first, second, lost = started
        attributes = encode.attributes_of(span)
        if (
            known is not context
            or name is not span.name
            or links != _links_ever(span)
            or len(attributes) < len(before)
            # The very same objects in the same order: equal ones may differ in type. More may follow.
            or not all(map(is_, before, attributes))
            or not all(map(is_, before.values(), attributes.values()))
        ):
            return encode.encode_span(span)
        out = [first, second]
        if len(attributes) > len(before):
            lost += encode.encode_attributes(dict(islice(attributes.items(), len(before), None)), out)
        encode.encode_dropped_attributes(span.dropped_attributes + lost, out)
        if _number(span, "events") or span.dropped_events:
            encode.encode_events(span, out)
        encode.encode_end(span, out)
        data = b"".join(out)
        return data if len(data) <= encode.MAX_SPAN_BYTES else encode.encode_span(span, content=False)

    def whole(self, span: ReadableSpan) -> bytes:
        """OTLP `Span` bytes of a span of which nothing was told before. Raises as `encode_span` does."""
        return encode.encode_span(span)

    def bare(self, span: ReadableSpan) -> bytes:
        """OTLP `Span` bytes without attributes, events and links. Raises as `encode_span` does."""
        return encode.encode_span(span, content=False)

    def resource(self, resource: Resource, replaced: Mapping[str, Any]) -> bytes:
        """OTLP `ResourceSpans` bytes of a resource alone; `replaced` attributes take the place of its own."""
        return encode.encode_resource(resource, replaced)

    def scope(self, scope: InstrumentationScope | None) -> bytes:
        """OTLP `ScopeSpans` bytes of an instrumentation scope alone."""
        return encode.encode_scope(scope)


def _number(span: ReadableSpan, name: str) -> int:
    """How many events or links a span has, without the copy that the SDK's own property makes."""
    inner = getattr(span, "_" + name, None)
    return len(inner if inner is not None else getattr(span, name))


def _links_ever(span: ReadableSpan) -> int:
    """How many links a span was given: at the SDK's limit a new one takes an old one's place, and the number stays."""
    return _number(span, "links") + span.dropped_links
