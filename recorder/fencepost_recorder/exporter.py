"""The traces exporter named `fencepost`, for programs that choose exporters by OTEL_TRACES_EXPORTER.

An exporter is shown spans once they have ended, in batches, seconds later: what a killed process had open, or had not
exported yet, it never sees. So it is second best to the span processor that `opentelemetry-instrument` attaches by
itself; where both are at work a span is recorded once, by the processor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fencepost_recorder.autoload import WAL_VARIABLE, complain
from fencepost_recorder.errors import RecorderError

if TYPE_CHECKING:
    from fencepost_recorder.processor import RecordingSpanProcessor

ENDS_ONLY = "an exporter sees spans only once they have ended: what was open or not yet exported at a death is not here"


class FencepostSpanExporter(SpanExporter):
    """Appends every span it is given to a log in the folder that FENCEPOST_WAL names. Never raises.

    Its logs begin with an `unsequenced` gap: nobody can know which spans never reached it.
    """

    def __init__(self) -> None:
        self._processor: RecordingSpanProcessor | None = None
        self._failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the spans; FAILURE when one of them could not be written."""
        from fencepost_recorder.attaching import is_recorded

        rest = [span for span in spans if not is_recorded(span)]
        if not rest:
            return SpanExportResult.SUCCESS
        processor = self._open()
        if processor is None:
            return SpanExportResult.FAILURE
        lost = processor.lost
        for span in rest:
            processor.whole(span)
        return SpanExportResult.SUCCESS if processor.lost == lost else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Write the frame that says this process recorded to its end."""
        if self._processor is not None:
            self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held back."""
        return True

    def _open(self) -> RecordingSpanProcessor | None:
        """The log, made at the first span that needs it: beside the span processor none is ever needed."""
        if self._processor is None and not self._failed:
            try:
                self._processor = _processor()
            except (RecorderError, OSError) as error:
                self._failed = True
                complain(f"the traces exporter `fencepost` records nothing: {error}")
        return self._processor


def _processor() -> RecordingSpanProcessor:
    from fencepost_recorder.processor import RecordingSpanProcessor

    folder = os.environ.get(WAL_VARIABLE, "")
    if not folder:
        raise RecorderError(f"set {WAL_VARIABLE} to a recording's wal folder, or run under `fencepost record`")
    return RecordingSpanProcessor(Path(folder), notes=[("unsequenced", ENDS_ONLY)])
