"""OTLP as protobuf: ExportTraceServiceRequest messages, each behind its length as a varint.

That framing is protobuf's own (`parseDelimitedFrom`, `protodelim`). The bytes are made by hand, as the recorder's
are (see `encode`), but without its limits: what was recorded is exported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from fencepost_recorder.encode import field, varint
from fencepost_recorder.exporting.otlp import Groups
from fencepost_recorder.exporting.spans import ExportedSpan, Json

_MAX_CACHED = 16_384
_MAX_CACHED_BYTES = 256
_UINT64 = 0xFFFF_FFFF_FFFF_FFFF
_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack


class ProtobufEncoder:
    """See `otlp.Encoder`."""

    def __init__(self) -> None:
        # Of a tag, a key and a value; apart by type, because 1 == True == 1.0.
        self._cached: dict[tuple[bytes, str, type, Any], bytes] = {}

    def resource(self, attributes: Json) -> bytes:
        """A ResourceSpans with a resource and no scopes."""
        return field(b"\x0a", self._pairs(b"\x0a", attributes))

    def scope(self, name: str | None, version: str | None, attributes: Json) -> bytes:
        """A ScopeSpans with a scope and no spans."""
        inner = _text(b"\x0a", name) + _text(b"\x12", version) + self._pairs(b"\x1a", attributes)
        return field(b"\x0a", inner)

    def span(self, span: ExportedSpan, end: int, attributes: Json, events: list[Json], links: list[Json]) -> bytes:
        """A Span as a field of ScopeSpans."""
        parent = b"\x22\x08" + bytes.fromhex(span.parent_span_id) if span.parent_span_id else b""
        message = _text(b"\x12", span.status_message) + _number(b"\x18", span.status_code)
        inner = b"".join(
            (
                b"\x0a\x10" + bytes.fromhex(span.trace_id),
                b"\x12\x08" + bytes.fromhex(span.span_id),
                _text(b"\x1a", span.trace_state),
                parent,
                _text(b"\x2a", span.name),
                _number(b"\x30", span.kind),
                b"\x39" + _fixed64(span.start),
                b"\x41" + _fixed64(end),
                self._pairs(b"\x4a", attributes),
                _number(b"\x50", span.dropped_attributes),
                *(field(b"\x5a", self._event(event)) for event in events),
                _number(b"\x60", span.dropped_events),
                *(field(b"\x6a", self._link(link)) for link in links),
                _number(b"\x70", span.dropped_links),
                field(b"\x7a", message) if message else b"",
                b"\x85\x01" + _fixed32(span.flags) if span.flags else b"",
            )
        )
        return field(b"\x12", inner)

    def message(self, groups: Groups) -> bytes:
        """A message behind its length."""
        parts: list[bytes] = []
        for resource, scopes in groups:
            inner = [field(b"\x12", scope + b"".join(spans)) for scope, spans in scopes]
            parts.append(field(b"\x0a", resource + b"".join(inner)))
        data = b"".join(parts)
        return varint(len(data)) + data

    def _event(self, event: Json) -> bytes:
        head = b"\x09" + _fixed64(event["time_unix_nano"]) + _text(b"\x12", event["name"])
        return head + self._pairs(b"\x1a", event["attributes"]) + _number(b"\x20", event["dropped_attributes_count"])

    def _link(self, link: Json) -> bytes:
        return b"".join(
            (
                field(b"\x0a", bytes.fromhex(link["trace_id"])),
                field(b"\x12", bytes.fromhex(link["span_id"])),
                _text(b"\x1a", link["trace_state"]),
                self._pairs(b"\x22", link["attributes"]),
                _number(b"\x28", link["dropped_attributes_count"]),
                b"\x35" + _fixed32(link["flags"]) if link["flags"] else b"",
            )
        )

    def _pairs(self, tag: bytes, attributes: Json) -> bytes:
        cached = self._cached
        out: list[bytes] = []
        for key, value in attributes.items():
            kind = type(value)
            if kind in (str, int, bool):
                pair = cached.get((tag, key, kind, value))
                if pair is None:
                    pair = field(tag, _pair(key, value))
                    if len(pair) <= _MAX_CACHED_BYTES:
                        if len(cached) >= _MAX_CACHED:
                            cached.clear()
                        cached[tag, key, kind, value] = pair
            else:
                pair = field(tag, _pair(key, value))
            out.append(pair)
        return b"".join(out)


def _text(tag: bytes, text: str | None) -> bytes:
    return field(tag, text.encode()) if text else b""


def _number(tag: bytes, number: int) -> bytes:
    return tag + varint(number & _UINT64) if number else b""


def _pair(key: str, value: Any) -> bytes:
    return field(b"\x0a", key.encode()) + field(b"\x12", _value(value))


def _value(value: Any) -> bytes:
    """An AnyValue. Raises KeyError or OverflowError for what is none."""
    return _VALUES[type(value)](value)


def _integer(number: int) -> bytes:
    if not -(2**63) <= number < 2**63:
        raise OverflowError("an integer of more than 64 bits")
    return b"\x18" + varint(number & _UINT64)


def _array(items: list[Any]) -> bytes:
    return field(b"\x2a", b"".join(field(b"\x0a", _value(item)) for item in items))


def _map(items: Json) -> bytes:
    return field(b"\x32", b"".join(field(b"\x0a", _pair(key, item)) for key, item in items.items()))


_VALUES: dict[type, Callable[[Any], bytes]] = {
    str: lambda text: field(b"\x0a", text.encode()),
    bool: lambda truth: b"\x10\x01" if truth else b"\x10\x00",
    int: _integer,
    float: lambda number: b"\x21" + _double(number),
    type(None): lambda _: b"",
    list: _array,
    dict: _map,
}
