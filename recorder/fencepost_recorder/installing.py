"""One call that makes the running process record its spans."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.util.types import AttributeValue

from fencepost_recorder.errors import RecorderError
from fencepost_recorder.processor import RecordingSpanProcessor

WAL_VARIABLE = "FENCEPOST_WAL"


def install(
    service_name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    wal: Path | None = None,
    id_generator: IdGenerator | None = None,
) -> None:
    """Record every span of this process, and of the children it forks, into the folder `wal` or $FENCEPOST_WAL.

    Sets the global TracerProvider of the OpenTelemetry SDK: every span sampled, no limit on the length of values,
    RecordingSpanProcessor its only processor. Its resource says service.name, service.instance.id (unique per
    process), host.name and process.pid, then what OTEL_RESOURCE_ATTRIBUTES and `attributes` say. No network, no
    threads. Spans are on disk when the call that started or ended them returns, so there is nothing to flush before
    exit. A process that is recorded into that folder already, through `opentelemetry-instrument`, stays as it is if
    the provider is one that its own set-up chose.

    Raises RecorderError when no folder is named, when this process has a TracerProvider already, or when
    OTEL_SDK_DISABLED would make it record nothing; StorageError when the folder cannot be written to.
    """
    folder = Path(wal) if wal is not None else _folder_from_environment()
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise RecorderError("OTEL_SDK_DISABLED is set, so no span would be recorded: unset it")
    if _is_attached(folder):
        return
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        raise RecorderError(
            "this process has a TracerProvider already: "
            "give it a RecordingSpanProcessor with provider.add_span_processor() instead"
        )
    resource = resource_of(service_name, attributes or {})
    processor = RecordingSpanProcessor(folder)
    processor.expect(resource)
    provider = provider_of(resource, ALWAYS_ON, id_generator)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


def _is_attached(folder: Path) -> bool:
    """Whether the process is recorded there already, by a provider that is not ours to replace."""
    attaching = sys.modules.get("fencepost_recorder.attaching")
    if attaching is None or not attaching.is_recording_into(folder):
        return False
    attaching.give_way()
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _folder_from_environment() -> Path:
    folder = os.environ.get(WAL_VARIABLE, "")
    if not folder:
        raise RecorderError(f"nowhere to record to: pass wal=, or set {WAL_VARIABLE} to a recording's wal folder")
    return Path(folder)


def provider_of(resource: Resource, sampler: Sampler | None, id_generator: IdGenerator | None = None) -> TracerProvider:
    """A provider without limits on the length of values, which would cut keys and ids uncounted; fit to be forked."""
    # After a fork the SDK asks its detectors in threads, by an executor whose module re-makes a lock in children: that
    # must happen first, and the children's hooks run in the order in which they were registered.
    import_module("concurrent.futures.thread")
    whole = SpanLimits(max_attribute_length=SpanLimits.UNSET, max_span_attribute_length=SpanLimits.UNSET)
    return TracerProvider(sampler=sampler, resource=resource, id_generator=id_generator, span_limits=whole)


def resource_of(service_name: str, attributes: Mapping[str, AttributeValue]) -> Resource:
    """The resource of this process; what OTEL_RESOURCE_ATTRIBUTES says yields to it."""
    # Resource.create() would start a thread for each detector it finds installed.
    own = Resource(
        {
            "service.name": service_name,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            **attributes,
        }
    )
    return OTELResourceDetector().detect().merge(own)
