"""From events and gaps to a report: the three-valued logic, witnesses, the user's own invariants, hostile input."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from analyzer.judging import Fake, gap, verdicts, write_of
from analyzer.pairs.loading import cases
from benchmarks.damage import lose
from benchmarks.generator import ANOMALIES, HARMLESS, START, History, S, generate, table
from benchmarks.telling import spans

from fencepost_analyzer import check as checking
from fencepost_analyzer.check import check, judge, judge_many, opened
from fencepost_analyzer.database import EVENTS, events_table
from fencepost_analyzer.errors import EventsError, InvariantError, SqlFileError

HEADER = """-- id: SHOP-1
-- title: no refunds
-- severity: low
-- principle: P1
-- polarity: +
-- needs: write
-- claim: Nothing is refunded.
"""
REFUNDS = (
    HEADER + "SELECT schedule, job_id, 'Refunded ' || job_id || '.' AS sentence FROM events WHERE effect_key = 'refund'"
)

Invariant = Callable[[str], Path]


@pytest.fixture
def own(tmp_path: Path) -> Invariant:
    """Writes an invariant of the user's; answers its directory."""

    def write(text: str) -> Path:
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / "shop.sql").write_text(text)
        return tmp_path / "own"

    return write


def test_a_healthy_history_holds_everywhere_and_exits_with_0() -> None:
    report = judge(generate(1, 20, dict.fromkeys(range(20), "healthy")).table())
    assert set(verdicts(report).values()) == {"holds"}
    assert (report.verdict, report.exit_code, report.violated, report.jobs, report.gaps) == ("holds", 0, (), 20, 0)


def test_a_violation_exits_with_1_and_outweighs_what_is_unknown() -> None:
    report = judge(events_table([write_of("k"), write_of("k", span_id="again")]))
    assert report.violated == ("INV-001",)
    assert "unknown" in verdicts(report).values()
    assert (report.verdict, report.exit_code) == ("violated", 1)


def test_nothing_recorded_is_unknown_everywhere_and_exits_with_3() -> None:
    report = judge(EVENTS.empty_table())
    assert set(verdicts(report).values()) == {"unknown"}
    assert all(finding.missing for finding in report.findings)
    assert report.exit_code == 3


def test_the_verdict_without_evidence_names_the_spans_that_would_be_needed() -> None:
    finding = judge(EVENTS.empty_table(), only=["INV-004"]).finding("INV-004")
    assert finding.missing == ("`receive {queue}`", "`settle {queue}` or `retry {queue}`")
    assert "it would need the spans" in finding.reason


def test_witnesses_are_bounded_and_counted_in_full() -> None:
    rows = [write_of(f"k{number}", span_id=f"{number}.{again}") for number in range(50) for again in range(2)]
    finding = judge(events_table(rows), only=["INV-001"]).finding("INV-001")
    assert finding.violations == 50
    assert len(finding.witnesses) == checking.MAX_WITNESSES


def test_the_shortest_witness_comes_first() -> None:
    rows = [write_of("long", span_id=f"l{number}") for number in range(5)]
    rows += [write_of("short", span_id=f"s{number}", at=START + S) for number in range(2)]
    finding = judge(events_table(rows), only=["INV-001"]).finding("INV-001")
    assert [len(witness.span_ids) for witness in finding.witnesses] == [2, 5]


def test_the_query_that_found_a_violation_finds_it_again() -> None:
    history = generate(3, 3, {1: "zombie_write"})
    recording = Fake(spans(history.rows))
    report = check(recording)
    with opened(recording) as (connection, _):
        for invariant in report.violated:
            assert connection.execute(report.finding(invariant).sql).fetchall()


def test_a_report_is_plain_json() -> None:
    report = judge(generate(1, 3, {1: "torn"}).table())
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.to_dict()["violated"] == ["INV-007"]


def test_spans_are_judged_as_their_events_are() -> None:
    for number, name in enumerate(ANOMALIES):
        history = generate(number, 3, {1: name})
        assert verdicts(check(Fake(spans(history.rows)))) == verdicts(judge(history.table())), name


def test_scopes_that_no_mapping_knows_are_reported() -> None:
    told = spans(generate(1, 2).rows)
    foreign = told.set_column(told.column_names.index("scope_name"), "scope_name", pa.array(["x.y"] * told.num_rows))
    report = check(Fake(pa.concat_tables([told, foreign])))
    assert report.unmapped == ("x.y",)


def _renamed(told: pa.Table, column: str, value: str) -> pa.Table:
    """The same spans again, under other ids and with another value in one column."""
    again = told.set_column(
        told.column_names.index("span_id"), "span_id", pa.array([f"{n:x}x" for n in range(told.num_rows)])
    )
    return again.set_column(told.column_names.index(column), column, pa.array([value] * told.num_rows))


@pytest.mark.parametrize(("column", "value"), [("scope_name", "fencepost.runtime.v2"), ("name", "Write debit")])
def test_spans_of_jobs_that_become_no_event_could_be_violations(column: str, value: str) -> None:
    told = spans(generate(1, 2).rows)
    unread = _renamed(told.slice(0, 3), column, value)
    before, after = check(Fake(told)), check(Fake(pa.concat_tables([told, unread])))
    held = [finding.id for finding in before.findings if finding.verdict == "holds"]
    assert held
    for name in held:
        finding = after.finding(name)
        assert finding.verdict == "unknown"
        assert value in finding.reason


def test_a_span_of_jobs_that_becomes_no_event_could_be_what_seems_absent() -> None:
    told = spans(generate(1, 2, {1: "lost"}).rows)
    assert check(Fake(told)).finding("INV-005").verdict == "violated"
    last = max(number for number, name in enumerate(told["name"].to_pylist()) if name.startswith("settle"))
    unread = _renamed(told.slice(last, 1), "scope_name", "shop.worker")
    unread = unread.set_column(unread.column_names.index("producer"), "producer", pa.array(["other"]))
    assert check(Fake(pa.concat_tables([told, unread]))).finding("INV-005").verdict == "unknown"


def test_spans_of_other_things_hide_nothing() -> None:
    told = spans(generate(1, 2).rows)
    web = _renamed(told.slice(0, 3), "scope_name", "flask")
    web = web.set_column(
        web.column_names.index("span_attributes"), "span_attributes", pa.array(['{"http.route": "/job.x"}'] * 3)
    )
    assert check(Fake(pa.concat_tables([told, web]))).finding("INV-001").verdict == "holds"


@pytest.mark.parametrize("cause", ["torn_tail", "write_failed", "sequence_break", "poison_span", "sampled", None])
def test_a_gap_at_any_time_could_hide_a_violation(cause: str | None) -> None:
    history = generate(1, 3, {1: "healthy", 2: "healthy"})
    before = gap(cause=cause, until_unix_nano=START - S)
    after = gap(cause=cause, since_unix_nano=START + 1_000 * S, until_unix_nano=START + 1_001 * S)
    assert set(verdicts(judge(history.table(), before)).values()) == {"unknown"}
    assert set(verdicts(judge(history.table(), after)).values()) == {"unknown"}


def test_a_process_that_records_on_after_all_that_was_seen_hides_nothing_of_it() -> None:
    history = generate(1, 3, {1: "healthy", 2: "healthy"})
    last = max(row["at"] for row in history.rows)
    assert judge(history.table(), gap(cause="still_recording", since_unix_nano=last + 1)).verdict == "holds"
    assert judge(history.table(), gap(cause="still_recording", since_unix_nano=last)).verdict == "unknown"
    assert judge(history.table(), gap(cause="still_recording")).verdict == "unknown"


def test_a_gap_without_times_could_hide_a_violation_of_every_invariant() -> None:
    report = judge(generate(1, 3, {1: "healthy", 2: "healthy"}).table(), gap())
    assert set(verdicts(report).values()) == {"unknown"}
    assert "could hide one" in report.findings[0].reason
    assert report.gaps == 1


def test_a_user_s_row_of_absence_is_unknown_where_any_gap_is_unless_it_says_where_and_when(own: Invariant) -> None:
    absent = REFUNDS.replace("polarity: +", "polarity: -")
    rows = events_table([write_of("refund")])
    late = gap(producer="p", since_unix_nano=START + S)
    assert judge(rows, late, extra=[own(absent)]).finding("SHOP-1").verdict == "unknown"
    for claim, verdict in (
        (f"{START} AS absent_until", "violated"),
        (f"{START + 2 * S} AS absent_until", "unknown"),
        ("'q' AS absent_from", "violated"),
        ("'p' AS absent_from", "unknown"),
    ):
        text = absent.replace("SELECT schedule", f"SELECT {claim}, schedule")
        assert judge(rows, late, extra=[own(text)]).finding("SHOP-1").verdict == verdict, claim


def test_only_the_rows_that_a_gap_touches_become_unknown(own: Invariant) -> None:
    text = REFUNDS.replace("SELECT schedule", 'SELECT "at" AS absent_since, "at" AS absent_until, schedule')
    rows = events_table([write_of("refund"), write_of("refund", at=START + S, span_id="b", job_id="k")])
    late = gap(since_unix_nano=START + S)
    finding = judge(rows, late, extra=[own(text)]).finding("SHOP-1")
    assert (finding.violations, finding.unknowns) == (1, 1)
    assert [witness.verdict for witness in finding.witnesses] == ["violated", "unknown"]
    assert finding.witnesses[1].sentence == "Refunded k. But spans of that time may be missing, so this is not certain."


def test_a_doubt_is_not_doubted_again_because_of_a_gap(own: Invariant) -> None:
    text = REFUNDS.replace("SELECT schedule", "SELECT 'unknown' AS verdict, 0 AS absent_since, schedule")
    finding = judge(events_table([write_of("refund")]), gap(), extra=[own(text)]).finding("SHOP-1")
    assert finding.witnesses[0].sentence == "Refunded j."


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (None, "an unknown time"),
        (1, "0.0 µs"),
        (999_999, "1000.0 µs"),
        (1_000_000, "1.0 ms"),
        (1_000_000_000, "1.0 s"),
        (119_000_000_000, "119.0 s"),
        (120_000_000_000, "2.0 min"),
        (-1_500_000_000, "-1.5 s"),
    ],
)
def test_times_are_told_as_a_person_reads_them(ns: int | None, words: str) -> None:
    with opened(Fake(spans(generate(1, 1).rows))) as (connection, _):
        assert connection.execute("SELECT how_long($ns::BIGINT)", {"ns": ns}).fetchall() == [(words,)]


def damaged(seed: int) -> tuple[History, list[dict[str, object]], pa.Table]:
    rng = random.Random(seed)
    life = rng.choice(ANOMALIES if rng.random() < 0.7 else HARMLESS)
    history = generate(seed, 3, {rng.randrange(3): life})
    rows, gaps = lose(history, seed, rng.choice([0.05, 0.1, 0.3]))
    return history, rows, gaps


def false_verdicts(seeds: range) -> list[tuple[int, str, str, str]]:
    """(seed, invariant, verdict of the whole, verdict of what was left), where the second is wrong."""
    histories = {seed: damaged(seed) for seed in seeds}
    whole = judge_many(
        table([row | {"schedule": seed} for seed, (told, _, _) in histories.items() for row in told.rows])
    )
    found = []
    for seed, (_, rows, gaps) in histories.items():
        if not gaps.num_rows:
            continue
        for finding in judge(table(rows), gaps).findings:
            truth = "violated" if finding.id in whole[seed].violated else "holds"
            truth = "unknown" if finding.id in whole[seed].unknown else truth
            if finding.verdict not in ("unknown", truth):
                found.append((seed, finding.id, truth, finding.verdict))
    return found


def test_no_verdict_is_false_when_spans_are_missing_and_gaps_say_so() -> None:
    assert false_verdicts(range(40)) == []


@pytest.mark.campaign
def test_no_verdict_is_false_in_very_many_recordings_with_missing_spans() -> None:
    assert false_verdicts(range(2_000)) == []


def test_violations_that_rest_on_something_seen_survive_a_gap_of_unknown_size() -> None:
    for name in ("ack_lost", "zombie_write", "zombie_ack"):
        history = generate(5, 3, {1: name})
        assert set(judge(history.table(), gap()).violated) == history.broken, name


def test_a_user_s_invariant_is_judged_beside_ours(own: Invariant) -> None:
    report = judge(events_table([write_of("refund")]), extra=[own(REFUNDS)])
    assert report.finding("SHOP-1").witnesses[0].sentence == "Refunded j."
    assert report.finding("SHOP-1").verdict == "violated"


def test_a_user_s_invariant_that_holds_states_its_claim(own: Invariant) -> None:
    assert judge(events_table([write_of("k")]), extra=[own(REFUNDS)]).finding("SHOP-1").reason == "Nothing is refunded."


def test_a_case_without_a_name_is_still_a_case(own: Invariant) -> None:
    finding = judge(events_table([write_of("refund", job_id=None)]), extra=[own(REFUNDS)]).finding("SHOP-1")
    assert (finding.verdict, finding.witnesses[0].sentence) == ("violated", "A case that has no name: see its spans.")


def test_an_id_of_ours_cannot_be_taken(own: Invariant) -> None:
    with pytest.raises(InvariantError, match=r"id INV-001 is taken by .*INV-001\.sql"):
        judge(EVENTS.empty_table(), extra=[own(REFUNDS.replace("SHOP-1", "INV-001"))])


@pytest.mark.parametrize("end", [";", " ; -- the end;", "\n-- a comment"])
def test_a_semicolon_at_the_end_of_an_invariant_does_no_harm(own: Invariant, end: str) -> None:
    """What people end a statement with is no error, and no part of the query."""
    rows = events_table([write_of("refund")])
    assert judge(rows, extra=[own(REFUNDS.rstrip() + end)]).finding("SHOP-1").verdict == "violated"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("SELECT nonsense FROM events", "nonsense"),
        ("SELECT 1 AS surprise FROM events", "surprise"),
        ("SELECT NULL AS schedule, 'x' AS sentence FROM events", "NOT NULL"),
        ("SELECT schedule FROM events", "sentence"),
        ("SELECT schedule, 'x' AS sentence, 'perhaps' AS verdict FROM events", "CHECK"),
        ("SELECT schedule, 'x' AS sentence, 'late' AS at FROM events", "INT64"),
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("DELETE FROM events", "exactly one SELECT"),
        ("SELECT * FROM read_text('/etc/hostname')", "file system operations are disabled"),
        ("WITH gone AS (DELETE FROM events RETURNING *) SELECT schedule, 'x' AS sentence FROM gone", "Error"),
        ("SELECT schedule, 'x' AS sentence FROM events) -- ", "syntax error"),
        ("SELECT", "without selection list"),
    ],
)
def test_a_checker_that_fails_is_unknown_with_the_reason_and_harms_nobody_else(
    own: Invariant, broken: str, reason: str
) -> None:
    rows = events_table([write_of("k"), write_of("k", span_id="again")])
    report = judge(rows, extra=[own(HEADER + broken)])
    finding = report.finding("SHOP-1")
    assert (finding.verdict, finding.missing) == ("unknown", ())
    assert finding.reason.startswith("The checker failed: ")
    assert reason.lower() in finding.reason.lower()
    assert report.violated == ("INV-001",)


def test_many_schedules_with_a_failing_checker_are_an_error_not_a_verdict(own: Invariant) -> None:
    with pytest.raises(InvariantError, match="SHOP-1 cannot be judged"):
        judge_many(events_table([write_of("k")]), extra=[own(HEADER + "SELECT nonsense FROM events")])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (REFUNDS.replace("-- severity: low\n", ""), ":1: the header lacks 'severity'"),
        (REFUNDS.replace("severity: low", "severity: dire"), ":3: severity is one of"),
        (REFUNDS.replace("principle: P1", "principle: P9"), ":4: principle is"),
        (REFUNDS.replace("polarity: +", "polarity: ?"), ":5: polarity is"),
        (REFUNDS.replace("needs: write", "needs: write 0"), ":6: 'write 0' is no need"),
        (REFUNDS.replace("needs: write", "needs: write.colour"), ":6: events have no column 'colour'"),
        (REFUNDS.replace("id: SHOP-1", "id: shop"), ":1: an id looks like"),
        (REFUNDS.replace("-- title", "-- colour"), ":2: unknown header key 'colour'"),
        (REFUNDS.replace("-- title: no refunds", "-- id: SHOP-2"), ":2: header key 'id' is given twice"),
        (REFUNDS.replace("-- title", "--title"), ":2: a header line must read"),
        (HEADER, ":8: no SQL follows the header"),
    ],
)
def test_a_header_that_does_not_follow_the_rules_is_an_error_with_file_and_line(
    own: Invariant, text: str, problem: str
) -> None:
    with pytest.raises(SqlFileError) as caught:
        judge(EVENTS.empty_table(), extra=[own(text)])
    assert f"shop.sql{problem}" in str(caught.value)


def test_a_directory_without_invariants_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SqlFileError, match=r"holds no \.sql file"):
        judge(EVENTS.empty_table(), extra=[tmp_path])
    with pytest.raises(SqlFileError, match="is not a directory"):
        judge(EVENTS.empty_table(), extra=[tmp_path / "none"])


def test_a_minimum_of_events_is_needed_for_a_verdict(own: Invariant) -> None:
    directory = own(REFUNDS.replace("needs: write", "needs: write 2"))
    one, two = [write_of("a")], [write_of("a"), write_of("b")]
    assert judge(events_table(one), extra=[directory]).finding("SHOP-1").verdict == "unknown"
    assert judge(events_table(two), extra=[directory]).finding("SHOP-1").verdict == "holds"


def test_an_unknown_invariant_is_named_in_the_error() -> None:
    with pytest.raises(InvariantError, match="There is no invariant INV-999; there are INV-001"):
        judge(EVENTS.empty_table(), only=["INV-999"])


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(EventsError, match="no column 'colour'"):
        events_table([{"event": "run", "colour": "red"}])
    with pytest.raises(EventsError, match="unknown column 'colour'"):
        judge(pa.table({"event": ["run"], "colour": ["red"]}))
    with pytest.raises(EventsError, match="'at' of the events is not int64"):
        judge(pa.table({"event": ["run"], "at": ["noon"]}))


HOSTILE = (" ", "'; DROP TABLE events; --", "\x1b[31m", "\x00", "%s%d{}", "a" * 100_000, "\u202e", "NULL")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_data(text: str) -> None:
    rows = [write_of(text, job_id=text, worker_id=text, span_id=text + str(number)) for number in range(2)]
    finding = judge(events_table(rows), only=["INV-001"]).finding("INV-001")
    assert finding.witnesses[0].job_id == text
    assert f"Effect {text} of job {text} was applied 2 times" in finding.witnesses[0].sentence


def test_hostile_numbers_are_null_or_data_but_never_an_error() -> None:
    extremes = (-(2**63), -1, 0, 2**63 - 1, None)
    rng = random.Random(7)
    numbers = [field.name for field in EVENTS if pa.types.is_integer(field.type) and field.name != "schedule"]
    rows = [
        {**row, **{name: rng.choice(extremes) for name in numbers if rng.random() < 0.5}}
        for seed in range(30)
        for row in generate(seed, 4, {1: rng.choice(ANOMALIES)}, schedule=seed).rows
    ]
    report = judge(table(rows))
    assert not [finding.reason for finding in report.findings if "failed" in finding.reason]


def test_events_without_any_detail_are_no_error() -> None:
    rows = [{"event": name} for name in ("enqueue", "lease", "run", "write", "ack", "inventory", "crash", "renew")]
    report = judge(events_table(rows + rows))
    assert not [finding.reason for finding in report.findings if "failed" in finding.reason]


def test_the_connection_is_locked_while_a_recording_is_judged() -> None:
    with opened(Fake(spans(generate(1, 1).rows))) as (connection, _):
        for statement in ("SET threads = 1", "COPY events TO '/tmp/events.csv'", "INSTALL httpfs", "LOAD httpfs"):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)


def test_every_case_of_the_pairs_is_small_enough_to_read() -> None:
    assert max(len(case.rows) for case in cases("INV-002", "bad")) < 15
