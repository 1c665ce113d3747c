"""Encoded attributes to the JSON text of their key and value, kept by their bytes.

Most attributes repeat from span to span, to the byte: each is decoded once and then looked up. What is new is decoded
by hand where it is of the usual kind, else by protobuf's own classes, which have the last word on what is valid.
"""

from __future__ import annotations

import json
import struct
from typing import cast

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from fencepost_recorder.rows import attribute_json, double_json, parsed

MAX_KNOWN = 32_768
MAX_KEYS = 256
_MAX_KEPT_BYTES = 512
_MAX_INT_BYTES = 9  # of ten the last says whether it is valid: not ours to judge
_double = struct.Struct("<d").unpack_from
# The C function behind json.dumps(text, ensure_ascii=False).
_quoted = cast("type[str]", json.encoder.encode_basestring)

# The UTF-8 of `"key":value`, and a bit that is the key's own: the sum of several has as many bits as there are keys.
Fragment = tuple[bytes, int]


class Fragments:
    """What is known of attributes, by the bytes of their `KeyValue`. Look up in `known` first, then ask `learn`."""

    def __init__(self) -> None:
        self.known: dict[bytes, Fragment] = {}
        self._keys: dict[bytes, Fragment] = {}

    def learn(self, pair: bytes) -> Fragment:
        """The fragment of an attribute not known yet.

        Raises ValueError when it is none, or when there are more keys than can be told apart: the span needs care.
        """
        found = self._usual(pair) or self._unusual(pair)
        if len(pair) <= _MAX_KEPT_BYTES:
            self.known[pair] = found
        return found

    def forget(self) -> None:
        """Make room, if need be; between two spans, for the bits of keys change."""
        if len(self.known) > MAX_KNOWN or len(self._keys) >= MAX_KEYS:
            self.known.clear()
            self._keys.clear()

    def _usual(self, pair: bytes) -> Fragment | None:
        """A short text, integer, boolean or double under a short key."""
        try:
            begin = pair[1] + 4
            if pair[0] != 0x0A or begin > 131 or pair[begin - 2] != 0x12 or pair[begin - 1] != len(pair) - begin:
                return None
            value = _usual_value(pair, begin)
        except IndexError:
            return None
        if value is None:
            return None
        key, bit = self._key(pair[2 : begin - 2])
        return key + value, bit

    def _unusual(self, pair: bytes) -> Fragment:
        attribute = parsed(KeyValue, pair)
        key, bit = self._key(attribute.key.encode())
        return key + attribute_json(attribute.value).encode(), bit

    def _key(self, key: bytes) -> Fragment:
        found = self._keys.get(key)
        if found is None:
            if len(self._keys) >= MAX_KEYS:
                raise ValueError("more keys than are told apart")
            found = self._keys[key] = (_quoted(key.decode()).encode() + b":", 1 << len(self._keys))
        return found


def _usual_value(pair: bytes, begin: int) -> bytes | None:  # noqa: PLR0911 one for each kind
    """JSON of the `AnyValue` from there to the end, if it is of a usual kind and shorter than 128 bytes."""
    size = len(pair) - begin
    if size > 127:
        return None
    if size == 0:
        return b"null"
    kind = pair[begin]
    if kind == 0x0A:
        return _quoted(pair[begin + 2 :].decode()).encode() if pair[begin + 1] == size - 2 else None
    if kind == 0x18:
        number = _varint(pair, begin + 1)
        return None if number is None else b"%d" % number
    if kind == 0x10 and size == 2 and pair[begin + 1] < 2:
        return b"true" if pair[begin + 1] else b"false"
    if kind == 0x21 and size == 9:
        return double_json(_double(pair, begin + 1)[0]).encode()
    return None


def _varint(data: bytes, at: int) -> int | None:
    """The int64 that ends with the data."""
    last = len(data) - 1
    if not 0 <= last - at < _MAX_INT_BYTES or data[last] > 127:
        return None
    value = 0
    for place in range(at, last):
        if data[place] < 128:
            return None
        value |= (data[place] & 0x7F) << 7 * (place - at)
    value = (value | data[last] << 7 * (last - at)) & 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value
