"""A recording under examination: opened once, beside the SQL that it is judged by, and everything asked of it there.

Who holds a case cannot judge by fewer promises, or by other events, than whoever else holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from fencepost_analyzer import announced as announcing
from fencepost_analyzer import check, mapping
from fencepost_analyzer.announced import SCOPE, Announced
from fencepost_analyzer.canonical import Canonical, Row, canonical
from fencepost_analyzer.database import events_table, rows
from fencepost_analyzer.errors import NotReplayable
from fencepost_analyzer.invariants import Invariant, load
from fencepost_analyzer.scenario_from import Incident, readings_of
from fencepost_analyzer.verdicts import Finding, Report, merge
from fencepost_recorder import Recording


@contextmanager
def open_case(
    recording: Recording, *, invariants: Sequence[Path] = (), mappings: Sequence[Path] = ()
) -> Iterator[Case]:
    """Opens a recording to be judged, shown and replayed; `invariants` and `mappings` are directories of the user's
    own. What the case derives it derives when it is first asked for, and once.

    Raises AnalyzerError for files that do not follow the rules; a recording that cannot be judged is a verdict."""
    chosen = load(invariants)
    with check.opened(recording, mappings=mappings, judged_by=chosen) as (connection, unmapped):
        yield Case(recording, tuple(invariants), tuple(mappings), chosen, connection, unmapped)


class Case:
    """One open recording. `connection` holds `spans`, `gaps`, `events` and the views; `unmapped` are the scopes that
    no mapping knows; `invariants` and `mappings` are the directories of the user's own SQL."""

    def __init__(
        self,
        recording: Recording,
        invariants: tuple[Path, ...],
        mappings: tuple[Path, ...],
        chosen: tuple[Invariant, ...],
        connection: duckdb.DuckDBPyConnection,
        unmapped: tuple[str, ...],
    ) -> None:
        self.recording = recording
        self.invariants = invariants
        self.mappings = mappings
        self.connection = connection
        self.unmapped = unmapped
        self._chosen = chosen

    @cached_property
    def report(self) -> Report:
        """What is judged of the recording."""
        return check.report(self.connection, self._chosen, self.unmapped)

    @property
    def announced(self) -> Announced | None:
        """The scenario that the recording says it is of; None if it does not, or not readably."""
        return self._announced if isinstance(self._announced, Announced) else None

    @cached_property
    def incident(self) -> Incident:
        """The recording as something that can be run again, read in the likeliest way. Raises NotReplayable."""
        return next(self.readings())

    @cached_property
    def gaps(self) -> tuple[Mapping[str, Any], ...]:
        """What is known to be missing, as rows of `gaps`."""
        return tuple(self.recording.gaps().to_pylist())

    @cached_property
    def recorded(self) -> Canonical:
        """The canonical form of the history that was recorded."""
        return canonical(self._told.rows)

    def readings(self) -> Iterator[Incident]:
        """Every way to read what a recording of the reference runtime leaves open, the likeliest first.

        There is more than one only where steps that nobody told the end of overlap. Raises NotReplayable if the
        recording is of something else, or says too little."""
        if isinstance(self._announced, NotReplayable):
            raise self._announced
        if not self._told.rows:
            raise NotReplayable(f"Recording {self.recording.id} holds no events: there is nothing to replay.")
        return readings_of(self._announced.scenario, self._announced.seed, self._told.rows)

    @property
    def beyond(self) -> Mapping[str, str]:
        """Invariant id → why no simulated history can answer it: what is judged here rests on events that the
        simulator does not make."""
        return self._told.beyond

    def judge(self, events: Iterable[Mapping[str, Any]]) -> Report:
        """Judges simulated events by the promises that the recording is judged by; those `beyond` are unknown."""
        judged = check.judge_by(self._chosen, events_table(events))
        findings = tuple(self._bounded(finding) for finding in judged.findings)
        return replace(judged, verdict=merge(one.verdict for one in findings), findings=findings)

    def _bounded(self, finding: Finding) -> Finding:
        why = self.beyond.get(finding.id)
        if why is None:
            return finding
        return replace(finding, verdict="unknown", violations=0, unknowns=0, witnesses=(), reason=why, missing=())

    @cached_property
    def _announced(self) -> Announced | NotReplayable:
        try:
            return announcing.announced(self.connection, self.recording.id)
        except NotReplayable as error:
            return error

    @cached_property
    def _told(self) -> _Told:
        """What the reference runtime told itself. Where others told events too, or a mapping of the user's reads
        the runtime's spans, its spans are mapped once more by themselves, as the simulator's events are."""
        foreign = self._foreign()
        if not foreign:
            return _Told(_events(self.connection), {})
        own = mapping.shipped(SCOPE)
        with check.opened(self.recording, chosen=(own,), judged_by=self._chosen) as (connection, unmapped):
            # What others' mappings read is not unread for being left out here.
            others = [scope for scope in foreign if scope != SCOPE]
            read = "DELETE FROM unread WHERE coalesce(scope, '') IN (SELECT unnest($others))"
            connection.execute(read, {"others": others})
            alone = check.report(connection, self._chosen, unmapped)
            told = _events(connection)
        why = f"It rests on events that the simulator does not make: those of {', '.join(foreign)}."
        other = {one.id for one in self.report.findings if _answer(one) != _answer(alone.finding(one.id))}
        return _Told(told, dict.fromkeys(sorted(other), why))

    def _foreign(self) -> list[str]:
        """The scopes whose events are not as the simulator's: those of others, and the runtime's own if it is mapped
        in another way."""
        found = self.connection.execute("SELECT DISTINCT coalesce(scope_name, '') FROM spans").fetchall()
        scopes = {str(row[0]) for row in found} - set(self.unmapped)
        own = {one.scope: one for one in mapping.load_mappings(self.mappings)}
        return sorted(scope for scope in scopes if scope != SCOPE or own[scope] != mapping.shipped(SCOPE))


@dataclass(frozen=True, slots=True)
class _Told:
    """The events that the reference runtime told, and which invariants rest on others' besides, and why."""

    rows: tuple[Row, ...]
    beyond: Mapping[str, str]


def _events(connection: duckdb.DuckDBPyConnection) -> tuple[Row, ...]:
    return tuple(rows(connection.execute("SELECT * FROM events ORDER BY producer, producer_seq, job_id")))


def _answer(finding: Finding) -> tuple[str, int, int]:
    return finding.verdict, finding.violations, finding.unknowns
