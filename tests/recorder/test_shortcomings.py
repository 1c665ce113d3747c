"""What a process's own settings keep from its recording is a gap of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from fencepost_recorder import RecordingSpanProcessor, begin, seal


def causes(folder: Path, provider: TracerProvider) -> list[str]:
    """The gaps of a recording of two scopes' spans, made through `provider`."""
    directory = begin(folder)
    processor = RecordingSpanProcessor(directory / "wal")
    provider.add_span_processor(processor)
    for scope in ("one", "two"):
        provider.get_tracer(scope).start_span("a").end()
    provider.shutdown()
    return [str(row["cause"]) for row in seal(directory, tool_version="test").gaps().to_pylist()]


@pytest.mark.parametrize(
    ("sampler", "found"),
    [
        (ALWAYS_ON, []),
        (ParentBased(ALWAYS_ON), []),
        (TraceIdRatioBased(1 - 2**-60), ["sampled"]),
        (ParentBased(TraceIdRatioBased(1.0)), ["sampled"]),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF), ["sampled"]),
    ],
)
def test_a_sampler_of_the_program_is_a_gap(tmp_path: Path, sampler: Sampler, found: list[str]) -> None:
    """Whoever adds the processor to a provider that samples cannot have a recording without a gap."""
    assert causes(tmp_path, TracerProvider(sampler=sampler, shutdown_on_exit=False)) == found


def test_a_limit_on_values_is_a_gap(tmp_path: Path) -> None:
    """Values that the SDK cuts are counted by nobody: two keys may have become one."""
    limits = SpanLimits(max_attribute_length=12)
    assert causes(tmp_path, TracerProvider(span_limits=limits, shutdown_on_exit=False)) == ["truncated"]


def test_install_heeds_no_limit_on_values(tmp_path: Path) -> None:
    """A limit in the environment, meant for an exporter's bill, does not make two keys one."""
    directory = begin(tmp_path, "whole")
    code = (
        "from opentelemetry import trace; from fencepost_recorder import install\n"
        "install('a'); trace.get_tracer('t').start_span('s', attributes={'key': 'payments/order-100001'}).end()"
    )
    environment = {**os.environ, "FENCEPOST_WAL": str(directory / "wal"), "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "12"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    recording = seal(directory, tool_version="test")
    assert "payments/order-100001" in recording.spans()["span_attributes"][0].as_py()
    assert recording.gaps().num_rows == 0


def test_a_span_whose_resource_could_not_be_written_is_nobody_elses(tmp_path: Path) -> None:
    """A full disk takes the second service's resource frame: its span is of an unknown service, not of the first."""
    directory = begin(tmp_path, "full")
    code = f"""
import os, resource
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from fencepost_recorder import RecordingSpanProcessor
processor = RecordingSpanProcessor({str(directory / "wal")!r})
def tracer(name):
    provider = TracerProvider(resource=Resource({{"service.name": name, "padding": "x" * 500}}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer(name)
tracer("one").start_span("a").end()
size = os.stat(processor._writer.path).st_size
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, resource.RLIM_INFINITY))
span = tracer("two").start_span("b")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
span.end()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    recording = seal(directory, tool_version="test")
    services = {row["name"]: row["service_name"] for row in recording.spans().to_pylist()}
    assert services["a"] == "one"
    assert services.get("b") in (None, "two")
    assert recording.gaps().num_rows > 0
