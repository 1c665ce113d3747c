"""Sealing: the raw log becomes a recording, whose manifest is written last.

Every step can be cut off by a crash and the whole run again: until the manifest is there nothing counts, and the log
is removed only once the manifest is on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fencepost_recorder import durable, folder, manifest, units
from fencepost_recorder.assembling import assemble
from fencepost_recorder.errors import RecorderError, RecordingDamaged, RecordingNotFound, printable
from fencepost_recorder.logs import Log, list_logs
from fencepost_recorder.manifest import Manifest
from fencepost_recorder.recording import Recording, open_recording
from fencepost_recorder.staging import alone, grouped, next_number
from fencepost_recorder.units import Unit
from fencepost_recorder.workers import convert

# A log that is larger is converted in units: several at once, and what a crash leaves of them is kept.
SMALL_BYTES = 96 * 1024 * 1024


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
    with alone(directory) as lock:
        if not (directory / manifest.NAME).exists():
            logs = _claim(directory)
            known, rest = _converted(directory, logs, lock)
            made = Manifest(
                id=recording_id,
                tool_version=tool_version,
                seed=seed,
                commit=commit,
                imported=imported,
                **assemble(directory, known, rest),
            )
            _write_manifest(directory, made)
        recording = open_recording(directory)
        _remove_log(directory)
        return recording


def _converted(directory: Path, logs: list[Log], lock: int) -> tuple[list[Unit], list[Log]]:
    """The units that a large log was converted to, and the segments that are in none."""
    known = units.load(directory)
    units.clear(directory, known)
    staged = {name for unit in known for name in unit.segments}
    rest = [log for log in logs if log.path.name not in staged]
    # What is still written to cannot be kept as it is now: should this be cut off, there may be more of it next time.
    final = [log for log in rest if not log.locked_now and (log.header is None or log.header.locked)]
    if sum(log.bytes for log in final) <= SMALL_BYTES:
        return known, rest
    convert(directory, list(grouped(final)), next_number(known), lock)
    return units.load(directory), [log for log in rest if log not in final]


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
    changed = sealing.is_dir() and not sealing.is_symlink()
    if changed:
        for log in list_logs(sealing):
            durable.remove(log.path)
        durable.remove_directory(sealing)
    if units.remove(directory) or changed:
        durable.sync_directory(directory)
