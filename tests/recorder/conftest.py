"""Recording in this process, and in real children that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

from fencepost_recorder import Recording, RecordingSpanProcessor, begin, seal


@dataclass
class Lab:
    """A recording under way in this process."""

    directory: Path
    processor: RecordingSpanProcessor
    provider: TracerProvider

    @property
    def wal(self) -> Path:
        return self.directory / "wal"

    @property
    def log(self) -> Path:
        return next(self.wal.glob("*.wal"))

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("lab.scope", "1.2")

    def seal(self) -> Recording:
        self.processor.shutdown()
        return seal(self.directory, tool_version="0.0.test", seed=7, commit="c0ffee")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def lab(recordings: Path) -> Iterator[Lab]:
    directory = begin(recordings, "lab")
    processor = RecordingSpanProcessor(directory / "wal")
    named = {"service.name": "lab", "service.instance.id": "lab-1", "host.name": "here", "process.pid": os.getpid()}
    resource = Resource(named)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    yield Lab(directory, processor, provider)
    provider.shutdown()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """Run Python source in a process of its own, with FENCEPOST_WAL set to the folder given."""

    def run_it(source: str, wal: Path | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"FENCEPOST_WAL": str(wal)} if wal is not None else {})}
        command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run_it
