"""What spans themselves say was left out of them, or of their traces: OTLP's dropped counts, and the marks of samplers.

A threshold of more than zero in the tracestate's `ot=th:` (or, older, a `p:` of more than zero) says that a sampler
kept only a part of the traces like this one. So does a span that a process recorded though it was not sampled; of a
span that was told by others that cannot be known, for several SDKs leave the sampled bit out of OTLP's flags. What
else there was, nobody knows. See "TraceState: Probability Sampling" of the OpenTelemetry specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder.errors import printable

_SAMPLED = 0x01
# Our processor sets it in all flags that it writes.
_FLAGS_ARE_KNOWN = 0x100
_THRESHOLD = re.compile(r"[0-9a-f]{1,14}\Z")
_THRESHOLD_DIGITS = 14


def dropped(span: Span) -> Iterator[tuple[str, int, str]]:
    """Cause, count and detail of each kind of thing that did not fit into a span, its events or its links."""
    attributes = span.dropped_attributes_count
    attributes += sum(event.dropped_attributes_count for event in span.events)
    attributes += sum(link.dropped_attributes_count for link in span.links)
    counts = (("attributes", attributes), ("events", span.dropped_events_count), ("links", span.dropped_links_count))
    for what, count in counts:
        if count:
            yield f"dropped_{what}", count, f"span {span.span_id.hex()} had more or larger {what} than could be kept"


def dropped_by(row: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """What `dropped` says, of a row of the `spans` table."""
    inner = [one["dropped_attributes_count"] for key in ("events_json", "links_json") for one in json.loads(row[key])]
    counts = {what: row[f"dropped_{what}_count"] for what in ("attributes", "events", "links")}
    counts["attributes"] += sum(inner)
    for what, count in counts.items():
        if count:
            yield f"dropped_{what}", count, f"span {row['span_id']} had more or larger {what} than could be kept"


def dropped_around(resource: ResourceSpans, scope: ScopeSpans) -> tuple[int, str]:
    """How many attributes did not fit into a resource and a scope, and the detail that says so."""
    count = resource.resource.dropped_attributes_count + scope.scope.dropped_attributes_count
    return count, "a resource or scope had more or larger attributes than could be kept"


def sampling(span: Span, told: bool) -> str | None:
    """Why it is known that a sampler left out other spans of this one's producer; None where nothing says so.

    `told`: by a file or a client, instead of recorded by the span's own process.
    """
    if span.trace_state:
        for key, value in _ours(span.trace_state):
            kept = _kept(key, value)
            if kept is not None and kept < 1:
                rate = f"{kept:.6g} of all traces" if kept else "none"
                return f"span {span.span_id.hex()} says that a sampler keeps {rate} ({printable(f'{key}:{value}', 40)})"
    if not told and span.flags & (_FLAGS_ARE_KNOWN | _SAMPLED) == _FLAGS_ARE_KNOWN:
        return f"span {span.span_id.hex()} was recorded though it was not sampled: others of its kind may not have been"
    return None


def _ours(trace_state: str) -> Iterator[tuple[str, str]]:
    """The key-value pairs of the member of a W3C tracestate that is OpenTelemetry's."""
    for member in trace_state.split(","):
        vendor, _, pairs = member.strip().partition("=")
        if vendor == "ot":
            for pair in pairs.split(";"):
                key, _, value = pair.partition(":")
                yield key, value


def _kept(key: str, value: str) -> float | None:
    """The share of traces that a sampler keeps, 0 to 1; None when the pair says nothing of it that can be read."""
    if key == "th" and _THRESHOLD.match(value):
        # Trailing zeros may be left out; the threshold is the share that is rejected, in units of 2**-56.
        return (2**56 - int(value.ljust(_THRESHOLD_DIGITS, "0"), 16)) / 2**56
    if key == "p" and value.isascii() and value.isdecimal() and len(value) <= 2:
        return 0.0 if int(value) >= 63 else 2.0 ** -int(value)
    return None
