"""Writes the tables of a recording as Parquet, in row groups and files of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fencepost_recorder import durable, manifest, schema
from fencepost_recorder.manifest import FileEntry

# Whichever comes first ends a row group: a few huge spans must not fill the memory.
ROW_GROUP_ROWS = 32_768
ROW_GROUP_BYTES = 32 * 1024 * 1024
PART_ROWS = 500_000
ID_BYTES = 8
# Of how many producers a file's entry in the manifest gives the numbers: all of them would stand there once a file.
MAX_BOUNDS = 1_000
# Measured (tests/benchmarks/bench_sealing.py): numbers that rise are smallest as differences, attributes without what
# they share with those of the row before, and a dictionary of what is different in every row costs time and space.
_ENCODINGS = {
    "start_time_unix_nano": "DELTA_BINARY_PACKED",
    "duration_time_unix_nano": "DELTA_BINARY_PACKED",
    "producer_seq": "DELTA_BINARY_PACKED",
    "producer_end_seq": "DELTA_BINARY_PACKED",
    "received_time_unix_nano": "DELTA_BINARY_PACKED",
    "span_attributes": "DELTA_BYTE_ARRAY",
}
_UNIQUE = {"trace_id", "span_id", "parent_span_id", *_ENCODINGS}


@dataclass(frozen=True, slots=True)
class Part:
    """A file of spans; `ids` holds 8 bytes for each of its rows (see `columns.Batch`)."""

    entry: FileEntry
    ids: bytes


class SpanParts:
    """Tables of spans in, Parquet files out, under the names that `path` gives to the first, second, …

    Raises StorageError.
    """

    def __init__(self, directory: Path, path: Callable[[int], str] = manifest.spans_path) -> None:
        self._directory = directory
        self._path = path
        self._parts: list[Part] = []
        self._tables: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0
        self._ids = bytearray()
        self._file: _File | None = None

    def add(self, table: pa.Table, ids: bytes) -> None:
        """Take some rows."""
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        self._ids += ids
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._write(last=False)

    def finish(self, *, always: bool = True) -> list[Part]:
        """Write what is left. `always`: also a file without rows, so that a glob over the folder finds the columns."""
        self._write(last=True)
        if always and self._file is None and not self._parts:
            self._open().write_table(schema.SPANS.empty_table())
        self._end()
        return self._parts

    def abandon(self) -> None:
        """Let go of the open file after a failure."""
        if self._file is not None:
            self._file.file.discard()

    def _write(self, last: bool) -> None:
        """Write whole row groups, and at the end the rest."""
        rows = pa.concat_tables(self._tables) if self._tables else schema.SPANS.empty_table()
        small = self._bytes < ROW_GROUP_BYTES
        at = 0
        while at < rows.num_rows and (last or not small or rows.num_rows - at >= ROW_GROUP_ROWS):
            group = rows.slice(at, ROW_GROUP_ROWS)
            self._open().write(group)
            at += group.num_rows
            if self._file is not None and self._file.rows >= PART_ROWS:
                self._end()
        rest = rows.slice(at)
        self._tables, self._rows, self._bytes = ([rest], rest.num_rows, rest.nbytes) if rest.num_rows else ([], 0, 0)

    def _open(self) -> _File:
        if self._file is None:
            self._file = _File(self._directory, self._path(len(self._parts)), schema.SPANS)
        return self._file

    def _end(self) -> None:
        if self._file is not None:
            size = self._file.rows * ID_BYTES
            self._parts.append(Part(self._file.finish(), bytes(self._ids[:size])))
            del self._ids[:size]
            self._file = None


def write_gaps(directory: Path, table: pa.Table) -> FileEntry:
    """Write the `gaps` table; its manifest entry. Raises StorageError."""
    part = _File(directory, manifest.GAPS_PATH, schema.GAPS)
    part.write_table(table)
    return part.finish()


class _File:
    """One Parquet file being written."""

    def __init__(self, directory: Path, path: str, columns: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.file = durable.DurableFile(directory / path)
        self._bounds: dict[str, tuple[int, int]] = {}
        names = set(columns.names)
        self._writer: Any = self._guard(
            lambda: pq.ParquetWriter(
                pa.PythonFile(self.file, mode="w"),
                columns,
                compression="zstd",
                use_dictionary=sorted(names - _UNIQUE),
                column_encoding={name: how for name, how in _ENCODINGS.items() if name in names},
                write_page_checksum=True,
                write_statistics=True,
                store_schema=True,
            )
        )

    def write(self, table: pa.Table) -> None:
        """Append one row group of spans."""
        self._bound(table)
        self.write_table(table)

    def write_table(self, table: pa.Table) -> None:
        """Append one row group."""
        self._guard(lambda: self._writer.write_table(table, row_group_size=max(table.num_rows, 1)))
        self.rows += table.num_rows

    def finish(self) -> FileEntry:
        """Close the file for good."""
        self._guard(self._writer.close)
        self.file.commit()
        return FileEntry(self.path, self.file.sha256, self.file.bytes, self.rows, dict(sorted(self._bounds.items())))

    def _bound(self, table: pa.Table) -> None:
        found = table.group_by("producer", use_threads=False).aggregate([("producer_seq", "min_max")])
        for row in found.to_pylist():
            low, high = row["producer_seq_min_max"]["min"], row["producer_seq_min_max"]["max"]
            if low is not None and (row["producer"] in self._bounds or len(self._bounds) < MAX_BOUNDS):
                first, last = self._bounds.get(row["producer"], (low, high))
                self._bounds[row["producer"]] = (min(first, low), max(last, high))

    def _guard(self, step: Callable[[], Any]) -> Any:
        """Arrow wraps what our file raises; the sentence for the user is in the file."""
        try:
            return step()
        except Exception:
            self.file.discard()
            self.file.check()
            raise
