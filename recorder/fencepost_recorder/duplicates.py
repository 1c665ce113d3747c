"""Spans that came more than once, among all files of a recording, in bounded memory.

Clients may send again what was acknowledged already; such a span is the same in everything but who told it and when,
and is kept once: as it came first. A different span under the same id is kept, and said so. Which one came first is
decided by what the spans say, not by the files in which they lie.

Eight bytes a span tell which ids may be there twice; that is looked at in passes over a bounded number of spans each.
Only those few rows are then read and compared.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fencepost_recorder import left_out, schema
from fencepost_recorder.gaps import Gap, Gaps
from fencepost_recorder.rows import Origin

# How many spans a pass looks at the ids of, and how many rows it compares at a time.
PASS_ROWS = 1_000_000
COMPARED_ROWS = 200_000
# Who told a span, and when, is no part of what it is.
_TELLING = {"producer", "producer_seq", "producer_end_seq", "received_time_unix_nano"}
_TELLING |= {field.name for field in fields(Origin)}
# The lowest byte of a span's flags is what the trace's context carried; the SDK's OTLP exporters leave it out.
_CONTEXT_FLAGS = 0xFF
_CONTENT = [name for name in schema.SPANS.names if name not in _TELLING]
_READ = [*_CONTENT, "producer", "producer_seq", "producer_end_seq", "received_time_unix_nano"]


class Rows(Protocol):
    """A file of spans, and 8 bytes for each of them."""

    @property
    def rows(self) -> int:
        """How many spans it holds."""

    def open(self) -> pq.ParquetFile:
        """The Parquet file, checked against its hash."""

    def read_ids(self) -> bytes:
        """8 bytes a span (see `columns.Batch`)."""


@dataclass(slots=True)
class Duplicates:
    """By number of the file: which of its rows are there already, in rising order. And how many that is in all."""

    rows: dict[int, array[int]] = field(default_factory=dict)
    count: int = 0


def find(files: Sequence[Rows], gaps: Gaps) -> Duplicates:
    """What came twice; adds a gap for each different span under a known id, and takes back those of duplicates.

    Raises RecordingDamaged, StorageError.
    """
    search = _Search(files, gaps)
    passes = 1
    while sum(one.rows for one in files) > passes * PASS_ROWS:
        passes *= 2
    for number in range(passes):
        search.look(number, passes)
    for place, rows in search.found.rows.items():
        search.found.rows[place] = array("q", sorted(rows))
    return search.found


def without(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The table without the rows of those numbers."""
    numbers = pa.array(range(table.num_rows), pa.int64())
    return table.filter(pc.invert(pc.is_in(numbers, pa.array(rows, pa.int64()))))


@dataclass(slots=True)
class _Kept:
    """A span that came first so far: when, where it lies, and the gaps that are its own."""

    came: tuple[int, str, int]
    place: int
    number: int
    conflict: Gap
    dropped: list[Gap]


class _Search:
    def __init__(self, files: Sequence[Rows], gaps: Gaps) -> None:
        self.found = Duplicates()
        self._files = files
        self._gaps = gaps

    def look(self, number: int, passes: int) -> None:
        """Find and compare the spans whose ids fall into this pass."""
        ids = [self._ids(one, number, passes) for one in self._files]
        counts = pc.value_counts(pa.chunked_array(ids, pa.uint64()))
        counts = counts.filter(pc.greater(counts.field("counts"), 1))
        values, times = counts.field("values"), counts.field("counts").to_pylist()
        first = rows = 0
        for last, more in enumerate(times, 1):
            rows += more
            if rows >= COMPARED_ROWS or last == len(times):
                self._compare_all(values.slice(first, last - first))
                first, rows = last, 0

    def _ids(self, one: Rows, number: int, passes: int) -> pa.Array:
        ids = _values(one)
        mask = pa.scalar(passes - 1, pa.uint64())
        return ids if passes == 1 else ids.filter(pc.equal(pc.bit_wise_and(ids, mask), pa.scalar(number, pa.uint64())))

    def _compare_all(self, repeated: pa.Array) -> None:
        seen: dict[tuple[str, str], dict[bytes, _Kept]] = {}
        for place, one in enumerate(self._files):
            rows = pc.indices_nonzero(pc.is_in(_values(one), repeated)).to_pylist()
            if rows:
                self._compare(place, rows, seen)
        conflicts = [kept for known in seen.values() for kept in sorted(known.values(), key=_came)[1:]]
        for kept in sorted(conflicts, key=_came):
            self._gaps.add(kept.conflict)

    def _compare(self, place: int, rows: list[int], seen: dict[tuple[str, str], dict[bytes, _Kept]]) -> None:
        for number, row in zip(rows, _read(self._files[place], rows), strict=True):
            known = seen.setdefault((row["trace_id"], row["span_id"]), {})
            content = {name: row[name] for name in _CONTENT} | {"flags": (row["flags"] or 0) & ~_CONTEXT_FLAGS}
            digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
            this, other = _kept(place, number, row), known.get(digest)
            if other is None:
                known[digest] = this
            else:
                first, again = sorted((other, this), key=_came)
                known[digest] = first
                self._drop(again)

    def _drop(self, kept: _Kept) -> None:
        self.found.count += 1
        self.found.rows.setdefault(kept.place, array("q")).append(kept.number)
        for gap in kept.dropped:
            self._gaps.remove(gap)


def _came(kept: _Kept) -> tuple[int, str, int]:
    return kept.came


def _kept(place: int, number: int, row: dict[str, Any]) -> _Kept:
    numbers = [one for one in (row["producer_seq"], row["producer_end_seq"]) if one is not None]
    came = (row["received_time_unix_nano"], row["producer"], numbers[0])
    detail = f"span {row['span_id']} of trace {row['trace_id']} was recorded twice, with different content"
    conflict = _gap("conflicting_duplicate", row, None, detail)
    dropped = [_gap(cause, row, count, detail) for cause, count, detail in left_out.dropped_by(row)]
    return _Kept(came, place, number, conflict, dropped)


def _values(one: Rows) -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), one.rows, [None, pa.py_buffer(one.read_ids())])


def _read(one: Rows, rows: list[int]) -> Iterator[dict[str, Any]]:
    """The rows of those numbers, which rise."""
    with one.open() as file:
        first = at = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            wanted: list[int] = []
            while at < len(rows) and rows[at] < last:
                wanted.append(rows[at] - first)
                at += 1
            if wanted:
                yield from file.read_row_group(group, columns=_READ).take(wanted).to_pylist()
            first = last


def _gap(cause: str, row: dict[str, Any], lost: int | None, detail: str) -> Gap:
    """A gap of the times and numbers of a span."""
    start, duration = row["start_time_unix_nano"], row["duration_time_unix_nano"]
    numbers = [one for one in (row["producer_seq"], row["producer_end_seq"]) if one is not None]
    until = None if duration is None else start + duration
    return Gap(cause, row["producer"], numbers[0], numbers[-1], start, until, lost, detail)
