"""A telemetry hook for runs of real processes: each span's start and end as a line of JSON, in one file an actor.

The files are in the folder that $RUNTIME_SPANS names. Every line is one write, so that a killed process leaves whole
lines, and whoever reads along sees what has happened so far.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider


class LineProcessor(SpanProcessor):
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._say("start", span)

    def on_end(self, span: ReadableSpan) -> None:
        self._say("end", span)

    def shutdown(self) -> None:
        os.write(self._file, b'{"what": "shutdown"}\n')

    def _say(self, what: str, span: ReadableSpan) -> None:
        context = span.get_span_context()
        line = {
            "what": what,
            "id": context.span_id if context else 0,
            "name": span.name,
            "start": span.start_time,
            "end": span.end_time,
            "error": span.status.description,
            "attributes": dict(span.attributes or {}),
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")


def to_files(actor: str) -> None:
    """Give the process a tracer provider that writes to the actor's file."""
    # Actors' names are free text; their file names are not.
    path = Path(os.environ["RUNTIME_SPANS"], f"{actor.encode().hex()}.jsonl")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LineProcessor(path))
    trace.set_tracer_provider(provider)


def to_files_but_for_worker_1(actor: str) -> None:
    """A hook that fails in one actor, as bad code in a worker would."""
    if actor.endswith("-worker-1"):
        raise ZeroDivisionError("bad code")
    to_files(actor)
