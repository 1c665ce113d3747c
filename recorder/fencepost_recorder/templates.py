"""Spans of a shape that was seen before, taken at a third of the price.

Most spans of a program are alike but for their values: the same fields at the same places, the same name, the same
keys. A template is what such spans share, as one large number under a mask that leaves the values out. Where a span's
bytes under the mask are the template's, one call takes all values out, and only these are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from fencepost_recorder.fragments import quoted

# A template costs as much as dozens of spans taken field by field: shapes that hardly ever come again get none.
_SIGHTINGS = 3
_PRICE = 64
_CREDIT = 4096
_MAX_OF_A_SIZE = 8
_MAX_SEEN = 8192
_IDS = [(2, 16, "16s"), (20, 8, "8s")]
_NUMBER = struct.Struct("<I").unpack_from


class Template(NamedTuple):
    """What spans of one shape share. `take` gives the ids and values of such a span, in the order of its bytes.

    `parent`, `start` and `end` are places among these, 0 for none; the values of attributes are those from `first` up
    to `last`, and `attributes` % these is their JSON; `links` and `events` are places, too.
    """

    take: Callable[[bytes, int], tuple[Any, ...]]
    name: str
    kind: int
    flags: int
    parent: int
    start: int
    end: int
    first: int
    last: int
    attributes: bytes
    # Whether it has any of the rest.
    rare: bool
    state: str
    status: bytes | None
    links: tuple[int, ...]
    events: tuple[int, ...]


class Templates:
    """The templates by the size of their spans: each with its mask, and with what a span's bytes are under it."""

    def __init__(self) -> None:
        self.of_size: dict[int, list[tuple[int, int, Template]]] = {}
        self._seen: dict[tuple[int, str], int] = {}
        self._missed = 0
        self._made = 0

    def missed(self, data: bytes, at: int, stop: int, name: str, spans: int) -> None:
        """Note a span for which there was no template; it was one of so many."""
        self._missed += 1
        key = (stop - at, name)
        times = self._seen.get(key, 0) + 1
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen[key] = times
        if times >= _SIGHTINGS and self._made * _PRICE <= spans - self._missed + _CREDIT:
            self._seen[key] = 0
            self._made += 1
            self._make(data[at:stop])

    def _make(self, span: bytes) -> None:
        made = _Shape(span).template()
        if made is not None:
            known = self.of_size.setdefault(len(span), [])
            known.insert(0, made)
            del known[_MAX_OF_A_SIZE:]


class _Shape:
    """Finds the values in a span that was scanned before, and so is of the usual kind."""

    def __init__(self, span: bytes) -> None:
        self._span = span
        self._values = list(_IDS)
        self._once: dict[int, int] = {}
        self._text: dict[int, bytes] = {}
        self._keys: dict[bytes, int] = {}
        self._many: dict[int, list[int]] = {0x6A: [], 0x5A: []}

    def template(self) -> tuple[int, int, Template] | None:
        """Mask, what is under it, and the template; None when the span is too unusual for one."""
        at = 28
        while at < len(self._span):
            found = self._field(at)
            if found is None:
                return None
            at = found
        places = list(self._keys.values())
        if places != list(range(places[0], places[-1] + 1)) if places else False:
            return None
        return self._made(places)

    def _field(self, at: int) -> int | None:
        """Take the field that begins there; where the next one begins, or None."""
        span, tag = self._span, self._span[at]
        if tag not in (0x4A, 0x6A, 0x5A):
            if tag in self._once:
                return None
            self._once[tag] = 0
        if tag == 0x30:
            self._once[tag] = span[at + 1]
            return at + 2
        if tag == 0x85:
            self._once[tag] = _NUMBER(span, at + 2)[0]
            return at + 6
        if tag in (0x39, 0x41):
            self._once[tag] = self._value(at + 1, 8, "Q")
            return at + 9
        begin, stop = _bounds(span, at)
        if tag == 0x22:
            self._once[tag] = self._value(begin, 8, "8s")
        elif tag == 0x4A:
            return stop if self._attribute(begin, stop) else None
        elif tag in self._many:
            self._many[tag].append(self._value(begin, stop - begin, f"{stop - begin}s"))
        else:
            self._text[tag] = span[begin:stop]
        return stop

    def _attribute(self, begin: int, stop: int) -> bool:
        span = self._span
        if span[begin] != 0x0A or span[begin + 1] > 127:
            return False
        value = begin + 2 + span[begin + 1]
        key = span[begin + 2 : value]
        if value >= stop or span[value] != 0x12 or key in self._keys:
            return False
        first, last = _bounds(span, value)
        if last != stop:
            return False
        self._keys[key] = self._value(first, last - first, f"{last - first}s")
        return True

    def _value(self, begin: int, size: int, code: str) -> int:
        self._values.append((begin, size, code))
        return len(self._values) - 1

    def _made(self, places: list[int]) -> tuple[int, int, Template]:
        mask, code, at = bytearray(b"\xff" * len(self._span)), "<", 0
        for begin, size, one in self._values:
            mask[begin : begin + size] = bytes(size)
            code += f"{begin - at}x{one}"
            at = begin + size
        under = int.from_bytes(mask, "little")
        keys = (quoted(key.decode()).encode().replace(b"%", b"%%") for key in self._keys)
        template = Template(
            take=struct.Struct(code).unpack_from,
            name=self._text.get(0x2A, b"").decode(),
            kind=self._once.get(0x30, 0),
            flags=self._once.get(0x85, 0),
            parent=self._once.get(0x22, 0),
            start=self._once.get(0x39, 0),
            end=self._once.get(0x41, 0),
            first=places[0] if places else 0,
            last=places[-1] + 1 if places else 0,
            attributes=b"{" + b",".join(key + b":%b" for key in keys) + b"}",
            rare=0x1A in self._text or 0x7A in self._text or any(self._many.values()),
            state=self._text.get(0x1A, b"").decode(),
            status=self._text.get(0x7A),
            links=tuple(self._many[0x6A]),
            events=tuple(self._many[0x5A]),
        )
        return under, int.from_bytes(self._span, "little") & under, template


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the field at that place begins and ends; it is shorter than 16 KiB."""
    size = data[at + 1]
    if size < 128:
        return at + 2, at + 2 + size
    size += (data[at + 2] << 7) - 128
    return at + 3, at + 3 + size
