"""Sealing: the raw log becomes a recording, whose manifest is written last.

Every step can be cut off by a crash and the whole run again: until the manifest is there nothing counts, and the log
is removed only once the manifest is on disk.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fencepost_recorder import durable, folder, manifest
from fencepost_recorder.conversion import Conversion
from fencepost_recorder.duplicates import find, without
from fencepost_recorder.errors import RecorderError, RecordingDamaged, RecordingNotFound, printable
from fencepost_recorder.logs import Log, list_logs
from fencepost_recorder.manifest import FileEntry, Manifest
from fencepost_recorder.parts import Part, SpanParts, write_gaps
from fencepost_recorder.reckoning import reckon
from fencepost_recorder.recording import Recording, open_recording

_TEMPORARY = ".tmp"


def seal(directory: Path, *, tool_version: str, seed: int | None = None, commit: str | None = None) -> Recording:
    """Turn a recording's log into Parquet with a manifest, and open it. Sealing a sealed recording changes nothing.

    A process that still records is no obstacle: what it writes from now on is not part of the recording, which
    says so in a gap (`still_recording`). Raises RecordingNotFound, RecordingDamaged, StorageError (nothing is lost:
    seal again), or RecorderError while somebody else seals it.
    """
    directory = Path(directory).absolute()
    folder.check_id(directory.name)
    return seal_as(directory.name, directory, tool_version=tool_version, seed=seed, commit=commit)


def recover(directory: Path, *, tool_version: str) -> Recording:
    """Seal a recording that was left unsealed, once none of its processes lives.

    Raises RecorderError when one is still recording, and whatever `seal` raises.
    """
    directory = Path(directory)
    for name in (folder.WAL, folder.SEALING):
        if (directory / name).is_dir():
            for log in list_logs(directory / name):
                if log.locked_now and log.header is not None:
                    raise RecorderError(
                        f"process {log.header.pid} is still recording into {printable(directory)}: stop it first"
                    )
    return seal(directory, tool_version=tool_version)


def seal_as(
    recording_id: str,
    directory: Path,
    *,
    tool_version: str,
    seed: int | None = None,
    commit: str | None = None,
    imported: dict[str, Any] | None = None,
) -> Recording:
    """`seal`, for a directory whose name is not (yet) the recording's id."""
    with _alone(directory):
        if not (directory / manifest.NAME).exists():
            logs = _claim(directory)
            _clear(directory)
            built = _write_tables(directory, logs)
            made = Manifest(
                id=recording_id,
                tool_version=tool_version,
                seed=seed,
                commit=commit,
                imported=imported,
                **built,
            )
            _write_manifest(directory, made)
        recording = open_recording(directory)
        _remove_log(directory)
        return recording


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; it is released with the process, however that ends."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RecordingNotFound(f"there is no recording in {printable(directory)}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecorderError(f"{printable(directory)} is being sealed by another process: wait for it") from error
        except OSError as error:
            raise durable.storage_error("lock", directory, error) from error
        yield
    finally:
        os.close(descriptor)


def _claim(directory: Path) -> list[Log]:
    """Move the log aside, so that no new producer joins what is being sealed; its files."""
    wal, sealing = directory / folder.WAL, directory / folder.SEALING
    if wal.is_symlink() or sealing.is_symlink():
        raise RecordingDamaged(f"the log of {printable(directory)} is a symbolic link, not a folder")
    if wal.is_dir() and sealing.is_dir():
        raise RecordingDamaged(
            f"{printable(directory)} has both a {folder.WAL} and a {folder.SEALING} folder: move one away"
        )
    if wal.is_dir():
        list_logs(wal)  # a foreign file is refused before anything is changed
        durable.rename(wal, sealing)
        durable.sync_directory(directory)
    if not sealing.is_dir():
        raise RecordingNotFound(f"there is no recording in {printable(directory)}")
    return list_logs(sealing)


def _clear(directory: Path) -> None:
    """Remove what an earlier, interrupted sealing left."""
    spans = directory / folder.SPANS
    durable.make_directory(spans)
    if spans.is_symlink():
        raise RecordingDamaged(f"{folder.SPANS}/ in {printable(directory)} is a symbolic link, not a folder")
    for path in sorted(spans.iterdir()):
        durable.remove(path)
    for name in (manifest.GAPS_PATH, manifest.GAPS_PATH + _TEMPORARY, manifest.NAME + _TEMPORARY):
        durable.remove(directory / name)


def _write_tables(directory: Path, logs: list[Log]) -> dict[str, Any]:
    parts = SpanParts(directory)
    conversion = Conversion(lambda batch: parts.add(batch.table, batch.ids))
    try:
        conversion.read(logs)
        conversion.join(conversion.found.starts, conversion.found.ends)
        conversion.finish()
        made = parts.finish()
    finally:
        parts.abandon()
    reckoning = reckon(conversion.found)
    files = [_PartOf(directory, part) for part in made]
    duplicates = find(files, reckoning.gaps)
    entries = [
        _rewritten(directory, one.part.entry, duplicates.rows[place]) if place in duplicates.rows else one.part.entry
        for place, one in enumerate(files)
    ]
    gaps = reckoning.gaps.table()
    entries.append(write_gaps(directory, gaps))
    durable.sync_directory(directory / folder.SPANS)
    durable.sync_directory(directory)
    return {
        "created_unix_nano": reckoning.begun_unix_nano or time.time_ns(),
        "spans": sum(one.rows for one in entries[:-1]),
        "gaps": gaps.num_rows,
        "duplicates": duplicates.count,
        "files": tuple(entries),
        "producers": tuple(reckoning.producers),
        "durability": manifest.weakest(reckoning.producers),
    }


@dataclass(frozen=True, slots=True)
class _PartOf:
    directory: Path
    part: Part

    @property
    def path(self) -> Path:
        return self.directory / self.part.entry.path

    @property
    def rows(self) -> int:
        return self.part.entry.rows

    def read_ids(self) -> bytes:
        return self.part.ids


def _rewritten(directory: Path, entry: FileEntry, rows: Sequence[int]) -> FileEntry:
    """The file without some of its rows."""
    parts = SpanParts(directory, lambda _: entry.path)
    try:
        with pq.ParquetFile(directory / entry.path) as file:
            kept = without(file.read(), rows)
            parts.add(kept, bytes(8 * kept.num_rows))
        [part] = parts.finish()
    finally:
        parts.abandon()
    return part.entry


def _write_manifest(directory: Path, made: Manifest) -> None:
    file = durable.DurableFile(directory / manifest.NAME)
    try:
        file.write(made.to_bytes())
        file.commit()
    finally:
        file.discard()
    durable.sync_directory(directory)


def _remove_log(directory: Path) -> None:
    """Only after the manifest is durable and every hash was checked."""
    sealing = directory / folder.SEALING
    if not sealing.is_dir() or sealing.is_symlink():
        return
    for log in list_logs(sealing):
        durable.remove(log.path)
    durable.remove_directory(sealing)
    durable.sync_directory(directory)
