"""Writes the tables of a recording as Parquet, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fencepost_recorder import durable, manifest, schema
from fencepost_recorder.manifest import FileEntry

# Whichever comes first ends a row group: a few huge spans must not fill the memory.
ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 32 * 1024 * 1024
PART_ROWS = 500_000
_PRODUCER = schema.SPANS.get_field_index("producer")
_SEQUENCE = schema.SPANS.get_field_index("producer_seq")

Row = tuple[Any, ...]


class SpanParts:
    """Rows in, spans/part-*.parquet out; `finish` gives their manifest entries. Raises StorageError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries: list[FileEntry] = []
        self._rows: list[Row] = []
        self._bytes = 0
        self._part: _Part | None = None
        self.rows = 0

    def add(self, row: Row, size: int) -> None:
        """Take one row, which stands for about `size` bytes."""
        self._rows.append(row)
        self._bytes += size
        self.rows += 1
        if len(self._rows) >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> list[FileEntry]:
        """Write what is left. There is always a file, so that a glob over the folder finds the columns."""
        if self._rows or not self._entries:
            self._flush()
        self._end_part()
        return self._entries

    def abandon(self) -> None:
        """Let go of the open file after a failure."""
        if self._part is not None:
            self._part.file.discard()

    def _flush(self) -> None:
        if self._part is None:
            path = manifest.spans_path(len(self._entries))
            self._part = _Part(self._directory, path, schema.SPANS)
        self._part.write(self._rows)
        self._rows, self._bytes = [], 0
        if self._part.rows >= PART_ROWS:
            self._end_part()

    def _end_part(self) -> None:
        if self._part is not None:
            self._entries.append(self._part.finish())
            self._part = None


def write_gaps(directory: Path, table: pa.Table) -> FileEntry:
    """Write the `gaps` table; its manifest entry. Raises StorageError."""
    part = _Part(directory, manifest.GAPS_PATH, schema.GAPS)
    part.write_table(table)
    return part.finish()


class _Part:
    """One Parquet file being written."""

    def __init__(self, directory: Path, path: str, columns: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.file = durable.DurableFile(directory / path)
        self._schema = columns
        self._bounds: dict[str, tuple[int, int]] = {}
        self._writer: Any = self._guard(
            lambda: pq.ParquetWriter(
                pa.PythonFile(self.file, mode="w"),
                columns,
                compression="zstd",
                write_page_checksum=True,
                write_statistics=True,
                store_schema=True,
            )
        )

    def write(self, rows: list[Row]) -> None:
        """Append one row group."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(self._schema)
        arrays = [pa.array(values, type=field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._bound(rows)
        self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Append one row group."""
        self._guard(lambda: self._writer.write_table(table, row_group_size=max(table.num_rows, 1)))
        self.rows += table.num_rows

    def finish(self) -> FileEntry:
        """Close the file for good."""
        self._guard(self._writer.close)
        self.file.commit()
        return FileEntry(self.path, self.file.sha256, self.file.bytes, self.rows, dict(sorted(self._bounds.items())))

    def _bound(self, rows: list[Row]) -> None:
        for row in rows:
            sequence = row[_SEQUENCE]
            if sequence is not None:
                first, last = self._bounds.get(row[_PRODUCER], (sequence, sequence))
                self._bounds[row[_PRODUCER]] = (min(first, sequence), max(last, sequence))

    def _guard(self, step: Callable[[], Any]) -> Any:
        """Arrow wraps what our file raises; the sentence for the user is in the file."""
        try:
            return step()
        except Exception:
            self.file.discard()
            self.file.check()
            raise
