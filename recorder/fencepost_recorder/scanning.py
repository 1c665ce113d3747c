"""Encoded spans to columns, by hand: protobuf's own classes cost ten times as much a span, most of it in Python.

A scanner takes a span only if everything in it is of the usual kind, and then says what those classes would say. For
anything else it takes nothing, and the span goes the careful way (`rows.row_of`). Tests hold that both ways agree. The
field numbers are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, TypeVar

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fencepost_recorder import left_out
from fencepost_recorder.columns import NO_SPAN, WIDTH, Columns
from fencepost_recorder.fragments import Fragments
from fencepost_recorder.rows import parsed

_MAX_TIME = 2**63 - 1
_MAX_FLAGS = 2**31 - 1
_MAX_KNOWN = 8192
_MAX_KEPT = 256
_NO_TRACE = bytes(16)
_SAMPLED, _FLAGS_ARE_KNOWN = 0x01, 0x100
_time = struct.Struct("<Q").unpack_from
_usual = struct.Struct("<BBBQBQ").unpack_from
_number = struct.Struct("<I").unpack_from
_quoted = encode_basestring
K = TypeVar("K", str, bytes)
V = TypeVar("V")
ERRORS = (ValueError, IndexError, struct.error)

# Takes, of the data, where a span begins and ends; its context's number; its sequence number and that of its end; when
# it was received; whether a mark of sampling in its flags, and in its tracestate, needs care. Tells whether it took it.
Scan = Callable[[bytes, int, int, int, int | None, int | None, int, bool, bool], bool]


def scanner(columns: Columns, fragments: Fragments) -> Scan:  # noqa: PLR0915
    """A function that takes spans into `columns`."""
    # Bound once: to look a method up at every use would cost as much as the use.
    texts = _Texts()
    known, learn = fragments.known.get, fragments.learn
    name_of, new_name = texts.names.get, texts.name
    rare, flat, add = columns.rare, columns.flat, columns.flat.extend

    # One function, for a call a field would cost more than the field.
    def scan(  # noqa: PLR0911, PLR0912, PLR0915
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
        name, kind, start, end, flags = "", 0, 0, 0, 0
        parent = NO_SPAN
        found: list[bytes] = []
        bits = 0
        rarely: dict[str, Any] | None = None
        try:
            if data[at] != 0x0A or data[at + 1] != 16 or data[at + 18] != 0x12 or data[at + 19] != 8:
                return False
            trace, span = data[at + 2 : at + 18], data[at + 20 : at + 28]
            at += 28
            # As every SDK writes it: parent, name, kind, start, end. Whatever does not fit is left to the loop below.
            if data[at] == 0x22 and data[at + 1] == 8:
                parent = data[at + 2 : at + 10]
                at += 10
            if data[at] == 0x2A and data[at + 1] < 128:
                text = data[at + 2 : at + 2 + data[at + 1]]
                at += 2 + data[at + 1]
                name = name_of(text) or new_name(text)
                kind_tag, number, start_tag, first, end_tag, second = _usual(data, at)
                if kind_tag == 0x30 and start_tag == 0x39 and number < 128:
                    kind, start = number, first
                    at += 11
                    if end_tag == 0x41:
                        end = second
                        at += 9
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
                    begin, rest = _bounds(data, at)
                    if rarely is None:
                        rarely = {}
                    if not _rarely(tag, data[begin:rest], rarely, fragments, texts, heed_state):
                        return False
                    at = rest
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
        if rarely:
            for column, value in rarely.items():
                rare[column][len(flat) // WIDTH] = f"[{','.join(value)}]" if type(value) is list else value
        add(
            (
                trace,
                span,
                parent,
                name,
                kind,
                start,
                end,
                flags & _MAX_FLAGS,
                b"{" + b",".join(found) + b"}",
                sequence,
                end_sequence if end else None,
                received,
                context,
            )
        )
        return True

    return scan


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
        f'{{"time_unix_nano":{when},"name":{_quoted(name)},"attributes":{_object(attributes)},'
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
        f'{{"trace_id":"{trace.hex()}","span_id":"{span.hex()}","trace_state":{_quoted(state)},'
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
