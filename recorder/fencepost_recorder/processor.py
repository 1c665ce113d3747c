"""The span processor: one frame when a span starts, one when it ends, each on disk before the call returns.

A stock exporter sees a span when it ends, in batches, seconds later; a process killed before that leaves nothing. Here
the start is evidence of its own: a span that started and never ended is what a crash looks like.
"""

from __future__ import annotations

import os
import socket
import uuid
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from time import time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from fencepost_recorder import shortcomings
from fencepost_recorder.halves import SpanHalves
from fencepost_recorder.redact import Keep, RedactedHalves
from fencepost_recorder.wal import NO_REF, FrameType
from fencepost_recorder.writer import LogWriter

_START, _END, _WHOLE = int(FrameType.START), int(FrameType.END), int(FrameType.WHOLE)
_MAX_KNOWN = 1024
_getpid = os.getpid


class RecordingSpanProcessor(SpanProcessor):
    """Appends every span's start and end to a log file of its own in the folder `wal`, one write(2) each.

    Fork-safe: a forked child records under a new producer id into a new file, made when it is forked, while it may
    still do what its parent may. A resource without host.name or process.pid gets this process's. Thread-safe, and safe
    in signal handlers. Nothing it does raises into the program it records: what cannot be written is counted in `lost`
    and becomes a gap of the recording. Raises StorageError on construction when `wal` is not a folder it can write to.

    `notes` are known gaps, each a cause and a sentence, that every log of this process and its forks begins with.
    With `keep`, or with FENCEPOST_KEEP_ATTRIBUTES set, only the attributes that it names are recorded, unless
    `redacted` is False; raises RecorderError when that names none.
    """

    def __init__(
        self, wal: Path, *, notes: Iterable[tuple[str, str]] = (), keep: Keep | None = None, redacted: bool = True
    ) -> None:
        self._keep = (keep or Keep.from_environment()) if redacted else None
        self._halves = SpanHalves() if self._keep is None else RedactedHalves(self._keep)
        self._folder = Path(wal).absolute()
        self._notes = tuple(notes)
        self._writer: LogWriter | None = None
        self._lost_unwritten = self._lost_since = 0
        self._open()
        self._pid = _getpid()
        self._expected: set[Any] = set()
        self._inherited: set[Any] = set()
        self._forget_frames()
        after = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(after))

    @property
    def producer(self) -> str | None:
        """The name this process records under; None in a forked child that could not begin a log."""
        return self._writer.producer if self._writer is not None and self._pid == _getpid() else None

    @property
    def lost(self) -> int:
        """How many frames this process could not write."""
        return self._lost_unwritten + (self._writer.lost if self._writer is not None else 0)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Append the span as it is at its start, attributes included."""
        self._record(_START, self._halves.start, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Append the finished span."""
        self._record(_END, self._halves.end, span)

    def whole(self, span: ReadableSpan) -> None:
        """Append a span that is told only now that it has ended, as exporters are."""
        self._record(_WHOLE, self._halves.whole, span)

    @property
    def folder(self) -> Path:
        """Where the logs are."""
        return self._folder

    def expect(self, resource: Resource) -> None:
        """Know a provider's resource before its first span: a child forked earlier than that is an instance too."""
        self._expected.add(resource.attributes.get("service.instance.id"))

    def tell(self, notes: Iterable[tuple[str, str]]) -> None:
        """Note known gaps, each a cause and a sentence, now and in the logs of forks to come."""
        self._notes += tuple(note for note in notes if note not in self._notes)
        if self._writer is not None and self._pid == _getpid():
            self._note(self._writer, self._notes)

    def shutdown(self) -> None:
        """Write the frame that says this process recorded to its end. Spans that end later are still recorded."""
        try:
            if self._writer is not None and self._pid == _getpid():
                self._writer.close()
        except Exception:
            self._lost_unwritten += 1

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is ever held back, so there is nothing to flush; False once frames were lost."""
        return self.lost == 0

    def _record(self, kind: int, encode: Callable[[ReadableSpan], bytes], span: ReadableSpan) -> None:
        writer = None
        try:
            if self._pid != _getpid():
                self._after_fork()  # forked by code that runs no Python hooks
            writer = self._writer or self._open()
            try:
                payload = encode(span)
            except Exception:
                payload = self._halves.bare(span)
            known = self._scopes.get((id(span.resource), id(span.instrumentation_scope)))
            ref = known[0] if known is not None else self._introduce(writer, span)
            writer.append(kind, payload, ref)
        except Exception:
            self._lose(writer)

    def _lose(self, writer: LogWriter | None) -> None:
        if writer is None:
            # A fork that has no log of its own yet: told when it has, and by its parent's in any case.
            self._lost_since = self._lost_since or time_ns()
            self._lost_unwritten += 1
        else:
            writer.lose()

    def _open(self) -> LogWriter:
        self._writer = writer = LogWriter(self._folder, kept=self._keep.patterns if self._keep is not None else None)
        self._noted: set[tuple[str, str]] = set()
        self._note(writer, self._notes)
        if self._lost_unwritten:
            writer.missed(self._lost_unwritten, self._lost_since)
        return writer

    def _note(self, writer: LogWriter, notes: Iterable[tuple[str, str]]) -> None:
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                writer.note(*note)

    def _introduce(self, writer: LogWriter, span: ReadableSpan) -> int:
        """Write the span's resource and scope frames, unless written; the sequence of the scope's."""
        with writer.lock:
            if len(self._scopes) >= _MAX_KNOWN:
                self._forget_frames()
            resource, scope = span.resource, span.instrumentation_scope
            key = (id(resource), id(scope))
            known = self._scopes.get(key)
            if known is not None:
                return known[0]  # another thread was faster
            self._note(writer, shortcomings.of_span(span))
            resource_ref = self._introduce_resource(writer, resource)
            scope_ref = _written(writer.append(FrameType.SCOPE, self._halves.scope(scope), resource_ref))
            if NO_REF not in (scope_ref, resource_ref):
                # The objects are kept, so that no other object can come to have their id().
                self._scopes[key] = (scope_ref, resource, scope)
            return scope_ref

    def _introduce_resource(self, writer: LogWriter, resource: Resource) -> int:
        known = self._resources.get(id(resource))
        if known is not None:
            return known[0]
        payload = self._halves.resource(resource, self._own_identity(resource))
        ref = _written(writer.append(FrameType.RESOURCE, payload))
        if ref != NO_REF:
            self._resources[id(resource)] = (ref, resource)
        return ref

    def _own_identity(self, resource: Resource) -> dict[str, Any]:
        """What a stock set-up leaves out, without which no two clocks compare and no crash is believed; and in a forked
        child the attributes that would still name the parent."""
        attributes = resource.attributes
        replaced: dict[str, Any] = {}
        if attributes.get("host.name") in (None, ""):
            replaced["host.name"] = socket.gethostname()
        if attributes.get("process.pid") != self._pid:
            replaced["process.pid"] = self._pid
        if attributes.get("service.instance.id") in self._inherited:
            replaced["service.instance.id"] = self._instance
        return replaced

    def _forget_frames(self) -> None:
        self._scopes: dict[tuple[int, int], tuple[int, Any, Any]] = {}
        self._resources: dict[int, tuple[int, Resource]] = {}

    def _after_fork(self) -> None:
        # The writer's lock may be held by a thread that does not exist in this process: never touch it.
        parent, self._writer = self._writer, None
        self._pid = _getpid()
        self._lost_unwritten = self._lost_since = 0
        self._instance = str(uuid.uuid4())
        for _, resource in self._resources.values():
            self._expected.add(resource.attributes.get("service.instance.id"))
        self._inherited |= self._expected - {None}
        self._forget_frames()
        try:
            self._open()  # Later it may be another user's, or in another root.
        except Exception as error:
            if parent is not None:
                self._open_instead(parent, error)
        if parent is not None:
            parent.forget()

    def _open_instead(self, parent: LogWriter, error: Exception) -> None:
        """Begin a log with the number that the parent's has here, where no other was free; else say so in the parent's,
        while that is open."""
        if parent.gives_way(error):
            try:
                self._open()
                return
            except Exception as again:
                error = again
        parent.disown(error)


def _written(sequence: int) -> int:
    """What may be referred to: a frame that could not be written is none, not the first that there is."""
    return sequence if sequence >= 0 else NO_REF


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()
