"""What a process's own settings keep from its recording, before any processor could see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fencepost_recorder.errors import printable

# ParentBased leaves out only what somebody before has left out; that somebody's recording says so.
_WHOLE = ("AlwaysOnSampler", "ParentBased{root:AlwaysOnSampler,remoteParentSampled:AlwaysOnSampler,")


def of_sampler(sampler: Any) -> Iterator[tuple[str, str]]:
    """Gap cause and sentence, when the SDK's sampler leaves spans out."""
    description = str(getattr(sampler, "get_description", lambda: "AlwaysOnSampler")())
    if not description.startswith(_WHOLE):
        yield "sampled", f"the process records only what its sampler lets through: {printable(description, 200)}"


def of_limits(limits: Any) -> Iterator[tuple[str, str]]:
    """Gap cause and sentence, when the SDK cuts attribute values without counting them."""
    lengths = [getattr(limits, name, None) for name in ("max_span_attribute_length", "max_attribute_length")]
    length = min((one for one in lengths if one is not None), default=None)
    if length is not None:
        yield (
            "truncated",
            f"attribute values longer than {length} characters were cut: unset OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT and "
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        )


def of_span(span: Any) -> Iterator[tuple[str, str]]:
    """Those of the provider that made a span of the SDK."""
    yield from of_sampler(getattr(span, "_sampler", None))
    yield from of_limits(getattr(span, "_limits", None))
