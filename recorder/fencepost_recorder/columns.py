"""Spans on their way into a table, column by column: a list a column costs a fraction of a tuple a row.

What most spans do not have (events, links, a status, …) is kept apart, by row number. Ids are kept as bytes and turned
into hex all at once; what spans take from their resource and scope is kept once and repeated by number.
"""

from __future__ import annotations

from array import array
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fencepost_recorder import schema
from fencepost_recorder.rows import Origin

# A batch ends with whichever comes first.
BATCH_ROWS = 16_384
BATCH_BYTES = 16 * 1024 * 1024
_TRACE_BYTES, _SPAN_BYTES = 16, 8
NO_SPAN = bytes(_SPAN_BYTES)
WIDTH = 13
_NO_NUMBER, _NO_TEXT = pa.scalar(None, pa.int64()), pa.scalar(None, pa.string())
# What a row has in these columns unless `rare` says otherwise.
_USUAL: dict[str, Any] = {
    "trace_state": None,
    "status_code": 0,
    "status_status_message": None,
    "events_json": "[]",
    "links_json": "[]",
    "dropped_attributes_count": 0,
    "dropped_events_count": 0,
    "dropped_links_count": 0,
}
_ORIGIN = tuple(field.name for field in fields(Origin))
# Column numbers of what a row of rows.py has and lists are kept for.
_AT = {name: number for number, name in enumerate(schema.SPANS.names)}


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of `schema.SPANS`, with what the table alone would be slow to tell.

    `ids` holds 8 bytes a row, which are the same for the same trace and span id, and seldom for others.
    """

    table: pa.Table
    ids: bytes


class Columns:
    """Takes spans, from a scanner that knows `flat` and `rare` or a row at a time; gives batches."""

    def __init__(self) -> None:
        # Row after row, `WIDTH` values each, in the order of `add`: one call a row, and a slice a column.
        self.flat: list[Any] = []
        self.rare: dict[str, dict[int, Any]] = {name: {} for name in _USUAL}
        # About how many bytes the spans came from, and how many were taken before.
        self.size = 0
        self.taken = 0
        self._known: dict[tuple[Origin, str], int] = {}

    def __len__(self) -> int:
        return len(self.flat) // WIDTH

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self) >= BATCH_ROWS or self.size >= BATCH_BYTES

    def context(self, origin: Origin, producer: str) -> int:
        """The number of a resource, scope and producer, until the next `take`."""
        return self._known.setdefault((origin, producer), len(self._known))

    def add(self, row: tuple[Any, ...], origin: Origin, size: int) -> None:
        """Take a row as `rows.row_of` makes it."""
        number = len(self)
        start, duration = row[_AT["start_time_unix_nano"]], row[_AT["duration_time_unix_nano"]]
        self.flat += (
            bytes.fromhex(row[_AT["trace_id"]]),
            bytes.fromhex(row[_AT["span_id"]]),
            bytes.fromhex(row[_AT["parent_span_id"]] or "") or NO_SPAN,
            row[_AT["name"]],
            row[_AT["kind"]],
            start,
            0 if duration is None else start + duration,
            row[_AT["flags"]],
            row[_AT["span_attributes"]].encode(),
            row[_AT["producer_seq"]],
            row[_AT["producer_end_seq"]],
            row[_AT["received_time_unix_nano"]],
            self.context(origin, row[_AT["producer"]]),
        )
        for name, usual in _USUAL.items():
            if row[_AT[name]] != usual:
                self.rare[name][number] = row[_AT[name]]
        self.size += size

    def put(self, rarely: dict[str, Any]) -> None:
        """Note what the row that comes next has and most do not, by column; arrays as lists of their JSON."""
        for name, value in rarely.items():
            self.rare[name][len(self)] = f"[{','.join(value)}]" if isinstance(value, list) else value

    def take(self) -> Batch:
        """All that was added since the last time."""
        values = [self.flat[number::WIDTH] for number in range(WIDTH)]
        traces, spans = b"".join(values[0]), b"".join(values[1])
        batch = Batch(self._table(values, traces, spans), _ids(traces, spans))
        self.taken += len(self)
        self.flat.clear()
        for exceptions in self.rare.values():
            exceptions.clear()
        self._known.clear()
        self.size = 0
        return batch

    def _table(self, values: list[list[Any]], traces: bytes, spans: bytes) -> pa.Table:
        _, _, parent, names, kinds, start, end, flags, attributes, sequences, end_sequences, received, contexts = values
        starts, ends = pa.array(start, pa.int64()), pa.array(end, pa.int64())
        parents = _hex(b"".join(parent), _SPAN_BYTES)
        columns = {
            "start_time_unix_nano": starts,
            "duration_time_unix_nano": pc.if_else(pc.equal(ends, 0), _NO_NUMBER, pc.subtract(ends, starts)),
            "trace_id": _hex(traces, _TRACE_BYTES),
            "span_id": _hex(spans, _SPAN_BYTES),
            "parent_span_id": pc.if_else(pc.equal(parents, NO_SPAN.hex()), _NO_TEXT, parents),
            "name": pa.array(names, pa.string()),
            "kind": pa.array(kinds, pa.int32()),
            "span_attributes": _text(attributes),
            "flags": pa.array(flags, pa.int32()),
            "producer_seq": pa.array(sequences, pa.int64()),
            "producer_end_seq": pa.array(end_sequences, pa.int64()),
            "received_time_unix_nano": pa.array(received, pa.int64()),
        }
        columns |= {name: self._rare(name, len(names)) for name in _USUAL}
        columns |= self._of_contexts(contexts)
        return pa.Table.from_arrays([columns[name] for name in schema.SPANS.names], schema=schema.SPANS)

    def _rare(self, name: str, rows: int) -> pa.Array:
        kind, usual, exceptions = schema.SPANS.field(name).type, _USUAL[name], self.rare[name]
        if exceptions:
            return pa.array([exceptions.get(row, usual) for row in range(rows)], kind)
        return pa.nulls(rows, kind) if usual is None else pa.repeat(pa.scalar(usual, kind), rows)

    def _of_contexts(self, contexts: list[int]) -> dict[str, pa.Array]:
        """The columns that spans take from their resource, scope and producer."""
        names = (*_ORIGIN, "producer")
        known = [(*astuple(origin), producer) for origin, producer in self._known]
        numbers = pa.array(contexts, pa.int32())
        values = zip(*known, strict=True) if known else ((),) * len(names)
        return {name: pa.array(each, pa.string()).take(numbers) for name, each in zip(names, values, strict=True)}


def _hex(data: bytes, width: int) -> pa.Array:
    """Lower-case hex of each `width` bytes."""
    rows = len(data) // width
    buffers = [None, pa.py_buffer(_steps(rows, 2 * width)), pa.py_buffer(data.hex().encode())]
    return pa.Array.from_buffers(pa.string(), rows, buffers)


@lru_cache(8)
def _steps(rows: int, step: int) -> array[int]:
    return array("i", range(0, rows * step + 1, step))


def _text(values: list[bytes]) -> pa.Array:
    """Strings out of their UTF-8."""
    steps = array("i", accumulate(map(len, values), initial=0))
    buffers = [None, pa.py_buffer(steps), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _ids(traces: bytes, spans: bytes) -> bytes:
    """Of each row, the span id and the last 8 bytes of the trace id, one by the other."""
    halves = pa.Array.from_buffers(pa.uint64(), len(traces) // _SPAN_BYTES, [None, pa.py_buffer(traces)])
    last = pc.list_element(pa.FixedSizeListArray.from_arrays(halves, 2), 1)
    ours = pa.Array.from_buffers(pa.uint64(), len(spans) // _SPAN_BYTES, [None, pa.py_buffer(spans)])
    found = pc.bit_wise_xor(last, ours)
    return bytes(found.buffers()[1])[: len(spans)] if len(spans) else b""
