"""OTLP/JSON to the bytes of OTLP/protobuf, one span at a time, so that a broken span breaks nothing else.

The encoding is that of the OTLP specification: lowerCamelCase names, ids as hex, 64-bit integers as decimal text,
enumerations as numbers. Tolerated beside it, because files in the field hold it: the proto's own field names, ids as
base64 (told apart by their length), integers as JSON numbers, names of enumeration values.

Nothing of the wrong shape goes in silence: attributes count as dropped, anything else makes its span one that cannot be
read. A null is what is not there. Of a name that an object has twice, which JSON leaves to its reader, two arrays are
one, as protobuf has it, and what differs otherwise is of the wrong shape.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from fencepost_recorder.encode import Unencodable, field, key_value, utf8, varint

_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1
_UINT32_MAX = 2**32 - 1
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CODES = ("UNSET", "OK", "ERROR")
_MAX_DEPTH = 16
# Eight zero bytes as base64.
_NO_PARENT = "AAAAAAAAAAA="
# Python's own int() and float() take more: underscores, spaces, the digits of other alphabets.
_INTEGER = re.compile(r"-?[0-9]+")
_DOUBLE = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|NaN|-?Infinity")
Json = dict[str, Any]

# What reading a broken span may raise.
FAULTS = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)


def reason(fault: Exception) -> str:
    """Why something could not be read, in words for its sender: those of Python itself say nothing to them."""
    return str(fault) if isinstance(fault, ValueError) else "a field of it has the wrong type"


def object_of(pairs: list[tuple[str, Any]]) -> Json:
    """An object of these members: what every parser of OTLP/JSON has to be given, or the last of a name would count."""
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: one_of(values) for name, values in found.items()}


def one_of(values: list[Any]) -> Any:
    """What an object has that says all of these of one name."""
    told = [value for value in values if value is not None]
    if all(value == told[0] for value in told):
        return told[0] if told else None
    return list(chain.from_iterable(told)) if all(isinstance(value, list) for value in told) else Twice()


class Twice:
    """Values that differ, under one name: of no shape that anything may have."""

    def __str__(self) -> str:
        raise ValueError("it says different things under one name")


def get(values: Json, name: str) -> Any:
    """A field by its JSON name, else by its proto name (resourceSpans, resource_spans)."""
    if name in values:
        return values[name]
    return values.get(_proto_name(name))


def objects(values: Json, name: str) -> Iterator[Json]:
    """The objects of a repeated field. Raises ValueError when it is no array of objects."""
    found = one_of([values.get(name), values.get(_proto_name(name))])
    if found is None:
        return
    if not isinstance(found, list):
        raise ValueError(f"{name} is no array")
    for one in found:
        if not isinstance(one, dict):
            raise ValueError(f"{name} holds something that is no object")
        yield one


def resource_bytes(resource_spans: Json) -> bytes:
    """`ResourceSpans` bytes of the resource alone."""
    inner = b"".join(_attributes(b"\x0a", b"\x10", resource_spans.get("resource")))
    return field(b"\x0a", inner) + _string(b"\x1a", get(resource_spans, "schemaUrl"))


def scope_bytes(scope_spans: Json) -> bytes:
    """`ScopeSpans` bytes of the instrumentation scope alone."""
    scope = scope_spans.get("scope")
    inner = b"".join(_attributes(b"\x1a", b"\x20", scope))
    if isinstance(scope, dict):
        inner = _string(b"\x0a", scope.get("name")) + _string(b"\x12", scope.get("version")) + inner
    return field(b"\x0a", inner) + _string(b"\x1a", get(scope_spans, "schemaUrl"))


def span_bytes(span: Any) -> bytes:
    """`Span` bytes. Raises one of FAULTS for a span that is none; `reason` says why."""
    if not isinstance(span, dict):
        raise ValueError("it is no object")
    return b"".join(
        (
            field(b"\x0a", _id(get(span, "traceId"), 16, "trace id")),
            field(b"\x12", _id(get(span, "spanId"), 8, "span id")),
            _string(b"\x1a", get(span, "traceState")),
            field(b"\x22", _optional_id(get(span, "parentSpanId"))),
            _string(b"\x2a", span.get("name")),
            b"\x30" + varint(_enum(span.get("kind"), "kind", "SPAN_KIND_", _KINDS)),
            b"\x39" + _time(get(span, "startTimeUnixNano")),
            b"\x41" + _time(get(span, "endTimeUnixNano")),
            *_attributes(b"\x4a", b"\x50", span),
            *_many(span, "events", b"\x5a", b"\x60", _event),
            *_many(span, "links", b"\x6a", b"\x70", _link),
            _status(span.get("status")),
            b"\x85\x01" + _count(span.get("flags"), "flags").to_bytes(4, "little"),
        )
    )


def times(span: Any) -> tuple[int | None, int | None]:
    """Start and end of a span that may be broken elsewhere, unix ns; None where they cannot be read."""
    if not isinstance(span, dict):
        return None, None
    found: list[int | None] = []
    for name in ("startTimeUnixNano", "endTimeUnixNano"):
        try:
            found.append(_uint(get(span, name), _INT64_MAX) or None)
        except ValueError:
            found.append(None)
    return found[0], found[1]


def plain_attributes(values: Any) -> Json:
    """An object's attributes as Python values; those that cannot be read are left out."""
    return dict(_pairs(values)[0]) if isinstance(values, dict) else {}


def _proto_name(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def _event(event: Json) -> bytes:
    # No column holds an event's time as a number, so it may be as large as OTLP has it.
    head = b"\x09" + _time(get(event, "timeUnixNano"), _UINT64_MAX) + _string(b"\x12", event.get("name"))
    return head + b"".join(_attributes(b"\x1a", b"\x20", event))


def _link(link: Json) -> bytes:
    head = field(b"\x0a", _id(get(link, "traceId"), 16, "trace id"))
    head += field(b"\x12", _id(get(link, "spanId"), 8, "span id")) + _string(b"\x1a", get(link, "traceState"))
    tail = b"\x35" + _count(link.get("flags"), "flags").to_bytes(4, "little")
    return head + b"".join(_attributes(b"\x22", b"\x28", link)) + tail


def _status(status: Any) -> bytes:
    if status is None:
        return b""
    if not isinstance(status, dict):
        raise ValueError("its status is no object")
    code = _enum(status.get("code"), "status code", "STATUS_CODE_", _CODES)
    return field(b"\x7a", _string(b"\x12", status.get("message")) + b"\x18" + varint(code))


def _many(span: Json, name: str, tag: bytes, count_tag: bytes, encode: Callable[[Json], bytes]) -> Iterator[bytes]:
    """Events or links; those that cannot be read count as dropped."""
    dropped = _count(get(span, f"dropped{name.capitalize()}Count"), f"count of dropped {name}")
    for one in _array(span.get(name), f"its {name} are no array"):
        try:
            yield field(tag, encode(one))
        except FAULTS:
            dropped += 1
    yield count_tag + varint(min(dropped, _UINT32_MAX))


def _attributes(tag: bytes, count_tag: bytes, values: Any) -> Iterator[bytes]:
    """An object's attributes; those that cannot be read count as dropped, as does what is in the object's place."""
    if not isinstance(values, dict):
        if values is not None:
            yield count_tag + varint(_size(values))
        return
    pairs, dropped = _pairs(values)
    for key, value in pairs:
        try:
            yield field(tag, key_value(key, value))
        except Unencodable:
            dropped += 1
    dropped += _count(get(values, "droppedAttributesCount"), "count of dropped attributes")
    yield count_tag + varint(min(dropped, _UINT32_MAX))


def _pairs(values: Json) -> tuple[list[tuple[str, Any]], int]:
    """The attributes that can be read, and how many cannot."""
    found: list[tuple[str, Any]] = []
    dropped = 0
    attributes = values.get("attributes")
    if attributes is not None and not isinstance(attributes, list):
        return found, _size(attributes)
    for pair in attributes or ():
        try:
            found.append((_key(pair), _value(pair.get("value"), 0)))
        except FAULTS:
            dropped += 1
    return found, dropped


def _size(wrong: Any) -> int:
    """How many values are lost with something of the wrong shape: with a map of attributes, as many as it has."""
    return len(wrong) if isinstance(wrong, dict | list) else 1


def _array(value: Any, otherwise: str) -> list[Any]:
    """An array, empty where there is none. Raises ValueError with the words of `otherwise` for anything else."""
    if value is not None and not isinstance(value, list):
        raise ValueError(otherwise)
    return value or []


def _key(pair: Json) -> str:
    key = pair.get("key")
    if not isinstance(key, str):
        raise ValueError("an attribute without a key")
    return key


def _value(value: Any, depth: int) -> Any:
    """The Python value of an OTLP/JSON AnyValue."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise ValueError("a value that is no object")
    for name, convert in _VALUES.items():
        found = get(value, name)
        if found is not None:
            return convert(found, depth)
    raise ValueError("a value of unknown type")


def _text(value: Any, _depth: int = 0) -> str:
    if not isinstance(value, str):
        raise ValueError("a text that is none")
    return value


def _bool(value: Any, _depth: int) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a boolean that is none")
    return value


def _double(value: Any, _depth: int) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and not _DOUBLE.fullmatch(value)):
        raise ValueError("a number that is none")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number that no double can hold") from None


def _list(value: Json, depth: int) -> list[Any]:
    return [_value(item, depth + 1) for item in _array(value.get("values"), "a list that is none")]


def _kvlist(value: Json, depth: int) -> Json:
    pairs = _array(value.get("values"), "a map that is none")
    return {_key(pair): _value(pair.get("value"), depth + 1) for pair in pairs}


_VALUES: dict[str, Callable[[Any, int], Any]] = {
    "stringValue": _text,
    "boolValue": _bool,
    "intValue": lambda value, _depth: _integer(value),
    "doubleValue": _double,
    "arrayValue": _list,
    "kvlistValue": _kvlist,
    "bytesValue": lambda value, _depth: base64.b64decode(_text(value), validate=True),
}


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise ValueError("an integer that is none")
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise ValueError("an integer with a fraction")
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError("an integer that is none")
    try:
        return int(value)
    except ValueError:
        raise ValueError("an integer of too many digits") from None


def _uint(value: Any, most: int) -> int:
    number = 0 if value is None or value == "" else _integer(value)
    if not 0 <= number <= most:
        raise ValueError(f"its number {str(number)[:24]} is out of range")
    return number


def _count(value: Any, what: str) -> int:
    try:
        return _uint(value, _UINT32_MAX)
    except ValueError as error:
        raise ValueError(f"its {what} cannot be read: {error}") from error


def _time(value: Any, most: int = _INT64_MAX) -> bytes:
    try:
        return _uint(value, most).to_bytes(8, "little")
    except ValueError as error:
        raise ValueError(f"its time is none: {error}") from error


def _enum(value: Any, what: str, prefix: str, names: tuple[str, ...]) -> int:
    if isinstance(value, str) and value.removeprefix(prefix) in names:
        return names.index(value.removeprefix(prefix))
    # Values a newer protocol may add are kept, as protobuf does; a negative one is a varint of 64 bits.
    try:
        number = 0 if value is None or value == "" else _integer(value)
    except ValueError as error:
        raise ValueError(f"its {what} is none: {error}") from error
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"its {what} is none: its number {str(number)[:24]} is out of range")
    return number & _UINT64_MAX


def _id(value: Any, size: int, what: str) -> bytes:
    try:
        data = bytes.fromhex(value) if len(value) == 2 * size else base64.b64decode(value, validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise ValueError(f"its {what} is no hex of {size} bytes") from error
    if len(data) != size or not any(data):
        raise ValueError(f"its {what} is no hex of {size} bytes")
    return data


def _optional_id(value: Any) -> bytes:
    # All zero means none, for some exporters.
    none = value is None or value == _NO_PARENT or (isinstance(value, str) and not value.strip("0"))
    return b"" if none else _id(value, 8, "parent span id")


def _string(tag: bytes, value: Any) -> bytes:
    if value is None or value == "":
        return b""
    return field(tag, utf8(value if isinstance(value, str) else str(value)))
