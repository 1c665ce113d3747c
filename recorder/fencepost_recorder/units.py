"""Converted pieces of a log that outlive a crash: what `staging/` holds until the recording is sealed.

A unit is some segments that will never change again, converted together: Parquet files, beside each the ids of its
spans (`columns.Batch`), the halves of spans whose other half is elsewhere, and a sidecar that says what else was found.
The sidecar is written last: no sidecar, no unit. What a unit holds is a function of its segments' bytes, so what a
crash cut off is simply done again. Only once the sidecar is on disk may the segments go.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fencepost_recorder import durable, folder, sidecars
from fencepost_recorder.conversion import Conversion, Found
from fencepost_recorder.errors import RecordingDamaged, printable
from fencepost_recorder.logs import Log
from fencepost_recorder.loose import Half
from fencepost_recorder.manifest import FileEntry
from fencepost_recorder.parts import SpanParts
from fencepost_recorder.plainfile import open_plain
from fencepost_recorder.rows import Origin

_SIDECAR = re.compile(r"unit-([0-9]{5,9})\.json\Z")
_BATCH_BYTES = 4 * 1024 * 1024
_HALVES = pa.schema(
    [
        ("starts", pa.bool_()),
        ("producer", pa.string()),
        ("sequence", pa.int64()),
        ("time_unix_nano", pa.int64()),
        ("payload", pa.binary()),
        ("origin", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a sidecar says: segments and files by name, with the CRC-32 of those that are no Parquet files.

    `found` is what was found besides rows and halves; `origins` is what the halves refer to by number, and
    `half_bytes` how much they are.
    """

    number: int
    segments: tuple[str, ...]
    parts: tuple[FileEntry, ...]
    checksums: dict[str, int]
    found: Found
    origins: tuple[Origin, ...]
    half_bytes: int

    @property
    def files(self) -> list[str]:
        """The names of all its files in the folder."""
        return [_sidecar(self.number), *(Path(part.path).name for part in self.parts), *self.checksums]

    def read_ids(self, directory: Path, part: FileEntry) -> bytes:
        """Eight bytes for each span of a part. Raises RecordingDamaged, StorageError."""
        return self._read(directory, _ids(part))

    def read_halves(self, directory: Path) -> Iterator[tuple[bool, Half]]:
        """Each half, and whether it is a start. Raises RecordingDamaged, StorageError."""
        if not self.half_bytes:
            return
        with pa.ipc.open_file(pa.BufferReader(self._read(directory, _halves(self.number)))) as file:
            for number in range(file.num_record_batches):
                columns = file.get_batch(number).to_pydict().values()
                for starts, producer, sequence, time_unix_nano, payload, origin in zip(*columns, strict=True):
                    yield starts, Half(producer, sequence, time_unix_nano, payload, self.origins[origin])

    def _read(self, directory: Path, name: str) -> bytes:
        data = _read(directory, name)
        if zlib.crc32(data) != self.checksums[name]:
            raise RecordingDamaged(f"{_where(directory, name)} is damaged: restore it from a copy")
        return data


def make(directory: Path, number: int, logs: Sequence[Log]) -> int:
    """Convert segments that will never change again, and put the unit on disk; how many spans they hold.

    Raises StorageError.
    """
    durable.make_directory(directory / folder.STAGING)
    parts = SpanParts(directory, lambda part: f"{folder.STAGING}/unit-{number:05d}-{part}.parquet")
    conversion = Conversion(lambda batch: parts.add(batch.table, batch.ids))
    try:
        conversion.read(logs)
        conversion.finish()
        made = parts.finish(always=False)
    finally:
        parts.abandon()
    found = conversion.found
    halves = [*((True, half) for half in found.starts), *((False, half) for half in found.ends)]
    origins: dict[Origin, int] = {}
    for _, half in halves:
        origins.setdefault(half.origin, len(origins))
    checksums = {_ids(part.entry): _write(directory, _ids(part.entry), part.ids) for part in made}
    if halves:
        checksums[_halves(number)] = _write(directory, _halves(number), _encoded(halves, origins))
    # What the sidecar names must be there before it.
    durable.sync_directory(directory / folder.STAGING)
    values = {
        "segments": [log.path.name for log in logs],
        "parts": [asdict(part.entry) for part in made],
        "checksums": checksums,
        "found": sidecars.found_to_json(found),
        "origins": [astuple(origin) for origin in origins],
        "half_bytes": sum(len(half.payload) for _, half in halves),
    }
    _write(directory, _sidecar(number), sidecars.sealed(values))
    durable.sync_directory(directory / folder.STAGING)
    return sum(part.entry.rows for part in made)


def load(directory: Path) -> list[Unit]:
    """The units of a recording, in their order. Raises RecordingDamaged, StorageError."""
    staging = directory / folder.STAGING
    if staging.is_symlink():
        raise RecordingDamaged(f"{folder.STAGING}/ in {printable(directory)} is a symbolic link, not a folder")
    try:
        names = sorted(path.name for path in staging.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise durable.storage_error("read", staging, error) from error
    found = [(int(match[1]), name) for name in names if (match := _SIDECAR.match(name)) is not None]
    return [_load(directory, number, name) for number, name in sorted(found)]


def clear(directory: Path, units: Iterable[Unit]) -> None:
    """Remove what an interrupted conversion left in the folder. Raises StorageError."""
    known = {name for unit in units for name in unit.files}
    staging = directory / folder.STAGING
    if staging.is_dir():
        for path in sorted(staging.iterdir()):
            if path.name not in known:
                durable.remove(path)


def remove(directory: Path) -> bool:
    """Remove the folder with all that is in it; whether it was there. Raises StorageError."""
    staging = directory / folder.STAGING
    if staging.is_symlink() or not staging.is_dir():
        return False
    clear(directory, ())
    durable.remove_directory(staging)
    return True


def _load(directory: Path, number: int, name: str) -> Unit:
    where = _where(directory, name)
    values = sidecars.unsealed(_read(directory, name), where)
    try:
        return Unit(
            number=number,
            segments=tuple(values["segments"]),
            parts=tuple(_entry(part) for part in values["parts"]),
            checksums=values["checksums"],
            found=sidecars.found_from_json(values["found"]),
            origins=tuple(Origin(*origin) for origin in values["origins"]),
            half_bytes=values["half_bytes"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingDamaged(f"{where} was written by another version: seal with that one") from error


def _entry(values: dict[str, Any]) -> FileEntry:
    bounds = {name: (first, last) for name, (first, last) in values.pop("sequences").items()}
    return FileEntry(**values, sequences=bounds)


def _encoded(halves: list[tuple[bool, Half]], origins: dict[Origin, int]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _HALVES, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        rows: list[tuple[Any, ...]] = []
        size = 0
        for starts, half in halves:
            rows.append((starts, half.producer, half.sequence, half.time_unix_nano, half.payload, origins[half.origin]))
            size += len(half.payload)
            if size >= _BATCH_BYTES:
                file.write_batch(_batch(rows))
                rows, size = [], 0
        if rows:
            file.write_batch(_batch(rows))
    return bytes(sink.getvalue())


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _HALVES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_HALVES)


def _write(directory: Path, name: str, data: bytes) -> int:
    """Put a file into the folder; the CRC-32 of its bytes."""
    file = durable.DurableFile(directory / folder.STAGING / name)
    try:
        file.write(data)
        file.commit()
    finally:
        file.discard()
    return zlib.crc32(data)


def _read(directory: Path, name: str) -> bytes:
    path = directory / folder.STAGING / name
    try:
        with open_plain(path) as stream:
            return stream.read()
    except OSError as error:
        raise durable.storage_error("read", path, error) from error


def _where(directory: Path, name: str) -> str:
    return f"{folder.STAGING}/{name} in {printable(directory)}"


def _sidecar(number: int) -> str:
    return f"unit-{number:05d}.json"


def _halves(number: int) -> str:
    return f"unit-{number:05d}.halves"


def _ids(part: FileEntry) -> str:
    return f"{Path(part.path).name}.ids"
