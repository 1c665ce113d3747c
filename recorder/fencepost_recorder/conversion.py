"""Segments in, rows and gaps out: starts and ends are joined, and whatever is missing is named.

A unit is some segments that are converted together; what is found in it is a function of their bytes alone. Frames are
taken out of the log by hand and their spans scanned by hand (`scanning.py`); what is not of the usual kind, frame or
span, goes the careful way, which is slower by an order of magnitude and has the last word.

Memory holds a window of one file, one batch of rows, and the halves of spans that are open.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import left_out, named
from fencepost_recorder.accounts import IMPORT_KIND, RECEIVER_KIND, SegmentAccount
from fencepost_recorder.columns import Batch, Columns
from fencepost_recorder.fragments import Fragments
from fencepost_recorder.gaps import CAUSES, Gap, Gaps
from fencepost_recorder.logs import Log
from fencepost_recorder.loose import IDS_BYTES, Half, is_key, join
from fencepost_recorder.marks import mentions, producer_of, restore
from fencepost_recorder.requests import RequestScope, scopes_of
from fencepost_recorder.rows import Origin, Place, attributes_of, origin_of, parsed, row_of
from fencepost_recorder.scanning import Scan, scanner
from fencepost_recorder.wal import FRAME_OVERHEAD_BYTES, MAX_SEQUENCE, Frame, FrameType, LogReader

_FRAME = struct.Struct("<IIBQQQ").unpack_from
_SEQUENCE = struct.Struct("<Q").unpack_from
_START, _END, _WHOLE = int(FrameType.START), int(FrameType.END), int(FrameType.WHOLE)
_REQUEST = int(FrameType.REQUEST)
_MAX_SCOPES = 4096
_UNKNOWN_ORIGIN = origin_of(ResourceSpans(), ScopeSpans())
_crc32 = zlib.crc32


@dataclass(slots=True)
class Found:
    """What was found in a unit besides rows.

    `starts` and `ends` are halves of spans without the other half; `told` counts the spans of producers that only
    others tell of, by (producer, kind of log); `sampled` and `around` hold gaps that are told once, however many
    segments say it.
    """

    accounts: list[SegmentAccount] = field(default_factory=list)
    gaps: Gaps = field(default_factory=Gaps)
    starts: list[Half] = field(default_factory=list)
    ends: list[Half] = field(default_factory=list)
    told: dict[tuple[str, str], int] = field(default_factory=dict)
    sampled: dict[str, Gap] = field(default_factory=dict)
    around: dict[tuple[str, str], Gap] = field(default_factory=dict)


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

    def origin(self, ref: int) -> tuple[Origin, str]:
        """What the SCOPE frame of that number says, and whose spans refer to it."""
        return self.origins.get(ref) or (_UNKNOWN_ORIGIN, self.log.producer)


class Conversion:
    """Converts segments; gives the rows, in batches, to `sink`. `careful`: everything goes the careful way."""

    def __init__(self, sink: Callable[[Batch], None], *, careful: bool = False) -> None:
        self.found = Found()
        self._sink = sink
        self._careful = careful
        self._columns = Columns()
        self._fragments = Fragments()
        self._scan: Scan = scanner(self._columns, self._fragments)
        # Of the producer whose log is read: its starts without an end so far, by the encoded ids.
        self._open: dict[bytes, list[Half]] = {}
        self._scopes: dict[tuple[bytes, bytes], tuple[Origin, str]] = {}

    def read(self, logs: Iterable[Log]) -> None:
        """Read segments to their ends, those of one producer one after the other. Raises StorageError."""
        for _, segments in groupby(logs, key=lambda log: log.producer):
            self.found.accounts += [self._segment(log) for log in segments]
            left = (half for halves in self._open.values() for half in halves)
            self.found.starts += sorted(left, key=lambda half: half.sequence)
            self._open.clear()

    def join(self, starts: Iterable[Half], ends: Iterable[Half]) -> None:
        """Add the spans that these halves are, once it is known that there are no others of them."""
        for one in join(starts, ends):
            self._joined(one.half, one.place)
            self._drain()

    def _joined(self, half: Half, place: Place) -> None:
        payload, heed = half.payload, place.producer not in self.found.sampled
        numbers = (place.start_seq, place.end_seq, place.received_unix_nano)
        context = self._columns.context(half.origin, place.producer)
        if self._careful or not self._scan(payload, 0, len(payload), context, *numbers, heed, heed):
            self._care(payload, half.origin, place, told=False)
        self._columns.size += len(payload)

    def finish(self) -> None:
        """Give away the last rows."""
        if len(self._columns):
            self._sink(self._columns.take())

    def _drain(self) -> None:
        if self._columns.full:
            self._sink(self._columns.take())
            self._fragments.forget()

    def _segment(self, log: Log) -> SegmentAccount:
        source = _Source(log, SegmentAccount.of(log))
        reader = log.open()
        with reader.stream:
            while log.header is not None:
                if not self._careful:
                    self._quickly(source, reader)
                self._drain()
                frame = reader.next()
                if frame is None:
                    break
                source.account.frames += frame.type is not FrameType.NEXT
                self._frame(source, frame)
        source.account.finish(reader)
        return source.account

    def _quickly(self, source: _Source, reader: LogReader) -> None:
        """Take frames out of the reader's window for as long as they are of the usual kind."""
        data, begun = reader.window()
        view, last_head = memoryview(data), len(data) - FRAME_OVERHEAD_BYTES
        carried, told, scan = self._open, source.told, self._scan
        heed = source.log.producer not in self.found.sampled
        opened: dict[bytes, int] = {}
        contexts: dict[int, int] = {}
        at, due, last = begun, reader.next_sequence, reader.last_time_unix_nano or 0
        # One loop, for a call a frame would cost as much as the frame.
        while at <= last_head:
            checksum, size, kind, sequence, time, ref = _FRAME(data, at)
            begin = at + FRAME_OVERHEAD_BYTES
            stop = begin + size
            if sequence != due or stop > len(data) or _crc32(view[at + 4 : stop]) != checksum or time > MAX_SEQUENCE:
                break
            if kind == _START:
                key = data[begin : begin + IDS_BYTES]
                if told or size < IDS_BYTES or key in carried or opened.setdefault(key, at) != at:
                    break
            elif kind == _END:
                key = data[begin : begin + IDS_BYTES]
                started = opened.pop(key, None)
                start = _SEQUENCE(data, started + 9)[0] if started is not None else self._carried(key)
                if start is None:
                    break
                context = contexts.get(ref)
                if context is None:
                    context = contexts[ref] = self._columns.context(*source.origin(ref))
                if not scan(data, begin, stop, context, start, sequence, time, heed, heed):
                    if started is not None and not is_key(key):
                        opened[key] = started
                        break
                    place = Place(source.log.producer, start, sequence, time)
                    self._care(data[begin:stop], source.origin(ref)[0], place, told=False)
            elif not told or not self._told_quickly(source, data, begin, stop, (kind, sequence, time, ref), contexts):
                break
            at, last = stop, time
            due += 1
        for started in opened.values():
            self._carry(source, data, started)
        self._columns.size += at - begun
        source.account.frames += due - reader.next_sequence
        if at > begun:
            reader.passed(at, due, last)

    def _carried(self, key: bytes) -> int | None:
        """Take the start of a span that began before the window; its number."""
        halves = self._open.get(key)
        if halves is None or not is_key(key):
            return None
        half = halves.pop(0)
        if not halves:
            del self._open[key]
        return half.sequence

    def _carry(self, source: _Source, data: bytes, at: int) -> None:
        """Keep a start whose end is not within the window."""
        _, size, _, sequence, time, ref = _FRAME(data, at)
        payload = data[at + FRAME_OVERHEAD_BYTES : at + FRAME_OVERHEAD_BYTES + size]
        half = Half(source.log.producer, sequence, time, payload, source.origin(ref)[0])
        self._open.setdefault(half.key, []).append(half)

    def _told_quickly(
        self,
        source: _Source,
        data: bytes,
        begin: int,
        stop: int,
        head: tuple[int, int, int, int],
        contexts: dict[int, int],
    ) -> bool:
        kind, sequence, time, ref = head
        if kind == _REQUEST:
            try:
                scopes = scopes_of(data, begin, stop)
            except (ValueError, IndexError):
                return False
            self._request(source, data, scopes, time, ref)
            return True
        if kind != _WHOLE:
            return False
        origin, producer = source.origin(ref)
        context = contexts.get(ref)
        if context is None:
            context = contexts[ref] = self._columns.context(origin, producer)
        heed = producer not in self.found.sampled
        self._count(source, producer, 1)
        if not self._scan(data, begin, stop, context, sequence, sequence, time, False, heed):
            self._care(data[begin:stop], origin, Place(producer, sequence, sequence, time), told=True)
        return True

    def _request(self, source: _Source, data: bytes, scopes: list[RequestScope], time: int, ordinal: int) -> None:
        for one in scopes:
            origin, producer = self._scope_of(one)
            context = self._columns.context(origin, producer)
            heed = producer not in self.found.sampled
            self._count(source, producer, len(one.spans))
            marked = bool(one.spans) and mentions(data, one.spans[0][0], one.spans[-1][1])
            careful = marked or self._careful
            for begin, stop in one.spans:
                if careful or not self._scan(data, begin, stop, context, ordinal, ordinal, time, False, heed):
                    payload = _restored(data[begin:stop]) if marked else data[begin:stop]
                    self._care(payload, origin, Place(producer, ordinal, ordinal, time), told=True)
                ordinal += 1

    def _scope_of(self, one: RequestScope) -> tuple[Origin, str]:
        key = (one.resource, one.scope)
        found = self._scopes.get(key)
        if found is None:
            resource, scope = parsed(ResourceSpans, one.resource), parsed(ScopeSpans, one.scope)
            producer = producer_of(attributes_of(resource.resource.attributes))
            if len(self._scopes) >= _MAX_SCOPES:
                self._scopes.clear()
            found = self._scopes[key] = (origin_of(resource, scope), producer)
            self._dropped_around(resource, scope, producer)
        return found

    def _count(self, source: _Source, producer: str, spans: int) -> None:
        named.count(self.found.told, producer, source.account.kind, spans)

    # The careful way.

    def _frame(self, source: _Source, frame: Frame) -> None:
        try:
            if frame.type is FrameType.RESOURCE:
                source.resources[frame.sequence] = parsed(ResourceSpans, frame.payload)
            elif frame.type is FrameType.SCOPE:
                self._scope(source, frame)
            elif frame.type is FrameType.NOTE:
                self._note(source, frame)
            elif frame.type is FrameType.REQUEST:
                scopes = scopes_of(frame.payload, 0, len(frame.payload))
                self._request(source, frame.payload, scopes, frame.time_unix_nano, frame.ref)
            elif frame.type not in (FrameType.CLOSE, FrameType.NEXT):
                self._span_frame(source, frame)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
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
        if gap.cause == "sampled" and gap.producer is not None:
            named.note(self.found.sampled, gap.producer, named.OTHERS, gap)
        else:
            self.found.gaps.add(gap)

    def _span_frame(self, source: _Source, frame: Frame) -> None:
        origin, producer = source.origin(frame.ref)
        half = Half(producer, frame.sequence, frame.time_unix_nano, frame.payload, origin)
        if frame.type is FrameType.START:
            # What is wrong with it matters only if it never ends.
            if source.told:
                self.found.starts.append(half)
            else:
                self._open.setdefault(half.key, []).append(half)
            return
        if not is_key(frame.payload) and not source.told:
            raise ValueError("it does not start with its ids")
        place = Place(producer, frame.sequence, frame.sequence, frame.time_unix_nano)
        if frame.type is FrameType.WHOLE:
            if source.told:
                self._count(source, producer, 1)
        else:
            start = self._carried(half.key) if not source.told else None
            if start is None:
                self.found.ends.append(half)
                return
            place = Place(producer, start, frame.sequence, frame.time_unix_nano)
        self._care(frame.payload, origin, place, told=source.told)

    def _care(self, payload: bytes, origin: Origin, place: Place, *, told: bool) -> None:
        try:
            if not is_key(payload) and not told:
                raise ValueError("it does not start with its ids")
            span = parsed(Span, payload)
            row = row_of(span, origin, place)
        except ValueError as error:
            sequence = place.start_seq if place.start_seq is not None else place.end_seq
            when = place.received_unix_nano
            detail = f"a span could not be read: {error}"
            self.found.gaps.add(Gap("poison_span", place.producer, sequence, sequence, when, when, 1, detail))
            return
        self._left_out(span, place, told)
        self._columns.add(row, origin, len(payload))

    def _left_out(self, span: Span, place: Place, told: bool) -> None:
        for cause, count, detail in left_out.dropped(span):
            until = span.end_time_unix_nano or None
            first = place.start_seq if place.start_seq is not None else place.end_seq
            last = place.end_seq if place.end_seq is not None else place.start_seq
            self.found.gaps.add(
                Gap(cause, place.producer, first, last, span.start_time_unix_nano, until, count, detail)
            )
        if place.producer not in self.found.sampled and (why := left_out.sampling(span, told)):
            # Once, and without bounds: whatever else this producer did may have been left out.
            gap = Gap("sampled", place.producer, detail=why)
            named.note(self.found.sampled, place.producer, named.OTHERS, gap)

    def _dropped_around(self, resource: ResourceSpans, scope: ScopeSpans, producer: str) -> None:
        count, detail = left_out.dropped_around(resource, scope)
        if count:
            # A producer says it in each of its segments, and a client in each of its requests.
            who = b"".join(one.SerializeToString(deterministic=True) for one in (resource.resource, scope.scope))
            key = (producer, hashlib.blake2b(who, digest_size=16).hexdigest())
            gap = Gap("dropped_attributes", producer, lost=count, detail=detail)
            named.note(self.found.around, key, (named.OTHERS, ""), gap)

    def _poison(self, source: _Source, frame: Frame, why: str) -> None:
        when, number = frame.time_unix_nano, frame.sequence
        detail = f"a {frame.type.name.lower()} frame could not be read: {why}"[:400]
        if frame.type is FrameType.REQUEST:
            # Of a whole request nobody knows whose it was, how much it held and when that was.
            detail += f" (number {number} of {source.log.producer})"
            self.found.gaps.add(Gap("poison_span", until_unix_nano=when, detail=detail))
        else:
            self.found.gaps.add(Gap("poison_span", source.log.producer, number, number, when, when, 1, detail))


def _restored(payload: bytes) -> bytes:
    """The bytes of a span, restored; those that are none stay as they are."""
    try:
        span = parsed(Span, payload)
    except ValueError:
        return payload
    restore(span)
    return bytes(span.SerializeToString(deterministic=True))
