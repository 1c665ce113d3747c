"""A recording in the Trace Event Format (JSON), for ui.perfetto.dev and chrome://tracing.

A process is a process, its lanes are threads (see `tracks`). A span is a complete event (`X`); one that never ended is
a beginning without an end (`B`), as the format has it. Its events are instants (`i`), links and parents elsewhere are
flows (`s`, `f`). What befell a process is an instant or slice on that process; a gap is an instant too.

Times are microseconds since the recording's first span, with three decimals: nanoseconds of unix time are more than
a double holds. `otherData` says when that was. Events are sorted by time.

Text is written for parsers that understand less than all of JSON (Perfetto's knows no surrogate pairs and takes a
backslash before a quote for an escape of it): as itself where it can be printed, else as \\u escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fencepost_recorder.exporting.companion import companions
from fencepost_recorder.exporting.ordered import Ordered
from fencepost_recorder.exporting.otlp import Counts
from fencepost_recorder.exporting.spans import ExportedSpan, Json, loaded, spans_of, unreadable
from fencepost_recorder.exporting.tracks import NEVER, Seen, Track, Tracks
from fencepost_recorder.recording import Recording

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_ERROR = 2
_LAST = 2**62  # behind all spans that begin at the same time
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {'"': "\\u0022", "\\": "\\u005c", "/": "/"}
_ODD = re.compile(r"[^ -~]")
_ODD_OR_SPECIAL = re.compile(r'[^ -~]|["\\]')


def events(recording: Recording, counts: Counts, folder: Path | None) -> Iterator[bytes]:
    """The document, piece by piece; what must be sorted goes to `folder` meanwhile. Raises RecordingDamaged,
    StorageError."""
    tracks = Tracks(recording)
    with Ordered(folder) as ordered:
        drawing = _Drawing(recording, tracks, ordered)
        drawing.spans(counts)
        drawing.seen()
        drawing.gaps()
        yield _head(recording, tracks)
        before = b""
        for event in _named(tracks):
            yield before + event
            before = b",\n"
        for event in ordered:
            yield before + event
            before = b",\n"
    yield b"\n]}\n"


def _head(recording: Recording, tracks: Tracks) -> bytes:
    about = [_dumped(one) for one in companions(recording)]
    other = _dumped({"start_unix_nano": str(tracks.base), "exported_by": "fencepost"})
    return b'{"otherData":{"recording":[%b],"time":%b},"traceEvents":[\n' % (",".join(about).encode(), other.encode())


def _named(tracks: Tracks) -> Iterator[bytes]:
    for track in sorted(tracks.by_producer.values(), key=lambda one: one.number):
        pid = track.number
        yield _metadata("process_name", pid, pid, "name", _process_name(track))
        if labels := _labels(track):
            yield _metadata("process_labels", pid, pid, "labels", labels)
        yield _metadata("process_sort_index", pid, pid, "sort_index", pid)
        for number, lane in enumerate(track.lanes):
            name = tracks.lane_names.get(lane) or ("spans" if number == 0 else f"spans {number + 1}")
            yield _metadata("thread_name", pid, lane, "name", name)
            yield _metadata("thread_sort_index", pid, lane, "sort_index", number)


def _metadata(name: str, pid: int, tid: int, key: str, value: str | int) -> bytes:
    shown = _quoted(value) if isinstance(value, str) else str(value)
    return f'{{"ph":"M","name":"{name}","pid":{pid},"tid":{tid},"args":{{"{key}":{shown}}}}}'.encode()


def _process_name(track: Track) -> str:
    service = track.resource.get("service.name")
    named = service if isinstance(service, str) and service else track.producer
    return named if track.pid is None else f"{named} (pid {track.pid})"


def _labels(track: Track) -> str:
    instance = track.resource.get("service.instance.id")
    ended = track.recorded.ended if track.recorded is not None else None
    parts = (("host", track.host), ("instance", instance), ("producer", track.producer), ("log", ended))
    return ", ".join(f"{name} {value}" for name, value in parts if value not in (None, ""))


class _Drawing:
    """Makes the events and hands them over to be sorted."""

    def __init__(self, recording: Recording, tracks: Tracks, ordered: Ordered) -> None:
        self._recording = recording
        self._tracks = tracks
        self._ordered = ordered
        self._others = _LAST

    def spans(self, counts: Counts) -> None:
        """Every span, with its events and arrows."""
        for place, span in enumerate(spans_of(self._recording)):
            self._span(place, span)
            counts.spans += 1
            counts.never_ended += span.duration is None

    def _span(self, place: int, span: ExportedSpan) -> None:
        tracks = self._tracks
        start, rank = self._since(tracks.starts[place]), tracks.ranks[place]
        where = f'"pid":{tracks.track(place).number},"tid":{tracks.lanes[place]}'
        self._ordered.add((start, rank, 0), self._slice(span, start, tracks.ends[place], where))
        number = 1
        for arrow in tracks.arrows.leaving(place):
            self._ordered.add((start, rank, number), self._arrow("s", arrow, where, start))
            number += 1
        for arrow in tracks.arrows.arriving(place):
            # Never before the beginning of the arrow, also where both are of one moment.
            source = tracks.arrows.sources[arrow]
            behind = max(rank, tracks.ranks[source]) if tracks.starts[source] == tracks.starts[place] else rank
            self._ordered.add((start, behind, _LAST + number), self._arrow("f", arrow, where, start))
            number += 1
        if span.events != "[]":
            for event in loaded(span.events, list, self._recording.id):
                self._event(event, rank, number, where)
                number += 1

    def _arrow(self, phase: str, arrow: int, where: str, time: int) -> bytes:
        # Viewers tell flows apart by id, name and category.
        name = "parent" if arrow < self._tracks.arrows.parents else "link"
        ends = ',"bp":"e"' if phase == "f" else ""
        what = f'"ph":"{phase}","id":{arrow + 1},"name":"{name}","cat":"{name}"'
        return f'{{{what},{where},"ts":{_micros(time)}{ends}}}'.encode()

    def _slice(self, span: ExportedSpan, start: int, end: int, where: str) -> bytes:
        kind = _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else str(span.kind)
        colour = ',"cname":"terrible"' if span.status_code == _ERROR else ""
        head = f'"name":{_quoted(span.name or "(unnamed)")},"cat":"{kind}",{where},"ts":{_micros(start)}{colour}'
        args = self._args(span)
        if span.duration is None:
            return f'{{"ph":"B",{head},"args":{args}}}'.encode()
        return f'{{"ph":"X",{head},"dur":{_micros(self._since(end) - start)},"args":{args}}}'.encode()

    def _args(self, span: ExportedSpan) -> str:
        parts = [f'"trace_id":{_quoted(span.trace_id)},"span_id":{_quoted(span.span_id)}']
        texts = {
            "parent_span_id": span.parent_span_id,
            "trace_state": span.trace_state,
            "scope": span.scope_name,
            "status": {1: "ok", _ERROR: "error"}.get(span.status_code),
            "status_message": span.status_message,
        }
        parts += [f'"{name}":{_quoted(text)}' for name, text in texts.items() if text]
        if span.duration is None:
            parts.append('"never_ended":true')
        elif span.duration < 0:
            parts.append(f'"ended_before_it_started_ns":{-span.duration}')
        for name, text, kind in (("attributes", span.attributes, dict), ("links", span.links, list)):
            if text not in ("{}", "[]"):
                loaded(text, kind, self._recording.id)
                parts.append(f'"{name}":{_reescaped(text)}')
        return f"{{{','.join(parts)}}}"

    def _event(self, event: Any, rank: int, number: int, where: str) -> None:
        try:
            time = min(self._since(int(event["time_unix_nano"])), NEVER)
            name, args = str(event["name"]) or "(unnamed)", _dumped(event["attributes"])
        except (TypeError, KeyError, ValueError):
            raise unreadable(self._recording.id) from None
        head = f'"ph":"i","s":"t","name":{_quoted(name)},"cat":"event",{where},"ts":{_micros(time)}'
        self._ordered.add((time, rank, number), f'{{{head},"args":{args}}}'.encode())

    def seen(self) -> None:
        """What befell processes: ends as instants, and the time between a pause and its resume as a slice."""
        paused: dict[str, Seen] = {}
        lanes: dict[str, int] = {}
        for seen in sorted(self._tracks.seen, key=lambda one: one.time):
            track = self._tracks.of_process(seen)
            if seen.what == "pause":
                paused.setdefault(track.producer, seen)
            elif seen.what == "resume" and track.producer in paused:
                self._paused(track, paused.pop(track.producer), seen.time, lanes)
            elif seen.what in ("crash", "exit"):
                said = (seen.attributes.get(name) for name in ("process.signal", "process.exit.code", "job.signal"))
                why = next((one for one in said if one is not None), "")
                self._instant(track, f"{seen.what} {why}".strip(), seen.what, seen.time, seen.attributes)
        for producer, seen in paused.items():
            self._paused(self._tracks.by_producer[producer], seen, None, lanes)

    def _paused(self, track: Track, seen: Seen, until: int | None, lanes: dict[str, int]) -> None:
        lane = lanes.get(track.producer)
        if lane is None:
            lane = lanes[track.producer] = self._tracks.new_lane(track)
            self._tracks.lane_names[lane] = "paused"
        start = self._since(seen.time)
        where = f'"pid":{track.number},"tid":{lane},"ts":{_micros(start)},"args":{_dumped(seen.attributes)}'
        length = "" if until is None else f',"dur":{_micros(self._since(until) - start)}'
        phase = "B" if until is None else "X"
        self._other(start, f'{{"ph":"{phase}","name":"paused","cat":"pause",{where}{length}}}')

    def gaps(self) -> None:
        """Whatever is known to be missing at a known time of a known process."""
        for gap in self._recording.gaps().to_pylist():
            time = gap["since_unix_nano"] if gap["since_unix_nano"] is not None else gap["until_unix_nano"]
            track = self._tracks.by_producer.get(gap["producer"])
            if time is not None and track is not None:
                known = {name: value for name, value in gap.items() if value is not None}
                self._instant(track, f"gap: {gap['cause']}", "gap", time, known)

    def _instant(self, track: Track, name: str, category: str, time: int, args: Json) -> None:
        start = self._since(time)
        where = f'"pid":{track.number},"tid":{track.number},"ts":{_micros(start)},"args":{_dumped(args)}'
        self._other(start, f'{{"ph":"i","s":"p","name":{_quoted(name)},"cat":"{category}",{where}}}')

    def _other(self, start: int, event: str) -> None:
        self._others += 1
        self._ordered.add((start, self._others, 0), event.encode())

    def _since(self, time: int) -> int:
        return max(time - self._tracks.base, 0)


def _micros(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _quoted(text: str) -> str:
    return f'"{text}"' if _PLAIN.match(text) else f'"{_ODD_OR_SPECIAL.sub(_escape, text)}"'


def _dumped(value: Any) -> str:
    """As JSON, with this module's escapes."""
    return _reescaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def _reescaped(text: str) -> str:
    """JSON with escapes that every parser of traces understands."""
    if "\\" in text:
        text = _ESCAPE.sub(_simpler, text)
    return text if text.isascii() and "\x7f" not in text else _ODD.sub(_escape, text)


def _simpler(found: re.Match[str]) -> str:
    escape = found[1]
    if escape[0] == "u" and len(escape) == 5:
        return "\ufffd" if 0xD800 <= int(escape[1:], 16) <= 0xDFFF else found[0]
    return _ESCAPES.get(escape, found[0])


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in '"\\':
        return _ESCAPES[character]
    if character.isprintable():
        return character
    # Beyond the first plane an escape would need surrogates.
    number = ord(character)
    return f"\\u{number:04x}" if number <= 0xFFFF and not 0xD800 <= number <= 0xDFFF else "\ufffd"
