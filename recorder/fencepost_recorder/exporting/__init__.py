"""Exporting: a sealed recording becomes a file that other tools read.

`otlp-json` and `otlp` are what the Collector, Jaeger and Tempo take in, and what an import makes a recording of
again; `perfetto` is the Trace Event Format, for looking at (ui.perfetto.dev, chrome://tracing).

The same recording gives the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fencepost_recorder.errors import ExportFailed, printable
from fencepost_recorder.exporting.otlp import Counts, messages
from fencepost_recorder.exporting.otlp_json import JsonEncoder
from fencepost_recorder.exporting.otlp_protobuf import ProtobufEncoder
from fencepost_recorder.exporting.output import Output, to_file, to_stream
from fencepost_recorder.exporting.perfetto import events
from fencepost_recorder.recording import Recording

# Each format, and how its files' names end.
EXPORT_FORMATS = {"otlp-json": ".jsonl", "otlp": ".pb", "perfetto": ".perfetto.json"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: `never_ended` counts those of the spans that started and never ended; `bytes` is what came
    out, compressed if it was."""

    format: str
    spans: int
    never_ended: int
    bytes: int


def export_recording(
    recording: Recording,
    target: Path | BinaryIO,
    file_format: str = "otlp-json",
    *,
    gzip: bool = False,
    force: bool = False,
) -> Exported:
    """Write a recording to a file, which appears whole or not at all, or to a stream, in one of `EXPORT_FORMATS`.

    Gaps, producers and spans without an end go along as `fencepost.*` attributes (see `marks` and `companion`);
    numbers of sequence do not. A file that exists is only replaced with `force`.

    Raises ExportFailed, StorageError, RecordingDamaged; what a stream raises.
    """
    counts = Counts()
    folder = target.parent if isinstance(target, Path) else None
    pieces = _pieces(recording, file_format, counts, folder)
    with _opened(target, gzip=gzip, force=force) as output:
        for piece in pieces:
            output.write(piece)
    return Exported(file_format, counts.spans, counts.never_ended, output.bytes)


def _pieces(recording: Recording, file_format: str, counts: Counts, folder: Path | None) -> Iterator[bytes]:
    if file_format == "otlp-json":
        return messages(recording, JsonEncoder(), counts)
    if file_format == "otlp":
        return messages(recording, ProtobufEncoder(), counts)
    if file_format == "perfetto":
        return events(recording, counts, folder)
    raise ExportFailed(f"{printable(file_format, 40)!r} is no format: there are {', '.join(EXPORT_FORMATS)}")


def _opened(target: Path | BinaryIO, *, gzip: bool, force: bool) -> AbstractContextManager[Output]:
    if isinstance(target, Path):
        return to_file(target, gzip=gzip, overwrite=force)
    return to_stream(target, gzip=gzip)
