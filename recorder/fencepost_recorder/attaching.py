"""Recording a process through whatever tracer provider it has, gets later, or never gets.

Three cases, as `opentelemetry-instrument` leaves them: a distribution's configurator has set a provider of the SDK,
which then gets our processor; nobody sets one, so ours serves; or the program sets its own in its code, before or after
a fork, which then takes the place of ours and gets our processor, too.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from fencepost_recorder import shortcomings
from fencepost_recorder.errors import RecorderError, printable
from fencepost_recorder.processor import RecordingSpanProcessor
from fencepost_recorder.writer import LogWriter

# Where `fencepost record` receives, as host:port, separated by blanks: what is recorded in the process already need
# not go there as well.
RECEIVER_VARIABLE = "FENCEPOST_RECEIVER"
_MARK = "_fencepost_recorded"
_EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.json.http.trace_exporter",
)


class AttachedProcessor(RecordingSpanProcessor):
    """The processor of a process that did not ask for it; it marks what it recorded, for exporters to see."""

    def on_end(self, span: ReadableSpan) -> None:
        """Append the finished span, once, and mark it with whether that succeeded."""
        if hasattr(span, _MARK):
            return
        lost = self.lost
        super().on_end(span)
        with suppress(AttributeError):
            setattr(span, _MARK, self.lost == lost)


class _EndsFirst(SpanProcessor):
    """Stands before all other processors of a provider, to record and mark ends before an exporter sees them.

    The processor itself stands behind them all, so that a start has the attributes that they put into it.
    """

    def __init__(self, processor: AttachedProcessor) -> None:
        self.on_end = processor.on_end  # type: ignore[method-assign]


def is_recorded(span: ReadableSpan) -> bool:
    """Whether this process has recorded the span with its own processor already."""
    return getattr(span, _MARK, False)


class _State:
    """What this process was attached with; forked children inherit it."""

    lock = threading.Lock()
    processor: AttachedProcessor | None = None
    provisional: TracerProvider | None = None
    wrapped = False
    # As a sentence, with the process's id: a forked child may have to say it again.
    noted = ""


def attach(wal: str) -> str | None:
    """Record all spans of this process into the folder `wal`; a sentence that says why not, or None.

    May be called again: whatever is attached already is left as it is. Raises StorageError when the folder cannot be
    written to.
    """
    folder = Path(wal).absolute()
    with _State.lock:
        problem = _disabled()
        if problem is None and _State.processor is None:
            problem = _refused(trace.get_tracer_provider())
        if problem is not None:
            _note_unrecorded(folder, problem)
            return problem
        _attach_to(trace.get_tracer_provider(), folder)
    return None


def is_recording_into(folder: Path) -> bool:
    """Whether this process was attached, without its doing, and records into that folder."""
    return _State.processor is not None and _same(_State.processor.folder, folder)


def give_way() -> None:
    """Forget the provider that serves while the program has none: it sets one now."""
    with _State.lock:
        _withdraw_provisional()


def _disabled() -> str | None:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "OTEL_SDK_DISABLED is set, so no span is ever made: unset it"
    return None


def _refused(provider: object) -> str | None:
    if isinstance(provider, trace.ProxyTracerProvider) or hasattr(provider, "add_span_processor"):
        return None
    name = printable(f"{type(provider).__module__}.{type(provider).__qualname__}", 100)
    return (
        f"its tracer provider, {name}, takes no span processors: use that of opentelemetry-sdk "
        "(see OTEL_PYTHON_TRACER_PROVIDER)"
    )


def _attach_to(provider: Any, folder: Path) -> None:
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _provide()
    processor = _processor(provider, folder)
    processor.expect(getattr(provider, "resource", Resource.get_empty()))
    _wrap_setting()
    _add(provider, processor)
    _spare_receiver()


def _processor(provider: Any, folder: Path) -> AttachedProcessor:
    if _State.processor is None:
        _State.processor = AttachedProcessor(folder, notes=shortcomings.of_sampler(getattr(provider, "sampler", None)))
    return _State.processor


def _add(provider: Any, processor: AttachedProcessor) -> None:
    if not any(_same(other.folder, processor.folder) for other in _recording_processors(provider)):
        provider.add_span_processor(processor)
        chain: Any = getattr(provider, "_active_span_processor", None)
        # A list, or processors that work side by side, have no first: then an exporter may see a span unmarked.
        if isinstance(getattr(chain, "_span_processors", None), tuple) and hasattr(chain, "_lock"):
            with chain._lock:
                chain._span_processors = (_EndsFirst(processor), *chain._span_processors)


def _recording_processors(provider: Any) -> list[RecordingSpanProcessor]:
    """The processors of ours that a provider has; where it does not let one look, none."""
    chain = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    return [one for one in chain if isinstance(one, RecordingSpanProcessor)]


def _provide() -> TracerProvider:
    """A provider of ours, until the program sets its own.

    It is put where the API keeps its provider without using up the one time that the API lets somebody set one: or
    else the program's own would be refused, and its exporters would fall silent because of us.
    """
    from fencepost_recorder.installing import provider_of, resource_of

    # A sampler that somebody asked for is heeded, and noted; by default everything is recorded.
    sampler = None if os.environ.get("OTEL_TRACES_SAMPLER") else ALWAYS_ON
    service = os.environ.get("OTEL_SERVICE_NAME") or f"unknown_service:{Path(sys.executable or 'python').name}"
    provider = provider_of(resource_of(service, {}), sampler)
    if getattr(trace, "_TRACER_PROVIDER", provider) is None and hasattr(trace, "_set_tracer_provider"):
        vars(trace)["_TRACER_PROVIDER"] = provider
        _State.provisional = provider
    else:
        trace.set_tracer_provider(provider)
    return provider


def _withdraw_provisional() -> None:
    if _State.provisional is not None and vars(trace).get("_TRACER_PROVIDER") is _State.provisional:
        vars(trace)["_TRACER_PROVIDER"] = None
    _State.provisional = None


def _wrap_setting() -> None:
    """Hear of the providers that the program sets later."""
    original: Callable[..., None] | None = vars(trace).get("_set_tracer_provider")
    if _State.wrapped or original is None:
        return
    _State.wrapped = True

    def set_and_attach(tracer_provider: Any, *arguments: Any, **named: Any) -> None:
        original(tracer_provider, *arguments, **named)
        with suppress(Exception):
            if _State.processor is not None and trace.get_tracer_provider() is tracer_provider:
                _State.provisional = None
                _add(tracer_provider, _State.processor)
                # Not only with its first span: it may let none through.
                _State.processor.tell(shortcomings.of_sampler(getattr(tracer_provider, "sampler", None)))
                _spare_receiver()

    vars(trace)["_set_tracer_provider"] = set_and_attach


def _spare_receiver() -> None:
    """Let the OTLP exporters leave out what is recorded here, when they send to the same recording.

    A span that comes both ways all the same is one span to the sealing.
    """
    receivers = frozenset(os.environ.get(RECEIVER_VARIABLE, "").split())
    for name in _EXPORTERS if receivers else ():
        exporter = getattr(sys.modules.get(name), "OTLPSpanExporter", None)
        if exporter is not None and not hasattr(exporter, _MARK):
            setattr(exporter, _MARK, True)
            exporter.export = _sparing(exporter.export, receivers)


def _sparing(export: Callable[..., Any], receivers: frozenset[str]) -> Callable[..., Any]:
    from opentelemetry.sdk.trace.export import SpanExportResult

    def export_the_rest(self: Any, spans: Sequence[ReadableSpan], *arguments: Any, **named: Any) -> Any:
        # An address as a URL or, over gRPC, as host and port alone.
        endpoint = str(getattr(self, "_endpoint", ""))
        if endpoint.rpartition("://")[2].partition("/")[0] in receivers:
            spans = [span for span in spans if not is_recorded(span)]
            if not spans:
                return SpanExportResult.SUCCESS
        return export(self, spans, *arguments, **named)

    return export_the_rest


def _note_unrecorded(folder: Path, problem: str) -> None:
    """Let the recording say, once, that a process of it was not recorded."""
    sentence = f"process {os.getpid()} went on unrecorded: {problem}"
    if sentence == _State.noted:
        return
    with suppress(RecorderError):
        writer = LogWriter(folder)
        writer.note("unrecorded", sentence)
        writer.close()
        _State.noted = sentence


def _same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)
