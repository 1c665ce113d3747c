"""A strict reader of the Trace Event Format, which draws a trace as ui.perfetto.dev does and refuses what that drops.

The rules are those of the format's document, and where viewers are stricter, theirs: Perfetto's JSON parser knows
no surrogate pairs and takes a backslash before a quote for its escape, slices of a thread must nest, a flow binds to
the slice that is on top of its thread's stack.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

FOREVER = 2**100
REQUIRED = {
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "B": {"ph", "name", "cat", "pid", "tid", "ts", "args"},
    "i": {"ph", "name", "cat", "pid", "tid", "ts", "s", "args"},
    "s": {"ph", "name", "cat", "pid", "tid", "ts", "id"},
    "f": {"ph", "name", "cat", "pid", "tid", "ts", "id", "bp"},
    "M": {"ph", "name", "pid", "tid", "args"},
}
METADATA = {
    "process_name": "name",
    "process_labels": "labels",
    "process_sort_index": "sort_index",
    "thread_name": "name",
    "thread_sort_index": "sort_index",
}


@dataclass(frozen=True)
class Slice:
    """Something drawn with a length; nanoseconds since the trace began, `end` None for what never ended."""

    event: dict[str, Any]
    pid: int
    tid: int
    start: int
    end: int | None
    depth: int

    @property
    def ids(self) -> tuple[str, str]:
        return self.event["args"]["trace_id"], self.event["args"]["span_id"]


@dataclass
class Drawing:
    """What a viewer shows."""

    base: int
    slices: list[Slice] = field(default_factory=list)
    instants: list[dict[str, Any]] = field(default_factory=list)
    arrows: list[tuple[str, Slice, Slice]] = field(default_factory=list)
    processes: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    threads: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def spans(self) -> list[Slice]:
        return [one for one in self.slices if "span_id" in one.event["args"]]


def drawn(content: bytes) -> Drawing:
    """Draw a trace. Raises AssertionError for whatever a viewer would drop, misplace or refuse."""
    text = content.decode()
    check_text(text)
    document = json.loads(text, parse_constant=refused, parse_float=Decimal)
    assert list(document) == ["otherData", "traceEvents"]
    drawing = Drawing(int(document["otherData"]["time"]["start_unix_nano"]))
    pen = _Pen(drawing)
    for event in document["traceEvents"]:
        pen.draw(event)
    assert pen.waiting == {}, "flows without an end"
    assert {one.tid for one in drawing.slices} <= {tid for _, tid in drawing.threads}
    return drawing


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def check_text(text: str) -> None:
    """Only escapes that every viewer's parser understands, and nothing that acts on a terminal."""
    assert re.search(r"\\[^ubfnrt]", text) is None
    assert re.search(r"\\u[dD][89abAB]", text) is None
    assert all(character.isprintable() or character == "\n" for character in text)


class _Pen:
    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._stacks: dict[int, list[Slice]] = {}
        self._owners: dict[int, int] = {}
        self._last = Decimal(0)
        self.waiting: dict[tuple[int, str, str], Slice] = {}

    def draw(self, event: dict[str, Any]) -> None:
        phase = event["ph"]
        assert REQUIRED[phase] <= set(event) <= REQUIRED[phase] | {"cname"}, event
        assert isinstance(event["name"], str) and event["name"]
        for name in ("pid", "tid"):
            assert type(event[name]) is int and 0 < event[name] < 2**32
        # A thread's number is the whole system's, and a process's is that of its main thread.
        assert self._owners.setdefault(event["tid"], event["pid"]) == event["pid"]
        if phase == "M":
            self._metadata(event)
            return
        assert isinstance(event["cat"], str) and event["cat"]
        time = nanoseconds(event["ts"])
        assert event["ts"] >= self._last, "not sorted by time"
        self._last = event["ts"]
        assert event["pid"] in self._drawing.processes
        if phase in "XB":
            end = None if phase == "B" else time + nanoseconds(event["dur"])
            self._slice(event, time, end)
        elif phase == "i":
            assert event["s"] in ("t", "p")
            self._drawing.instants.append({**event, "time": time})
        else:
            self._flow(event, phase)

    def _metadata(self, event: dict[str, Any]) -> None:
        key = METADATA[event["name"]]
        assert set(event["args"]) == {key}
        value = event["args"][key]
        assert type(value) is (int if key == "sort_index" else str)
        if event["name"] == "process_name":
            self._drawing.processes[event["pid"]] = value
        elif event["name"] == "process_labels":
            self._drawing.labels[event["pid"]] = value
        elif event["name"] == "thread_name":
            self._drawing.threads[event["pid"], event["tid"]] = value

    def _slice(self, event: dict[str, Any], start: int, end: int | None) -> None:
        stack = self._stacks.setdefault(event["tid"], [])
        until = FOREVER if end is None else end
        while stack and (FOREVER if stack[-1].end is None else stack[-1].end) <= start:
            stack.pop()
        assert not stack or until <= (FOREVER if stack[-1].end is None else stack[-1].end), "dropped: overlaps"
        made = Slice(event, event["pid"], event["tid"], start, end, len(stack))
        stack.append(made)
        self._drawing.slices.append(made)

    def _flow(self, event: dict[str, Any], phase: str) -> None:
        key = (event["id"], event["cat"], event["name"])
        on_top = self._stacks[event["tid"]][-1]
        assert on_top.start <= nanoseconds(event["ts"])
        if phase == "s":
            assert key not in self.waiting
            self.waiting[key] = on_top
        else:
            assert event["bp"] == "e"
            self._drawing.arrows.append((event["name"], self.waiting.pop(key), on_top))


def nanoseconds(micros: Any) -> int:
    assert isinstance(micros, int | Decimal) and micros >= 0
    exact = Decimal(micros) * 1000
    assert exact == int(exact), "more than nanoseconds"
    # What a viewer that calculates with doubles makes of it.
    assert round(float(micros) * 1000) == int(exact) or exact > 2**52
    return int(exact)
