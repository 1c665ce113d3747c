"""SDK spans to OTLP `Span` protobuf bytes, by hand.

Building protobuf messages in Python costs several times the bytes themselves, and a recorder sits in the hot path
of every span. The field numbers are those of opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto;
the tests hold that these bytes parse to what the official classes say.

Nothing a user can put into a span sinks it: integers beyond 64 bits become decimal text, lone surrogates become
backslash escapes, unknown types their text; a value that is too large, too deep or has no text is dropped and counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext

MAX_VALUE_BYTES = 1024 * 1024
MAX_SPAN_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 16
_MAX_TIME = 2**63 - 1
_INT64 = range(-(2**63), 2**63)

_double = struct.Struct("<d").pack
_fixed64 = struct.Struct("<Q").pack
_fixed32 = struct.Struct("<I").pack

_HAS_IS_REMOTE = 0x100
_IS_REMOTE = 0x200

Attributes = Mapping[str, Any]


class Unencodable(ValueError):
    """A value that has no place in a span: too large, too deep, or without any text."""


def _varint_of(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = [_varint_of(number) for number in range(1 << 14)]


def varint(number: int) -> bytes:
    """An unsigned protobuf varint."""
    return _SMALL[number] if number < 16384 else _varint_of(number)


def utf8(text: str) -> bytes:
    """UTF-8, with lone surrogates as backslash escapes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _text(value: object) -> bytes:
    return utf8(value if isinstance(value, str) else str(value))


def field(tag: bytes, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return tag + varint(len(data)) + data


def _str_value(value: str, _depth: int) -> bytes:
    data = utf8(value)
    size = len(data)
    return b"\x0a" + (_SMALL[size] if size < 16384 else _varint_of(size)) + data


def _bool_value(value: bool, _depth: int) -> bytes:
    return b"\x10\x01" if value else b"\x10\x00"


def _int_value(value: int, depth: int) -> bytes:
    if 0 <= value < 16384:
        return b"\x18" + _SMALL[value]
    if value in _INT64:
        return b"\x18" + _varint_of(value & 0xFFFFFFFFFFFFFFFF)
    try:
        return _str_value(str(int(value)), depth)
    except ValueError:  # more digits than Python converts
        return _str_value(hex(value), depth)


def _float_value(value: float, _depth: int) -> bytes:
    return b"\x21" + _double(value)


def _bytes_value(value: bytes, _depth: int) -> bytes:
    return field(b"\x3a", bytes(value))


def _none_value(_value: None, _depth: int) -> bytes:
    return b""


def _sequence_value(value: Iterable[Any], depth: int) -> bytes:
    return field(b"\x2a", b"".join([field(b"\x0a", any_value(item, depth + 1)) for item in value]))


def _mapping_value(value: Attributes, depth: int) -> bytes:
    items = [field(b"\x0a", key_value(key, item, depth + 1)) for key, item in value.items()]
    return field(b"\x32", b"".join(items))


_EXACT: dict[type, Callable[[Any, int], bytes]] = {
    str: _str_value,
    bool: _bool_value,
    int: _int_value,
    float: _float_value,
    bytes: _bytes_value,
    type(None): _none_value,
    tuple: _sequence_value,
    list: _sequence_value,
    dict: _mapping_value,
}
_BY_KIND: tuple[tuple[Any, Callable[[Any, int], bytes]], ...] = (
    (str, _str_value),
    (bool, _bool_value),
    (int, _int_value),
    (float, _float_value),
    ((bytes, bytearray, memoryview), _bytes_value),
    (Mapping, _mapping_value),
    (Sequence, _sequence_value),
)


def any_value(value: Any, depth: int = 0) -> bytes:
    """OTLP `AnyValue` bytes of a Python value. Raises Unencodable, or whatever the value's own methods raise."""
    if depth > MAX_DEPTH:
        raise Unencodable("nested too deeply")
    encoder = _EXACT.get(type(value))
    if encoder is None:
        encoder = next((known for kind, known in _BY_KIND if isinstance(value, kind)), None)
    data = encoder(value, depth) if encoder is not None else _str_value(str(value), depth)
    if len(data) > MAX_VALUE_BYTES:
        raise Unencodable("too large")
    return data


def key_value(key: Any, value: Any, depth: int = 0) -> bytes:
    """OTLP `KeyValue` bytes. Raises as `any_value` does."""
    return field(b"\x0a", _text(key)) + field(b"\x12", any_value(value, depth))


# A span's attributes are encoded at its start and again at its end, and most repeat from span to span: whole
# encoded attributes are kept by key and value, apart for text and for integers, because 1 == True == 1.0. What
# users make up must not fill the memory: short ones only, and all are forgotten when there are too many.
_MAX_CACHED = 8192
_MAX_CACHED_BYTES = 256
_TEXTS: dict[tuple[str, str], bytes] = {}
_NUMBERS: dict[tuple[str, int], bytes] = {}
_CACHES: dict[type, dict[Any, bytes]] = {str: _TEXTS, int: _NUMBERS}


def _attributes(tag: bytes, attributes: Attributes | None, out: list[bytes]) -> int:
    """Append each attribute as a `KeyValue` field to `out`; how many had to be dropped."""
    dropped = 0
    for key, value in (attributes or {}).items():
        cache = _CACHES.get(type(value))
        try:
            data = cache.get((key, value)) if cache is not None else None
            if data is None:
                pair = key_value(key, value)
                data = varint(len(pair)) + pair
                if cache is not None and len(data) <= _MAX_CACHED_BYTES and type(key) is str:
                    if len(cache) >= _MAX_CACHED:
                        cache.clear()
                    cache[key, value] = data
        except Exception:  # whatever a value's own methods raise: the span matters more
            dropped += 1
        else:
            out += (tag, data)
    return dropped


def _time(value: Any) -> bytes:
    if type(value) is int and 0 <= value <= _MAX_TIME:
        return _fixed64(value)
    return _fixed64(min(max(int(value or 0), 0), _MAX_TIME))


# Span.flags and Link.flags: the W3C trace flags, and whether the parent's (or the linked) context was remote.
_FLAGS = {
    (own, remote): _fixed32(own | _HAS_IS_REMOTE | (_IS_REMOTE if remote else 0))
    for own in range(256)
    for remote in (False, True)
}


def _flags(own: int, remote: SpanContext | None) -> bytes:
    return _FLAGS[own & 0xFF, remote is not None and bool(remote.is_remote)]


def _trace_state(context: SpanContext) -> bytes:
    state = context.trace_state
    return field(b"\x1a", utf8(state.to_header())) if state else b""


def _event(event: Any) -> bytes:
    out = [b"\x09", _time(event.timestamp), field(b"\x12", _text(event.name))]
    dropped = _attributes(b"\x1a", event.attributes, out) + int(getattr(event, "dropped_attributes", 0) or 0)
    if dropped:
        out.append(b"\x20" + varint(dropped))
    return b"".join(out)


def _link(link: Link) -> bytes:
    context = link.context
    out = [b"\x0a\x10", context.trace_id.to_bytes(16, "big"), b"\x12\x08"]
    out += (context.span_id.to_bytes(8, "big"), _trace_state(context))
    dropped = _attributes(b"\x22", link.attributes, out) + int(getattr(link, "dropped_attributes", 0) or 0)
    if dropped:
        out.append(b"\x28" + varint(dropped))
    out += (b"\x35", _flags(context.trace_flags, context))
    return b"".join(out)


def _many(tag: bytes, items: Sequence[Any], encode: Callable[[Any], bytes], out: list[bytes]) -> int:
    dropped = 0
    for item in items:
        try:
            out.append(field(tag, encode(item)))
        except Exception:
            dropped += 1
    return dropped


def _count(tag: bytes, number: int, out: list[bytes]) -> None:
    if number > 0:
        out += (tag, varint(min(number, 0xFFFFFFFF)))


# OTLP counts kinds from 1, with 0 for unspecified; the SDK counts them from 0.
_KINDS = [b"\x30" + _SMALL[kind + 1] for kind in range(5)]


def encode_span(span: ReadableSpan, *, content: bool = True) -> bytes:
    """OTLP `Span` bytes of a started or ended span; without `content`: no attributes, events or links.

    Raises ValueError for a span without a context, or one whose ids are no ids.
    """
    context = span.context
    if context is None:
        raise Unencodable("a span without a context")
    out = [encode_head(span, context)]
    _content(span, out, content)
    encode_end(span, out)
    data = b"".join(out)
    if content and len(data) > MAX_SPAN_BYTES:
        return encode_span(span, content=False)
    return data


def encode_head(span: ReadableSpan, context: SpanContext) -> bytes:
    """What holds from a span's start on: ids first of all, then name, kind, start and flags."""
    parent = span.parent
    return b"".join(
        (
            b"\x0a\x10",
            context.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            context.span_id.to_bytes(8, "big"),
            _trace_state(context) if context.trace_state else b"",
            b"" if parent is None else b"\x22\x08" + parent.span_id.to_bytes(8, "big"),
            field(b"\x2a", _text(span.name)),
            _KINDS[span.kind.value],
            b"\x39",
            _time(span.start_time),
            b"\x85\x01",
            _flags(context.trace_flags, parent),
        )
    )


def encode_end(span: ReadableSpan, out: list[bytes]) -> None:
    """Append what only an ended span has: its end and its status."""
    end, status = span.end_time, span.status
    if end is not None:
        out += (b"\x41", _time(end))
    code = status.status_code.value
    if code or status.description:
        message = field(b"\x12", _text(status.description)) if status.description else b""
        out.append(field(b"\x7a", message + (b"\x18" + _SMALL[code] if code else b"")))


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """A copy of the span's attributes."""
    # mappingproxy.copy() is one call into the SDK's dict; iterating takes its lock and two calls an item.
    attributes = span.attributes
    return attributes.copy() if attributes is not None else {}  # type: ignore[attr-defined]


def encode_events(span: ReadableSpan, out: list[bytes]) -> None:
    """Append the span's events, and how many were dropped."""
    events = span.events
    _count(b"\x60", span.dropped_events + (_many(b"\x5a", events, _event, out) if events else 0), out)


def encode_links(span: ReadableSpan, out: list[bytes]) -> None:
    """Append the span's links, and how many were dropped."""
    links = span.links
    _count(b"\x70", span.dropped_links + (_many(b"\x6a", links, _link, out) if links else 0), out)


def encode_attributes(attributes: Attributes, out: list[bytes]) -> int:
    """Append a span's attributes; how many had to be dropped."""
    return _attributes(b"\x4a", attributes, out)


def encode_dropped_attributes(number: int, out: list[bytes]) -> None:
    """Append how many attributes were dropped, if any."""
    _count(b"\x50", number, out)


def _content(span: ReadableSpan, out: list[bytes], content: bool) -> None:
    if content:
        attributes = attributes_of(span)
        encode_dropped_attributes(span.dropped_attributes + encode_attributes(attributes, out), out)
        encode_events(span, out)
        encode_links(span, out)
    else:
        encode_dropped_attributes(_number_of(span, "attributes"), out)
        _count(b"\x60", _number_of(span, "events"), out)
        _count(b"\x70", _number_of(span, "links"), out)


def _number_of(span: ReadableSpan, name: str) -> int:
    """How many there are, those included that the SDK dropped; 1 when not even that can be told."""
    try:
        return len(getattr(span, name)) + int(getattr(span, f"dropped_{name}"))
    except Exception:
        return 1


def encode_resource(resource: Resource, replaced: Attributes) -> bytes:
    """OTLP `ResourceSpans` bytes of a resource alone; `replaced` attributes take the place of its own."""
    inner: list[bytes] = []
    dropped = _attributes(b"\x0a", {**resource.attributes, **replaced}, inner)
    _count(b"\x10", dropped, inner)
    schema = field(b"\x1a", _text(resource.schema_url)) if resource.schema_url else b""
    return field(b"\x0a", b"".join(inner)) + schema


def encode_scope(scope: InstrumentationScope | None) -> bytes:
    """OTLP `ScopeSpans` bytes of an instrumentation scope alone."""
    if scope is None:
        return b""
    inner = [field(b"\x0a", _text(scope.name or "")), field(b"\x12", _text(scope.version or ""))]
    dropped = _attributes(b"\x1a", getattr(scope, "attributes", None), inner)
    _count(b"\x20", dropped, inner)
    schema = field(b"\x1a", _text(scope.schema_url)) if scope.schema_url else b""
    return field(b"\x0a", b"".join(inner)) + schema
