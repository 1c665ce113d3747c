"""A recording as OTLP: messages of some hundred spans each, in either encoding.

Spans that follow each other under the same resource and scope are grouped, within a message; those of one producer
stay in their order. Whatever the length of the recording, the memory is that of one message.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Protocol

from fencepost_recorder import marks
from fencepost_recorder.exporting.companion import companions
from fencepost_recorder.exporting.spans import ExportedSpan, Json, loaded, spans_of, unreadable
from fencepost_recorder.recording import Recording

# The Collector's receiver for files of JSON lines splits a line of more than 1 MiB (max_log_size).
MESSAGE_BYTES = 384 * 1024
MESSAGE_SPANS = 512
_MAX_KNOWN = 4096
# A trace id, a span id, and perhaps another.
_IDS = re.compile(r"[0-9a-f]{48}(?:[0-9a-f]{16})?\Z")

# Spans by their scope by their resource.
Groups = list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]


class Encoder(Protocol):
    """One of OTLP's encodings."""

    def resource(self, attributes: Json) -> bytes:
        """A resource."""

    def scope(self, name: str | None, version: str | None, attributes: Json) -> bytes:
        """An instrumentation scope."""

    def span(self, span: ExportedSpan, end: int, attributes: Json, events: list[Json], links: list[Json]) -> bytes:
        """A span; raises ValueError, TypeError, KeyError or AttributeError for what is none."""

    def message(self, groups: Groups) -> bytes:
        """A whole ExportTraceServiceRequest, framed for a file."""


class Counts:
    """How much was exported."""

    def __init__(self) -> None:
        self.spans = 0
        self.never_ended = 0


def messages(recording: Recording, encoder: Encoder, counts: Counts) -> Iterator[bytes]:
    """The recording, message by message; first what is known to be missing from it. Raises RecordingDamaged."""
    for attributes in companions(recording):
        yield encoder.message([(encoder.resource(attributes), [])])
    work = _Work(recording.id, encoder)
    for span in spans_of(recording):
        work.add(span)
        counts.never_ended += span.duration is None
        if work.spans == MESSAGE_SPANS or work.bytes >= MESSAGE_BYTES:
            counts.spans += work.spans
            yield work.message()
    if work.spans:
        counts.spans += work.spans
        yield work.message()


class _Work:
    """Turns rows into encoded spans; what surrounds many of them is encoded once."""

    def __init__(self, recording_id: str, encoder: Encoder) -> None:
        self._id = recording_id
        self._encoder = encoder
        self._resources: dict[tuple[str, str], bytes] = {}
        self._scopes: dict[tuple[str | None, str | None, str], bytes] = {}
        self._begin()

    def _begin(self) -> None:
        self.spans = self.bytes = 0
        self._groups: Groups = []
        # Where the next span of a producer may join the one before.
        self._latest: dict[str, tuple[bytes, list[tuple[bytes, list[bytes]]]]] = {}

    def message(self) -> bytes:
        """What was added since the last one."""
        made = self._encoder.message(self._groups)
        self._begin()
        return made

    def add(self, span: ExportedSpan) -> None:
        """Take one span."""
        resource, scope, data = self._resource(span), self._scope(span), self._span(span)
        latest = self._latest.get(span.producer)
        if latest is None or latest[0] != resource:
            latest = self._latest[span.producer] = (resource, [])
            self._groups.append(latest)
            self.bytes += len(resource)
        scopes = latest[1]
        if not scopes or scopes[-1][0] != scope:
            scopes.append((scope, []))
            self.bytes += len(scope)
        scopes[-1][1].append(data)
        self.spans += 1
        self.bytes += len(data)

    def _span(self, span: ExportedSpan) -> bytes:
        attributes = loaded(span.attributes, dict, self._id)
        events = loaded(span.events, list, self._id) if span.events != "[]" else []
        links = loaded(span.links, list, self._id) if span.links != "[]" else []
        end = self._end(span, attributes)
        try:
            if not _IDS.match(f"{span.trace_id}{span.span_id}{span.parent_span_id or ''}") or min(span.start, end) < 0:
                raise ValueError("ids or times that are none")
            return self._encoder.span(span, end, attributes, events, links)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, struct.error):
            raise unreadable(self._id) from None

    @staticmethod
    def _end(span: ExportedSpan, attributes: Json) -> int:
        end = span.end
        if end is None:
            attributes[marks.NEVER_ENDED] = True
            end = span.start
        elif marks.NEVER_ENDED in attributes:
            # A user's own: as text it marks nothing.
            attributes[marks.NEVER_ENDED] = str(attributes[marks.NEVER_ENDED])
        return end

    def _resource(self, span: ExportedSpan) -> bytes:
        key = (span.resource, span.producer)
        known = self._resources.get(key)
        if known is None:
            attributes = loaded(span.resource, dict, self._id)
            if marks.producer_of(attributes) != span.producer:
                attributes[marks.PRODUCER] = span.producer
            if len(self._resources) >= _MAX_KNOWN:
                self._resources.clear()
            known = self._resources[key] = self._encoder.resource(attributes)
        return known

    def _scope(self, span: ExportedSpan) -> bytes:
        key = (span.scope_name, span.scope_version, span.scope_attributes)
        known = self._scopes.get(key)
        if known is None:
            if len(self._scopes) >= _MAX_KNOWN:
                self._scopes.clear()
            attributes = loaded(span.scope_attributes, dict, self._id)
            known = self._scopes[key] = self._encoder.scope(span.scope_name, span.scope_version, attributes)
        return known
