"""Logs in, rows and gaps out: starts and ends are joined, duplicates removed, and whatever is missing is named.

Memory holds the spans that are open (started, not yet ended), one row group, and 8 bytes for each frame: the logs
are read twice, first for the span ids alone, to learn which come up more than once. Only those few are compared by
content; everything else streams through.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder.gaps import CAUSES, Gap, Gaps
from fencepost_recorder.logs import Log
from fencepost_recorder.manifest import Producer
from fencepost_recorder.rows import Origin, Place, attributes_of, origin_of, parsed, row_of
from fencepost_recorder.wal import Ending, Frame, FrameType, LogReader, Loss

IMPORT_KIND = "import"
_IDS_BYTES = 28
_SPAN_TYPES = frozenset({FrameType.START, FrameType.END, FrameType.WHOLE})
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
    """A log being read: what its spans refer to."""

    log: Log
    resources: dict[int, ResourceSpans] = field(default_factory=dict)
    origins: dict[int, tuple[Origin, str]] = field(default_factory=dict)
    noted: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0

    @property
    def imported(self) -> bool:
        return self.log.header is not None and self.log.header.kind == IMPORT_KIND


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
    for log in logs:
        conversion.read(log)
    conversion.never_ended()
    conversion.unsequenced()
    started = [log.header.started_unix_nano for log in logs if log.header is not None]
    producers = sorted(conversion.producers, key=lambda one: one.producer)
    return Converted(conversion.gaps, producers, conversion.duplicates, min(started, default=None))


def producer_of(resource_attributes: dict[str, Any]) -> str:
    """The name of an imported span's producer: service.instance.id, else service, host and pid as far as known."""
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
                key = _ids(frame.payload) if frame.type in _SPAN_TYPES else None
                if key is None:
                    continue
                if frame.type is not FrameType.END:
                    starts.append(hash(key))
                if frame.type is not FrameType.START:
                    ends.append(hash(key))
    return _repeated(starts) | _repeated(ends)


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
        self._imported: dict[str, int] = {}

    def read(self, log: Log) -> None:
        """Read one log to its end."""
        reader = log.open()
        with reader.stream:
            if log.header is None:
                self._unreadable(log, reader)
                return
            source = _Source(log)
            for frame in reader.frames():
                source.frames += 1
                self._frame(source, frame)
        self._account(source, reader)

    def never_ended(self) -> None:
        """The spans that are still open when every log is read: the evidence of a crash."""
        for key, stack in self._open.items():
            for started in stack:
                place = Place(started.producer, started.sequence, None, started.time_unix_nano)
                self._emit(key, started.payload, started.origin, place)
        self._open.clear()

    def unsequenced(self) -> None:
        """Nothing numbers the spans of a file, so nobody can know which are missing."""
        for producer, frames in self._imported.items():
            self.gaps.add(
                Gap("unsequenced", producer, detail="imported: a file carries no sequence, so losses cannot be seen")
            )
            self.producers.append(Producer(producer, None, None, None, frames, None, "imported"))

    def _frame(self, source: _Source, frame: Frame) -> None:
        try:
            if frame.type is FrameType.RESOURCE:
                source.resources[frame.sequence] = parsed(ResourceSpans, frame.payload)
            elif frame.type is FrameType.SCOPE:
                self._scope(source, frame)
            elif frame.type is FrameType.NOTE:
                self._note(source, frame)
            elif frame.type is not FrameType.CLOSE:
                self._span_frame(source, frame)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._poison(source, frame, str(error))

    def _scope(self, source: _Source, frame: Frame) -> None:
        resource = source.resources.get(frame.ref, ResourceSpans())
        name = producer_of(attributes_of(resource.resource.attributes)) if source.imported else source.log.producer
        source.origins[frame.sequence] = (origin_of(resource, parsed(ScopeSpans, frame.payload)), name)

    def _note(self, source: _Source, frame: Frame) -> None:
        values = json.loads(frame.payload)
        gap = Gap(**values)
        if gap.cause not in CAUSES:
            raise ValueError("a note of unknown cause")
        if not source.imported:
            gap = Gap(**{**values, "producer": source.log.producer})
            bounds = (int(values["first_seq"]), int(values["last_seq"]))
            if bounds in source.noted:
                return  # told twice, when a signal handler told it at the same moment
            source.noted.append(bounds)
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
            if source.imported:
                self._imported[producer] = self._imported.get(producer, 0) + 1
            place = Place(producer, frame.sequence, frame.sequence, frame.time_unix_nano)
        else:
            place = self._joined(key, producer, frame)
        self._emit(key, frame.payload, origin, place)

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

    def _emit(self, key: bytes, payload: bytes, origin: Origin, place: Place) -> None:
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
        self._dropped(span, place)
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

    def _dropped(self, span: Span, place: Place) -> None:
        counts = (
            ("dropped_attributes", span.dropped_attributes_count),
            ("dropped_events", span.dropped_events_count),
            ("dropped_links", span.dropped_links_count),
        )
        for cause, count in counts:
            if count:
                what = cause.removeprefix("dropped_")
                detail = f"span {span.span_id.hex()} had more or larger {what} than could be kept"
                self.gaps.add(self._gap_of(cause, span, place, count, detail))

    def _gap_of(self, cause: str, span: Span, place: Place, lost: int | None, detail: str) -> Gap:
        until = span.end_time_unix_nano or None
        first = place.start_seq if place.start_seq is not None else place.end_seq
        last = place.end_seq if place.end_seq is not None else place.start_seq
        return Gap(cause, place.producer, first, last, span.start_time_unix_nano, until, lost, detail)

    def _poison(self, source: _Source, frame: Frame, why: str) -> None:
        when = frame.time_unix_nano
        detail = f"a {frame.type.name.lower()} frame could not be read: {why}"
        self.gaps.add(
            Gap("poison_span", source.log.producer, frame.sequence, frame.sequence, when, when, 1, detail[:500])
        )

    def _unreadable(self, log: Log, reader: LogReader) -> None:
        reason = reader.reason or "its name is not that of its producer"
        self.gaps.add(Gap("torn_tail", log.producer, 0, detail=f"the log could not be read: {reason}"))
        self.producers.append(Producer(log.producer, None, None, None, 0, None, "damaged"))

    def _account(self, source: _Source, reader: LogReader) -> None:
        """What is missing from a log that was read to its end."""
        if source.imported:
            return
        self._told_losses(source, reader)
        for broken in reader.breaks:
            for first, last in _without(broken.first_seq, broken.last_seq, source.noted):
                detail = "frames are missing from the middle of the log"
                self.gaps.add(
                    Gap(
                        "sequence_break",
                        source.log.producer,
                        first,
                        last,
                        broken.since_unix_nano,
                        broken.until_unix_nano,
                        last - first + 1,
                        detail,
                    )
                )
        self._producer(source, reader, self._tail(source, reader))

    def _told_losses(self, source: _Source, reader: LogReader) -> None:
        name, header = source.log.producer, source.log.header
        if reader.loss_damaged and header is not None:
            detail = "the record of frames that could not be written is damaged"
            self.gaps.add(Gap("write_failed", name, since_unix_nano=header.started_unix_nano, detail=detail))
        loss = reader.loss
        if loss is not None and (loss.first_seq, loss.last_seq) not in source.noted:
            source.noted.append((loss.first_seq, loss.last_seq))
            self.gaps.add(_gap_of_loss(name, loss))

    def _tail(self, source: _Source, reader: LogReader) -> str:
        log, header = source.log, source.log.header
        since = reader.last_time_unix_nano or (header.started_unix_nano if header is not None else None)
        if log.locked_now or (header is not None and not header.locked and not reader.closed):
            detail = (
                "the process was still recording when the recording was sealed"
                if log.locked_now
                else "whether the process was still recording could not be told"
            )
            self.gaps.add(Gap("still_recording", log.producer, reader.next_sequence, None, since, detail=detail))
            return "still_recording"
        if reader.ending is not Ending.CLEAN:
            detail = f"the log is {reader.ending.value} at byte {reader.offset}: {reader.reason}"
            detail += f"; {reader.unread_bytes} bytes were not read"
            self.gaps.add(Gap("torn_tail", log.producer, reader.next_sequence, None, since, detail=detail))
            return "damaged"
        return "closed" if reader.closed else "died"

    def _producer(self, source: _Source, reader: LogReader, ended: str) -> None:
        header = source.log.header
        assert header is not None
        last = reader.next_sequence - 1 if reader.next_sequence else None
        self.producers.append(
            Producer(header.producer, header.pid, header.host, header.started_unix_nano, source.frames, last, ended)
        )


def _gap_of_loss(producer: str, loss: Loss) -> Gap:
    return Gap(
        "write_failed",
        producer,
        loss.first_seq,
        loss.last_seq,
        loss.since_unix_nano,
        loss.until_unix_nano,
        loss.lost,
        f"frames could not be written (errno {loss.errno})",
    )


def _without(first: int, last: int, known: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The closed range without the closed ranges `known`."""
    left = [(first, last)]
    for start, stop in known:
        cut: list[tuple[int, int]] = []
        for low, high in left:
            if stop < low or start > high:
                cut.append((low, high))
                continue
            if low < start:
                cut.append((low, start - 1))
            if stop < high:
                cut.append((stop + 1, high))
        left = cut
    return left
