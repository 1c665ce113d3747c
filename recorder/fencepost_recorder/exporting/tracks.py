"""Where each span of a recording is drawn: its process, the lane within it, and the arrows between spans.

Viewers of the Trace Event Format draw the slices of a thread inside each other, so two slices of one thread must
either nest or not meet. A lane stands for a thread: a span is put inside its parent where it lies within it and
nothing else is open there, and else into the first lane that is free. Lanes are told apart by number alone.

The memory is about a hundred bytes a span, for that which is drawn depends on all of them.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fencepost_recorder.exporting.spans import Json, loaded
from fencepost_recorder.manifest import Producer
from fencepost_recorder.recording import Recording

NEVER = 2**63 - 1
# What befell a process, told by whoever saw it: spans of these names, in a scope of fencepost's.
SEEN = frozenset({"crash", "exit", "pause", "resume"})
_COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "producer",
    "producer_seq",
    "start_time_unix_nano",
    "duration_time_unix_nano",
    "name",
    "links_json",
    "resource_attributes",
    "scope_name",
    "span_attributes",
)


@dataclass(slots=True)
class Track:
    """A process that recorded. `number` is its place among all, from 1; `lanes` are the numbers of its lanes."""

    producer: str
    recorded: Producer | None = None
    resource: Json = field(default_factory=dict)
    first_start: int = NEVER
    number: int = 0
    lanes: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process's own id, where it is known."""
        pid = self.resource.get("process.pid")
        return pid if isinstance(pid, int) else self.recorded.pid if self.recorded is not None else None

    @property
    def host(self) -> str | None:
        """Where it ran, where that is known."""
        host = self.resource.get("host.name")
        return host if isinstance(host, str) else self.recorded.host if self.recorded is not None else None


@dataclass(frozen=True, slots=True)
class Seen:
    """A crash, exit, pause or resume of a process, as `teller` saw it: which had these logs, or was `pid` on `host`, as
    far as that is known. `time` is when it had happened at the latest, unix ns."""

    what: str
    time: int
    producers: frozenset[str]
    pid: int | None
    host: str | None
    attributes: Json
    teller: Track


class Tracks:
    """The places of a recording's spans; each array has an item for each span, in the recording's order."""

    def __init__(self, recording: Recording) -> None:
        self.by_producer: dict[str, Track] = {
            one.producer: Track(one.producer, one) for one in recording.manifest.producers
        }
        self.lane_names: dict[int, str] = {}
        self.seen: list[Seen] = []
        self.starts, self.ends = array("q"), array("q")
        self._id = recording.id
        self._tracks: list[Track] = list(self.by_producer.values())
        self._index = {one.producer: at for at, one in enumerate(self._tracks)}
        self._track_of, self._sequences = array("q"), array("q")
        self._keys, self._parents = array("q"), array("q")
        self._links, self._linking = array("q"), array("q")
        for batch in recording.batches(_COLUMNS):
            self._take(batch)
        self._number()
        self.base = min((start for start in self.starts if start > 0), default=0)
        self.lanes, self.ranks = array("q", bytes(8 * len(self.starts))), array("q", bytes(8 * len(self.starts)))
        parents = _places(self._parents, self._keys)
        self._place(parents)
        self.arrows = self._arrows(parents)

    def track(self, place: int) -> Track:
        """Of the span at this place."""
        return self._tracks[self._track_of[place]]

    def of_process(self, seen: Seen) -> Track:
        """The track of the process that something befell: the last of its logs, or else of its pid, that had begun by
        then, or else that of whoever tells it."""
        fitting = [self.by_producer[name] for name in seen.producers if name in self.by_producer]
        fitting = fitting or [one for one in self._by_pid.get(seen.pid, ()) if _same_host(one, seen)]
        begun = [one for one in fitting if one.first_start <= seen.time]
        return max(begun or fitting or [seen.teller], key=lambda one: (one.first_start, one.number))

    def new_lane(self, track: Track) -> int:
        """A lane of its own, for what is no span."""
        self._last_lane += 1
        track.lanes.append(self._last_lane)
        return self._last_lane

    def _take(self, batch: pa.RecordBatch) -> None:
        columns = [batch.column(name).to_pylist() for name in _COLUMNS[:-1]]
        details = batch.column(_COLUMNS[-1])
        for row, values in enumerate(zip(*columns, strict=True)):
            trace_id, span_id, parent, producer, sequence, start, duration, name, links, resource, scope = values
            at = self._index.get(producer)
            if at is None:
                at = self._index[producer] = len(self._tracks)
                self.by_producer[producer] = Track(producer)
                self._tracks.append(self.by_producer[producer])
            track = self._tracks[at]
            if not track.resource:
                track.resource = loaded(resource, dict, self._id)
            track.first_start = min(track.first_start, start)
            if links != "[]":
                self._link(loaded(links, list, self._id))
            if name in SEEN and scope is not None and scope.startswith("fencepost."):
                self._see(name, start + (duration or 0), loaded(details[row].as_py(), dict, self._id), track)
            self._track_of.append(at)
            self._sequences.append(NEVER if sequence is None else sequence)
            self._keys.append(hash(trace_id + span_id))
            # Nothing hashes to what no span has: -1 is never a hash.
            self._parents.append(-1 if parent is None else hash(trace_id + parent))
            self.starts.append(start)
            self.ends.append(NEVER if duration is None else max(start + duration, start))

    def _link(self, links: Iterable[Any]) -> None:
        for link in links:
            if isinstance(link, dict):
                self._links.append(hash(f"{link.get('trace_id')}{link.get('span_id')}"))
                self._linking.append(len(self.starts))

    def _see(self, what: str, time: int, attributes: Json, track: Track) -> None:
        pid = attributes.get("process.pid")
        known = pid if isinstance(pid, int) and not isinstance(pid, bool) else None
        producers = attributes.get("fencepost.producers")
        named = frozenset(filter(lambda name: isinstance(name, str), producers if isinstance(producers, list) else ()))
        self.seen.append(Seen(what, time, named, known, track.host, attributes, track))

    def _number(self) -> None:
        """By their beginnings; those without any span last."""
        ordered = sorted(self._tracks, key=lambda one: (one.first_start, one.producer))
        for number, track in enumerate(ordered, 1):
            track.number = number
            track.lanes.append(number)  # its first lane is its main thread
        self._last_lane = len(ordered)
        self._by_pid: dict[int | None, list[Track]] = {}
        for track in ordered:
            if track.pid is not None:
                self._by_pid.setdefault(track.pid, []).append(track)

    def _place(self, parents: array[int]) -> None:
        lanes = _Lanes(self)
        numbers = [one.number for one in self._tracks]
        current = -1
        for rank, place in enumerate(_order(numbers, self._track_of, self.starts, self.ends, self._sequences)):
            if self._track_of[place] != current:
                current = self._track_of[place]
                lanes.begin(self._tracks[current])
            self.lanes[place] = lanes.find(place, parents[place])
            self.ranks[place] = rank

    def _arrows(self, parents: array[int]) -> Arrows:
        sources, targets = array("q"), array("q")
        for target, source in enumerate(parents):
            if source >= 0 and self.lanes[source] != self.lanes[target] and self._forward(source, target):
                sources.append(source)
                targets.append(target)
        parental = len(sources)
        for source, target in zip(_places(self._links, self._keys), self._linking, strict=True):
            if source >= 0 and self._forward(source, target):
                sources.append(source)
                targets.append(target)
        return Arrows(sources, targets, parental)

    def _forward(self, source: int, target: int) -> bool:
        # An arrow back in time cannot be drawn; clocks of two hosts may ask for one.
        return source != target and self.starts[source] <= self.starts[target]


class Arrows:
    """From a span to another one, each with a number of its own; the first `parents` lead from a parent to a child."""

    def __init__(self, sources: array[int], targets: array[int], parents: int) -> None:
        self.sources, self.targets, self.parents = sources, targets, parents
        self._from = _sorted_by(sources)
        self._to = _sorted_by(targets)
        self._at_from = self._at_to = 0

    def leaving(self, place: int) -> Iterator[int]:
        """The arrows from a span. Spans must be asked for in their order, each once."""
        while self._at_from < len(self._from) and self.sources[self._from[self._at_from]] == place:
            yield self._from[self._at_from]
            self._at_from += 1

    def arriving(self, place: int) -> Iterator[int]:
        """The arrows to a span. Spans must be asked for in their order, each once."""
        while self._at_to < len(self._to) and self.targets[self._to[self._at_to]] == place:
            yield self._to[self._at_to]
            self._at_to += 1


class _Lanes:
    """The lanes of one process after the other, while its spans come by their starts, longer ones first."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks

    def begin(self, track: Track) -> None:
        self._track = track
        # The spans that are open in a lane, outermost first; lanes by the end of their outermost span.
        self._open: dict[int, list[int]] = {track.lanes[0]: []}
        self._busy: list[tuple[int, int]] = []
        self._free: list[int] = [track.lanes[0]]

    def find(self, place: int, parent: int) -> int:
        start, end = self._tracks.starts[place], self._tracks.ends[place]
        lane = self._inside(place, parent, start, end)
        if lane is None:
            while self._busy and self._busy[0][0] <= start:
                heapq.heappush(self._free, heapq.heappop(self._busy)[1])
            lane = heapq.heappop(self._free) if self._free else self._tracks.new_lane(self._track)
            self._open[lane] = [place]
            heapq.heappush(self._busy, (end, lane))
        return lane

    def _inside(self, place: int, parent: int, start: int, end: int) -> int | None:
        """The parent's lane, if the span lies within its parent and nothing else is open there."""
        ends = self._tracks.ends
        if parent < 0 or parent == place or not start < ends[parent] or end > ends[parent]:
            return None
        lane = self._tracks.lanes[parent]
        stack = self._open.get(lane)
        if not stack:
            return None
        while stack and ends[stack[-1]] <= start:
            stack.pop()
        if not stack or stack[-1] != parent:
            return None
        stack.append(place)
        return lane


def _same_host(track: Track, seen: Seen) -> bool:
    return track.host is None or seen.host is None or track.host == seen.host


def _column(values: array[int]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def _numbers(column: Any) -> array[int]:
    """An Arrow column of integers as an array, nulls as -1."""
    found = array("q")
    filled = pc.fill_null(column.cast(pa.int64()), -1)
    buffer = filled.buffers()[1]
    if buffer is not None and len(filled):
        found.frombytes(memoryview(buffer)[8 * filled.offset : 8 * (filled.offset + len(filled))])
    return found


def _places(wanted: array[int], keys: array[int]) -> array[int]:
    """Where each wanted key is among the keys, the first time; -1 where it is not."""
    return _numbers(pc.index_in(_column(wanted), value_set=_column(keys)))


def _sorted_by(values: array[int]) -> array[int]:
    """The places of the values in their order; equal ones in the order they have."""
    table = pa.table({"value": _column(values), "place": _column(array("q", range(len(values))))})
    return _numbers(pc.sort_indices(table, sort_keys=[("value", "ascending"), ("place", "ascending")]))


def _order(
    numbers: list[int], track_of: array[int], starts: array[int], ends: array[int], sequences: array[int]
) -> array[int]:
    table = pa.table(
        {
            "track": pc.take(pa.array(numbers, pa.int64()), _column(track_of)),
            "start": _column(starts),
            "end": _column(ends),
            "sequence": _column(sequences),
            "place": _column(array("q", range(len(starts)))),
        }
    )
    keys = [(name, "descending" if name == "end" else "ascending") for name in table.column_names]
    return _numbers(pc.sort_indices(table, sort_keys=keys))
