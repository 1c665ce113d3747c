"""Writing postmortems: `new` makes the folder, `attach` adds to its evidence."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fencepost_analyzer import check as checking
from fencepost_analyzer import text
from fencepost_analyzer.case import Case, open_case
from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.postmortem import page
from fencepost_analyzer.postmortem.evidence import MAX_ANSWER_ROWS, Derived, Spec, ask, derive
from fencepost_analyzer.postmortem.folder import (
    INDEX,
    MAX_FILE_BYTES,
    MAX_TEXT_BYTES,
    OWN_INVARIANTS,
    OWN_MAPPINGS,
    PAGE,
    Index,
    PostmortemError,
    alone,
    as_json,
    discard,
    load_index,
    making,
    plain_name,
    read,
    recording_path,
    sha256,
    slug,
    write,
)
from fencepost_analyzer.postmortem.sections import of_index, of_recording
from fencepost_analyzer.render import plain_json
from fencepost_analyzer.replay import Replay
from fencepost_analyzer.version import __version__
from fencepost_recorder import Recording, open_recording

# What does not follow from the recording: itself, what was attached, what the user brought.
KEPT = ("evidence/recorded/", "evidence/attached/", OWN_INVARIANTS, OWN_MAPPINGS)


def new(
    case: Case,
    *,
    postmortems: Path,
    name: str | None = None,
    title: str | None = None,
    replays: Sequence[Spec] = (),
    done: Sequence[Replay] | None = None,
    today: str | None = None,
) -> Path:
    """Writes `postmortems`/NNN-name with the page and all its evidence; answers its path.

    `replays` are specifications (`evidence.specification`), `done` the replays themselves if they were done already.
    The SQL of the user's own that the case is judged by is copied along. Deterministic but for `today` (default: this
    day, UTC). Raises PostmortemError, AnalyzerError, RecorderError, OSError; nothing is left then."""
    if name or title:
        slug(name or title or "")  # Said at once, not after all the work.
    recording = case.recording
    derived = derive(case, replays, done=done)
    heading, word = _heading(derived)
    heading = title or heading
    with making(postmortems, name or title or word) as place:
        own = {**_own_sql(OWN_INVARIANTS, case.invariants), **_own_sql(OWN_MAPPINGS, case.mappings)}
        files = {**derived.files, **own, **_recording_files(recording)}
        for path, data in files.items():
            write(place.building, path, data)
        open_recording(place.building / recording_path(recording.id))
        index = Index(
            recording=recording.id,
            recording_sha256=recording.manifest.sha256,
            created=today or f"{datetime.now(UTC):%Y-%m-%d}",
            tool_version=__version__,
            number=place.number,
            title=heading,
            replays=tuple(dict(spec) for spec in replays),
            not_replayed=derived.not_replayed,
            queries=tuple(sorted(derived.answers)),
        ).with_files(files)
        sections = {**of_recording(derived, index), **of_index(index)}
        _finish(place.building, index, page.fill(place.number, heading, index.created, sections), sections)
    return place.final


def renew(folder: Path) -> None:
    """Writes everything that follows from the recording again, as this version of fencepost words it; people's text
    and attachments stay. For examples that are kept with the source: the evidence of an incident is left alone.

    Raises PostmortemError, AnalyzerError, RecorderError, OSError."""
    with _attaching(folder) as (index, _):
        recording = open_recording(folder / recording_path(index.recording))
        if recording.manifest.sha256 != index.recording_sha256:
            raise PostmortemError(f"The recording in {folder} is not the one that {INDEX} names.")
        with case_again(folder, index, recording) as case:
            derived = derive(case, index.replays)
        kept = {path: digest for path, digest in index.files.items() if path.startswith(KEPT)}
        for path in index.files.keys() - kept.keys() - derived.files.keys():
            discard(folder, path)
        for path, data in derived.files.items():
            write(folder, path, data)
        renewed = replace(
            index,
            tool_version=__version__,
            not_replayed=derived.not_replayed,
            queries=tuple(sorted(derived.answers)),
            files=kept,
        ).with_files(derived.files)
        sections = {**of_recording(derived, renewed), **of_index(renewed)}
        content = page.replace(read(folder, PAGE, MAX_TEXT_BYTES).decode("utf-8"), sections)
        _finish(folder, renewed, content, sections)


def attach_query(folder: Path, sql: str, name: str) -> str:
    """Adds a query and what it answers on the postmortem's recording; answers the query's path in the folder.

    Raises QueryError, PostmortemError, RecorderError, OSError; the folder is as it was then."""
    with _attaching(folder) as (index, number):
        base = f"evidence/attached/{number:02d}-{plain_name(name)}"
        with own_sql(folder, index, OWN_MAPPINGS) as mappings:
            recording = open_recording(folder / recording_path(index.recording))
            answer, again = (ask(recording, sql, mappings=mappings) for _ in range(2))
        if answer != again:
            raise PostmortemError(
                "The query answers otherwise each time that it is asked, so it proves nothing: leave out what changes "
                "(now(), random()), and order what a LIMIT cuts."
            )
        files = {f"{base}.sql": sql.encode("utf-8"), f"{base}.json": answer.to_bytes()}
        rows = f"more than {MAX_ANSWER_ROWS:,}" if answer.cut else f"{len(answer.rows):,}"
        paths = {"sql": f"{base}.sql", "result": f"{base}.json"}
        _add(folder, index, {"kind": "query", "name": plain_name(name), "rows": rows, **paths}, files)
    return paths["sql"]


def attach_file(folder: Path, source: Path) -> str:
    """Copies a file into the evidence, under a harmless name; answers its path in the folder. Raises as above."""
    with _attaching(folder) as (index, number):
        if not source.is_file():
            raise PostmortemError(f"{source} is no plain file: attach files one by one.")
        if source.stat().st_size > MAX_FILE_BYTES:
            raise PostmortemError(f"{source} is larger than {MAX_FILE_BYTES:,} bytes: attach the part that matters.")
        path = f"evidence/attached/{number:02d}-{plain_name(source.name)}"
        _add(
            folder, index, {"kind": "file", "name": plain_name(source.name), "path": path}, {path: source.read_bytes()}
        )
    return path


def attach_recording(folder: Path, recording: Recording) -> str:
    """Copies another recording into the evidence, with its verdicts; answers its path there. Raises as above."""
    with _attaching(folder) as (index, number):
        target = recording_path(recording.id)
        if (folder / target).exists():
            raise PostmortemError(f"Recording {recording.id} is part of this postmortem already.")
        report = checking.check(recording)
        verdicts = f"evidence/attached/{number:02d}-{plain_name(recording.id)}-verdicts.json"
        files = {verdicts: as_json(plain_json({"recording": recording.id, **report.to_dict()}))}
        about = {"kind": "recording", "recording": recording.id, "verdict": report.verdict, "verdicts": verdicts}
        _add(folder, index, about, {**files, **_recording_files(recording)})
    return target


def _recording_files(recording: Recording) -> dict[str, bytes]:
    """What the manifest names, byte for byte; whoever opens the copy checks every hash of it."""
    paths = ["manifest.json", *(entry.path for entry in recording.manifest.files)]
    return {f"{recording_path(recording.id)}/{path}": (recording.directory / path).read_bytes() for path in paths}


@contextmanager
def own_sql(folder: Path, index: Index, which: str) -> Iterator[Sequence[Path]]:
    """The user's own SQL that was copied along, as the directories that check and query take.

    From a private copy, made of bytes that were compared with the index."""
    own = {path: read(folder, path, MAX_TEXT_BYTES) for path in index.files if path.startswith(which + "/")}
    if not own:
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="fencepost-") as scratch:
        for path, data in own.items():
            if sha256(data) == index.files[path]:
                Path(scratch, Path(path).name).write_bytes(data)
        yield (Path(scratch),)


@contextmanager
def case_again(folder: Path, index: Index, recording: Recording) -> Iterator[Case]:
    """The postmortem's case opened again: its recording, beside the SQL that was copied along."""
    with (
        own_sql(folder, index, OWN_INVARIANTS) as invariants,
        own_sql(folder, index, OWN_MAPPINGS) as mappings,
        open_case(recording, invariants=invariants, mappings=mappings) as case,
    ):
        yield case


@contextmanager
def _attaching(folder: Path) -> Iterator[tuple[Index, int]]:
    """The folder's index and the number of what is attached next; two at once wait for each other."""
    load_index(folder)
    with alone(folder):
        index = load_index(folder)
        page.require(read(folder, PAGE, MAX_TEXT_BYTES).decode("utf-8", "replace"), of_index(index))
        yield index, len(index.attachments) + 1


def _add(folder: Path, index: Index, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Files first, then the index that names them, then the page that shows it; what fails leaves no files."""
    grown = replace(index.with_files(files), attachments=(*index.attachments, dict(about)))
    sections = of_index(grown)
    try:
        for path, data in files.items():
            write(folder, path, data)
        if "recording" in about:
            open_recording(folder / recording_path(about["recording"]))
        changed = page.replace(read(folder, PAGE, MAX_TEXT_BYTES).decode("utf-8"), sections)
    except BaseException:
        for path in files:
            discard(folder, path)
        raise
    _finish(folder, grown, changed, sections)


def _finish(folder: Path, index: Index, content: str, sections: Mapping[str, str]) -> None:
    hashes = {name: sha256(section.encode("utf-8")) for name, section in sections.items()}
    final = replace(index, sections={**index.sections, **hashes})
    write(folder, INDEX, final.to_bytes())
    write(folder, PAGE, content.encode("utf-8"))


def _heading(derived: Derived) -> tuple[str, str]:
    """A title for the page and a word for the folder, where the user gave none."""
    announced = derived.overview.announced
    mode = failure_modes().get(announced.scenario.id) if announced is not None else None
    if mode is not None:
        return mode.title.capitalize(), mode.title
    broken = [one.title for one in derived.report.findings if one.verdict == "violated"]
    word = announced.scenario.id if announced is not None else derived.overview.recording
    heading = f"Broken: {text.listed(broken)}" if broken else f"Recording {derived.overview.recording}"
    return heading, word


def _own_sql(into: str, directories: Sequence[Path]) -> dict[str, bytes]:
    return {
        f"{into}/{number:02d}-{plain_name(path.name)}": path.read_bytes()
        for number, directory in enumerate(directories, start=1)
        for path in sorted(directory.glob("*.sql"))
        if not path.name.startswith(".")
    }
