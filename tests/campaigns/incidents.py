"""Histories whose truth is known, recorded under bad conditions: what the analyzer says then must not be false.

A simulated history is told once on a sound disk, and once more, span for span, where the disk fills, files may not
grow or the clock is set. What was judged of the sound one is the truth: of the other each verdict is the same, or
unknown.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from random_scenarios import random_scenario

from fencepost_analyzer.check import check
from fencepost_recorder import RecordingSpanProcessor, open_recording, seal, writer
from fencepost_recorder import clock as watched
from fencepost_runtime.facts import Fact
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate
from fencepost_runtime.spans import SpanSink, announce
from fencepost_runtime.world import EPOCH, SUPERVISOR, cast

VERSION = "0.0.campaign"
HOUR_NANO = 3_600_000_000_000


@dataclass
class Conditions:
    """Under which a history is told: a limit of file sizes in bytes, and by how much the clock is set, and when.

    The clock is set before the span of that number starts or ends.
    """

    file_bytes: int | None = None
    clock: dict[int, int] = field(default_factory=dict)


@dataclass
class Told:
    """What became of the telling: frames that could not be written, and how large the logs are."""

    lost: int
    log_bytes: list[int]


class _Clock:
    """The time of the span that is told, as the host's clock has it."""

    def __init__(self, steps: dict[int, int]) -> None:
        self.now = self.steady = EPOCH
        self._steps, self._told, self._offset = steps, 0, 0

    def moment(self, true_time: int) -> int:
        self._offset += self._steps.get(self._told, 0)
        self._told += 1
        self.now, self.steady = true_time + self._offset, true_time
        return self.now


class _Everybody(SpanProcessor):
    """As many processes as there are actors: each has a log of its own."""

    def __init__(self, wal: Path, actors: list[str], clock: _Clock) -> None:
        self.current = SUPERVISOR
        self.recorders = {name: RecordingSpanProcessor(wal) for name in actors}
        self._whose: dict[int, str] = {}
        self._clock = clock

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        assert span.context is not None
        self._whose[span.context.span_id] = self.current
        span._start_time = self._clock.moment(span.start_time or 0)
        self.recorders[self.current].on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        span._end_time = self._clock.moment(span.end_time or 0)
        self.recorders[self._whose[span.context.span_id]].on_end(span)


class _Sink(SpanSink):
    """Says whose span it is."""

    def __init__(self, everybody: _Everybody) -> None:
        super().__init__()
        self._everybody = everybody

    def open(self, fact: Fact, parent: Any) -> Any:
        self._everybody.current = fact.worker_id if fact.worker_id in self._everybody.recorders else SUPERVISOR
        return super().open(fact, parent)


def tell(directory: Path, scenario: Scenario, seed: int, conditions: Conditions) -> Told:
    """Tell a history into a recording that was begun. Run it in a child: it sets the process's tracer provider."""
    clock = _Clock(conditions.clock)
    writer.time_ns = watched.time_ns = lambda: clock.now  # type: ignore[assignment]
    watched.steady_ns = watched.monotonic_ns = lambda: clock.steady
    everybody = _Everybody(directory / "wal", [SUPERVISOR, *(name for name, _ in _cast(scenario))], clock)
    if conditions.file_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (conditions.file_bytes, hard))
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource({"service.name": "campaign", "host.name": "h"}), shutdown_on_exit=False
    )
    provider.add_span_processor(everybody)
    trace.set_tracer_provider(provider)
    announce(scenario.id, seed, scenario.to_json(), EPOCH)
    simulate(scenario, _Sink(everybody), seed)
    for recorder in everybody.recorders.values():
        recorder.shutdown()
    sizes = [path.stat().st_size for path in (directory / "wal").iterdir()]
    return Told(sum(one.lost for one in everybody.recorders.values()), sizes)


def _cast(scenario: Scenario) -> list[tuple[str, Any]]:
    actors = cast(scenario)
    for _, script in actors:
        script.close()
    return actors


def verdicts(directory: Path) -> tuple[dict[str, str], int]:
    """Seal and judge: the verdict of each invariant, and how many frames the gaps say could not be written."""
    recording = seal(directory, tool_version=VERSION)
    assert open_recording(directory).manifest.sha256 == recording.manifest.sha256
    counted = sum(gap["lost"] or 0 for gap in recording.gaps().to_pylist() if gap["cause"] == "write_failed")
    return {one.id: one.verdict for one in check(recording).findings}, counted


def false(truth: dict[str, str], said: dict[str, str]) -> list[str]:
    """The verdicts that are neither the truth nor unknown."""
    return [
        f"{name} is said to be {said[name]}, it is {truth[name]}"
        for name in truth
        if said[name] not in ("unknown", truth[name])
    ]


def random_history(seed: int) -> Scenario:
    """The same as the analyzer's own tests draw."""
    return random_scenario(seed)
