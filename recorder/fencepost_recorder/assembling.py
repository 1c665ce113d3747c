"""The tables of a recording, out of the units that were staged and the rest of its log.

Everything here may be cut off and done again: a unit's files stay in `staging/`, or are moved to their place in
`spans/` as they are, until the manifest is on disk.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fencepost_recorder import duplicates, durable, folder, manifest, sidecars
from fencepost_recorder.conversion import Conversion, Found
from fencepost_recorder.errors import RecordingDamaged, printable
from fencepost_recorder.logs import Log
from fencepost_recorder.loose import Half
from fencepost_recorder.manifest import FileEntry
from fencepost_recorder.native import native
from fencepost_recorder.parts import ID_BYTES, Part, SpanParts, write_gaps
from fencepost_recorder.plainfile import open_plain
from fencepost_recorder.reckoning import reckon
from fencepost_recorder.units import Unit

# How much of spans' halves is in memory at a time.
HALVES_BYTES = 64 * 1024 * 1024


def assemble(directory: Path, known: Sequence[Unit], logs: Sequence[Log]) -> dict[str, Any]:
    """Write spans/ and the gaps, of these units and logs; what the manifest says of them.

    Raises StorageError, RecordingDamaged.
    """
    staged = _staged(directory, known)
    _clear(directory, {piece.final for piece in staged if not piece.original.exists()})
    rest, last = _rest(directory, known, logs, len(staged))
    found = Found()
    for one in (*(unit.found for unit in known), rest):
        sidecars.merge(found, one)
    reckoning = reckon(found)
    pieces: list[_Staged | _Last] = [*staged, *last]
    twice = duplicates.find(pieces, reckoning.gaps)
    entries = [piece.place(twice.rows.get(number, ())) for number, piece in enumerate(pieces)]
    gaps = reckoning.gaps.table()
    entries.append(write_gaps(directory, gaps))
    if staged:
        durable.sync_directory(directory / folder.STAGING)
    durable.sync_directory(directory / folder.SPANS)
    durable.sync_directory(directory)
    return {
        "created_unix_nano": reckoning.begun_unix_nano or time.time_ns(),
        "spans": sum(one.rows for one in entries[:-1]),
        "gaps": gaps.num_rows,
        "duplicates": twice.count,
        "files": tuple(entries),
        "producers": tuple(reckoning.producers),
        "durability": manifest.weakest(reckoning.producers),
    }


@dataclass(frozen=True, slots=True)
class _Last:
    """A file that was written to its place just now."""

    directory: Path
    part: Part

    @property
    def rows(self) -> int:
        return self.part.entry.rows

    def open(self) -> pq.ParquetFile:
        return _opened(self.directory / self.part.entry.path, self.part.entry)

    def read_ids(self) -> bytes:
        return self.part.ids

    def place(self, without: Sequence[int]) -> FileEntry:
        """Leave some of its rows out; its entry."""
        return _rewritten(self.directory, self.part.entry.path, self.open(), without) if without else self.part.entry


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file of a unit: it lies where it was made, or, after an interrupted sealing, where it belongs."""

    directory: Path
    unit: Unit
    entry: FileEntry
    number: int

    @property
    def original(self) -> Path:
        return self.directory / folder.STAGING / Path(self.entry.path).name

    @property
    def final(self) -> Path:
        return self.directory / manifest.spans_path(self.number)

    @property
    def rows(self) -> int:
        return self.entry.rows

    def open(self) -> pq.ParquetFile:
        return _opened(self.original if self.original.exists() else self.final, self.entry)

    def read_ids(self) -> bytes:
        return self.unit.read_ids(self.directory, self.entry)

    def place(self, without: Sequence[int]) -> FileEntry:
        """Put the file where it belongs, without some of its rows; its entry."""
        name = manifest.spans_path(self.number)
        if without:
            if not self.original.exists():
                durable.rename(self.final, self.original)
            return _rewritten(self.directory, name, self.open(), without)
        if self.original.exists():
            durable.rename(self.original, self.final)
        return replace(self.entry, path=name)


def _staged(directory: Path, known: Sequence[Unit]) -> list[_Staged]:
    parts = [(unit, part) for unit in known for part in unit.parts]
    pieces = [_Staged(directory, unit, part, number) for number, (unit, part) in enumerate(parts)]
    for piece in pieces:
        if not piece.original.is_file() and not piece.final.is_file():
            where = f"{folder.STAGING}/{piece.original.name} in {printable(directory)}"
            raise RecordingDamaged(f"{where} is missing: restore it from a copy")
    return pieces


def _clear(directory: Path, keep: set[Path]) -> None:
    """Remove what an earlier, interrupted sealing left."""
    spans = directory / folder.SPANS
    durable.make_directory(spans)
    if spans.is_symlink():
        raise RecordingDamaged(f"{folder.SPANS}/ in {printable(directory)} is a symbolic link, not a folder")
    for path in sorted(spans.iterdir()):
        if path not in keep:
            durable.remove(path)
    for name in (manifest.GAPS_PATH, manifest.GAPS_PATH + durable.TEMPORARY, manifest.NAME + durable.TEMPORARY):
        durable.remove(directory / name)


def _rest(directory: Path, known: Sequence[Unit], logs: Sequence[Log], first: int) -> tuple[Found, list[_Last]]:
    """Convert what is in no unit, and join the halves of all; the files' numbers begin with `first`."""
    parts = SpanParts(directory, lambda number: manifest.spans_path(first + number))
    conversion = Conversion(lambda batch: parts.add(batch.table, batch.ids))
    try:
        conversion.read(logs)
        _join(directory, known, conversion)
        conversion.finish()
        made = parts.finish(always=not first)
    finally:
        parts.abandon()
    return conversion.found, [_Last(directory, part) for part in made]


def _join(directory: Path, known: Sequence[Unit], conversion: Conversion) -> None:
    own = [*((True, half) for half in conversion.found.starts), *((False, half) for half in conversion.found.ends)]
    size = sum(unit.half_bytes for unit in known)
    passes = -(-size // HALVES_BYTES) or 1
    for number in range(passes):
        starts: list[Half] = []
        ends: list[Half] = []
        for source in (*(unit.read_halves(directory) for unit in known), own):
            for is_start, half in source:
                if passes == 1 or zlib.crc32(half.key) % passes == number:
                    (starts if is_start else ends).append(half)
        conversion.join(starts, ends)


def _rewritten(directory: Path, name: str, file: pq.ParquetFile, rows: Sequence[int]) -> FileEntry:
    """Write a file of spans anew under a name, without the rows of these numbers, which rise."""
    parts = SpanParts(directory, lambda _: name)
    try:
        first = 0
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            inside = [row - first for row in rows if first <= row < first + group.num_rows]
            kept = duplicates.without(group, inside)
            parts.add(kept, bytes(ID_BYTES * kept.num_rows))
            first += group.num_rows
        [part] = parts.finish()
    finally:
        parts.abandon()
    return part.entry


def _opened(path: Path, entry: FileEntry) -> pq.ParquetFile:
    """The Parquet file, parsed from the very bytes that were checked. Raises RecordingDamaged, StorageError."""
    try:
        with open_plain(path) as stream:
            data = native(stream)
    except OSError as error:
        raise durable.storage_error("read", path, error) from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise RecordingDamaged(f"{printable(path)} is damaged: its hash does not match, restore it from a copy")
    return pq.ParquetFile(pa.BufferReader(data))
