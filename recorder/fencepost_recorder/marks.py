"""The attributes by which an exported recording says what OTLP has no words for, and how they are taken back.

Their keys begin with `fencepost.`; nobody else should use these. An import, and a receiver, understand them, so that
a recording may go out through OTLP and come back without becoming another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Of a span: true when it was started and never ended. Its end in the file is its start, because consumers subtract:
# an end of 0 is a negative duration to Jaeger, and one of centuries to Tempo.
NEVER_ENDED = "fencepost.never_ended"
_NEVER_ENDED = NEVER_ENDED.encode()
# Of a resource: who recorded its spans, where nothing else in it says so.
PRODUCER = "fencepost.producer"
_MAX_PRODUCER = 256


def mentions(data: bytes, begin: int = 0, stop: int | None = None) -> bool:
    """Whether a span that must be restored may be in these bytes: looked for first, for it is rare."""
    return data.find(_NEVER_ENDED, begin, stop) >= 0


def restore(span: Span) -> None:
    """Make a span that is marked as never ended one that has no end."""
    marked = [at for at, pair in enumerate(span.attributes) if pair.key == NEVER_ENDED and pair.value.bool_value]
    for at in reversed(marked):
        del span.attributes[at]
    if marked:
        span.end_time_unix_nano = 0


def producer_of(resource_attributes: Mapping[str, Any]) -> str:
    """The name of a producer of whom only its resource is known: what an export called it, else its
    service.instance.id, else its service, host and pid as far as they are known."""
    for key in (PRODUCER, "service.instance.id"):
        name = resource_attributes.get(key)
        if name not in (None, ""):
            return str(name)[:_MAX_PRODUCER]
    keys = ("service.namespace", "service.name", "host.name", "process.pid")
    parts = [str(resource_attributes[key]) for key in keys if resource_attributes.get(key) not in (None, "")]
    return ("/".join(parts) or "unknown")[:_MAX_PRODUCER]
