"""What can be derived from a recording: verdicts, replays, answers, timeline. Derived twice, it must be the same.

`postmortem new` writes this down, `postmortem verify` derives it again and compares.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fencepost_analyzer import query as querying
from fencepost_analyzer import replay as replaying
from fencepost_analyzer import sqlfiles, text, timeline
from fencepost_analyzer.case import Case
from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.database import resource
from fencepost_analyzer.errors import NotReplayable
from fencepost_analyzer.overview import Overview, overview
from fencepost_analyzer.postmortem.folder import as_json
from fencepost_analyzer.render import plain_json
from fencepost_analyzer.replay import Replay
from fencepost_analyzer.scenario_from import Incident
from fencepost_analyzer.timeline import Story
from fencepost_analyzer.verdicts import Finding, Report
from fencepost_recorder import Recording
from fencepost_runtime.policy import Policy, preset

MAX_ANSWER_ROWS = 1_000
MAX_EVENTS = 20_000
MAX_STORIES, MAX_STORY_LINES = 50, 1_000
FEW_STORIES = 5

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answered, in an order of its own, so that it compares. Of more than the allowed rows none is kept,
    for which of them come first is chance."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    cut: bool

    def to_bytes(self) -> bytes:
        return as_json({"columns": self.columns, "rows": self.rows, "cut": self.cut})


@dataclass(frozen=True, slots=True)
class Derived:
    """Everything that follows from a recording, as data; `files` has it as the bytes of the evidence. `told` are the
    jobs of the page's timeline: those that a promise was broken to, else the first few."""

    overview: Overview
    report: Report
    incident: Incident | None
    replays: tuple[Replay, ...]
    not_replayed: str | None
    answers: Mapping[str, Answer]
    told: tuple[Story, ...]
    files: Mapping[str, bytes]


def specification(policy: Policy | None = None, changes: Mapping[str, Any] | None = None) -> Spec:
    """A replay written down, so that it can be done again: a verify, or a fork under a policy or with changes."""
    if policy is None and not changes:
        return {"mode": "verify"}
    return {"mode": "fork", "policy": policy.to_dict() if policy else None, "changes": dict(changes or {}) or None}


def replay(case: Case, spec: Mapping[str, Any]) -> Replay:
    """Does the replay that a specification asks for. Raises what `replay.fork` raises."""
    if spec.get("mode") != "fork":
        return replaying.verify(case)
    policy = Policy.from_dict(spec["policy"]) if spec.get("policy") else None
    return replaying.fork(case, policy, spec.get("changes"))


def usual(case: Case, policies: Sequence[Policy] = ()) -> list[Spec]:
    """The replays of a postmortem: a verify, and a fork under each policy; under none given, the one that heals the
    failure mode that the recording is of, or `safe`."""
    mode = failure_modes().get(case.announced.scenario.id) if case.announced is not None else None
    forks = policies or [preset(mode.heals if mode is not None else "safe")]
    return [specification(), *(specification(policy) for policy in forks)]


def derive(case: Case, replays: Sequence[Mapping[str, Any]], *, done: Sequence[Replay] | None = None) -> Derived:
    """Judges, replays and asks. `done` are the replays that `replays` ask for, if somebody did them already. A
    recording that cannot be replayed says why; that is no error."""
    report, held = case.report, overview(case)
    found, done, why = _replays(case, replays, done)
    stories, _ = timeline.stories(case, jobs=MAX_STORIES, lines=MAX_STORY_LINES)
    answers = _answers(case.connection, queried(report))
    story = timeline.as_text(stories)
    suspects = set(timeline.suspects(report))
    told = tuple(one for one in stories if one.job_id in suspects) or tuple(stories[:FEW_STORIES])
    files = {
        "evidence/verdicts.json": as_json(plain_json({"recording": held.recording, **report.to_dict()})),
        "evidence/replay.json": as_json(
            plain_json({"not_replayed": why, "replays": [_replay_data(one) for one in done]})
        ),
        "evidence/timeline.txt": "".join(line + "\n" for line in story).encode("utf-8"),
        "evidence/events.csv": _events(case.connection),
    }
    if found is not None:
        files["evidence/scenario.json"] = as_json(plain_json(_scenario(found)))
    for finding in queried(report):
        files[f"evidence/queries/{finding.id}.sql"] = finding.sql.encode("utf-8")
        files[f"evidence/queries/{finding.id}.json"] = answers[finding.id].to_bytes()
    return Derived(held, report, found, done, why, answers, told, files)


def queried(report: Report) -> list[Finding]:
    """The findings whose SQL is kept as evidence: those that found a case."""
    return [one for one in report.findings if one.verdict != "holds" and one.violations + one.unknowns > 0]


def ask(recording: Recording, sql: str, *, mappings: Sequence[Path] = ()) -> Answer:
    """What anybody's query answers, asked in a process of its own. Raises QueryError."""
    table = querying.query(recording, sql, limit_rows=MAX_ANSWER_ROWS, mappings=mappings)
    return _answer(table, querying.is_cut(table))


def _answers(connection: duckdb.DuckDBPyConnection, findings: Sequence[Finding]) -> dict[str, Answer]:
    """What the findings' own SQL answers; it has just been judged by, so it needs no process of its own."""
    found = {}
    for finding in findings:
        select = sqlfiles.one_select(connection, finding.sql)
        table = connection.sql(f"FROM (\n{select}\n) LIMIT {MAX_ANSWER_ROWS + 1}").to_arrow_table()
        found[finding.id] = _answer(table, table.num_rows > MAX_ANSWER_ROWS)
    return found


def _answer(table: pa.Table, cut: bool) -> Answer:
    columns = tuple(table.column_names)
    if cut or not columns:
        return Answer(columns, (), cut)
    values = [column.to_pylist() for column in table.columns]
    rows = [tuple(plain_json(list(row))) for row in zip(*values, strict=True)]
    return Answer(columns, tuple(sorted(rows, key=json.dumps)), False)


def _replays(
    case: Case, specs: Sequence[Mapping[str, Any]], done: Sequence[Replay] | None
) -> tuple[Incident | None, tuple[Replay, ...], str | None]:
    try:
        return case.incident, tuple(done or (replay(case, spec) for spec in specs)), None
    except NotReplayable as error:
        return None, (), str(error)


def _replay_data(done: Replay) -> dict[str, Any]:
    """A replay without the SQL of its reports, which verdicts.json holds once."""
    data = done.to_dict()
    for report in (data["before"], data["after"]):
        for finding in report["findings"]:
            del finding["sql"]
    return data


def _scenario(found: Incident) -> dict[str, Any]:
    faults = [{"sentence": one.sentence, "span_ids": list(one.span_ids)} for one in found.inferences]
    return {"scenario": found.scenario.to_dict(), "seed": found.seed, "faults": faults}


def _events(connection: duckdb.DuckDBPyConnection) -> bytes:
    """The events as text, one a line; what is not printable is escaped."""
    cursor = connection.execute(resource("stories/events.sql"), {"most": MAX_EVENTS})
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([column[0] for column in cursor.description or ()])
    for row in cursor.fetchall():
        writer.writerow(["" if value is None else text.safe(value, None) for value in row])
    return written.getvalue().encode("utf-8")
