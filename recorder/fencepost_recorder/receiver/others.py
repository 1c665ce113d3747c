"""Logs and metrics: what fencepost does not keep, counted, so that their senders can be told how much that was."""

from __future__ import annotations

from dataclasses import dataclass

from fencepost_recorder import wire
from fencepost_recorder.receiver.answers import JSON, LOGS, METRICS, Problem, Refusal, Signal
from fencepost_recorder.receiver.jsonbody import Cursor
from fencepost_recorder.receiver.limits import Limits
from fencepost_recorder.wire import LENGTH_DELIMITED, Buffer


@dataclass(frozen=True, slots=True)
class _Step:
    """One level of a request on the way to its items: field numbers, JSON names, and whether JSON has an array."""

    numbers: frozenset[int]
    names: frozenset[str]
    array: bool = True


def _step(number: int, *names: str) -> _Step:
    return _Step(frozenset({number}), frozenset(names))


_PATHS = {
    LOGS: (
        _step(1, "resourceLogs", "resource_logs"),
        _step(2, "scopeLogs", "scope_logs"),
        _step(2, "logRecords", "log_records"),
    ),
    METRICS: (
        _step(1, "resourceMetrics", "resource_metrics"),
        _step(2, "scopeMetrics", "scope_metrics"),
        _step(2, "metrics"),
        _Step(
            frozenset({5, 7, 9, 10, 11}),
            frozenset({"gauge", "sum", "histogram", "exponentialHistogram", "exponential_histogram", "summary"}),
            array=False,
        ),
        _step(1, "dataPoints", "data_points"),
    ),
}


def count_items(signal: Signal, body: Buffer, encoding: str, limits: Limits) -> int:
    """The log records or metric data points of a request. Raises Refusal when it is none, or holds too much."""
    counter = _Counter(limits.spans)
    try:
        if encoding == JSON:
            cursor = Cursor(body, limits)
            counter.walk_json(cursor, _PATHS[signal])
            cursor.end()
        else:
            counter.walk(memoryview(body), 0, len(body), _PATHS[signal])
    except (ValueError, IndexError):
        raise Refusal(Problem.UNREADABLE, f"the body holds no OTLP {signal.name}") from None
    return counter.items


class _Counter:
    def __init__(self, most: int) -> None:
        self._most = most
        self._fields = 0
        self.items = 0

    def walk(self, data: memoryview, at: int, end: int, path: tuple[_Step, ...]) -> None:
        for one in wire.located(data, at, end):
            self._field()
            if one.number not in path[0].numbers or one.kind != LENGTH_DELIMITED:
                continue
            if len(path) == 1:
                self.items += 1
            else:
                self.walk(data, one.start, one.end, path[1:])

    def walk_json(self, cursor: Cursor, path: tuple[_Step, ...]) -> None:
        for name in cursor.members():
            self._field()
            if name not in path[0].names:
                cursor.skip()
            elif not path[0].array:
                self.walk_json(cursor, path[1:])
            else:
                for _ in cursor.elements():
                    self._element(cursor, path)

    def _element(self, cursor: Cursor, path: tuple[_Step, ...]) -> None:
        self._field()
        if len(path) == 1:
            cursor.skip()
            self.items += 1
        else:
            self.walk_json(cursor, path[1:])

    def _field(self) -> None:
        self._fields += 1
        if self._fields > self._most:
            raise Refusal(Problem.TOO_LARGE, f"the request holds more than {self._most:,} fields")
