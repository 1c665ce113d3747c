"""A postmortem's folder: its number, its files and their hashes, written so that a half-made one is never seen.

postmortems/007-double-charge/
    postmortem.md                    for people; its generated sections are fencepost's
    evidence/evidence.json           what belongs to the evidence: every file with its SHA-256
    evidence/recorded/<id>/        the sealed recording, copied
    evidence/verdicts.json  replay.json  scenario.json  timeline.txt  events.csv
    evidence/queries/INV-001.sql     and what it answered, INV-001.json
    evidence/attached/               what `postmortem attach` added
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fencepost_analyzer.errors import AnalyzerError

PAGE = "postmortem.md"
INDEX = "evidence/evidence.json"
OWN_INVARIANTS = "evidence/invariants"
OWN_MAPPINGS = "evidence/mappings"
FORMAT = "fencepost-postmortem"
FORMAT_VERSION = 1
MAX_FILE_BYTES = 2_000_000_000
MAX_TEXT_BYTES = 64_000_000

_NUMBERED = re.compile(r"([0-9]{3,6})-.+")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PostmortemError(AnalyzerError):
    """The postmortem's folder cannot be used."""


@dataclass(frozen=True, slots=True)
class Index:
    """evidence.json. `replays` are the specifications of the replays, `queries` maps an invariant's id to nothing but
    its presence in evidence/queries, `attachments` say what `attach` added; `sections` are the hashes of the page's
    generated sections and `files` those of the evidence, by path relative to the folder."""

    recording: str
    recording_sha256: str
    created: str
    tool_version: str
    number: str
    title: str
    replays: tuple[dict[str, Any], ...] = ()
    not_replayed: str | None = None
    queries: tuple[str, ...] = ()
    attachments: tuple[dict[str, Any], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return as_json({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    def with_files(self, files: Mapping[str, bytes]) -> Index:
        return replace(self, files={**self.files, **{path: sha256(data) for path, data in files.items()}})


def as_json(data: Mapping[str, Any]) -> bytes:
    """The one way in which evidence is written as JSON: the same data gives the same bytes."""
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slug(name: str) -> str:
    """`name` as part of a folder's name. Raises PostmortemError when nothing is left of it."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    if not _SLUG.fullmatch(made):
        raise PostmortemError(f"{name!r} makes no folder name: use --name with letters and digits.")
    return made


def plain_name(name: str) -> str:
    """A file's name as it may stand in the evidence: no separators, no leading dot, nothing to escape."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:80]
    return made or "file"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new postmortem is made, and where it will be."""

    building: Path
    final: Path
    number: str


@contextmanager
def making(postmortems: Path, name: str) -> Iterator[Place]:
    """A folder to fill; it takes its place `NNN-name` only if nothing is raised.

    Raises OSError when the folder of postmortems cannot be written."""
    made = slug(name)
    postmortems.mkdir(parents=True, exist_ok=True)
    with alone(postmortems):
        number = _next_number(postmortems)
        place = Place(
            postmortems / f".{number}-{made}.{secrets.token_hex(4)}", postmortems / f"{number}-{made}", number
        )
        try:
            place.building.mkdir()
            yield place
            _sync(place.building)
            place.building.rename(place.final)
        except BaseException as error:
            shutil.rmtree(place.building, ignore_errors=True)
            if isinstance(error, OSError):
                # The hidden folder's name would tell nobody anything.
                error.filename, error.filename2 = str(postmortems), None
            raise


def write(folder: Path, path: str, data: bytes) -> None:
    """Writes one file of a folder whole or not at all."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)
        raise


def discard(folder: Path, path: str) -> None:
    """Takes back a file that was written, and the directories that it leaves empty."""
    (folder / path).unlink(missing_ok=True)
    for parent in (folder / path).relative_to(folder).parents:
        try:
            if parent != Path():
                (folder / parent).rmdir()
        except OSError:
            return


def read(folder: Path, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """A file of the folder, through no symbolic link on the way. Raises PostmortemError, one sentence."""
    target = folder
    for part in PurePosixPath(path).parts:
        target = target / part
        if target.is_symlink():
            raise PostmortemError(f"{path} is or lies behind a symbolic link: evidence is made of plain files.")
    try:
        with target.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise PostmortemError(f"{path} is no plain file of at most {limit:,} bytes.")
            return stream.read()
    except FileNotFoundError:
        raise PostmortemError(f"{path} is missing.") from None
    except OSError as error:
        raise PostmortemError(f"{path} cannot be read: {error.strerror}.") from error


def load_index(folder: Path) -> Index:
    """The folder's evidence.json. Raises PostmortemError when this is no postmortem, or its index is damaged."""
    if not folder.is_dir():
        raise PostmortemError(f"There is no folder {folder}: name one that `fencepost postmortem new` made.")
    try:
        data = json.loads(read(folder, INDEX, MAX_TEXT_BYTES))
        if data.pop("format") != FORMAT or data.pop("format_version") != FORMAT_VERSION:
            raise PostmortemError(f"{folder} was written by another version of fencepost: use that one.")
        index = Index(**data)
        _validate(index)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PostmortemError(f"{INDEX} in {folder} is damaged: restore it from a copy.") from error
    except PostmortemError as error:
        raise PostmortemError(f"{folder} is no usable postmortem: {error}") from error
    return replace(index, replays=tuple(index.replays), attachments=tuple(index.attachments))


def files_below(folder: Path) -> list[str]:
    """Every file of the evidence but its index, as paths relative to the folder, sorted."""
    found = []
    for directory, inner, names in os.walk(folder / "evidence"):
        links = [name for name in inner if (Path(directory) / name).is_symlink()]
        found += [(Path(directory) / name).relative_to(folder).as_posix() for name in [*names, *links]]
    return sorted(path for path in found if path != INDEX)


def recording_path(recording_id: str) -> str:
    return f"evidence/recorded/{recording_id}"


def _validate(index: Index) -> None:
    """Paths and hashes of an index are untrusted: they must stay inside the evidence."""
    texts = (index.recording, index.recording_sha256, index.created, index.tool_version, index.number, index.title)
    if not all(isinstance(value, str) for value in (*texts, *index.queries)):
        raise ValueError("a text is missing")
    for spec in index.replays:
        if spec["mode"] not in ("verify", "fork"):
            raise ValueError("an impossible replay")
    for path, digest in index.files.items():
        if not _is_inside(path) or not _SHA256.fullmatch(digest):
            raise ValueError(f"impossible file {path!r}")
    names = [index.recording, *index.queries]
    for one in index.attachments:
        names += [str(one[key]) for key in ("name", "recording") if key in one]
        if not all(_is_inside(str(one[key])) for key in ("path", "sql", "result", "verdicts") if key in one):
            raise ValueError("an attachment lies elsewhere")
    if not all(_PLAIN_NAME.fullmatch(name) for name in names):
        raise ValueError("an impossible name")


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return len(parts) > 1 and parts[0] == "evidence" and all(_PLAIN_NAME.fullmatch(part) for part in parts)


def _next_number(postmortems: Path) -> str:
    taken = [int(found[1]) for path in postmortems.iterdir() if (found := _NUMBERED.fullmatch(path.name))]
    return f"{max(taken, default=0) + 1:03d}"


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Two at once must not choose one number, or write one page."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(building: Path) -> None:
    """The files were synced one by one; their directories are synced before the name makes them count."""
    for directory, _, _ in os.walk(building):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
