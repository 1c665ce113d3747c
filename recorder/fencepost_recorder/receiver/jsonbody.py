"""An OTLP/JSON request, turned into the bytes of OTLP/protobuf span by span.

A whole body is never parsed at once: three bytes of JSON can cost a hundred in memory, and one broken span would cost
all. The brackets around the spans are walked here, and each span is found by its brackets, then parsed alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fencepost_recorder import otlpjson
from fencepost_recorder.encode import field
from fencepost_recorder.marks import producer_of
from fencepost_recorder.receiver.answers import Problem, Refusal
from fencepost_recorder.receiver.limits import MIB, Limits
from fencepost_recorder.receiver.screening import Count, Poisons, Screened, framed
from fencepost_recorder.wire import OLD_CLIENT, Buffer

_SPACE = re.compile(rb"[ \t\n\r]*")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]+")
_MARK = re.compile(rb'["\[\]{}]')
_BOM = b"\xef\xbb\xbf"
_LEAF_BYTES = 2 * MIB
_MARKS_AN_ELEMENT = 10
# Brackets and texts that are walked for one request, and how deep: each costs time, whatever it costs in memory.
_MARKS = 4_000_000
_MAX_DEPTH = 1000
_OWN = frozenset({"resource", "scope", "schemaUrl", "schema_url"})
_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPEN, _CLOSE = b"[{", b"]}"
_parse = json.JSONDecoder(object_pairs_hook=otlpjson.object_of).decode


def screen_json(body: Buffer, limits: Limits) -> Screened:
    """Read an ExportTraceServiceRequest in JSON. Raises Refusal when it is none, or holds too much."""
    reading = _Reading(body, limits)
    try:
        payload = reading.request()
    except (ValueError, IndexError) as error:
        reason = str(error) if isinstance(error, NotJson) else "it is no JSON"
        raise Refusal(Problem.UNREADABLE, f"the body is no ExportTraceServiceRequest in JSON: {reason}") from None
    return Screened(payload, reading.spans, list(reading.poisons.found.values()))


class NotJson(ValueError):
    """Text that is no JSON, or none of the shape that is wanted."""


class Cursor:
    """A place in JSON text, at which the values of the outer brackets are read one after the other."""

    def __init__(self, text: Buffer, limits: Limits) -> None:
        # Never resized while it is read: the regular expressions hold on to it.
        self._text = text if isinstance(text, bytes | bytearray) else bytes(text)
        self._limits = limits
        self._marks = _MARKS
        self._at = len(_BOM) if self._text.startswith(_BOM) else 0

    def members(self) -> Iterator[str]:
        """The names of an object; whoever takes one must read its value before the next."""
        if self._null():
            return
        for first in self._items(b"{"):
            del first
            name = self._name()
            self._expect(_COLON)
            self._space()
            yield name

    def elements(self) -> Iterator[None]:
        """Once for each element of an array; whoever is told must read it before the next."""
        if not self._null():
            for _ in self._items(b"["):
                yield None

    def end(self) -> None:
        """Raise NotJson unless nothing but space is left."""
        self._space()
        if self._at != len(self._text):
            raise NotJson("something follows its end")

    def value(self) -> Any:
        """The next value, parsed. Raises NotJson; ValueError, the value skipped, when it is too large or too deep."""
        start = self._at
        trouble = self.skip()
        if trouble or self._at - start > _LEAF_BYTES:
            raise ValueError(trouble or f"it is larger than {_LEAF_BYTES // MIB} MiB in JSON")
        try:
            return _parse(str(self._text[start : self._at], "utf-8"))
        except UnicodeDecodeError:
            raise ValueError("it is not UTF-8") from None
        except ValueError:
            raise ValueError("it is no JSON") from None

    def skip(self) -> str:
        """Go behind the next value; why it should not be parsed, if so. Raises NotJson when there is none."""
        text = self._text
        if text[self._at] == _QUOTE:
            self._at = self._behind_text(self._at)
            return ""
        if text[self._at] not in _OPEN:
            found = _SCALAR.match(text, self._at)
            if found is None:
                raise NotJson("a value is missing")
            self._at = found.end()
            return ""
        return self._skip_brackets()

    def _skip_brackets(self) -> str:
        text, at, search, find = self._text, self._at, _MARK.search, self._text.find
        depth = deepest = opened = 0
        left = before = self._marks
        while True:
            found = search(text, at)
            if found is None:
                raise NotJson("a bracket is not closed")
            at = found.end()
            mark = text[at - 1]
            left -= 1
            if left < 0 or depth > _MAX_DEPTH:
                raise _too_much()
            if mark == _QUOTE:
                end = find(b'"', at)
                if end > 0 and text[end - 1] != _BACKSLASH:
                    at = end + 1
                else:
                    self._marks, at = left, self._behind_text(at - 1)
                    left = self._marks
            elif mark in _OPEN:
                opened += 1
                depth += 1
                deepest = max(deepest, depth)
            else:
                depth -= 1
                if depth == 0:
                    break
        self._at, self._marks = at, left
        if deepest > self._limits.depth:
            return "it is nested too deeply"
        too_many = opened > self._limits.elements or before - left > self._limits.elements * _MARKS_AN_ELEMENT
        return "it holds too many attributes, events, links or values" if too_many else ""

    def _behind_text(self, at: int) -> int:
        """Behind the closing quote of the text whose opening quote is at `at`."""
        text = self._text
        while True:
            at = text.find(b'"', at + 1)
            if at < 0:
                raise NotJson("a text is not closed")
            self._marks -= 1
            if self._marks < 0:
                raise _too_much()
            before = at - 1
            while text[before] == _BACKSLASH:
                before -= 1
            if (at - before) % 2:
                return at + 1

    def _items(self, bracket: bytes) -> Iterator[int]:
        self._space()
        if self._text[self._at] != bracket[0]:
            raise NotJson("an array or an object is missing where one should be")
        self._at += 1
        self._space()
        close = _CLOSE[_OPEN.index(bracket)]
        number = 0
        if self._text[self._at] == close:
            self._at += 1
            return
        while True:
            self._space()
            yield number
            number += 1
            self._space()
            if self._text[self._at] == close:
                self._at += 1
                return
            self._expect(_COMMA)

    def _name(self) -> str:
        start = self._at
        if self._text[start] != _QUOTE:
            raise NotJson("a name is missing")
        self._at = self._behind_text(start)
        name = json.loads(self._text[start : self._at]) if self._at - start < 256 else ""
        return str(name)

    def _expect(self, mark: int) -> None:
        self._space()
        if self._text[self._at] != mark:
            raise NotJson(f"a {chr(mark)!r} is missing")
        self._at += 1

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _null(self) -> bool:
        if self._text.startswith(b"null", self._at):
            self._at += 4
            return True
        return False


class _Reading:
    """Turns the brackets into messages from inside out, so that the order of an object's members does not matter."""

    def __init__(self, text: Buffer, limits: Limits) -> None:
        self._cursor = Cursor(text, limits)
        self._count = Count(limits)
        self._bytes, self._most = 0, limits.body_bytes
        self.spans = 0
        self.poisons = Poisons()
        # Of the resource that is being read, whose producer is known only at its end.
        self._kept = 0
        self._lost = Poisons()

    def request(self) -> list[Buffer]:
        """The payload, piece by piece."""
        pieces: list[Buffer] = []
        for name in self._cursor.members():
            if name in {"resourceSpans", "resource_spans"}:
                for _ in self._cursor.elements():
                    pieces += self._resource_spans()
            else:
                self._cursor.skip()
        self._cursor.end()
        return pieces

    def _resource_spans(self) -> list[Buffer]:
        self._count.group()
        self._kept, self._lost = 0, Poisons()
        own: dict[str, Any] = {}
        pieces: list[Buffer] = []
        broken = ""
        for name in self._cursor.members():
            if name in {"scopeSpans", "scope_spans"}:
                for _ in self._cursor.elements():
                    pieces += self._scope_spans()
            elif name in {"instrumentationLibrarySpans", "instrumentation_library_spans"}:
                for _ in self._cursor.elements():
                    self._old_scope_spans()
            else:
                broken = self._own(own, name) or broken
        pieces.append(otlpjson.resource_bytes(own) if not broken else b"")
        if broken:
            self._lost.add(None, f"its resource could not be read: {broken}", spans=self._kept)
            pieces, self._kept = [], 0
        producer = producer_of(otlpjson.plain_attributes(own.get("resource"))) if self._lost.found else None
        for poison in self._lost.found.values():
            self.poisons.add(
                None if broken else producer,
                poison.reason,
                poison.since_unix_nano,
                poison.until_unix_nano,
                poison.spans,
            )
        self.spans += self._kept
        return framed(b"\x0a", pieces)

    def _scope_spans(self) -> list[Buffer]:
        self._count.group()
        own: dict[str, Any] = {}
        pieces: list[Buffer] = []
        broken = ""
        for name in self._cursor.members():
            if name == "spans":
                pieces += [self._span() for _ in self._cursor.elements()]
            else:
                broken = self._own(own, name) or broken
        found = sum(map(bool, pieces))
        if broken:
            self._lost.add(None, f"its scope could not be read: {broken}", spans=found)
            return []
        self._kept += found
        return framed(b"\x12", [otlpjson.scope_bytes(own), *pieces])

    def _old_scope_spans(self) -> None:
        self._count.group()
        found = 0
        for name in self._cursor.members():
            if name == "spans":
                for _ in self._cursor.elements():
                    found += self._count.spans(1)
                    self._cursor.skip()
            else:
                self._cursor.skip()
        if found:
            self._lost.add(None, OLD_CLIENT, spans=found)

    def _span(self) -> bytes:
        """A span as a field of its scope; nothing when it is poison."""
        self._count.spans(1)
        span: Any = None
        try:
            span = self._cursor.value()
            data = field(b"\x12", otlpjson.span_bytes(span))
        except NotJson:
            raise
        except otlpjson.FAULTS as error:
            self._lost.add(None, otlpjson.reason(error), *otlpjson.times(span))
            return b""
        self._grow(len(data))
        return data

    def _own(self, own: dict[str, Any], name: str) -> str:
        """Read a member that is no span; why it could not be read, if so."""
        if name not in _OWN:
            self._cursor.skip()
            return ""
        try:
            value = self._cursor.value()
            own[name] = otlpjson.one_of([own[name], value]) if name in own else value
            self._grow(len(otlpjson.resource_bytes(own)) + len(otlpjson.scope_bytes(own)))
        except NotJson:
            raise
        except otlpjson.FAULTS as error:
            return otlpjson.reason(error)
        return ""

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._most:
            raise Refusal(Problem.TOO_LARGE, "the request is too large once it is turned into protobuf")


def _too_much() -> Refusal:
    return Refusal(Problem.TOO_LARGE, "the request holds too many or too deep brackets and texts")
