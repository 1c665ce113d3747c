"""What may be kept of a span: an allow-list of attribute keys, applied before anything reaches a log.

Secrets sit in attributes, and nobody can list all of them; so with a `Keep` only what it names is kept: of spans,
events, links, scopes and resources, and of values that are maps the whole value or nothing. A status's message is
free text, which often holds an exception's, and counts as an attribute of the name `status.message`. Kept in any case
is what tells spans and processes apart: ids, names, kinds, times, status codes, tracestate, dropped counts, and of a
resource the attributes that name its producer (`IDENTITY`), and the marks of an exported recording (`marks`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fencepost_recorder import marks
from fencepost_recorder.errors import RecorderError, printable
from fencepost_recorder.halves import SpanHalves

KEEP_VARIABLE = "FENCEPOST_KEEP_ATTRIBUTES"
STATUS_MESSAGE = "status.message"
IDENTITY = frozenset(
    {"service.name", "service.namespace", "service.instance.id", "host.name", "process.pid", marks.PRODUCER}
)
_PATTERN = re.compile(r"[!-)+-~]+(?:\.\*)?\Z")
_MAX_KNOWN = 4096
_MAX_BYTES = 32 * 1024


class Keep:
    """An allow-list of attribute keys: whole keys such as `job.name`, or `job.*` for every key that begins so.

    Raises RecorderError for a pattern that is neither.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(sorted(set(patterns)))
        for pattern in self.patterns:
            if not _PATTERN.match(pattern):
                raise RecorderError(
                    f"{printable(pattern, 80)!r} is no attribute key to keep: name keys such as job.name, or job.* "
                    "for every key that begins so"
                )
        if sum(map(len, self.patterns)) > _MAX_BYTES:
            raise RecorderError("the list of attribute keys to keep is too long: use prefixes such as job.*")
        self._exact = frozenset(pattern for pattern in self.patterns if not pattern.endswith(".*"))
        self._prefixes = tuple(pattern[:-1] for pattern in self.patterns if pattern.endswith(".*"))
        self._known: dict[str, bool] = {}

    @classmethod
    def parse(cls, text: str) -> Keep:
        """The keys of a list whose items are separated by commas or blanks. Raises RecorderError."""
        patterns = text.replace(",", " ").split()
        if not patterns:
            raise RecorderError("the list of attribute keys to keep is empty: name keys such as job.name or job.*")
        return cls(patterns)

    @classmethod
    def from_environment(cls) -> Keep | None:
        """What FENCEPOST_KEEP_ATTRIBUTES says; None, so that all is kept, where it is unset or empty.

        Raises RecorderError, for one of blanks as well."""
        text = os.environ.get(KEEP_VARIABLE, "")
        return cls.parse(text) if text else None

    def keeps(self, key: Any) -> bool:
        """Whether an attribute of that name is kept."""
        known = self._known.get(key)
        if known is None:
            known = (
                key == marks.NEVER_ENDED
                or key in self._exact
                or (isinstance(key, str) and key.startswith(self._prefixes))
            )
            if len(self._known) >= _MAX_KNOWN:  # whoever makes up keys must not fill the memory
                self._known.clear()
            self._known[key] = known
        return known

    def keeps_of_resource(self, key: Any) -> bool:
        """Whether an attribute of a resource is kept."""
        return key in IDENTITY or self.keeps(key)


class RedactedHalves(SpanHalves):
    """Encodes spans of the SDK as if they had only what is kept."""

    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self._keep = keep

    def start(self, span: ReadableSpan) -> bytes:
        """A span that has just started, redacted."""
        return super().start(self._view(span))

    def end(self, span: ReadableSpan) -> bytes:
        """A span that has ended, redacted."""
        return super().end(self._view(span))

    def whole(self, span: ReadableSpan) -> bytes:
        """A span of which nothing was told before, redacted."""
        return super().whole(self._view(span))

    def bare(self, span: ReadableSpan) -> bytes:
        """A span without attributes, events and links, redacted: a status has a message too."""
        return super().bare(self._view(span))

    def resource(self, resource: Resource, replaced: Mapping[str, Any]) -> bytes:
        """A resource, redacted."""
        kept = {key: value for key, value in resource.attributes.items() if self._keep.keeps_of_resource(key)}
        view = SimpleNamespace(attributes=kept, schema_url=resource.schema_url)
        return super().resource(cast(Resource, view), replaced)

    def scope(self, scope: InstrumentationScope | None) -> bytes:
        """An instrumentation scope, redacted."""
        if scope is None:
            return super().scope(None)
        kept = _kept(self._keep, getattr(scope, "attributes", None))
        view = SimpleNamespace(name=scope.name, version=scope.version, attributes=kept, schema_url=scope.schema_url)
        return super().scope(cast(InstrumentationScope, view))

    def _view(self, span: ReadableSpan) -> ReadableSpan:
        return cast(ReadableSpan, _View(span, self._keep))


class _View:
    """A span of the SDK as the encoder sees it, without what is not kept."""

    def __init__(self, span: ReadableSpan, keep: Keep) -> None:
        self._span = span
        self._keep = keep

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # the SDK's inner lists, which are not redacted
            raise AttributeError(name)
        return getattr(self._span, name)

    @property
    def attributes(self) -> dict[str, Any]:
        return _kept(self._keep, self._span.attributes)

    @property
    def events(self) -> list[Any]:
        return [
            SimpleNamespace(
                timestamp=event.timestamp,
                name=event.name,
                attributes=_kept(self._keep, event.attributes),
                dropped_attributes=getattr(event, "dropped_attributes", 0),
            )
            for event in self._span.events
        ]

    @property
    def links(self) -> list[Any]:
        return [
            SimpleNamespace(
                context=link.context,
                attributes=_kept(self._keep, link.attributes),
                dropped_attributes=getattr(link, "dropped_attributes", 0),
            )
            for link in self._span.links
        ]

    @property
    def status(self) -> Any:
        status = self._span.status
        if status.description is None or self._keep.keeps(STATUS_MESSAGE):
            return status
        return SimpleNamespace(status_code=status.status_code, description=None)


def _kept(keep: Keep, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (attributes or {}).items() if keep.keeps(key)}
