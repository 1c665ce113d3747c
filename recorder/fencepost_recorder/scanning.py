"""Encoded spans to columns, by hand: protobuf's own classes cost ten times as much a span, most of it in Python.

A scanner takes a span only if everything in it is of the usual kind, and then says what those classes would say. For
anything else it takes nothing, and the span goes the careful way (`rows.row_of`). Tests hold that both ways agree. The
field numbers are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fencepost_recorder import left_out
from fencepost_recorder.columns import NO_SPAN, Columns
from fencepost_recorder.fragments import Fragments, quoted
from fencepost_recorder.rows import parsed
from fencepost_recorder.templates import Template, Templates

_MAX_TIME = 2**63 - 1
_MAX_FLAGS = 2**31 - 1
_MAX_KNOWN = 8192
_MAX_KEPT = 256
_NO_TRACE = bytes(16)
_SAMPLED, _FLAGS_ARE_KNOWN = 0x01, 0x100
_time = struct.Struct("<Q").unpack_from
_usual = struct.Struct("<BBBQBQ").unpack_from
_number = struct.Struct("<I").unpack_from
K = TypeVar("K", str, bytes)
V = TypeVar("V")
ERRORS = (ValueError, IndexError, struct.error)

# Takes, of the data, where a span begins and ends; its context's number; its sequence number and that of its end; when
# it was received; whether a mark of sampling in its flags, and in its tracestate, needs care. Tells whether it took it.
Scan = Callable[[bytes, int, int, int, int | None, int | None, int, bool, bool], bool]


def scanner(columns: Columns, fragments: Fragments) -> Scan:
    """A function that takes spans into `columns`."""
    # Bound once: to look a method up at every use would cost as much as the use.
    texts, templates = _Texts(), Templates()
    walk = _walker(columns, fragments, texts, templates)
    value_of, new_value = fragments.values.get, fragments.learn_value
    of_size, to_number = templates.of_size.get, int.from_bytes
    add = columns.flat.extend

    def scan(
        data: bytes,
        at: int,
        stop: int,
        context: int,
        sequence: int | None,
        end_sequence: int | None,
        received: int,
        heed_flags: bool,
        heed_state: bool,
    ) -> bool:
        number, template = 0, None
        for mask, expected, candidate in of_size(stop - at, ()):
            number = number or to_number(data[at:stop], "little")
            if number & mask == expected:
                template = candidate
                break
        if template is None:
            return walk(data, at, stop, context, sequence, end_sequence, received, heed_flags, heed_state)
        take, name, kind, flags, parent_at, start_at, end_at, first, last, attributes, rare = template[:11]
        found = take(data, at)
        start, end = found[start_at] if start_at else 0, found[end_at] if end_at else 0
        if (
            start | end > _MAX_TIME
            or found[0] == _NO_TRACE
            or found[1] == NO_SPAN
            or (heed_flags and flags & (_FLAGS_ARE_KNOWN | _SAMPLED) == _FLAGS_ARE_KNOWN)
        ):
            return False
        try:
            text = attributes % tuple([value_of(value) or new_value(value) for value in found[first:last]])
            if rare:
                rarely = _rare_of(template, found, fragments, texts)
                if heed_state and texts.is_marked(template.state):
                    return False
                columns.put(rarely)
        except ERRORS:
            return False
        parent = found[parent_at] if parent_at else NO_SPAN
        row = (*found[:2], parent, name, kind, start, end, flags & _MAX_FLAGS, text)
        add((*row, sequence, end_sequence if end else None, received, context))
        return True

    return scan


def _walker(columns: Columns, fragments: Fragments, texts: _Texts, templates: Templates) -> Scan:  # noqa: PLR0915
    """A function that takes spans field by field; from those of a shape that comes up often it makes templates."""
    known, learn = fragments.known.get, fragments.learn
    name_of, new_name = texts.names.get, texts.name

    # One function, for a call a field would cost more than the field.
    def walk(  # noqa: PLR0911, PLR0912, PLR0915
        data: bytes,
        at: int,
        stop: int,
        context: int,
        sequence: int | None,
        end_sequence: int | None,
        received: int,
        heed_flags: bool,
        heed_state: bool,
    ) -> bool:
        begun = at
        name, kind, start, end, flags = "", 0, 0, 0, 0
        parent = NO_SPAN
        found: list[bytes] = []
        bits = 0
        rarely: dict[str, Any] = {}
        try:
            if data[at] != 0x0A or data[at + 1] != 16 or data[at + 18] != 0x12 or data[at + 19] != 8:
                return False
            trace, span = data[at + 2 : at + 18], data[at + 20 : at + 28]
            at += 28
            while at < stop:
                tag = data[at]
                if tag == 0x4A:  # an attribute
                    size = data[at + 1]
                    at += 2
                    if size > 127:
                        if data[at] > 127:
                            return False
                        size += (data[at] << 7) - 128
                        at += 1
                    pair = data[at : at + size]
                    at += size
                    fragment, bit = known(pair) or learn(pair)
                    found.append(fragment)
                    bits += bit
                elif tag == 0x2A:  # the name
                    size = data[at + 1]
                    if size > 127:
                        return False
                    text = data[at + 2 : at + 2 + size]
                    at += 2 + size
                    name = name_of(text) or new_name(text)
                elif tag == 0x39:  # the start
                    start = _time(data, at + 1)[0]
                    at += 9
                elif tag == 0x41:  # the end
                    end = _time(data, at + 1)[0]
                    at += 9
                elif tag == 0x30:  # the kind
                    kind = data[at + 1]
                    if kind > 127:
                        return False
                    at += 2
                elif tag == 0x85 and data[at + 1] == 1:  # the flags
                    flags = _number(data, at + 2)[0]
                    at += 6
                elif tag == 0x22 and data[at + 1] == 8:  # the parent
                    parent = data[at + 2 : at + 10]
                    at += 10
                else:
                    begin, at = _bounds(data, at)
                    if not _rarely(tag, data[begin:at], rarely, fragments, texts, heed_state):
                        return False
        except ERRORS:
            return False
        if (
            at != stop
            or bits.bit_count() != len(found)
            or start | end > _MAX_TIME
            or trace == _NO_TRACE
            or span == NO_SPAN
            or (heed_flags and flags & (_FLAGS_ARE_KNOWN | _SAMPLED) == _FLAGS_ARE_KNOWN)
        ):
            return False
        columns.put(rarely)
        row = (trace, span, parent, name, kind, start, end, flags & _MAX_FLAGS, b"{" + b",".join(found) + b"}")
        columns.flat.extend((*row, sequence, end_sequence if end else None, received, context))
        templates.missed(data, begun, stop, name, columns.taken + len(columns))
        return True

    return walk


class _Texts:
    """What was decoded before, by its bytes."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self._statuses: dict[bytes, tuple[int, str | None]] = {}
        self._marked: dict[str, bool] = {}

    def name(self, data: bytes) -> str:
        """UTF-8 as text; raises UnicodeDecodeError, which is a ValueError."""
        text = data.decode()
        _remember(self.names, data, text)
        return text

    def status(self, data: bytes) -> tuple[int, str | None]:
        """Code and message of an encoded `Status`; raises ValueError."""
        found = self._statuses.get(data)
        if found is None:
            status = parsed(Status, data)
            found = (status.code, status.message or None)
            _remember(self._statuses, data, found)
        return found

    def is_marked(self, state: str) -> bool:
        """Whether a tracestate says that a sampler was at work."""
        found = self._marked.get(state)
        if found is None:
            found = left_out.sampling(Span(trace_state=state), told=True) is not None
            _remember(self._marked, state, found)
        return found


def _remember(known: dict[K, V], key: K, value: V) -> None:
    if len(key) <= _MAX_KEPT:
        if len(known) >= _MAX_KNOWN:
            known.clear()
        known[key] = value


def _rarely(
    tag: int, data: bytes, rarely: dict[str, Any], fragments: Fragments, texts: _Texts, heed_state: bool
) -> bool:
    """Take a field that few spans have; False when the span needs care. Raises one of ERRORS then, too."""
    if tag == 0x7A and "status_code" not in rarely:
        rarely["status_code"], rarely["status_status_message"] = texts.status(data)
    elif tag == 0x6A:
        rarely.setdefault("links_json", []).append(_link(data, fragments, texts))
    elif tag == 0x5A:
        rarely.setdefault("events_json", []).append(_event(data, fragments, texts))
    elif tag == 0x1A:
        state = texts.name(data)
        rarely["trace_state"] = state or None
        return not (heed_state and texts.is_marked(state))
    else:
        return False
    return True


def _rare_of(template: Template, found: tuple[Any, ...], fragments: Fragments, texts: _Texts) -> dict[str, Any]:
    """What few spans have, of a span that fits a template. Raises one of ERRORS when it needs care."""
    rarely: dict[str, Any] = {"trace_state": template.state or None}
    if template.status is not None:
        rarely["status_code"], rarely["status_status_message"] = texts.status(template.status)
    if template.links:
        rarely["links_json"] = [_link(found[place], fragments, texts) for place in template.links]
    if template.events:
        rarely["events_json"] = [_event(found[place], fragments, texts) for place in template.events]
    return rarely


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the field at that place begins and ends; raises ValueError when it needs care."""
    size = data[at + 1]
    if size < 128:
        return at + 2, at + 2 + size
    if data[at + 2] > 127:
        raise ValueError("more than 16 KiB")
    size += (data[at + 2] << 7) - 128
    return at + 3, at + 3 + size


def _event(data: bytes, fragments: Fragments, texts: _Texts) -> str:
    """JSON of an encoded `Event`; raises one of ERRORS when it needs care."""
    at, stop = 0, len(data)
    when, name = 0, ""
    attributes: list[tuple[bytes, int]] = []
    while at < stop:
        tag = data[at]
        if tag == 0x09:
            when = _time(data, at + 1)[0]
            at += 9
            continue
        begin, at = _bounds(data, at)
        if tag == 0x12:
            name = texts.name(data[begin:at])
        elif tag == 0x1A:
            attributes.append(_attribute(data[begin:at], fragments))
        else:
            raise ValueError("an unusual field")
    _check(at == stop)
    return (
        f'{{"time_unix_nano":{when},"name":{quoted(name)},"attributes":{_object(attributes)},'
        '"dropped_attributes_count":0}'
    )


def _link(data: bytes, fragments: Fragments, texts: _Texts) -> str:
    """JSON of an encoded `Link`; raises one of ERRORS when it needs care."""
    at, stop = 0, len(data)
    trace = span = b""
    state, flags = "", 0
    attributes: list[tuple[bytes, int]] = []
    while at < stop:
        tag = data[at]
        if tag == 0x35:
            flags = _number(data, at + 1)[0]
            at += 5
            continue
        begin, at = _bounds(data, at)
        if tag == 0x0A:
            trace = data[begin:at]
        elif tag == 0x12:
            span = data[begin:at]
        elif tag == 0x1A:
            state = texts.name(data[begin:at])
        elif tag == 0x22:
            attributes.append(_attribute(data[begin:at], fragments))
        else:
            raise ValueError("an unusual field")
    _check(at == stop)
    return (
        f'{{"trace_id":"{trace.hex()}","span_id":"{span.hex()}","trace_state":{quoted(state)},'
        f'"attributes":{_object(attributes)},"dropped_attributes_count":0,"flags":{flags}}}'
    )


def _attribute(pair: bytes, fragments: Fragments) -> tuple[bytes, int]:
    return fragments.known.get(pair) or fragments.learn(pair)


def _object(attributes: list[tuple[bytes, int]]) -> str:
    _check(sum(bit for _, bit in attributes).bit_count() == len(attributes))
    return f"{{{b','.join(fragment for fragment, _ in attributes).decode()}}}"


def _check(usual: bool) -> None:
    if not usual:
        raise ValueError("not of the usual kind")
