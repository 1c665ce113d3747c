"""Redaction of what was received, message by message. `redact` says what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder.redact import STATUS_MESSAGE, Keep


class KeepOnly:
    """Takes away what a Keep does not name, and what a newer protocol may have added."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    def resource(self, resource: ResourceSpans) -> None:
        """Redact a resource."""
        resource.DiscardUnknownFields()
        _filter(resource.resource.attributes, self._keep.keeps_of_resource)

    def scope(self, scope: ScopeSpans) -> None:
        """Redact a scope."""
        scope.DiscardUnknownFields()
        _filter(scope.scope.attributes, self._keep.keeps)

    def span(self, span: Span) -> None:
        """Redact a span."""
        keeps = self._keep.keeps
        span.DiscardUnknownFields()
        _filter(span.attributes, keeps)
        for event in span.events:
            _filter(event.attributes, keeps)
        for link in span.links:
            _filter(link.attributes, keeps)
        if span.status.message and not keeps(STATUS_MESSAGE):
            span.status.message = ""


def _filter(pairs: Any, keeps: Callable[[str], bool]) -> None:
    kept = [pair for pair in pairs if keeps(pair.key)]
    if len(kept) == len(pairs):
        return
    # Copies first: the kept ones live in the list that is emptied.
    copies = [type(pair).FromString(pair.SerializeToString()) for pair in kept]
    del pairs[:]
    pairs.extend(copies)
