"""Encoded attributes to the JSON text of their key and value, kept by their bytes.

Most attributes repeat from span to span, to the byte: each is decoded once and then looked up. What is new is decoded
by hand where it is of the usual kind, else by protobuf's own classes, which have the last word on what is valid.
"""

from __future__ import annotations

import struct
from json.encoder import encode_basestring

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from fencepost_recorder.rows import attribute_json, double_json, parsed

MAX_KNOWN = 32_768
MAX_KEYS = 256
_MAX_KEPT_BYTES = 512
_MAX_INT_BYTES = 9  # of ten the last says whether it is valid: not ours to judge
_double = struct.Struct("<d").unpack_from
# The C function behind json.dumps(text, ensure_ascii=False).
quoted = encode_basestring

# The UTF-8 of `"key":value`, and a bit that is the key's own: the sum of several has as many bits as there are keys.
Fragment = tuple[bytes, int]


class Fragments:
    """What is known of attributes: by the bytes of their `KeyValue`, and of their `AnyValue` alone.

    Look up in `known` or `values` first, then ask `learn` or `learn_value`.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, Fragment] = {}
        self.values: dict[bytes, bytes] = {}
        self._keys: dict[bytes, Fragment] = {}

    def learn(self, pair: bytes) -> Fragment:
        """The fragment of an attribute not known yet.

        Raises ValueError when it is none, or when there are more keys than can be told apart: the span needs care.
        """
        try:
            begin = pair[1] + 4
            # A value shorter than 128 bytes under such a key, with nothing else around.
            size = len(pair) - begin
            if pair[0] == 0x0A and begin < 132 and pair[begin - 2] == 0x12 and pair[begin - 1] == size < 128:
                key, bit = self._key(pair[2 : begin - 2])
                value = pair[begin:]
                found = (key + (self.values.get(value) or self.learn_value(value)), bit)
            else:
                found = self._unusual(pair)
        except IndexError:
            found = self._unusual(pair)
        if len(pair) <= _MAX_KEPT_BYTES:
            self.known[pair] = found
        return found

    def learn_value(self, value: bytes) -> bytes:
        """The JSON of a value not known yet. Raises ValueError when it is none."""
        found = _usual(value) or attribute_json(parsed(AnyValue, value)).encode()
        if len(value) <= _MAX_KEPT_BYTES:
            self.values[value] = found
        return found

    def forget(self) -> None:
        """Make room, if need be; between two spans, for the bits of keys change."""
        if len(self.known) > MAX_KNOWN or len(self.values) > MAX_KNOWN or len(self._keys) >= MAX_KEYS:
            self.known.clear()
            self.values.clear()
            self._keys.clear()

    def _unusual(self, pair: bytes) -> Fragment:
        attribute = parsed(KeyValue, pair)
        key, bit = self._key(attribute.key.encode())
        return key + attribute_json(attribute.value).encode(), bit

    def _key(self, key: bytes) -> Fragment:
        found = self._keys.get(key)
        if found is None:
            if len(self._keys) >= MAX_KEYS:
                raise ValueError("more keys than are told apart")
            found = self._keys[key] = (quoted(key.decode()).encode() + b":", 1 << len(self._keys))
        return found


def _usual(value: bytes) -> bytes | None:  # noqa: PLR0911 one for each kind
    """JSON of an `AnyValue` of a usual kind."""
    size = len(value)
    if size < 2:
        return None
    kind, second = value[0], value[1]
    if kind == 0x0A:
        if second == size - 2 and second < 128:
            return quoted(value[2:].decode()).encode()
        if second > 127 and size > 3 and value[2] < 128 and second - 128 + (value[2] << 7) == size - 3:
            return quoted(value[3:].decode()).encode()
    elif kind == 0x18:
        number = _varint(value)
        return None if number is None else b"%d" % number
    elif kind == 0x10 and size == 2 and second < 2:
        return b"true" if second else b"false"
    elif kind == 0x21 and size == 9:
        return double_json(_double(value, 1)[0]).encode()
    return None


def _varint(value: bytes) -> int | None:
    """The int64 behind a tag."""
    last = len(value) - 1
    if last > _MAX_INT_BYTES or value[last] > 127:
        return None
    number = value[last]
    for place in range(last - 1, 0, -1):
        if value[place] < 128:
            return None
        number = number << 7 | value[place] & 0x7F
    return number
