"""manifest.json: what a recording consists of, with the hash of every file and of itself.

Written last: no manifest, no recording. The `sha256` of a manifest is that of its canonical JSON (keys sorted, no
spaces, ASCII) without the field itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from fencepost_recorder.errors import RecordingDamaged

NAME = "manifest.json"
FORMAT = "fencepost-recording"
FORMAT_VERSION = 2
# What version 1 did not have, and is left out where one is read: it is hashed as it was written.
_LATER_FIELDS = {1: ("durability", "kept")}
SURVIVES_KILL = "survives process kill"
SURVIVES_POWER_LOSS = "survives power loss"
GAPS_PATH = "gaps.parquet"
# A million processes (a worker that forks for every job has them in some days). Those whom files and clients name are
# bounded besides (named.py).
MAX_BYTES = 256 * 1024 * 1024
_SPANS_PATH = re.compile(r"spans/part-[0-9]{5,9}\.parquet\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def spans_path(number: int) -> str:
    """The name, inside a recording, of its nth file of spans."""
    return f"spans/part-{number:05d}.parquet"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the recording; `sequences` gives the first and last sequence number in it, of a thousand producers
    at most."""

    path: str
    sha256: str
    bytes: int
    rows: int
    sequences: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Producer:
    """A process that recorded: how many frames of it were read, and how its log ended.

    `ended` is closed (it said so), died (killed, or never closed), still_recording, damaged, imported or received;
    `durability` what its frames survived from the moment on at which the recorder had promised to keep them. `kept`
    are the attribute keys that were recorded, with `.*` at the end all that begin so; None: every one.
    """

    producer: str
    pid: int | None
    host: str | None
    started_unix_nano: int | None
    frames: int
    last_seq: int | None
    ended: str
    durability: str = SURVIVES_KILL
    kept: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json. Times are unix ns; `duplicates` counts spans that came twice and were kept once.

    `imported` describes the files of an import, None for a recording made by processes. `durability` names what
    the spans of every producer survived while they were recorded; once sealed, every file is on disk.
    """

    id: str
    created_unix_nano: int
    tool_version: str
    seed: int | None
    commit: str | None
    spans: int
    gaps: int
    duplicates: int
    files: tuple[FileEntry, ...]
    producers: tuple[Producer, ...]
    imported: dict[str, Any] | None = None
    durability: str = SURVIVES_KILL
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without the hash."""
        values = asdict(self)
        for entry in values["files"]:
            entry["sequences"] = {name: list(bounds) for name, bounds in entry["sequences"].items()}
        values["files"] = list(values["files"])
        later = _LATER_FIELDS.get(self.format_version, ())
        values["producers"] = [
            {name: value for name, value in one.items() if name not in later} for one in values["producers"]
        ]
        return {"format": FORMAT, **values}

    @property
    def sha256(self) -> str:
        """The manifest's own hash, in hex."""
        return _hash(self.to_dict())

    def to_bytes(self) -> bytes:
        """The bytes of manifest.json."""
        values = self.to_dict()
        return (json.dumps({**values, "sha256": _hash(values)}, indent=1, sort_keys=True) + "\n").encode()


def weakest(producers: Iterable[Producer]) -> str:
    """What the spans of every producer survived."""
    return SURVIVES_POWER_LOSS if {one.durability for one in producers} == {SURVIVES_POWER_LOSS} else SURVIVES_KILL


def parse(data: bytes, name: str = NAME) -> Manifest:
    """The manifest in the bytes of a manifest.json, which messages call `name`.

    Raises RecordingDamaged, saying why, when they are not what was sealed.
    """
    try:
        values = json.loads(data)
        stated = values.pop("sha256")
        if values["format"] != FORMAT:
            raise RecordingDamaged(f"{name} does not belong to a fencepost recording")
        if _hash(values) != stated:
            raise RecordingDamaged(f"{name} is damaged: its own hash does not match, restore it from a copy")
        if values["format_version"] not in (*_LATER_FIELDS, FORMAT_VERSION):
            raise RecordingDamaged(
                f"the recording has format version {int(values['format_version'])}, this fencepost reads "
                f"{FORMAT_VERSION}: open it with the version that sealed it"
            )
        made = _build(values)
        if made.to_bytes() != data:
            raise RecordingDamaged(f"{name} is damaged: it was written anew, restore it from a copy")
        return made
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingDamaged(f"{name} is damaged: restore it from a copy") from error


def _build(values: dict[str, Any]) -> Manifest:
    values = {name: value for name, value in values.items() if name != "format"}
    values["files"] = tuple(_file(entry) for entry in values["files"])
    values["producers"] = tuple(_producer(entry) for entry in values["producers"])
    made = Manifest(**values)
    _check(made)
    return made


def _check(made: Manifest) -> None:
    """Raises ValueError for values that nobody who seals recordings writes: a hash says only that they were meant."""
    many = made.producers
    numbers = [made.created_unix_nano, made.spans, made.gaps, made.duplicates, *(one.frames for one in many)]
    texts = [made.id, made.tool_version, made.durability]
    texts += [text for one in many for text in (one.producer, one.ended, one.durability)]
    perhaps = [number for one in many for number in (one.pid, one.started_unix_nano, one.last_seq)]
    if not (
        all(isinstance(number, int) for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int | None) for number in (made.seed, *perhaps))
        and all(isinstance(text, str | None) for text in (made.commit, *(one.host for one in many)))
        and isinstance(made.imported, dict | None)
    ):
        raise ValueError("a value of the wrong type")
    rows = {entry.path: entry.rows for entry in made.files}
    gaps = rows.pop(GAPS_PATH, 0)
    if (made.spans, made.gaps) != (sum(rows.values()), gaps):
        raise ValueError("it counts other than its files")


def _producer(entry: dict[str, Any]) -> Producer:
    kept = entry.pop("kept", None)
    return Producer(**entry, kept=None if kept is None else tuple(map(str, kept)))


def _file(entry: dict[str, Any]) -> FileEntry:
    bounds = {name: (int(first), int(last)) for name, (first, last) in entry.pop("sequences").items()}
    made = FileEntry(**entry, sequences=bounds)
    if made.path != GAPS_PATH and not _SPANS_PATH.match(made.path):
        raise ValueError("a file outside the recording")
    if not _SHA256.match(made.sha256) or made.bytes < 0 or made.rows < 0:
        raise ValueError("an impossible file entry")
    return made


def _hash(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
