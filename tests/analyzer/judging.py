"""What tests of judging share: events of one write, a gap, verdicts by name, and a recording that was never on disk."""

from __future__ import annotations

import pyarrow as pa
from benchmarks.generator import START

from fencepost_analyzer.database import GAPS
from fencepost_analyzer.verdicts import Report


class Fake:
    """A recording that was never on disk."""

    id = "fake"

    def __init__(self, spans: pa.Table, gaps: pa.Table | None = None) -> None:
        self._spans, self._gaps = spans, gaps

    def spans(self) -> pa.Table:
        return self._spans

    def gaps(self) -> pa.Table:
        return GAPS.empty_table() if self._gaps is None else self._gaps


def write_of(key: str, **fields: object) -> dict[str, object]:
    told = {"event": "write", "at": START, "job_id": "j", "effect_key": key, "outcome": "ok", "span_id": key}
    return told | fields


def gap(**fields: object) -> pa.Table:
    return pa.Table.from_pylist([{"cause": "torn_tail", **fields}], schema=GAPS)


def verdicts(report: Report) -> dict[str, str]:
    return {finding.id: finding.verdict for finding in report.findings}
