"""The recordings folder: making a recording's directory, naming it, finding it again."""

from __future__ import annotations

import difflib
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fencepost_recorder import durable, manifest
from fencepost_recorder.errors import (
    InvalidRecordingId,
    RecordingDamaged,
    RecordingExists,
    RecordingNotFound,
    printable,
)
from fencepost_recorder.plainfile import open_plain
from fencepost_recorder.wal import open_log

WAL = "wal"
# The log is moved aside before it is read: no new producer can join what is being sealed.
SEALING = "wal.sealing"
SPANS = "spans"
# What is converted while recording goes on; it and the log go once the recording is sealed.
STAGING = "staging"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """One line of `list`: `state` is sealed, unsealed or damaged; `spans` and `gaps` are None unless sealed."""

    id: str
    created: datetime
    spans: int | None
    gaps: int | None
    state: str
    bytes: int
    directory: Path


def check_id(recording_id: str) -> str:
    """The id itself; raises InvalidRecordingId when it is none."""
    if not _ID.match(recording_id):
        raise InvalidRecordingId(
            f"{printable(recording_id, 80)!r} is no recording id: use 1 to 64 characters out of A-Z a-z 0-9 _ and -"
        )
    return recording_id


def id_of_a_new_one(recording_id: str | None) -> str:
    """The id that a new recording gets: the wanted one, or one made from the time. Raises InvalidRecordingId."""
    if recording_id == "latest":
        raise InvalidRecordingId("'latest' is what the newest recording is called, whichever it is: choose another id")
    return check_id(recording_id) if recording_id is not None else new_id()


def new_id() -> str:
    """An id that sorts by time: UTC date and time, then 4 random hex digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def begin(recordings: Path, recording_id: str | None = None) -> Path:
    """Make `recordings`/<id>/wal for processes to record into; the recording's directory.

    Directories are the owner's alone (0700). Raises InvalidRecordingId, RecordingExists, StorageError.
    """
    name = id_of_a_new_one(recording_id)
    directory = Path(recordings).absolute() / name
    durable.make_directories(directory.parent)
    try:
        directory.mkdir(mode=0o700)
        (directory / WAL).mkdir(mode=0o700)
    except FileExistsError as error:
        raise RecordingExists(
            f"a recording named {name} exists in {printable(recordings)} already: choose another id"
        ) from error
    except OSError as error:
        raise durable.storage_error("create", directory, error) from error
    durable.sync_directory(directory)
    durable.sync_directory(directory.parent)
    return Path(recordings) / name


def list_recordings(recordings: Path) -> list[RecordingSummary]:
    """Every recording of the folder, newest first; an empty list where there is no such folder.

    A look, not a verification: manifests are read and file sizes compared; only opening a recording checks its
    hashes. Symbolic links and other things are left out. Raises StorageError when the folder cannot be read.
    """
    try:
        entries = [Path(entry.path) for entry in os.scandir(recordings) if _is_recording(entry)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise durable.storage_error("read", recordings, error) from error
    found = [_summary(directory) for directory in entries]
    return sorted(found, key=lambda one: (one.created, one.id), reverse=True)


def resolve(recordings: Path, ref: str) -> Path:
    """The directory of the recording that `ref` names: an id, a path to one, or "latest".

    Raises RecordingNotFound, which names the nearest ids or where it looked.
    """
    if _ID.match(ref) and ref != "latest" and _has_recording(Path(recordings) / ref):
        return Path(recordings) / ref
    known = list_recordings(recordings)
    if ref == "latest":
        if not known:
            raise RecordingNotFound(f"there are no recordings in {printable(recordings)} yet: record or import one")
        return known[0].directory
    path = Path(ref)
    if ref and "\0" not in ref and _has_recording(path):
        return path
    if "\0" not in ref and path.name != ref and (path.is_absolute() or path.is_dir()):
        raise RecordingNotFound(f"there is no recording at {printable(ref)}: name its own folder, or its id")
    raise RecordingNotFound(_not_found(recordings, ref, [one.id for one in known]))


def _not_found(recordings: Path, ref: str, ids: list[str]) -> str:
    near = difflib.get_close_matches(ref, ids, n=3, cutoff=0.4)
    where = printable(recordings)
    if near:
        return f"there is no recording {printable(ref, 80)!r} in {where}; the nearest: {', '.join(near)}"
    if ids:
        return f"there is no recording {printable(ref, 80)!r} in {where}; the newest there is {ids[0]}"
    return f"there is no recording {printable(ref, 80)!r}: {where} holds none"


def _is_recording(entry: os.DirEntry[str]) -> bool:
    return bool(_ID.match(entry.name)) and entry.is_dir(follow_symlinks=False) and _has_recording(Path(entry.path))


def _has_recording(directory: Path) -> bool:
    try:
        return any((directory / name).exists() for name in (manifest.NAME, WAL, SEALING, SPANS))
    except OSError:
        return False


def read_manifest(directory: Path) -> manifest.Manifest:
    """The recording's manifest, its own hash checked, read through no link.

    Raises FileNotFoundError when there is none, RecordingDamaged when it is not what was sealed.
    """
    name = f"{manifest.NAME} in {printable(directory)}"
    try:
        with open_plain(directory / manifest.NAME) as stream:
            data = stream.read(manifest.MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordingDamaged(f"{name} cannot be read ({error.strerror}): restore it from a copy") from error
    if len(data) > manifest.MAX_BYTES:
        raise RecordingDamaged(f"{name} is larger than any manifest: restore it from a copy")
    return manifest.parse(data, name)


def _summary(directory: Path) -> RecordingSummary:
    size = _size(directory)
    try:
        found = read_manifest(directory)
    except FileNotFoundError:
        # Without a log it is one that has lost its manifest.
        state = "unsealed" if any((directory / name).exists() for name in (WAL, SEALING)) else "damaged"
        return RecordingSummary(directory.name, _begun(directory), None, None, state, size, directory)
    except RecordingDamaged:
        return RecordingSummary(directory.name, _changed(directory), None, None, "damaged", size, directory)
    whole = all(_is_size(directory / entry.path, entry.bytes) for entry in found.files)
    created = _moment(found.created_unix_nano)
    if not whole:
        return RecordingSummary(directory.name, created, None, None, "damaged", size, directory)
    return RecordingSummary(directory.name, created, found.spans, found.gaps, "sealed", size, directory)


def _size(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:
                continue
    return total


def _is_size(path: Path, size: int) -> bool:
    try:
        return path.lstat().st_size == size
    except OSError:
        return False


def _begun(directory: Path) -> datetime:
    """When the first process of an unsealed recording started, as far as its logs tell."""
    started: list[int] = []
    for name in (WAL, SEALING):
        for path in (directory / name).glob("*.wal"):
            try:
                reader = open_log(path)
            except OSError:
                continue
            with reader.stream:
                if reader.header is not None:
                    started.append(reader.header.started_unix_nano)
    return _moment(min(started)) if started else _changed(directory)


def _changed(directory: Path) -> datetime:
    try:
        return _moment(directory.lstat().st_mtime_ns)
    except OSError:
        return _moment(0)


def _moment(unix_nano: int) -> datetime:
    try:
        return datetime.fromtimestamp(unix_nano / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)
