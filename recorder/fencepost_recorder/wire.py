"""The protobuf wire format, walked by hand as far as a span's own bytes.

Parsing a whole message at once would lose all of its spans to a single broken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fencepost_recorder.encode import varint
from fencepost_recorder.source import Source, unzstd

RESOURCE_SPANS = 1  # of TracesData and ExportTraceServiceRequest
SCOPE_SPANS = 2  # of ResourceSpans
SPANS = 2  # of ScopeSpans
# Of ResourceSpans: `instrumentation_library_spans`, where clients of OTLP before 0.15 have their spans. Their spans are
# counted and not read: no SDK of the last years sends them.
OLD_SCOPE_SPANS = 1000
OLD_CLIENT = "its client speaks OTLP from before 0.15, whose spans are not read any more"
LENGTH_DELIMITED = 2
Buffer = bytes | bytearray | memoryview
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Framing:
    """How messages follow each other in a file. `read` gives message bytes, then a str if the file ends badly."""

    name: str
    read: Callable[[Source, int], Iterator[bytes | str]]


class Field(NamedTuple):
    """Where a field of a message lies: its tag from `head` on, its content from `start` to `end`."""

    number: int
    kind: int
    head: int
    start: int
    end: int


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Field number and bytes of each field of a message; raises ValueError when it is none."""
    for one in located(data, 0, len(data)):
        yield one.number, data[one.start : one.end]


def without(data: bytes, *numbers: int) -> bytes:
    """The message without the fields of these numbers; raises ValueError when it is none."""
    return b"".join(data[one.head : one.end] for one in located(data, 0, len(data)) if one.number not in numbers)


def located(data: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message between two offsets of `data`; raises ValueError when there is none."""
    while at < end:
        found = field_at(data, at, end)
        yield found
        at = found.end


def field_at(data: Buffer, head: int, end: int) -> Field:
    """The field that starts at an offset and ends at `end` at the latest; raises ValueError when there is none."""
    tag, at = read_varint(data, head)
    kind, number = tag & 7, tag >> 3
    if kind == LENGTH_DELIMITED:
        size, at = read_varint(data, at)
    elif kind in _FIXED:
        size = _FIXED[kind]
    elif kind == 0:
        size = read_varint(data, at)[1] - at
    else:
        raise ValueError("its bytes are no OTLP message")
    if number == 0 or at + size > end:
        raise ValueError("its bytes are no OTLP message")
    return Field(number, kind, head, at, at + size)


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at an offset and the offset behind it; raises ValueError when there is none."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("its bytes are no OTLP message")


def detect(source: Source, limit: int) -> Framing | None:
    """The framing under which the file starts with OTLP traces, logs or metrics; None when there is none."""
    for framing in (_BIG_ENDIAN, _ALONE_WHOLE, _VARINT, _ALONE):
        if _fits(source, framing, limit):
            return _ALONE if framing is _ALONE_WHOLE else framing
    return None


def _fits(source: Source, framing: Framing, limit: int) -> bool:
    head = _Head(source)
    first = next(iter(framing.read(head, limit)), None)
    if not isinstance(first, bytes):
        return False
    try:
        return _is_message(unzstd(first, limit))
    except ValueError:
        return False


def _is_message(data: bytes) -> bool:
    """Field 1 is a resource's telemetry, which is made of fields itself: in that, all signals are alike."""
    if data[:1] == b"{":
        return True
    found = [content for number, content in fields(data) if number == RESOURCE_SPANS]
    return bool(found) and all(number <= 1000 for number, _ in fields(found[0]))


class _Head(Source):
    """Looks at a source without taking anything from it."""

    def __init__(self, source: Source) -> None:
        self._under = source
        self._at = 0
        self.damage = source.damage

    def peek(self, size: int) -> bytes:
        return self._under.peek(self._at + size)[self._at :]

    def take(self, size: int) -> bytes:
        data = self.peek(size)
        self._at += len(data)
        return data


def _big_endian(source: Source, limit: int) -> Iterator[bytes | str]:
    while head := source.take(4):
        size = int.from_bytes(head, "big")
        yield from _body(source, size if len(head) == 4 else limit + 1, limit)


def _varint(source: Source, limit: int) -> Iterator[bytes | str]:
    while head := source.peek(10):
        try:
            size, used = read_varint(head, 0)
        except ValueError:
            size, used = limit + 1, len(head)
        source.take(used)
        yield from _body(source, size, limit)


def _alone(source: Source, limit: int) -> Iterator[bytes | str]:
    """One message: its ResourceSpans one by one, each as if it were a message, so that a cut costs only the last."""
    while head := source.peek(11):
        try:
            size, used = read_varint(head, 1)
        except ValueError:
            size, used = limit + 1, len(head)
        source.take(used)
        if head[0] != 0x0A:
            size = limit + 1
        for body in _body(source, size, limit):
            yield body if isinstance(body, str) else b"\x0a" + varint(len(body)) + body


def _alone_whole(source: Source, limit: int) -> Iterator[bytes | str]:
    """The file as one message, if it is one from its first byte to its last."""
    data = source.peek(limit + 1)
    if len(data) <= limit and data[:1] == b"\x0a":
        yield data


def _body(source: Source, size: int, limit: int) -> Iterator[bytes | str]:
    if size > limit:
        # Wherever the next message starts, this number no longer tells.
        source.take(len(source.peek(limit)))
        yield "a message has an impossible size"
        return
    data = source.take(size)
    yield data if len(data) == size else "the file ends within a message"


_BIG_ENDIAN = Framing("4-byte lengths", _big_endian)
_VARINT = Framing("varint lengths", _varint)
_ALONE_WHOLE = Framing("one message", _alone_whole)
_ALONE = Framing("one message", _alone)
