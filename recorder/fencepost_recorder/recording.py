"""A sealed recording: nothing of it is believed before its hash is checked."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fencepost_recorder import folder, manifest, schema
from fencepost_recorder.errors import RecordingDamaged, RecordingNotFound, RecordingUnsealed, printable
from fencepost_recorder.manifest import FileEntry, Manifest
from fencepost_recorder.native import native
from fencepost_recorder.plainfile import open_plain


class Recording:
    """A recording whose every byte was checked against its manifest; made by `open_recording`."""

    def __init__(self, directory: Path, found: Manifest) -> None:
        self.directory = directory
        self.manifest = found
        self._tables: dict[str, pa.Table] = {}

    @property
    def id(self) -> str:
        """The id it was recorded under."""
        return self.manifest.id

    def spans(self) -> pa.Table:
        """The `spans` table, of schema `schema.SPANS`: a row for each span.

        Raises RecordingDamaged when a file is no longer what was sealed.
        """
        return self._table("spans", schema.SPANS, [e for e in self.manifest.files if e.path != manifest.GAPS_PATH])

    def batches(self, columns: Sequence[str], rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Some columns of the `spans` table, at most `rows` rows at a time, in its order; columns in their own order.

        The memory is that of one file of the recording, whatever its length. Raises RecordingDamaged when a file is
        no longer what was sealed.
        """
        for entry in self.manifest.files:
            if entry.path != manifest.GAPS_PATH:
                yield from _batches(self.directory, entry, list(columns), rows)

    def gaps(self) -> pa.Table:
        """The `gaps` table, of schema `schema.GAPS`: a row for everything known to be missing.

        Raises RecordingDamaged when the file is no longer what was sealed.
        """
        return self._table("gaps", schema.GAPS, [e for e in self.manifest.files if e.path == manifest.GAPS_PATH])

    def __repr__(self) -> str:
        return f"<Recording {self.id}: {self.manifest.spans} spans, {self.manifest.gaps} gaps>"

    def _table(self, name: str, expected: pa.Schema, entries: list[FileEntry]) -> pa.Table:
        if name not in self._tables:
            tables = [_parse(self.directory, entry, expected) for entry in entries]
            self._tables[name] = pa.concat_tables(tables) if tables else expected.empty_table()
        return self._tables[name]


def open_recording(directory: Path) -> Recording:
    """Open a sealed recording, after checking every file of it against the manifest's hashes.

    Raises RecordingNotFound, RecordingUnsealed (with the way to finish it), or RecordingDamaged, which names what
    is damaged: a changed byte, a cut file, a foreign manifest, a missing file, a file that does not belong.
    """
    directory = Path(directory)
    try:
        found = folder.read_manifest(directory)
    except FileNotFoundError:
        raise _absent(directory) from None
    _check_names(directory, found)
    for entry in found.files:
        _read(directory, entry)
    return Recording(directory, found)


def _absent(directory: Path) -> RecordingNotFound | RecordingUnsealed | RecordingDamaged:
    where = printable(directory)
    if (directory / folder.WAL).is_dir() or (directory / folder.SEALING).is_dir():
        return RecordingUnsealed(
            f"the recording {where} is not sealed yet: stop the processes that record into it, then seal it", directory
        )
    if (directory / folder.SPANS).is_dir() or (directory / manifest.GAPS_PATH).exists():
        return RecordingDamaged(f"the recording {where} has lost its {manifest.NAME}: restore it from a copy")
    return RecordingNotFound(f"there is no recording in {where}")


def _check_names(directory: Path, found: Manifest) -> None:
    """Files that no manifest names would be read by whoever globs spans/*.parquet."""
    paths = [entry.path for entry in found.files]
    if len(set(paths)) != len(paths) or paths.count(manifest.GAPS_PATH) != 1:
        raise RecordingDamaged(f"{manifest.NAME} in {printable(directory)} is damaged: it lists impossible files")
    spans = directory / folder.SPANS
    try:
        if stat.S_ISLNK(spans.lstat().st_mode):
            raise RecordingDamaged(f"{folder.SPANS}/ in {printable(directory)} is a symbolic link, not a folder")
        present = {f"{folder.SPANS}/{path.name}" for path in spans.iterdir()}
    except OSError as error:
        raise RecordingDamaged(
            f"{folder.SPANS}/ in {printable(directory)} cannot be read: {error.strerror}, restore it from a copy"
        ) from error
    foreign = sorted(present - set(paths))
    if foreign:
        raise RecordingDamaged(
            f"{printable(foreign[0])} in {printable(directory)} does not belong to the recording: move it away"
        )


def _read(directory: Path, entry: FileEntry) -> pa.Buffer:
    """The file's bytes, once they are known to be those that were sealed."""
    name = f"{entry.path} in {printable(directory)}"
    try:
        with open_plain(directory / entry.path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == entry.bytes:
                data = native(stream)
                size = data.size
    except FileNotFoundError:
        raise RecordingDamaged(f"{name} is missing: restore it from a copy") from None
    except OSError as error:
        raise RecordingDamaged(f"{name} cannot be read: {error.strerror}, restore it from a copy") from error
    if size != entry.bytes:
        raise RecordingDamaged(f"{name} has {size} bytes, sealed were {entry.bytes}: restore it from a copy")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise RecordingDamaged(f"{name} is damaged: its hash does not match, restore it from a copy")
    return data


def _batches(directory: Path, entry: FileEntry, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    data = _read(directory, entry)
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(schema.SPANS) or file.metadata.num_rows != entry.rows:
                raise _other_table(directory, entry)
            yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(directory, entry) from error


def _parse(directory: Path, entry: FileEntry, expected: pa.Schema) -> pa.Table:
    # Hash and table come from the same bytes in memory: nobody can change the file in between.
    data = _read(directory, entry)
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table: pa.Table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _no_table(directory, entry) from error
    if not table.schema.equals(expected) or table.num_rows != entry.rows:
        raise _other_table(directory, entry)
    return table


def _no_table(directory: Path, entry: FileEntry) -> RecordingDamaged:
    return RecordingDamaged(f"{entry.path} in {printable(directory)} holds no readable table")


def _other_table(directory: Path, entry: FileEntry) -> RecordingDamaged:
    return RecordingDamaged(f"{entry.path} in {printable(directory)} does not hold the columns or rows it should")
