"""No condition of an invariant is there for nothing: without it, a pair or a random history gets another verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from analyzer.pairs.loading import Case, all_cases, mismatches
from analyzer.pairs.mutants import Mutant, mutants
from benchmarks import oracle
from benchmarks.chaos import chaos
from benchmarks.generator import LIVES, Row, generate, table

from fencepost_analyzer import check, database, invariants
from fencepost_analyzer.errors import InvariantError

HISTORIES = 1_500

# Events of many schedules, and the verdicts by schedule and invariant that are known to be true of them.
Known = tuple[pa.Table, dict[tuple[int, str], str]]

# Conditions without which no verdict can change, each with the reason why it stays.
_FEWER = "only keeps rows out of a join that would not match anything there"
_NO_KEY = "what has no key is not counted among several"
_NAMED = "only decides which span is named as missing"
EQUIVALENT: dict[tuple[str, str], str] = {
    ("invariants/INV-002.sql", "SEMI JOIN (FROM jobs WHERE runs > 1) USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-002.sql", "runs > 1"): _FEWER,
    ("invariants/INV-001.sql", "SEMI JOIN (FROM jobs WHERE puzzling) USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-001.sql", "puzzling"): _FEWER,
    ("invariants/INV-001.sql", "write.event = 'write' AND"): _NO_KEY,
    ("invariants/INV-001.sql", "AND write.effect_key IS NOT NULL"): _NO_KEY,
    ("invariants/INV-001.sql", "AND write.effect_index IS NOT NULL"): "such a job is unknown by its keys already",
    (
        "invariants/INV-002.sql",
        "mistakable = 1 AND",
    ): "a stretch more within the only one of an execution that is drowsy",
    ("invariants/INV-002.sql", "OR a.backwards"): "such a clock never says when it was asleep",
    ("invariants/INV-005.sql", "SEMI JOIN unfinished USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-007.sql", "SEMI JOIN partial USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-010.sql", "AND ended IS NULL"): _NAMED,
    ("invariants/INV-010.sql", "seen.span_id IS NULL AND"): _NAMED,
    ("views/befallen.sql", "event IN ('crash', 'pause', 'resume')"): _FEWER,
    ("views/takeovers.sql", "SEMI JOIN leases USING (schedule, job_id)"): _FEWER,
    ("views/holdings.sql", "SEMI JOIN (FROM jobs WHERE queue < other_queue) USING (schedule, job_id)"): _FEWER,
    ("views/holdings.sql", "queue < other_queue"): _FEWER,
    ("views/returns.sql", "SEMI JOIN suspects USING (schedule, job_id)"): _FEWER,
    ("views/suspect_runs.sql", "SEMI JOIN suspects USING (schedule, job_id)"): _FEWER,
    ("views/suspect_runs.sql", "AND outcome = 'ok'"): "what was not granted has no position",
    ("views/befallen.sql", "SEMI JOIN told USING (schedule, worker_id, host)"): _FEWER,
    ("invariants/INV-010.sql", "SEMI JOIN late USING (schedule, execution_id)"): _FEWER,
    (
        "invariants/INV-018.sql",
        "begun_at <= enqueued_at OR begun_position < enqueue_position OR enqueued_at IS NULL"
        " OR set_over(begun_at, begun_at, enqueued_at, enqueued_at)",
    ): "which jobs began too early is decided again, exactly, below",
    ("invariants/INV-018.sql", "SEMI JOIN early USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-018.sql", "SEMI JOIN (FROM jobs WHERE jobs.leases > 1) USING (schedule, job_id)"): _FEWER,
    ("invariants/INV-018.sql", "jobs.leases > 1"): _FEWER,
}

SHARED = ("macros", "tidy_events", "judgement", "gaps_touching", "witnesses", "counts", *database.VIEWS)
FILES = (*(f"invariants/{one.id}.sql" for one in invariants.load()), *(f"views/{name}.sql" for name in SHARED))


def killed(file: str, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether anything notices that `file` has become `mutant`."""
    with monkeypatch.context() as patch:
        _plant(file, mutant, patch)
        try:
            return _differs(_pairs()) or any(map(_fails, _closely(file))) or _differs(_everything())
        except (InvariantError, duckdb.Error):
            return True


def _plant(file: str, mutant: Mutant, patch: pytest.MonkeyPatch) -> None:
    genuine, name = database.resource, Path(file).stem

    def resource(wanted: str) -> str:
        return mutant.text if wanted == file else genuine(wanted)

    patch.setattr(database, "resource", resource)
    patch.setattr(check, "resource", resource)
    if file.startswith("invariants/"):
        loaded = tuple(replace(one, sql=mutant.text) if one.id == name else one for one in invariants.load())
        patch.setattr(invariants, "_shipped", lambda: loaded)


def _differs(known: Known) -> bool:
    rows, expected = known
    judged = check.judge_many(rows)
    for (schedule, invariant), verdict in expected.items():
        found = judged.get(schedule)
        if found is None:
            return True
        told = "violated" if invariant in found.violated else "holds"
        told = "unknown" if invariant in found.unknown else told
        if told != verdict:
            return True
    return False


@cache
def _pairs() -> Known:
    told = [case for case in all_cases() if not case.gaps.num_rows]
    rows = [{**row, "schedule": number} for number, case in enumerate(told) for row in case.rows]
    return table(rows), {(number, case.invariant): case.verdict for number, case in enumerate(told)}


@cache
def _everything() -> Known:
    """Pairs, planted anomalies and random histories in one table, with the verdicts that are known to be true."""
    pairs, expected = _pairs()[0], dict(_pairs()[1])
    rows: list[Row] = []
    for number, name in enumerate(LIVES):
        history = generate(number, 3, {1: name}, schedule=10_000 + number)
        rows += history.rows
        expected |= {(10_000 + number, broken): "violated" for broken in history.broken}
    for seed in range(HISTORIES):
        history_rows = chaos(seed, schedule=20_000 + seed)
        rows += history_rows
        expected |= {(20_000 + seed, name): verdict for name, verdict in oracle.verdicts(history_rows).items()}
    tables = pa.concat_tables([pairs, table(rows)])
    # Where an invariant has nothing to judge, the loops do not know it.
    judged = check.judge_many(tables)
    return tables, {key: verdict for key, verdict in expected.items() if key[1] not in _silent(judged, key[0])}


def _silent(judged: dict[int, check.Judgement], schedule: int) -> tuple[str, ...]:
    return judged[schedule].vacuous if schedule >= 20_000 else ()


def _closely(file: str) -> Iterator[Case]:
    """The pairs that one pass over many schedules does not show: gaps, witnesses and missing spans."""
    told = (case for case in all_cases() if case.invariant in file or file.startswith("views/"))
    return (case for case in told if case.gaps.num_rows or case.verdict == "violated" or case.says or case.missing)


def _fails(case: Case) -> bool:
    finding = check.judge(case.table(), case.gaps, only=[case.invariant]).finding(case.invariant)
    return finding.verdict != case.verdict or bool(mismatches(case, finding))


def all_mutants(file: str) -> list[Mutant]:
    found = mutants(database.resource(file))
    return [mutant for mutant in found if (file, mutant.removed) not in EQUIVALENT]


def test_conditions_are_found_by_place_and_kind() -> None:
    sql = "SELECT CASE WHEN a AND (b OR c) THEN 1 ELSE 2 END FROM t SEMI JOIN u USING (x) WHERE d BETWEEN 1 AND 2 AND e"
    assert [mutant.removed for mutant in mutants(sql)] == [
        "WHEN a AND (b OR c) THEN 1",
        "a AND (b OR c)",
        "AND (b OR c)",
        "a AND",
        "OR c",
        "b OR",
        "SEMI JOIN u USING (x)",
        "d BETWEEN 1 AND 2 AND e",
        "AND e",
        "d BETWEEN 1 AND 2 AND",
    ]


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("invariants/")])
def test_a_sample_of_conditions_is_needed(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One AND of each invariant."""
    found = [mutant for mutant in all_mutants(file) if mutant.removed.startswith("AND ")]
    assert killed(file, found[len(found) // 2], monkeypatch)


@pytest.mark.campaign
@pytest.mark.parametrize("file", FILES)
def test_every_condition_is_needed(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    survivors = [
        f"line {mutant.line}: {mutant.removed}" for mutant in all_mutants(file) if not killed(file, mutant, monkeypatch)
    ]
    assert survivors == []


def test_every_equivalent_condition_is_still_there() -> None:
    assert [key for key in EQUIVALENT if key[1] not in {m.removed for m in mutants(database.resource(key[0]))}] == []
