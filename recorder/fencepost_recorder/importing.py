"""Importing: files of OTLP traces become a recording like any other, through a log and its sealing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from fencepost_recorder import durable, folder, otlp
from fencepost_recorder.accounts import IMPORT_KIND
from fencepost_recorder.errors import ImportFailed, RecordingExists, StorageError, printable
from fencepost_recorder.exporting.companion import companion_in
from fencepost_recorder.gaps import Gap
from fencepost_recorder.marks import mentions, producer_of, restore
from fencepost_recorder.recording import Recording, open_recording
from fencepost_recorder.rows import attributes_of, check_span, parsed
from fencepost_recorder.scratch import scratch
from fencepost_recorder.sealing import seal_as
from fencepost_recorder.source import DEFAULT_LIMITS, Limits, Source
from fencepost_recorder.unread import Unread
from fencepost_recorder.wal import MAX_PAYLOAD_BYTES, NO_REF, FrameType
from fencepost_recorder.writer import LogWriter

# No recording's id begins with a dot.
_SCRATCH = ".import-"


@dataclass(slots=True)
class _Counts:
    """What a file held, for the manifest."""

    name: str
    bytes: int
    format: str
    compression: str
    spans: int = 0
    poison: int = 0
    torn: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    damage: str = ""
    # The recordings that it was exported from, and how many spans each of these has.
    exported: dict[str, int] = field(default_factory=dict)


def import_otlp(
    files: Sequence[Path],
    recordings: Path,
    recording_id: str | None = None,
    *,
    tool_version: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Recording:
    """Make a recording of OTLP trace files; `fencepost_recorder.otlp` says which formats are understood.

    A span that cannot be read is left out and becomes a gap (`poison_span`), as does a damaged end of a file
    (`torn_tail`). Files carry no sequence, so every producer gets an `unsequenced` gap: what is missing cannot be
    known. A span's producer is its resource's service.instance.id, else its service, host and pid;
    `producer_seq` is its place in the files, in the order given. Logs, metrics and profiles are skipped;
    `manifest.imported` counts them, file by file.

    Of a recording that was exported, its gaps come back, its producers and the spans that never ended; a gap
    (`not_in_file`) says how many spans there were more. Of a part of a trace, as Tempo calls it, nobody knows that.

    An empty file beside others is what an exporter leaves whose process ended no span, and no error.
    Raises ImportFailed (a file cannot be read, or there is no span in any: then nothing is written), RecordingExists,
    InvalidRecordingId, StorageError. A recording appears under its name whole or not at all.
    """
    if not files:
        raise ImportFailed("there is nothing to import: name at least one file")
    name = folder.id_of_a_new_one(recording_id)
    target = Path(recordings) / name
    _refuse_existing(target)
    # A name no recording can have, beside the final one: the rename stays within one file system.
    with scratch(target.parent, _SCRATCH) as (ours, _):
        directory = ours / name
        _prepare(directory)
        counts = _write_log([Path(file) for file in files], directory / folder.WAL, limits)
        seal_as(name, directory, tool_version=tool_version, imported=_summary(counts))
        _refuse_existing(target)
        durable.rename(directory, target)
        durable.sync_directory(target.parent)
    return open_recording(target)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise RecordingExists(
            f"a recording named {target.name} exists in {printable(target.parent)} already: choose another id"
        )


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
        (directory / folder.WAL).mkdir(mode=0o700)
    except OSError as error:
        raise durable.storage_error("create", directory.parent, error) from error


def _write_log(files: Iterable[Path], wal: Path, limits: Limits) -> list[_Counts]:
    writer = LogWriter(wal, kind=IMPORT_KIND, producer=IMPORT_KIND)
    try:
        counts = [_import_file(file, writer, limits) for file in files]
        if not any(one.spans for one in counts):
            raise ImportFailed(_nothing(counts))
        _note_absent(counts, writer)
    finally:
        writer.close()
    return counts


def _import_file(path: Path, writer: LogWriter, limits: Limits) -> _Counts:
    def source() -> Source:
        return Source(path, limits)

    with source() as opened:
        found = otlp.detect(opened, source, limits.message_bytes, limits.document_bytes)
        counts = _Counts(printable(path.name), path.stat().st_size, found.name, opened.compression)
        log = _Log(writer, counts, opened.name)
        for item in found.read(opened):
            log.take(item)
        log.close()
    return counts


class _Log:
    """Puts what a file holds into the log."""

    def __init__(self, writer: LogWriter, counts: _Counts, name: str) -> None:
        self._writer = writer
        self._counts = counts
        self._name = name
        self._resource = -1
        self._producer: str | None = None
        self._scope = -1
        self._known: dict[tuple[int, bytes], int] = {}
        self._unread = Unread(name, self._note)
        self._absent = ""

    def take(self, item: otlp.Item) -> None:
        """Write one item. Raises StorageError when the log cannot take it."""
        match item:
            case otlp.Resource(payload):
                self._resource = self._introduce(FrameType.RESOURCE, payload, 0)
                self._look(payload)
            case otlp.Scope(payload):
                self._scope = self._introduce(FrameType.SCOPE, payload, self._resource)
            case otlp.Found(payload):
                self._span(payload)
            case otlp.Poison():
                self._poison(item)
            case otlp.Skipped(signal):
                self._counts.skipped[signal] = self._counts.skipped.get(signal, 0) + 1
            case otlp.Torn(why):
                self._counts.torn = True
                self._counts.damage = self._counts.damage or printable(why)
                self._note(Gap("torn_tail", detail=f"the end of {self._name} could not be read: {why}"))
            case otlp.Absent(why):
                self._absent = self._absent or why

    def close(self) -> None:
        """Write what is known only at the end of the file."""
        self._unread.close()
        if self._absent:
            self._note(Gap("not_in_file", detail=printable(f"{self._name}: {self._absent}", 500)))

    def _introduce(self, kind: FrameType, payload: bytes, ref: int) -> int:
        key = (ref if kind is FrameType.SCOPE else -1, payload)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= 10_000:
                self._known.clear()
            known = self._known[key] = self._append(kind, payload, ref)
        return known

    def _look(self, resource_spans: bytes) -> None:
        """Learn whose spans follow, or what an export says of the recording that it was made of."""
        try:
            attributes = attributes_of(parsed(ResourceSpans, resource_spans).resource.attributes)
        except ValueError:
            self._producer = None
            return
        self._producer = producer_of(attributes)
        companion = companion_in(attributes)
        if companion is not None:
            self._counts.exported[companion.recording] = companion.spans
            for gap in companion.gaps:
                self._note(gap)

    def _span(self, payload: bytes) -> None:
        span = Span()
        try:
            span = parsed(Span, payload)
            if mentions(payload):
                restore(span)
            check_span(span)
            if len(payload) > MAX_PAYLOAD_BYTES // 2:
                raise ValueError("it is larger than 8 MiB")
        except ValueError as error:
            since, until = _bounded(span.start_time_unix_nano), _bounded(span.end_time_unix_nano)
            self._poison(otlp.Poison(f"a span could not be read: {error}", 1, since, until))
            return
        # Serialised anew, so that the same span is the same bytes whatever format it came in.
        self._append(FrameType.WHOLE, span.SerializeToString(deterministic=True), self._scope)
        self._counts.spans += 1

    def _poison(self, poison: otlp.Poison) -> None:
        # Of something that nobody knows how many spans it held, at least one.
        self._counts.poison += 1 if poison.lost is None else poison.lost
        self._counts.damage = self._counts.damage or printable(poison.why)
        # Of a whole line or message nobody knows whose it was.
        self._unread.add(poison, self._producer if poison.lost is not None else None)

    def _note(self, gap: Gap) -> None:
        self._append(FrameType.NOTE, _note(gap), 0)

    def _append(self, kind: FrameType, payload: bytes, ref: int) -> int:
        return _append(self._writer, kind, payload, ref)


def _append(writer: LogWriter, kind: FrameType, payload: bytes, ref: int) -> int:
    sequence = writer.append(kind, payload, ref if ref >= 0 else NO_REF)
    if sequence < 0:
        raise StorageError(
            f"cannot write {printable(writer.path.parents[3])}: "
            "free some space or choose another folder, then import again"
        )
    return sequence


def _note(gap: Gap) -> bytes:
    return dumps(asdict(gap)).encode()


def _note_absent(counts: list[_Counts], writer: LogWriter) -> None:
    """Exported recordings say how many spans they have: fewer in the files is a loss, whoever left them out."""
    exported = {name: spans for one in counts for name, spans in one.exported.items()}
    absent = sum(exported.values()) - sum(one.spans + one.poison for one in counts)
    if absent > 0:
        names = ", ".join(sorted(exported)[:3])
        detail = printable(f"the export of {names} had {absent} more spans than the files hold", 500)
        _append(writer, FrameType.NOTE, _note(Gap("not_in_file", lost=absent, detail=detail)), 0)


def _bounded(time_unix_nano: int) -> int | None:
    return time_unix_nano if 0 < time_unix_nano < 2**63 else None


def _summary(counts: list[_Counts]) -> dict[str, Any]:
    skipped: dict[str, int] = {}
    for one in counts:
        for signal, number in one.skipped.items():
            skipped[signal] = skipped.get(signal, 0) + number
    return {
        "files": [asdict(one) for one in counts],
        "spans": sum(one.spans for one in counts),
        "poison": sum(one.poison for one in counts),
        "skipped": skipped,
    }


def _nothing(counts: list[_Counts]) -> str:
    names = ", ".join(one.name for one in counts[:3]) + (" …" if len(counts) > 3 else "")
    if all(one.format == otlp.EMPTY for one in counts):
        return f"{names} {'is' if len(counts) == 1 else 'are'} empty: no OTLP traces to import"
    skipped = _summary(counts)["skipped"]
    if skipped:
        return f"{names}: not a single span, only {' and '.join(sorted(skipped))}; export traces as OTLP"
    damage = next((one.damage for one in counts if one.damage), "")
    if damage:
        return f"{names}: not a single span could be read, for {damage}: is it whole, and are these OTLP traces?"
    return f"{names}: not a single span in it"
