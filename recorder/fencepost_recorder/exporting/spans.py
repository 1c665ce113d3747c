"""The spans of a recording, one after the other, as whoever exports them needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fencepost_recorder.errors import RecordingDamaged, printable
from fencepost_recorder.recording import Recording

Json = dict[str, Any]


class ExportedSpan(NamedTuple):
    """A row of `spans`: the columns that OTLP has a place for, by shorter names; times are unix ns.

    `end` is None for a span that never ended. `resource`, `scope_attributes`, `attributes`, `events` and `links` are
    JSON text, as `schema` describes it.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    trace_state: str | None
    name: str
    kind: int
    start: int
    duration: int | None
    status_code: int
    status_message: str | None
    resource: str
    scope_name: str | None
    scope_version: str | None
    scope_attributes: str
    attributes: str
    events: str
    links: str
    dropped_attributes: int
    dropped_events: int
    dropped_links: int
    flags: int
    producer: str

    @property
    def end(self) -> int | None:
        """When it ended; None if it never did."""
        return None if self.duration is None else self.start + self.duration


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
_COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "name",
    "kind",
    "start_time_unix_nano",
    "duration_time_unix_nano",
    "status_code",
    "status_status_message",
    "resource_attributes",
    "scope_name",
    "scope_version",
    "scope_attributes",
    "span_attributes",
    "events_json",
    "links_json",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "flags",
    "producer",
)


def spans_of(recording: Recording) -> Iterator[ExportedSpan]:
    """Every span of a recording, in its order. Raises RecordingDamaged."""
    for columns in columns_of(recording, _COLUMNS):
        yield from map(ExportedSpan._make, zip(*columns, strict=True))


def columns_of(recording: Recording, names: Sequence[str]) -> Iterator[list[list[Any]]]:
    """These columns of all spans, some rows at a time. Raises RecordingDamaged."""
    for batch in recording.batches(names):
        yield [batch.column(name).to_pylist() for name in names]


def loaded(text: str, kind: type, recording_id: str) -> Any:
    """The object or array that a column holds as JSON. Raises RecordingDamaged when it holds none."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise unreadable(recording_id)
    return value


def unreadable(recording_id: str) -> RecordingDamaged:
    """The error for a span that nobody who seals recordings can have written."""
    return RecordingDamaged(f"{printable(recording_id)} has a span that cannot be read: restore it from a copy")
