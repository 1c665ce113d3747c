"""Every invariant against its pairs, and against naive loops over random histories."""

from __future__ import annotations

import pytest
from analyzer.pairs.loading import HERE, VERDICTS, Case, all_cases, cases, mismatches
from benchmarks import oracle
from benchmarks.chaos import chaos
from benchmarks.generator import ANOMALIES, LIVES, generate, table

from fencepost_analyzer import invariants
from fencepost_analyzer.check import judge, judge_many

IDS = tuple(invariant.id for invariant in invariants.load())


@pytest.mark.parametrize("kind", VERDICTS)
@pytest.mark.parametrize("invariant", IDS)
def test_each_invariant_ships_histories_that_satisfy_break_and_leave_it_open(invariant: str, kind: str) -> None:
    assert cases(invariant, kind)


def test_every_pair_belongs_to_an_invariant() -> None:
    assert {path.stem.rpartition("-")[0] for path in HERE.glob("*.json")} == set(IDS)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: f"{case.invariant}: {case.claim}")
def test_each_history_of_the_pairs_gets_the_verdict_that_its_file_names(case: Case) -> None:
    finding = judge(case.table(), case.gaps, only=[case.invariant]).finding(case.invariant)
    assert (finding.verdict, mismatches(case, finding)) == (case.verdict, []), finding


def test_many_schedules_in_one_pass_get_the_verdicts_that_each_gets_alone() -> None:
    """The pairs again, all in one table, though they share names of jobs, workers, tokens, keys and spans."""
    told = [case for case in all_cases() if not case.gaps.num_rows]
    rows = [{**row, "schedule": number} for number, case in enumerate(told) for row in case.rows]
    judged = judge_many(table(rows))
    for number, case in enumerate(told):
        found = judged[number]
        verdict = "violated" if case.invariant in found.violated else "holds"
        verdict = "unknown" if case.invariant in found.unknown else verdict
        assert verdict == case.verdict, case.claim


def test_planted_anomalies_break_exactly_the_invariants_they_are_known_to_break() -> None:
    """Ten histories for each kind of life, the kind planted among harmless jobs."""
    planted = {seed * 100 + number: name for seed in range(10) for number, name in enumerate(LIVES)}
    histories = {number: generate(number, 3, {1: name}, schedule=number) for number, name in planted.items()}
    judged = judge_many(table([row for history in histories.values() for row in history.rows]))
    for number, name in planted.items():
        found = judged[number]
        assert set(found.violated) == histories[number].broken, name
        assert set(found.unknown) - set(found.vacuous) == LIVES[name].doubts, name


def test_every_invariant_has_a_planted_anomaly() -> None:
    assert {broken for name in ANOMALIES for broken in LIVES[name].breaks} == set(IDS)


def test_on_random_histories_the_sql_and_naive_loops_agree() -> None:
    assert disagreements(range(3_000)) == {}


@pytest.mark.campaign
def test_on_very_many_random_histories_the_sql_and_naive_loops_agree() -> None:
    for first in range(0, 100_000, 10_000):
        assert disagreements(range(first, first + 10_000)) == {}


def disagreements(seeds: range) -> dict[tuple[int, str], tuple[str, str]]:
    """(seed, invariant) → (what the loops say, what the SQL says), where they differ; schedules without events that
    the invariant needs are left out, because the loops know nothing of needs."""
    histories = {seed: chaos(seed, schedule=seed) for seed in seeds}
    judged = judge_many(table([row for rows in histories.values() for row in rows]))
    found = {}
    for seed, rows in histories.items():
        judgement = judged[seed]
        for invariant, expected in oracle.verdicts(rows).items():
            told = "violated" if invariant in judgement.violated else "holds"
            told = "unknown" if invariant in judgement.unknown else told
            if told != expected and invariant not in judgement.vacuous:
                found[seed, invariant] = (expected, told)
    return found
