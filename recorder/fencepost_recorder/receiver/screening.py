"""A request's bytes, looked through before they are kept: whatever could not become a row later is kept out now.

The request is walked on the wire as far as its spans, and the spans are parsed a few at a time. So one broken span
costs itself alone, and memory stays near the size of the request: a message of two-byte fields parsed as a whole
would take fifty times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import wire
from fencepost_recorder.encode import MAX_SPAN_BYTES, varint
from fencepost_recorder.marks import producer_of
from fencepost_recorder.receiver.answers import Problem, Refusal
from fencepost_recorder.receiver.limits import MIB, Limits
from fencepost_recorder.rows import attributes_of, check_span, parsed
from fencepost_recorder.wire import LENGTH_DELIMITED, Buffer

_RUN_BYTES = 64 * 1024
_OWN_BYTES = MIB
_MAX_TIME = 2**63 - 1
_MAX_DEPTH = 64
_MAX_POISONS = 32
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_NONE = "its bytes are no OTLP message"

# Which fields of a message are messages again.
_NESTED = {
    "span": {9: "pair", 11: "event", 13: "link"},
    "event": {3: "pair"},
    "link": {4: "pair"},
    "pair": {2: "value"},
    "value": {5: "array", 6: "pairs"},
    "array": {1: "value"},
    "pairs": {1: "pair"},
    "resource_spans": {1: "resource"},
    "resource": {1: "pair", 3: "entity"},
    "entity": {},
    "scope_spans": {1: "scope"},
    "scope": {3: "pair"},
}


@dataclass(slots=True)
class Poison:
    """Spans of one producer that were kept out for one reason; None where the producer or the times are unknown."""

    reason: str
    producer: str | None = None
    spans: int = 0
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None


class Poisons:
    """What was kept out of a request: one Poison for each producer and reason."""

    def __init__(self) -> None:
        self.found: dict[tuple[str | None, str], Poison] = {}

    def add(
        self, producer: str | None, reason: str, since: int | None = None, until: int | None = None, spans: int = 1
    ) -> None:
        """Some more spans, and when they were. Senders choose both texts, so beyond a few all become one."""
        known = self.found.get((producer, reason))
        if known is None and len(self.found) >= _MAX_POISONS:
            producer, reason = None, "several reasons"
            known = self.found.get((producer, reason))
        if known is None:
            self.found[producer, reason] = Poison(reason, producer, spans, since, until)
            return
        known.spans += spans
        known.since_unix_nano = _bound(min, known.since_unix_nano, since)
        known.until_unix_nano = _bound(max, known.until_unix_nano, until)


@dataclass(frozen=True, slots=True)
class Screened:
    """A request fit to be kept: its bytes in pieces, how many spans they hold, and what was kept out."""

    payload: Sequence[Buffer]
    spans: int
    poison: Sequence[Poison]


class Count:
    """What a request holds so far. Raises Refusal once that is too much."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._spans = self._groups = 0

    def spans(self, number: int) -> int:
        """So many more spans; the number again."""
        self._spans += number
        if self._spans > self._limits.spans:
            raise Refusal(Problem.TOO_LARGE, f"the request holds more than {self._limits.spans:,} spans")
        return number

    def group(self) -> None:
        """One more resource or scope, or something else beside spans."""
        self._groups += 1
        if self._groups > self._limits.groups:
            most = f"{self._limits.groups:,}"
            raise Refusal(Problem.TOO_LARGE, f"the request holds more than {most} resources and scopes")


class Redaction(Protocol):
    """Takes away from each message what is not to be kept."""

    def resource(self, resource: ResourceSpans) -> None:
        """Redact a resource."""

    def scope(self, scope: ScopeSpans) -> None:
        """Redact a scope."""

    def span(self, span: Span) -> None:
        """Redact a span."""


def screen(body: Buffer, limits: Limits, redaction: Redaction | None = None) -> Screened:
    """Look through an ExportTraceServiceRequest. Raises Refusal when it is none, or holds too much.

    The payload may consist of views into `body`.
    """
    try:
        return _Screening(memoryview(body), limits, redaction).run()
    except (ValueError, IndexError):
        raise Refusal(Problem.UNREADABLE, "the body is no ExportTraceServiceRequest in protobuf") from None


class _Screening:
    def __init__(self, body: memoryview, limits: Limits, redaction: Redaction | None) -> None:
        self._body = body
        self._limits = limits
        self._redaction = redaction
        self._changed = redaction is not None
        self._spans = 0
        self._count = Count(limits)
        self._resource: ResourceSpans | None = None
        self._producer: str | None = None
        self._poisons = Poisons()

    def run(self) -> Screened:
        own, resources = self._parts(0, len(self._body), wire.RESOURCE_SPANS)
        pieces: list[Buffer] = [*own]
        for start, end in resources:
            pieces += self._resource_spans(start, end)
        payload = pieces if self._changed else [self._body]
        return Screened(payload, self._spans, list(self._poisons.found.values()))

    def _resource_spans(self, start: int, end: int) -> list[Buffer]:
        own, scopes = self._parts(start, end, wire.SCOPE_SPANS)
        self._resource = self._read("resource_spans", ResourceSpans, own)
        self._producer = None
        if any(map(_is_old, own)):
            _, old = self._parts(start, end, wire.OLD_SCOPE_SPANS)
            self._lose_scopes(old, wire.OLD_CLIENT)
        if self._resource is None:
            self._lose_scopes(scopes, "its resource could not be read")
            return []
        pieces: list[Buffer] = [*own]
        if self._redaction is not None:
            self._redaction.resource(self._resource)
            pieces = [self._resource.SerializeToString()]
        for first, last in scopes:
            pieces += self._scope_spans(first, last)
        return framed(b"\x0a", pieces)

    def _scope_spans(self, start: int, end: int) -> list[Buffer]:
        runs, own = self._runs(start, end)
        scope = self._read("scope_spans", ScopeSpans, own)
        if scope is None:
            self._lose_all(runs, "its scope could not be read")
            return []
        pieces: list[Buffer] = [*own]
        if self._redaction is not None:
            self._redaction.scope(scope)
            pieces = [scope.SerializeToString()]
        for first, last, spans in runs:
            pieces += self._run(first, last, spans)
        return framed(b"\x12", pieces)

    def _parts(self, at: int, end: int, number: int) -> tuple[list[memoryview], list[tuple[int, int]]]:
        """A message without the fields of that number, and where the contents of those lie."""
        own: list[memoryview] = []
        found: list[tuple[int, int]] = []
        since = at
        for one in wire.located(self._body, at, end):
            self._count.group()
            if one.number == number and one.kind == LENGTH_DELIMITED:
                found.append((one.start, one.end))
                own.append(self._body[since : one.head])
                since = one.end
        own.append(self._body[since:end])
        return [piece for piece in own if piece], found

    def _runs(self, at: int, end: int) -> tuple[list[tuple[int, int, int]], list[memoryview]]:
        """A scope's spans in runs (where, where to, how many), as long as they are small; and all else in it.

        Every span of every request goes through this loop.
        """
        body, first, spans = self._body, at, 0
        runs: list[tuple[int, int, int]] = []
        own: list[memoryview] = []
        while at < end:
            head = at
            if body[at] == 0x12:
                size, at = body[at + 1], at + 2
                if size > 0x7F:
                    size, at = wire.read_varint(body, at - 1)
                at += size
                if at > end:
                    raise ValueError(_NONE)
                if spans and at - first > _RUN_BYTES:
                    runs.append((first, head, self._count.spans(spans)))
                    first, spans = head, 0
                spans += 1
                continue
            if spans:
                runs.append((first, head, self._count.spans(spans)))
                spans = 0
            self._count.group()
            one = wire.field_at(body, at, end)
            at = first = one.end
            if one.number == wire.SPANS and one.kind == LENGTH_DELIMITED:  # its tag has needless bytes
                runs.append((head, at, self._count.spans(1)))
            else:
                own.append(body[head:at])
        if spans:
            runs.append((first, end, self._count.spans(spans)))
        return runs, own

    def _run(self, first: int, last: int, spans: int) -> list[Buffer]:
        """What is kept of a run of spans."""
        run = self._body[first:last]
        if len(run) > _RUN_BYTES and (reason := self._oversized(first, last)):
            self._lose(reason)
            return []
        message = _message(run)
        if message is not None and all(map(_is_sound, message.spans)):
            self._spans += spans
            if self._redaction is None:
                return [run]
            for span in message.spans:
                self._redaction.span(span)
            return [message.SerializeToString()]
        if spans == 1:
            self._lose_one(message)
            return []
        return [piece for one in wire.located(self._body, first, last) for piece in self._run(one.head, one.end, 1)]

    def _oversized(self, first: int, last: int) -> str:
        """Why a large span is not even parsed, if so."""
        if last - first > MAX_SPAN_BYTES:
            return f"it is larger than {MAX_SPAN_BYTES // MIB} MiB"
        one = wire.field_at(self._body, first, last)
        return _unparsable("span", self._body[one.start : one.end], self._limits.elements)

    def _read(self, name: str, kind: type[Any], own: list[memoryview]) -> Any:
        """A resource or a scope; None when it cannot be read."""
        if sum(map(len, own)) > _OWN_BYTES:
            return None
        data = b"".join(own)
        if len(data) > _RUN_BYTES and _unparsable(name, data, self._limits.elements):
            return None
        try:
            return parsed(kind, data)
        except ValueError:
            return None

    def _lose_scopes(self, scopes: list[tuple[int, int]], reason: str) -> None:
        for first, last in scopes:
            self._lose_all(self._runs(first, last)[0], reason)

    def _lose_all(self, runs: list[tuple[int, int, int]], reason: str) -> None:
        self._lose(reason, spans=sum(spans for _, _, spans in runs))

    def _lose_one(self, message: ScopeSpans | None) -> None:
        if message is None:
            self._lose(_NONE)
            return
        span = message.spans[0]
        try:
            check_span(span)
        except ValueError as error:
            self._lose(str(error), _time(span.start_time_unix_nano), _time(span.end_time_unix_nano))

    def _lose(self, reason: str, since: int | None = None, until: int | None = None, spans: int = 1) -> None:
        self._changed = True
        if self._producer is None and self._resource is not None:
            self._producer = producer_of(attributes_of(self._resource.resource.attributes))
        if spans:
            self._poisons.add(self._producer, reason, since, until, spans)


def _is_sound(span: Span) -> bool:
    """`rows.check_span`, without its sentences: every span of every request is asked."""
    trace_id, span_id = span.trace_id, span.span_id
    return (
        len(trace_id) == 16
        and len(span_id) == 8
        and trace_id != _NO_TRACE
        and span_id != _NO_SPAN
        and len(span.parent_span_id) in {0, 8}
        and span.start_time_unix_nano <= _MAX_TIME
        and span.end_time_unix_nano <= _MAX_TIME
    )


def _is_old(own: memoryview) -> bool:
    """Whether there is a field of old spans among the fields of a resource."""
    return any(one.number == wire.OLD_SCOPE_SPANS for one in wire.located(own, 0, len(own)))


def _message(run: memoryview) -> ScopeSpans | None:
    """Spans, parsed as deep inside a request as they will be again: what nests too deeply then must not pass now.

    A large one is parsed where it lies, for its depth was looked at already.
    """
    try:
        if len(run) > _RUN_BYTES:
            large: ScopeSpans = ScopeSpans.FromString(run)
            return large
        scope = b"\x12" + varint(len(run))
        head = b"\x0a" + varint(len(scope) + len(run)) + scope
        request: Any = ExportTraceServiceRequest.FromString(head + run)
        found: ScopeSpans = request.resource_spans[0].scope_spans[0]
        return found
    except Exception:  # protobuf's own errors derive from nothing more specific
        return None


def _unparsable(name: str, data: Buffer, most: int) -> str:
    """Why a message is not parsed, if so: too many fields, too deep, or no message."""
    found = 0
    inside = [(name, 0, len(data), 0)]
    try:
        while inside:
            this, at, end, depth = inside.pop()
            for one in wire.located(data, at, end):
                found += 1
                if found > most:
                    return "it holds too many attributes, events, links or values"
                inner = _NESTED[this].get(one.number) if one.kind == LENGTH_DELIMITED else None
                if inner is not None:
                    if depth == _MAX_DEPTH:
                        return "it is nested too deeply"
                    inside.append((inner, one.start, one.end, depth + 1))
    except (ValueError, IndexError):
        return _NONE
    return ""


def framed(tag: bytes, pieces: list[Buffer]) -> list[Buffer]:
    """A length-delimited protobuf field of several pieces."""
    return [tag + varint(sum(map(len, pieces))), *pieces]


def _time(value: int) -> int | None:
    return value if 0 < value <= _MAX_TIME else None


def _bound(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else choose(one, other)
