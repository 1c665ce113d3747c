"""OTLP files to spans, whatever way they were written.

Understood are: JSON lines (the Collector's file exporter, the Python SDK's JSON file exporter: one
ExportTraceServiceRequest or TracesData a line), one JSON document, an array of such; protobuf messages delimited by
a varint (the specification's file format) or by 4 big-endian bytes (the Collector's `proto` format, also with zstd a
message), and one protobuf message alone; each optionally gzipped. Which it is, the bytes tell, not the name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fencepost_recorder import otlpjson, wire
from fencepost_recorder.errors import ImportFailed
from fencepost_recorder.source import Source, unzstd

EMPTY = "empty"
_HEAD = 4096
_OTHERS = ("resourceLogs", "resourceMetrics", "resourceProfiles")


@dataclass(frozen=True, slots=True)
class Resource:
    """The spans that follow come from here: `ResourceSpans` bytes without scopes."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Scope:
    """The spans that follow were made by this: `ScopeSpans` bytes without spans."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """`Span` bytes, not checked yet."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Poison:
    """Spans (with `lost` None: nobody knows how many) that could not be read; their times where known, unix ns."""

    why: str
    lost: int | None = 1
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line or message of another signal: logs, metrics or profiles."""

    signal: str


@dataclass(frozen=True, slots=True)
class Torn:
    """The end of the file is damaged; what came before is good."""

    why: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Whoever wrote the file says that there were more spans than it holds."""

    why: str


Item = Resource | Scope | Found | Poison | Skipped | Torn | Absent


@dataclass(frozen=True, slots=True)
class Format:
    """What a file was found to be, and how to read it from its start."""

    name: str
    read: Callable[[Source], Iterator[Item]]


def detect(source: Source, reopen: Callable[[], Source], message_bytes: int, document_bytes: int) -> Format:
    """What the file holds. Raises ImportFailed when nothing that is understood."""
    head = source.peek(_HEAD)
    if not head.strip():
        if len(head) == _HEAD:
            raise ImportFailed(f"{source.name} begins with more than {_HEAD} blanks: it holds no OTLP traces")
        # What an exporter leaves whose process ended no span.
        return Format(EMPTY, lambda _: iter(()))
    if _is_text(head):
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
            raise ImportFailed(f"{source.name} is text, but not JSON: it holds no OTLP traces")
        if b'"traceEvents":' in head or head.startswith(b'{"otherData":{"recording":'):
            raise ImportFailed(
                f"{source.name} is a trace to look at (the Trace Event Format), which is not OTLP: export the "
                "recording as OTLP to import it again"
            )
        with reopen() as probe:
            if _starts_with_line(probe):
                return Format("JSON lines", _lines)
        return Format("JSON document", lambda one: _document(one, document_bytes))
    framing = wire.detect(source, message_bytes)
    if framing is None:
        raise ImportFailed(f"{source.name} holds no OTLP traces: neither JSON nor protobuf of them")
    return Format(f"protobuf, {framing.name}", lambda one: _messages(one, framing, message_bytes))


def _is_text(head: bytes) -> bool:
    # Protobuf of traces is full of control bytes (its tags and lengths); JSON may not hold any but white space.
    return not any(byte < 0x20 and byte not in b"\t\r\n" for byte in head)


def _starts_with_line(source: Source) -> bool:
    """Whether the first line that is not blank is a JSON object of its own."""
    while (line := source.line()) is not None:
        text = line.strip(b"\xef\xbb\xbf \t\r\n")
        if text:
            try:
                return isinstance(_loads(text), dict)
            except ValueError:
                # Damaged, or the first line of a larger document? Such a line ends early.
                return len(text) > 256 and text.startswith(b"{")
    return False


def _lines(source: Source) -> Iterator[Item]:
    number = 0
    failed = ""
    while (line := source.line()) is not None:
        number += 1
        text = line.strip(b"\xef\xbb\xbf \t\r\n")
        if not text:
            continue
        if failed:
            yield Poison(failed, lost=None)
            failed = ""
        try:
            document = _loads(text)
        except ValueError as error:
            failed = f"line {number} is damaged: {error}"
            continue
        yield from _traces(document, source, f"line {number}")
    # Only now is it known that the damaged line was the last.
    if failed or source.damage:
        yield Torn(failed or source.damage)


def _document(source: Source, limit: int) -> Iterator[Item]:
    data = source.take(limit + 1)
    if len(data) > limit:
        raise ImportFailed(
            f"{source.name} is one JSON document of more than {limit // 1024**2:,} MiB: write one object a line instead"
        )
    try:
        document = _loads(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        _refuse_console(data, source)
        raise ImportFailed(
            f"{source.name} holds no OTLP traces that could be read: it is damaged, {source.damage or error}"
        ) from error
    if source.damage:
        yield Torn(source.damage)
    for number, one in enumerate(document if isinstance(document, list) else [document]):
        yield from _traces(one, source, f"element {number + 1}" if isinstance(document, list) else "it")


def _refuse_console(data: bytes, source: Source) -> None:
    """Several objects one after the other: what ConsoleSpanExporter prints."""
    try:
        first, _ = json.JSONDecoder().raw_decode(data.decode().lstrip())
    except (ValueError, RecursionError):
        return
    _check_shape(first, source)


def _check_shape(document: Any, source: Source) -> None:
    if isinstance(document, dict) and isinstance(document.get("context"), dict) and "trace_id" in document["context"]:
        raise ImportFailed(
            f"{source.name} is the output of ConsoleSpanExporter, which is not OTLP: export with the OTLP JSON file "
            "exporter or the Collector's file exporter, or record with fencepost"
        )


def _traces(document: Any, source: Source, where: str) -> Iterator[Item]:
    _check_shape(document, source)
    if not isinstance(document, dict):
        yield Poison(f"{where} is no OTLP object", lost=None)
        return
    if isinstance(document.get("trace"), dict) and document.get("status") in ("PARTIAL", 1):
        said = document.get("message")
        yield Absent(f"{where} is an answer of Tempo's with a part of a trace" + (f": {said}" if said else ""))
    document = _unwrapped(document)
    spans = otlpjson.get(document, "resourceSpans")
    if spans is None:
        if isinstance(document.get("data"), list):
            raise ImportFailed(
                f"{source.name} is Jaeger's own JSON, which is not OTLP: ask Jaeger for it by /api/v3/traces/TRACE_ID"
            )
        other = next((name for name in _OTHERS if otlpjson.get(document, name) is not None), None)
        if other is not None:
            yield Skipped(other.removeprefix("resource").lower())
        elif document:
            yield Poison(f"{where} holds no resourceSpans", lost=None)
        return
    yield from _guarded(document, "resourceSpans", where, _resource)


def _unwrapped(document: dict[str, Any]) -> dict[str, Any]:
    """The OTLP object in an answer of Jaeger's /api/v3/traces ({"result": …}), of Tempo's /api/v2/traces ({"trace": …})
    and /api/traces ({"batches": […]}); itself where it is none of these."""
    for name in ("result", "trace"):
        inner = document.get(name)
        if otlpjson.get(document, "resourceSpans") is None and isinstance(inner, dict):
            document = inner
    batches = document.get("batches")
    if otlpjson.get(document, "resourceSpans") is None and isinstance(batches, list):
        return {"resourceSpans": batches}
    return document


def _guarded(values: Any, name: str, where: str, inner: Callable[[Any, str], Iterator[Item]]) -> Iterator[Item]:
    """Each object of an array; whatever is no such thing is one poison, and ends only its own array."""
    try:
        for one in otlpjson.objects(values, name):
            yield from inner(one, where)
    except ValueError as error:
        yield Poison(f"{where}: {error}", lost=None)


def _resource(resource_spans: Any, where: str) -> Iterator[Item]:
    yield Resource(otlpjson.resource_bytes(resource_spans))
    yield from _guarded(resource_spans, "scopeSpans", where, _scope)
    yield from _guarded(resource_spans, "instrumentationLibrarySpans", where, _old_scope)


def _scope(scope_spans: Any, where: str) -> Iterator[Item]:
    yield Scope(otlpjson.scope_bytes(scope_spans))
    spans = _spans(scope_spans)
    # Two bytes each: tens of millions fit into a line, and are counted at once.
    if none := sum(not isinstance(span, dict) for span in spans):
        yield Poison(f"{where}: {none:,} of the spans could not be read: a span that is no object", none)
    for span in spans:
        if not isinstance(span, dict):
            continue
        try:
            yield Found(otlpjson.span_bytes(span))
        except otlpjson.FAULTS as error:
            yield Poison(f"{where}: a span could not be read: {otlpjson.reason(error)}", 1, *otlpjson.times(span))


def _old_scope(scope_spans: Any, where: str) -> Iterator[Item]:
    yield from _old(f"{where}: ", len(_spans(scope_spans)))


def _old(where: str, spans: int) -> Iterator[Item]:
    if spans:
        yield Poison(f"{where}spans could not be read: {wire.OLD_CLIENT}", spans)


def _spans(scope_spans: Any) -> list[Any]:
    """The spans of a scope, not checked yet. Raises ValueError when they are no array."""
    spans = otlpjson.get(scope_spans, "spans")
    if spans is None:
        return []
    if not isinstance(spans, list):
        raise ValueError("spans is no array")
    return spans


def _messages(source: Source, framing: wire.Framing, limit: int) -> Iterator[Item]:
    for body in framing.read(source, limit):
        if isinstance(body, str):
            yield Torn(source.damage or body)
            return
        yield from _message(body, source, limit)
    if source.damage:
        yield Torn(source.damage)


def _message(body: bytes, source: Source, limit: int) -> Iterator[Item]:
    try:
        plain = unzstd(body, limit)
        if plain[:1] == b"{" and _is_text(plain[:_HEAD]):
            yield from _traces(_loads(plain), source, "a message")
            return
        for number, resource_spans in wire.fields(plain):
            if number == wire.RESOURCE_SPANS:
                yield from _wire_resource(resource_spans)
    except ValueError as error:
        yield Poison(f"a message could not be read: {error}", lost=None)


def _wire_resource(data: bytes) -> Iterator[Item]:
    try:
        parts = list(wire.fields(data))
        yield Resource(wire.without(data, wire.SCOPE_SPANS, wire.OLD_SCOPE_SPANS))
        for number, scope_spans in parts:
            if number == wire.SCOPE_SPANS:
                yield Scope(wire.without(scope_spans, wire.SPANS))
                yield from (Found(span) for kind, span in wire.fields(scope_spans) if kind == wire.SPANS)
            elif number == wire.OLD_SCOPE_SPANS:
                yield from _old("", sum(kind == wire.SPANS for kind, _ in wire.fields(scope_spans)))
    except ValueError as error:
        yield Poison(f"a resource's spans could not be read: {error}", lost=None)


def _loads(text: bytes) -> Any:
    """Parse JSON; raises ValueError for anything that is none, or too deep."""
    try:
        return json.loads(text, object_pairs_hook=otlpjson.object_of)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("it holds a number of too many digits") from None
