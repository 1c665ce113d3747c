"""The spans of an encoded ExportTraceServiceRequest, each where it lies.

To parse a request whole would lose all of its spans to a single broken one. Every field that is not on the way to a
span is kept for protobuf's own classes, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fencepost_recorder.wire import RESOURCE_SPANS, SCOPE_SPANS, SPANS, read_varint

_SIZES = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class RequestScope:
    """Spans of one resource and scope: where each begins and ends.

    `resource` is the bytes of its `ResourceSpans` without scopes, `scope` those of its `ScopeSpans` without spans.
    """

    resource: bytes
    scope: bytes
    spans: list[tuple[int, int]]


def scopes_of(data: bytes, at: int, stop: int) -> list[RequestScope]:
    """The scopes of the request that lies between these places; raises ValueError when there is none."""
    found: list[RequestScope] = []
    for number, begin, end in _fields(data, at, stop):
        if number == RESOURCE_SPANS:
            resource, scopes = _split(data, begin, end, SCOPE_SPANS)
            for inner, outer in scopes:
                scope, spans = _split(data, inner, outer, SPANS)
                found.append(RequestScope(resource, scope, spans))
    return found


def _split(data: bytes, at: int, stop: int, number: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The bytes of the other fields, and where the contents of the fields of that number lie."""
    wanted = number << 3 | 2
    rest: list[bytes] = []
    found: list[tuple[int, int]] = []
    while at < stop:
        head = at
        # Nearly all fields are spans of less than 16 KiB.
        if data[at] == wanted and stop - at > 2:
            size = data[at + 1]
            at += 2
            if size > 127:
                size, at = (size + (data[at] << 7) - 128, at + 1) if data[at] < 128 else read_varint(data, at - 1)
            found.append((at, at + size))
            at += size
        else:
            field, at = _field(data, at, stop)
            if field[0] == number:
                found.append(field[1:])
            else:
                rest.append(data[head:at])
    if at != stop:
        raise ValueError("its bytes are no OTLP message")
    return b"".join(rest), found


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The number of each length-delimited field (0: another kind), and where its content begins and ends."""
    while at < stop:
        field, at = _field(data, at, stop)
        yield field


def _field(data: bytes, at: int, stop: int) -> tuple[tuple[int, int, int], int]:
    tag, at = read_varint(data, at)
    kind, number = tag & 7, tag >> 3
    if kind == 2:
        size, at = read_varint(data, at)
    elif kind == 0:
        size = read_varint(data, at)[1] - at
    elif kind in _SIZES:
        size = _SIZES[kind]
    else:
        raise ValueError("its bytes are no OTLP message")
    if number == 0 or at + size > stop:
        raise ValueError("its bytes are no OTLP message")
    return (number if kind == 2 else 0, at, at + size), at + size
