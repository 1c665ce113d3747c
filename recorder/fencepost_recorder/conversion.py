"""Logs in, rows and gaps out: starts and ends are joined, duplicates removed, and whatever is missing is named.

Memory holds the spans that are open (started, not yet ended), one row group, and 8 bytes for each frame: the logs
are read twice, first for the span ids alone, to learn which come up more than once. Only those few are compared by
content; everything else streams through.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import left_out
from fencepost_recorder.accounts import IMPORT_KIND, RECEIVER_KIND, SegmentAccount, durability_of, settle
from fencepost_recorder.gaps import CAUSES, Gap, Gaps
from fencepost_recorder.logs import Log
from fencepost_recorder.manifest import Producer
from fencepost_recorder.rows import Origin, Place, attributes_of, origin_of, parsed, row_of
from fencepost_recorder.wal import Frame, FrameType

_IDS_BYTES = 28
_SPAN_TYPES = frozenset({FrameType.START, FrameType.END, FrameType.WHOLE})
_UNSEQUENCED = {
    IMPORT_KIND: ("imported: a file carries no sequence, so losses cannot be seen", "imported"),
    RECEIVER_KIND: ("received: a client numbers nothing, so what it never sent cannot be seen", "received"),
}
_UNKNOWN_ORIGIN = origin_of(ResourceSpans(), ScopeSpans())


class Sink(Protocol):
    """What takes the rows."""

    def add(self, row: tuple[Any, ...], size: int) -> None:
        """Take one row, which stands for about `size` bytes."""


@dataclass(frozen=True, slots=True)
class _Started:
    producer: str
    sequence: int
    time_unix_nano: int
    payload: bytes
    origin: Origin


@dataclass(slots=True)
class _Source:
    """A segment being read: what its spans refer to."""

    log: Log
    account: SegmentAccount
    resources: dict[int, ResourceSpans] = field(default_factory=dict)
    origins: dict[int, tuple[Origin, str]] = field(default_factory=dict)

    @property
    def told(self) -> bool:
        """Whether its spans were told by others, whose names only their resources say."""
        return self.account.kind in (IMPORT_KIND, RECEIVER_KIND)


@dataclass(slots=True)
class Converted:
    """What a conversion found besides the rows."""

    gaps: Gaps
    producers: list[Producer]
    duplicates: int
    created_unix_nano: int | None


def convert(logs: list[Log], sink: Sink) -> Converted:
    """Read the logs and give every span, as a row, to `sink`. Raises StorageError when a log cannot be read."""
    conversion = _Conversion(_repeated_ids(logs), sink)
    for _, segments in groupby(logs, key=lambda log: log.producer):
        accounts = [conversion.read(log) for log in segments]
        if accounts[0].kind != IMPORT_KIND:
            conversion.producers.append(settle(accounts, conversion.gaps))
    conversion.never_ended()
    conversion.unsequenced()
    started = [log.header.started_unix_nano for log in logs if log.header is not None]
    producers = sorted(conversion.producers, key=lambda one: one.producer)
    return Converted(conversion.gaps, producers, conversion.duplicates, min(started, default=None))


def producer_of(resource_attributes: dict[str, Any]) -> str:
    """The name of an imported or received span's producer: service.instance.id, else service, host, pid as known."""
    instance = resource_attributes.get("service.instance.id")
    if instance not in (None, ""):
        return str(instance)[:256]
    keys = ("service.namespace", "service.name", "host.name", "process.pid")
    parts = [str(resource_attributes[key]) for key in keys if resource_attributes.get(key) not in (None, "")]
    return ("/".join(parts) or "unknown")[:256]


def _ids(payload: bytes) -> bytes | None:
    """Trace and span id of an encoded span: the recorder always writes them first."""
    if payload[:2] != b"\x0a\x10" or payload[18:20] != b"\x12\x08" or len(payload) < _IDS_BYTES:
        return None
    return payload[2:18] + payload[20:_IDS_BYTES]


def _repeated_ids(logs: list[Log]) -> set[int]:
    """Hashes of the span ids that start, or end, more than once."""
    starts, ends = array("q"), array("q")
    for log in logs:
        reader = log.open()
        with reader.stream:
            for frame in reader.frames() if log.header is not None else ():
                for key in _keys(frame):
                    if frame.type is not FrameType.END:
                        starts.append(hash(key))
                    if frame.type is not FrameType.START:
                        ends.append(hash(key))
    return _repeated(starts) | _repeated(ends)


def _keys(frame: Frame) -> Iterator[bytes]:
    """The ids of a frame's spans."""
    if frame.type in _SPAN_TYPES:
        key = _ids(frame.payload)
        if key is not None:
            yield key
    elif frame.type is FrameType.REQUEST:
        with suppress(ValueError):
            for resource in parsed(ExportTraceServiceRequest, frame.payload).resource_spans:
                for scope in resource.scope_spans:
                    yield from (span.trace_id + span.span_id for span in scope.spans)


def _repeated(hashes: array[int]) -> set[int]:
    if not hashes:
        return set()
    values = pa.Array.from_buffers(pa.int64(), len(hashes), [None, pa.py_buffer(hashes)])
    counts = pc.value_counts(values)
    return set(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())


class _Conversion:
    def __init__(self, repeated: set[int], sink: Sink) -> None:
        self.gaps = Gaps()
        self.producers: list[Producer] = []
        self.duplicates = 0
        self._repeated = repeated
        self._sink = sink
        self._open: dict[bytes, list[_Started]] = {}
        self._seen: dict[bytes, set[bytes]] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._sampled: set[str] = set()
        self._around: set[int] = set()

    def read(self, log: Log) -> SegmentAccount:
        """Read one segment to its end."""
        source = _Source(log, SegmentAccount.of(log))
        reader = log.open()
        with reader.stream:
            for frame in reader.frames() if log.header is not None else ():
                source.account.frames += frame.type is not FrameType.NEXT
                self._frame(source, frame)
        source.account.finish(reader)
        return source.account

    def never_ended(self) -> None:
        """The spans that are still open when every log is read: the evidence of a crash."""
        for key, stack in self._open.items():
            for started in stack:
                place = Place(started.producer, started.sequence, None, started.time_unix_nano)
                self._emit(key, started.payload, started.origin, place, told=False)
        self._open.clear()

    def unsequenced(self) -> None:
        """Nothing numbers what a file or a client should have told, so nobody can know what is missing."""
        for (producer, kind), spans in self._told.items():
            detail, ended = _UNSEQUENCED[kind]
            self.gaps.add(Gap("unsequenced", producer, detail=detail))
            self.producers.append(Producer(producer, None, None, None, spans, None, ended, durability_of(kind)))

    def _frame(self, source: _Source, frame: Frame) -> None:
        try:
            if frame.type is FrameType.RESOURCE:
                source.resources[frame.sequence] = parsed(ResourceSpans, frame.payload)
            elif frame.type is FrameType.SCOPE:
                self._scope(source, frame)
            elif frame.type is FrameType.NOTE:
                self._note(source, frame)
            elif frame.type is FrameType.REQUEST:
                self._request(source, frame)
            elif frame.type in _SPAN_TYPES:
                self._span_frame(source, frame)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._poison(source, frame, str(error))

    def _scope(self, source: _Source, frame: Frame) -> None:
        resource = source.resources.get(frame.ref, ResourceSpans())
        name = producer_of(attributes_of(resource.resource.attributes)) if source.told else source.log.producer
        scope = parsed(ScopeSpans, frame.payload)
        source.origins[frame.sequence] = (origin_of(resource, scope), name)
        self._dropped_around(resource, scope, name)

    def _note(self, source: _Source, frame: Frame) -> None:
        values = json.loads(frame.payload)
        gap = Gap(**values)
        if gap.cause not in CAUSES:
            raise ValueError("a note of unknown cause")
        if not source.told:
            gap = Gap(**{**values, "producer": source.log.producer})
            bounds = (int(values["first_seq"]), int(values["last_seq"]))
            if bounds in source.account.noted:
                return  # told twice, when a signal handler told it at the same moment
            source.account.noted.append(bounds)
        self.gaps.add(gap)

    def _span_frame(self, source: _Source, frame: Frame) -> None:
        key = _ids(frame.payload)
        if key is None:
            raise ValueError("it does not start with its ids")
        origin, producer = source.origins.get(frame.ref, (_UNKNOWN_ORIGIN, source.log.producer))
        if frame.type is FrameType.START:
            started = _Started(producer, frame.sequence, frame.time_unix_nano, frame.payload, origin)
            self._open.setdefault(key, []).append(started)
            return
        if frame.type is FrameType.WHOLE:
            if source.told:
                self._count(producer, source)
            place = Place(producer, frame.sequence, frame.sequence, frame.time_unix_nano)
        else:
            place = self._joined(key, producer, frame)
        self._emit(key, frame.payload, origin, place, told=source.told)

    def _request(self, source: _Source, frame: Frame) -> None:
        ordinal = frame.ref
        for resource in parsed(ExportTraceServiceRequest, frame.payload).resource_spans:
            producer = producer_of(attributes_of(resource.resource.attributes))
            for scope in resource.scope_spans:
                origin = origin_of(resource, scope)
                self._dropped_around(resource, scope, producer)
                for span in scope.spans:
                    place = Place(producer, ordinal, ordinal, frame.time_unix_nano)
                    ordinal += 1
                    self._count(producer, source)
                    key, payload = span.trace_id + span.span_id, span.SerializeToString(deterministic=True)
                    self._emit(key, payload, origin, place, told=True)

    def _count(self, producer: str, source: _Source) -> None:
        key = (producer, source.account.kind)
        self._told[key] = self._told.get(key, 0) + 1

    def _joined(self, key: bytes, producer: str, frame: Frame) -> Place:
        """The place of a span that ends here: its own process's start, else any (as after a fork), else none."""
        stack = self._open.get(key)
        if not stack:
            return Place(producer, None, frame.sequence, frame.time_unix_nano)
        index = next((i for i, one in enumerate(stack) if one.producer == producer), 0)
        started = stack.pop(index)
        if not stack:
            del self._open[key]
        end = frame.sequence if started.producer == producer else None
        return Place(started.producer, started.sequence, end, frame.time_unix_nano)

    def _emit(self, key: bytes, payload: bytes, origin: Origin, place: Place, *, told: bool) -> None:
        try:
            span = parsed(Span, payload)
            row = row_of(span, origin, place)
        except ValueError as error:
            sequence = place.start_seq if place.start_seq is not None else place.end_seq
            when = place.received_unix_nano
            detail = f"a span could not be read: {error}"
            self.gaps.add(Gap("poison_span", place.producer, sequence, sequence, when, when, 1, detail))
            return
        if hash(key) in self._repeated and not self._is_new(key, payload, span, place):
            return
        self._left_out(span, place, told)
        self._sink.add(row, len(payload))

    def _is_new(self, key: bytes, payload: bytes, span: Span, place: Place) -> bool:
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        known = self._seen.setdefault(key, set())
        if digest in known:
            self.duplicates += 1
            return False
        if known:
            detail = f"span {key[16:].hex()} of trace {key[:16].hex()} was recorded twice, with different content"
            self.gaps.add(self._gap_of("conflicting_duplicate", span, place, None, detail))
        known.add(digest)
        return True

    def _left_out(self, span: Span, place: Place, told: bool) -> None:
        for cause, count, detail in left_out.dropped(span):
            self.gaps.add(self._gap_of(cause, span, place, count, detail))
        if place.producer not in self._sampled and (why := left_out.sampling(span, told)):
            # Once, and without bounds: whatever else this producer did may have been left out.
            self._sampled.add(place.producer)
            self.gaps.add(Gap("sampled", place.producer, detail=why))

    def _dropped_around(self, resource: ResourceSpans, scope: ScopeSpans, producer: str) -> None:
        count, detail = left_out.dropped_around(resource, scope)
        if not count:
            return
        # A producer says it in each of its segments, and a client in each of its requests.
        who = (resource.resource, scope.scope)
        key = hash((producer, *(one.SerializeToString(deterministic=True) for one in who)))
        if key not in self._around:
            self._around.add(key)
            self.gaps.add(Gap("dropped_attributes", producer, lost=count, detail=detail))

    def _gap_of(self, cause: str, span: Span, place: Place, lost: int | None, detail: str) -> Gap:
        until = span.end_time_unix_nano or None
        first = place.start_seq if place.start_seq is not None else place.end_seq
        last = place.end_seq if place.end_seq is not None else place.start_seq
        return Gap(cause, place.producer, first, last, span.start_time_unix_nano, until, lost, detail)

    def _poison(self, source: _Source, frame: Frame, why: str) -> None:
        when, number = frame.time_unix_nano, frame.sequence
        detail = f"a {frame.type.name.lower()} frame could not be read: {why}"[:400]
        if frame.type is FrameType.REQUEST:
            # Of a whole request nobody knows whose it was, how much it held and when that was.
            detail += f" (number {number} of {source.log.producer})"
            self.gaps.add(Gap("poison_span", until_unix_nano=when, detail=detail))
        else:
            self.gaps.add(Gap("poison_span", source.log.producer, number, number, when, when, 1, detail))
