"""What the supervisor saw, as spans of a scope of its own in the recording, each on disk when it is told.

They are made without a tracer provider, so that no OTEL_* variable that is meant for the command can change or
suppress them.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from pathlib import Path
from typing import Any, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from fencepost_recorder.processor import RecordingSpanProcessor

SCOPE = "fencepost.supervisor"


class Told:
    """Tells into the folder `wal`. One span, `supervise`, spans it all: without an end, the supervisor was killed.

    `spans` counts what was told. Raises StorageError when the folder cannot be written to.
    """

    def __init__(self, wal: Path) -> None:
        self.spans = 0
        # What the supervisor saw is nobody's secret, and evidence.
        self._processor = RecordingSpanProcessor(wal, redacted=False)
        self._ids = RandomIdGenerator()
        self._resource = Resource(
            {
                "service.name": "fencepost",
                "service.instance.id": str(uuid.uuid4()),
                "host.name": socket.gethostname(),
                "process.pid": os.getpid(),
            }
        )
        self._scope = InstrumentationScope(SCOPE)
        self._trace = self._ids.generate_trace_id()
        self._root: SpanContext | None = None
        self._begun = 0
        self._attributes: dict[str, Any] = {}

    @property
    def producer(self) -> str | None:
        """The name under which this tells."""
        return self._processor.producer

    def begin(self, attributes: dict[str, Any]) -> None:
        """Supervision begins."""
        self._root, self._begun, self._attributes = self._context(), time.time_ns(), attributes
        started = self._span("supervise", self._root, None, attributes, self._begun, None)
        self._processor.on_start(cast(Span, started))
        self.spans += 1

    def event(self, name: str, attributes: dict[str, Any], moment: tuple[int, int] | None = None) -> None:
        """Something was seen: between these two times, unix ns, or just now."""
        since, until = moment or (time.time_ns(),) * 2
        kept = {key: value for key, value in attributes.items() if value is not None}
        self._processor.whole(self._span(name, self._context(), self._root, kept, min(since, until), until))
        self.spans += 1

    def end(self, attributes: dict[str, Any]) -> None:
        """Supervision ends, and with it the telling."""
        if self._root is not None:
            told = self._attributes | {key: value for key, value in attributes.items() if value is not None}
            self._processor.on_end(self._span("supervise", self._root, None, told, self._begun, time.time_ns()))
        self._processor.shutdown()

    def _context(self) -> SpanContext:
        return SpanContext(self._trace, self._ids.generate_span_id(), False, TraceFlags(TraceFlags.SAMPLED))

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: dict[str, Any],
        since_unix_nano: int,
        until_unix_nano: int | None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=SpanKind.INTERNAL,
            start_time=since_unix_nano,
            end_time=until_unix_nano,
            instrumentation_scope=self._scope,
        )


def signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals by their distance from the first."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"SIG{number}"
