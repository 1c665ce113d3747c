"""From a recording to a report: map the spans to events, judge the events by every invariant.

Three-valued throughout: a violation stands on something seen, *holds* needs events to judge and a recording
without holes, and everything else is *unknown*, a failing checker included.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from fencepost_analyzer import invariants, sqlfiles, text
from fencepost_analyzer.database import (
    EVENTS,
    GAPS,
    conform,
    create_views,
    database,
    load,
    lock,
    resource,
    rows,
    settle_disputes,
    tidy_events,
)
from fencepost_analyzer.errors import InvariantError
from fencepost_analyzer.invariants import Invariant, Kind
from fencepost_analyzer.mapping import Mapping as SpanMapping
from fencepost_analyzer.mapping import load_mappings, map_spans
from fencepost_analyzer.verdicts import Finding, Judgement, Report, Verdict, Witness, merge, span_needed

MAX_WITNESSES = 10
# What is asked beside the invariants.
_ASKED = ("coverage", "counts", "gaps_touching", "judgement", "witnesses")
# Unread spans that a reason names.
MAX_NAMED = 3
_DOUBTS = {
    "gapped": " But spans of that time may be missing, so this is not certain.",
    "unread": " But a span of that time that nobody reads speaks of jobs, so this is not certain.",
    "nameless": " But an event of that time does not say which job it was of, so this is not certain.",
    "disputed": " But one of these spans was recorded twice, with different content, so this is not certain.",
}


class Recording(Protocol):
    """What a check needs of a recording; fencepost_recorder.Recording is one, a fake in a test another."""

    @property
    def id(self) -> str: ...

    def spans(self) -> pa.Table: ...

    def gaps(self) -> pa.Table: ...


@dataclass(frozen=True)
class _Tally:
    """One invariant in one schedule: how many cases, and which events would have decided the open ones."""

    violations: int
    unknowns: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Evidence:
    """All that the judging of one set of events brought to light."""

    chosen: tuple[Invariant, ...]
    coverage: Mapping[int, Mapping[str, Mapping[str, int]]]
    tallies: Mapping[tuple[str, int], _Tally]
    witnesses: Mapping[str, tuple[Witness, ...]]
    failures: Mapping[str, str]
    events: int
    jobs: int
    gaps: int
    gaps_touching: int
    nameless: Mapping[int, Mapping[tuple[str, str], int]]
    unread: tuple[tuple[str, str, int], ...]


def check(recording: Recording, *, extra: Sequence[Path] = (), mappings: Sequence[Path] = ()) -> Report:
    """Maps the recording's spans to events and judges them by every invariant.

    `extra` and `mappings` are directories of the user's own invariants and mappings. Raises AnalyzerError for
    files that do not follow the rules; a recording that cannot be judged is a verdict, not an error."""
    chosen = invariants.load(extra)
    with opened(recording, mappings=mappings, judged_by=chosen) as (connection, unmapped):
        return report(connection, chosen, unmapped)


def report(
    connection: duckdb.DuckDBPyConnection, chosen: tuple[Invariant, ...], unmapped: tuple[str, ...] = ()
) -> Report:
    """Judges the events of an opened connection; once, for what was found stays in it."""
    return _report(_evidence(connection, chosen, MAX_WITNESSES), unmapped)


def judge(
    events: pa.Table,
    gaps: pa.Table | None = None,
    *,
    extra: Sequence[Path] = (),
    only: Collection[str] | None = None,
) -> Report:
    """Judges a table of events (columns of `database.EVENTS`; columns left out are null) as one recording.

    `only` names the invariants to judge. Raises EventsError for unknown columns, InvariantError for unknown ids."""
    return judge_by(invariants.load(extra, only), events, gaps)


def judge_by(chosen: tuple[Invariant, ...], events: pa.Table, gaps: pa.Table | None = None) -> Report:
    """Judges a table of events by these invariants, as `judge` does."""
    with _judging(events, gaps, chosen) as connection:
        return report(connection, chosen)


def judge_many(
    events: pa.Table, *, extra: Sequence[Path] = (), only: Collection[str] | None = None
) -> dict[int, Judgement]:
    """Judges every `schedule` in the table by itself, all of them in one pass of each invariant."""
    chosen = invariants.load(extra, only)
    with _judging(events, None, chosen) as connection:
        evidence = _evidence(connection, chosen, 0)
    if evidence.failures:
        name, problem = next(iter(evidence.failures.items()))
        raise InvariantError(f"{name} cannot be judged: {problem}.")
    return {schedule: _judgement(evidence, schedule) for schedule in sorted(evidence.coverage)}


@contextmanager
def opened(
    recording: Recording,
    *,
    mappings: Sequence[Path] = (),
    chosen: Sequence[SpanMapping] | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
    judged_by: Sequence[Invariant] = (),
) -> Iterator[tuple[duckdb.DuckDBPyConnection, tuple[str, ...]]]:
    """A locked connection with `spans`, `gaps`, `events` and the views, and the scopes that no mapping knows.

    `chosen` are the mappings to use, instead of ours and those of the directories `mappings`; what the invariants
    `judged_by` share is computed once."""
    chosen = load_mappings(mappings) if chosen is None else chosen
    tables = {"spans": recording.spans(), "gaps": conform(recording.gaps(), GAPS, "gaps")}
    with database(tables, memory_limit=memory_limit, threads=threads) as connection:
        settle_disputes(connection)
        unmapped = map_spans(connection, chosen)
        create_views(connection, readers=[one.sql for one in judged_by])
        yield connection, unmapped


@contextmanager
def _judging(
    events: pa.Table, gaps: pa.Table | None, chosen: Sequence[Invariant]
) -> Iterator[duckdb.DuckDBPyConnection]:
    gaps = GAPS.empty_table() if gaps is None else conform(gaps, GAPS, "gaps")
    with duckdb.connect(":memory:") as connection:
        load(connection, "gaps", gaps)
        settle_disputes(connection, among_spans=False)
        connection.execute(
            "CREATE TABLE unread (scope VARCHAR, name VARCHAR, producer VARCHAR, since BIGINT, until BIGINT)"
        )
        tidy_events(connection, conform(events, EVENTS, "events"))
        lock(connection)
        readers = [*(one.sql for one in chosen), *(resource(f"views/{name}.sql") for name in _ASKED)]
        create_views(connection, readers=readers, for_others=False)
        yield connection


def _evidence(connection: duckdb.DuckDBPyConnection, chosen: tuple[Invariant, ...], most: int) -> _Evidence:
    connection.execute(resource("views/found.sql"))
    failures = {}
    for invariant in chosen:
        problem = _run(connection, invariant)
        if problem is not None:
            failures[invariant.id] = problem
    connection.execute(f"CREATE TABLE judged AS {resource('views/judgement.sql')}")
    counted = connection.execute(
        "SELECT count(*), count(DISTINCT (schedule, job_id)) FILTER (job_id IS NOT NULL) FROM events"
    ).fetchone()
    events, jobs = counted or (0, 0)
    return _Evidence(
        chosen,
        _coverage(connection),
        _tallies(connection),
        _witnesses(connection, most),
        failures,
        events,
        jobs,
        _number(connection, "SELECT count(*) FROM gaps"),
        _number(connection, resource("views/gaps_touching.sql")),
        _nameless(connection),
        tuple(connection.execute("SELECT scope, name, count(*) FROM unread GROUP BY ALL ORDER BY ALL").fetchall()),
    )


def _run(connection: duckdb.DuckDBPyConnection, invariant: Invariant) -> str | None:
    """Adds what the invariant finds to `found`; why it could not, if it could not."""
    try:
        select = sqlfiles.one_select(connection, invariant.sql)
        if select is None:
            return "its file does not hold exactly one SELECT"
        connection.execute(
            "INSERT INTO found BY NAME SELECT $id AS id, $polarity AS polarity, "
            # A sentence about something nameless is NULL, but the case is no less true for it.
            "* REPLACE (coalesce(sentence, 'A case that has no name: see its spans.') AS sentence) "
            f"FROM (\n{select}\n)",
            {"id": invariant.id, "polarity": invariant.polarity},
        )
    except duckdb.InterruptException:
        raise  # Ctrl-C is no verdict.
    except duckdb.Error as error:
        return " ".join(str(error).split())[:300].rstrip(".")
    return None


def _coverage(connection: duckdb.DuckDBPyConnection) -> dict[int, dict[str, dict[str, int]]]:
    coverage: dict[int, dict[str, dict[str, int]]] = defaultdict(dict)
    for counts in rows(connection.execute(resource("views/coverage.sql"))):
        coverage[counts["schedule"]][str(counts["event"])] = counts
    return coverage


def _nameless(connection: duckdb.DuckDBPyConnection) -> dict[int, dict[tuple[str, str], int]]:
    """Schedule → (event, what it lacks) → how many events nobody can place."""
    counted = connection.execute("SELECT schedule, event, lacks, count(*) FROM nameless GROUP BY ALL").fetchall()
    found: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)
    for schedule, event, lacks, number in counted:
        found[schedule][event, lacks] = number
    return found


def _tallies(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], _Tally]:
    counted = connection.execute(resource("views/counts.sql")).fetchall()
    return {
        (name, schedule): _Tally(violations, unknowns, tuple(sorted(filter(None, missing))))
        for name, schedule, violations, unknowns, missing in counted
    }


def _witnesses(connection: duckdb.DuckDBPyConnection, most: int) -> dict[str, tuple[Witness, ...]]:
    listed = connection.execute(resource("views/witnesses.sql"), {"most": most}).fetchall()
    found: dict[str, list[Witness]] = defaultdict(list)
    for name, verdict, job_id, at, span_ids, sentence, doubt in listed:
        spans = tuple(dict.fromkeys(span for span in span_ids or () if span is not None))
        found[name].append(Witness(verdict, job_id, at, spans, sentence + _DOUBTS.get(doubt, "")))
    return {name: tuple(witnesses) for name, witnesses in found.items()}


def _number(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _judgement(evidence: _Evidence, schedule: int) -> Judgement:
    violated, unknown, vacuous = [], [], []
    for invariant in evidence.chosen:
        tally = evidence.tallies.get((invariant.id, schedule))
        if _lacking(invariant, evidence.coverage[schedule]):
            unknown.append(invariant.id)
            vacuous.append(invariant.id)
        elif tally is not None and tally.violations:
            violated.append(invariant.id)
        elif tally is not None or _unplaced(invariant, evidence.nameless.get(schedule, {})):
            unknown.append(invariant.id)
    return Judgement(tuple(violated), tuple(unknown), tuple(vacuous))


def _report(evidence: _Evidence, unmapped: tuple[str, ...]) -> Report:
    findings = tuple(_finding(evidence, invariant) for invariant in evidence.chosen)
    verdict = merge(finding.verdict for finding in findings)
    return Report(verdict, findings, evidence.events, evidence.jobs, evidence.gaps, unmapped)


def _finding(evidence: _Evidence, invariant: Invariant) -> Finding:
    tallies = [tally for (name, _), tally in evidence.tallies.items() if name == invariant.id]
    violations = sum(tally.violations for tally in tallies)
    unknowns = sum(tally.unknowns for tally in tallies)
    verdict, reason, missing = _conclude(evidence, invariant, violations, unknowns, tallies)
    return Finding(
        invariant.id,
        invariant.title,
        invariant.severity,
        invariant.principle,
        invariant.polarity,
        verdict,
        violations,
        unknowns,
        evidence.witnesses.get(invariant.id, ()),
        reason,
        missing,
        invariant.sql,
    )


def _conclude(
    evidence: _Evidence, invariant: Invariant, violations: int, unknowns: int, tallies: Iterable[_Tally]
) -> tuple[Verdict, str, tuple[str, ...]]:
    """Verdict, reason and the spans that would be needed; the order of these rules is the three-valued logic."""
    if invariant.id in evidence.failures:
        return "unknown", f"The checker failed: {evidence.failures[invariant.id]}.", ()
    missing = tuple(sorted({span_needed(event) for tally in tallies for event in tally.missing}))
    lacking = _lacking_anywhere(invariant, evidence.coverage)
    if lacking:
        spans = tuple(
            " or ".join(dict.fromkeys(span_needed(kind.event, kind.column) for kind in choice)) for choice in lacking
        )
        # "X" says nothing beside "X with Y".
        spans = tuple(one for one in spans if not any(other.startswith(f"{one} with ") for other in spans))
        return "unknown", f"There is nothing to judge: it would need the spans {' and '.join(spans)}.", spans
    if violations:
        return "violated", f"{_times(violations, 'violation')} found.", missing
    if unknowns:
        needs = f"; it would need the spans {' and '.join(missing)}" if missing else ""
        return "unknown", f"{_times(unknowns, 'case')} cannot be decided{needs}.", missing
    return _unless_hidden(evidence, invariant)


def _unless_hidden(evidence: _Evidence, invariant: Invariant) -> tuple[Verdict, str, tuple[str, ...]]:
    """Holds, unless something is missing, or without a name, that could have been a violation."""
    if evidence.gaps_touching:
        return "unknown", f"No violation was seen, but {_times(evidence.gaps_touching, 'gap')} could hide one.", ()
    unplaced = Counter[tuple[str, str]]()
    for events in evidence.nameless.values():
        unplaced.update(_unplaced(invariant, events))
    if unplaced:
        spans = tuple(sorted({span_needed(event, lacks) for event, lacks in unplaced}))
        hidden = f"{_times(unplaced.total(), 'event')} without a name could be one"
        return "unknown", f"No violation was seen, but {hidden}; it would need the spans {' and '.join(spans)}.", spans
    if evidence.unread:
        number = sum(count for _, _, count in evidence.unread)
        named = [f"'{(name or '')[:60]}' of {scope or '(no scope)'}" for scope, name, _ in evidence.unread]
        which = text.listed([*named[:MAX_NAMED], "others"] if len(named) > MAX_NAMED else named)
        return (
            "unknown",
            f"No violation was seen, but {_times(number, 'span')} of jobs that no mapping reads could be one: {which}.",
            (),
        )
    return "holds", invariant.claim, ()


def _unplaced(invariant: Invariant, nameless: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Of the events without a name those that the invariant needs."""
    needed = {
        (kind.event, "effect_key" if kind.column == "effect_key" else "job_id")
        for choice in invariant.needs
        for kind in choice
    }
    return {key: number for key, number in nameless.items() if key in needed}


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _lacking_anywhere(
    invariant: Invariant, coverage: Mapping[int, Mapping[str, Mapping[str, int]]]
) -> tuple[tuple[Kind, ...], ...]:
    """The needs that no schedule meets, or, with several schedules, that the first lacking one does not."""
    if not coverage:
        return invariant.needs
    return next((lacking for events in coverage.values() if (lacking := _lacking(invariant, events))), ())


def _lacking(invariant: Invariant, events: Mapping[str, Mapping[str, int]]) -> tuple[tuple[Kind, ...], ...]:
    return tuple(choice for choice in invariant.needs if not any(_met(kind, events) for kind in choice))


def _met(kind: Kind, events: Mapping[str, Mapping[str, int]]) -> bool:
    return events.get(kind.event, {}).get(kind.column or "rows", 0) >= kind.minimum
