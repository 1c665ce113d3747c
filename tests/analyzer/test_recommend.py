"""Recommend: the weakest policies that heal, found by search, and what each change is needed for."""

from __future__ import annotations

import json
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
from analyzer.lab import fencepost

from fencepost_analyzer.catalogue import demo_scenario, failure_modes
from fencepost_analyzer.inference import as_written
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.cases import Cut, cuts
from fencepost_analyzer.lab.lattice import above
from fencepost_analyzer.lab.recommend import Advice, question, recommend, whole
from fencepost_analyzer.lab.search import Search
from fencepost_analyzer.lab.space import Bound
from fencepost_analyzer.scenario_file import load
from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import Scenario

ONE = Bound(1, 1, 1, 1)
# Those whose policies take the least to search, and the one that a cure can heal by giving up; a campaign takes all.
SAMPLE = ("FM-002", "FM-003")
EACH = [mode if mode in SAMPLE else pytest.param(mode, marks=pytest.mark.campaign) for mode in failure_modes()]


@cache
def searched(mode: str, bound: Bound = ONE) -> tuple[Advice, Search]:
    (cut,) = cut_up(failure_modes()[mode].scenario)
    search = Search(question(cut, 1, bound))
    return recommend(cut, search), search


def advice(mode: str, bound: Bound = ONE) -> Advice:
    return searched(mode, bound)[0]


def cut_up(scenario: Scenario) -> list[Cut]:
    return list(cuts(scenario, as_written(scenario), ()))


def named(one: Advice) -> set[str]:
    return {strategy.id for option in (*one.options, *one.enough) for strategy in option.strategies}


@pytest.mark.parametrize("mode", EACH)
def test_the_strategies_of_a_failure_mode_are_found(mode: str) -> None:
    """What its page says heals it is among what the search, which knows no page, comes to; and it heals."""
    found = advice(mode)
    assert set(failure_modes()[mode].strategies) <= named(found)
    assert found.healed
    assert set(failure_modes()[mode].violates) <= set(found.broke)


@pytest.mark.campaign
@pytest.mark.parametrize("mode", sorted(failure_modes()))
def test_they_are_found_within_the_default_bound(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, search = searched(mode, Bound())
    assert set(failure_modes()[mode].strategies) <= named(found)
    assert found.healed
    explored = [(set(one.breaks), set(one.exploration.found.violated)) for one in search.explored if one.exploration]
    assert [known for known, seen in explored if known != seen] == []
    with capsys.disabled():
        told = {"figure": "recommended", "failure_mode": mode, "options": [dict(one.changes) for one in found.options]}
        effort = {"policies": found.policies, "explored": found.explored, "schedules": found.tried}
        sys.stdout.write(json.dumps({**told, **effort}) + "\n")


@pytest.mark.parametrize("mode", EACH)
def test_every_schedule_that_is_named_breaks_what_it_is_named_for(mode: str) -> None:
    """The counterexamples stand: simulated anew, each breaks its invariant."""
    for option in advice(mode).options:
        breaks = [*option.remaining, *(one for less in option.less for one in less.breaks)]
        assert breaks
        verdicts = judged([one.scenario for one in breaks], 1, question(advice(mode).cut, 1, ONE).invariants)
        for one, (_, _, judgement) in zip(breaks, verdicts, strict=True):
            assert one.invariant in judgement.violated


@pytest.mark.parametrize("mode", EACH)
def test_what_one_search_knows_every_exploration_finds(mode: str) -> None:
    """No counterexample of one policy breaks, under another, what exploring that one does not find."""
    _, search = searched(mode)
    assert len(search.explored) > 2
    for trial in search.explored:
        assert trial.exploration is not None
        assert set(trial.breaks) == set(trial.exploration.found.violated)


@pytest.mark.parametrize("mode", EACH)
def test_nothing_weaker_would_do(mode: str) -> None:
    """Every policy below an option breaks something that the option keeps, or breaks it with fewer faults."""
    found, search = searched(mode)
    for option in found.options:
        own = next(one for one in search.trials if one.choice.changes == option.changes)
        below = [one for one in search.trials if one is not own and one.choice.within(own.choice)]
        search.explore(below)
        assert below
        assert all(search.loss(one) > search.loss(own) for one in below)
        assert all(less.breaks for less in option.less)


def test_an_incident_is_cut_up_by_queues() -> None:
    """Of the demo's ten jobs those that were struck are left, a calm one beside a lonely one, and all faults."""
    payments, reports = cut_up(demo_scenario())
    assert [job.id for job in payments.scenario.jobs] == ["pay-2", "pay-4"]
    assert [job.id for job in reports.scenario.jobs] == ["mail-1", "mail-2"]
    assert (payments.of, reports.of) == (6, 4)
    assert len(payments.inferences) + len(reports.inferences) == len(demo_scenario().faults)
    assert payments.scenario.queues[0].workers == 2


def test_a_job_given_up_is_no_cure() -> None:
    """Atomic writes alone break nothing after a crash of the only attempt, but then nobody does the job."""
    found = advice("FM-003")
    assert "GOAL-001" in found.broke
    assert all(option.policy.max_attempts == 3 for option in found.options)


def test_an_incident_that_outlasts_its_time_is_run_to_its_end() -> None:
    """Cut off after a minute, when its second lease of 40 s had not run out, it would seem to be healed; and what is
    written as a proof breaks what it is named for."""
    kills = [
        {"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 1},
        {"kind": "kill", "job": "pay-1", "attempt": 2, "step": "settle"},
    ]
    policy = {"lease_ms": 40_000, "max_attempts": 2}
    queue = {"name": "payments", "workload": "payments", "jobs": 1, "workers": 2, "policy": policy}
    scenario = Scenario.from_dict({"id": "slow", "queues": [queue], "faults": kills, "at_most_ms": 60_000})
    (cut,) = cut_up(scenario)
    found = recommend(cut, Search(question(cut, 1, ONE)))
    assert found.broke == ("GOAL-001", "INV-001")
    assert not found.healed
    assert whole(scenario, 1, as_written(scenario), {"payments": found.options[0].policy}, ONE).violated == (
        "GOAL-001",
    )
    for option in found.options:
        breaks = [*option.remaining, *(one for less in option.less for one in less.breaks)]
        verdicts = judged([one.scenario for one in breaks], 1, question(cut, 1, ONE).invariants)
        assert all(one.invariant in found.judgement.violated for one, found in zip(breaks, verdicts, strict=True))


def test_an_incident_that_outlasts_every_time_is_not_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of two hours ends after all simulated time: nothing breaks until then, which is no answer."""
    monkeypatch.chdir(tmp_path)
    queue = '[[queues]]\nname = "q"\nworkload = "payments"\npolicy = { lease_ms = 7200000 }\n'
    kill = '[[faults]]\nkind = "kill"\njob = "pay-1"\nattempt = 1\nstep = "write"\nindex = 1\n'
    Path("long.toml").write_text(f'id = "long"\n{queue}{kill}')
    done = fencepost("recommend", "long.toml", "--workers", "1", "--faults", "0")
    assert done.code == 3
    assert "is cut off by its time" in done.out
    told = fencepost("recommend", "long.toml", "--workers", "1", "--faults", "0", "--json").json["advice"][0]
    assert not told["healed"]
    assert told["options"][0]["incident_overdue"]


def test_nothing_is_advised_where_nothing_helps_more() -> None:
    """The strongest policy is left as it is; what it cannot prevent is said."""
    scenario = failure_modes()["FM-002"].scenario.with_policy(preset("safe"))
    (cut,) = cut_up(scenario)
    found = recommend(cut, Search(question(cut, 1, ONE)))
    assert [dict(one.changes) for one in found.options] == [{}]
    assert {one.invariant: one.everywhere for one in found.options[0].remaining} == {"INV-002": True}


@pytest.mark.parametrize("name", sorted(presets()))
def test_the_lattice_only_goes_up(name: str) -> None:
    """Every policy of it has all strategies of the one below, and the recorded one comes first."""
    recorded = preset(name)
    choices = above(recorded)
    assert choices[0].policy == recorded
    assert len({_fields(one.policy) for one in choices}) == len(choices)
    for one in choices:
        assert choices[0].within(one)
        assert {s.id for s in choices[0].strategies(Policy())} <= {s.id for s in one.strategies(Policy())}


def _fields(policy: Policy) -> str:
    return str({**policy.to_dict(), "name": ""})


def test_the_command_says_what_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice that can be read, schedules that can be run, and JSON that says the same."""
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-002", "--simulate", "--id", "was")
    done = fencepost("recommend", "was", "--faults", "1", "--workers", "1", "--into", "proofs")
    assert done.code == 0, done.err
    assert "1. Turn on idempotency key (RS-001) and writes and acknowledgement in one transaction (RS-005)" in done.out
    # A transaction alone does not do: a reclaimer that saw the lease run out puts the job back though it is done.
    assert "with ack = with_writes, writes = atomic alone, INV-001 breaks in" in done.out
    assert "until after scan of pay-1" in done.out
    assert "with fencing = true alone, INV-001 breaks in" in done.out
    assert "still, as everywhere: INV-002 breaks" in done.out
    assert "The whole incident (2 jobs) breaks nothing" in done.out
    written = sorted(Path("proofs").glob("*.toml"))
    assert written
    for path in written:
        scenario, seed = load(path)
        (one,) = judged([scenario], seed)
        assert path.stem.rpartition("-INV-")[2] in {name.removeprefix("INV-") for name in one.judgement.violated}
    data = fencepost("recommend", "was", "--faults", "1", "--workers", "2", "--json").json
    options = [one["changes"] for one in data["advice"][0]["options"]]
    assert options[1] == {"ack": "with_writes", "writes": "atomic", "reclaim": "guarded"}
    assert data["still_broken"] == []


MIXED = """
id = "mixed"
[[queues]]
name = "payments"
workload = "payments"
jobs = 1
policy = { writes = "atomic", lease_ms = 300 }
[[queues]]
name = "reports"
workload = "background"
jobs = 1
policy = "naive"
[[faults]]
kind = "kill"
job = "pay-1"
attempt = 1
step = "settle"
"""
OWN = """-- id: MINE-001
-- title: no second start
-- severity: high
-- principle: P5
-- polarity: +
-- needs: run
-- claim: A job is begun once.
SELECT schedule, job_id, max("at") AS at, list(span_id) AS span_ids, 'It was begun again.' AS sentence
FROM events WHERE event = 'run' GROUP BY schedule, job_id HAVING count(*) > 1
"""


def _next_of(out: str) -> list[list[str]]:
    """The commands that an output names at its end, as arguments."""
    lines = out[out.index("next:") :].removeprefix("next:").splitlines()
    return [shlex.split(line.partition("  #")[0])[1:] for line in lines if line.strip()]


def test_what_comes_next_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the same bound and by the same promises; and what heals one of several queues, which may be no policy at
    all in another, is not asked of both."""
    monkeypatch.chdir(tmp_path)
    Path("mixed.toml").write_text(MIXED)
    Path("own").mkdir()
    Path("own/mine.sql").write_text(OWN)
    (after,) = _next_of(fencepost("matrix", "mixed.toml", "--invariants", "own").out)
    assert after == ["recommend", "mixed.toml", "--invariants", "own"]
    one = ["--faults", "0", "--workers", "1"]
    (after,) = _next_of(fencepost(*after, *one).out)
    assert after == ["recommend", "mixed.toml", "--into", "proofs", "--faults", "0", "--invariants", "own"]
    (after,) = _next_of(fencepost(*after, "--workers", "1").out)
    assert after == ["explore", "proofs/healed.toml", "--faults", "0", "--invariants", "own"]
    scenario, _ = load(Path("proofs/healed.toml"))
    assert [queue.policy.ack for queue in scenario.queues] == ["with_writes", "late"]
    done = fencepost(*after, "--workers", "1")
    assert (done.code, done.err) == (1, "")
    assert "MINE-001" in done.out


def test_the_matrix_names_what_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an incident: a row for each policy, with what breaks, what it costs, and within a bound if that is asked."""
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-003", "--simulate", "--id", "was")
    done = fencepost("matrix", "was", "--json")
    rows = {row["policy"]: row for row in done.json["rows"]}
    assert set(rows) == {"as recorded", *presets()}
    assert rows["as recorded"]["violated"] == ["INV-007"]
    assert {name for name, row in rows.items() if row["heals"]} == {"deduped", "safe", "transactional"}
    assert done.json["cheapest"] == "transactional"
    explored = fencepost("matrix", "was", "--explore", "--faults", "1", "--workers", "1").out
    assert "breaks in fewest of what else can happen: safe" in explored
    assert fencepost("matrix", "FM-001").code == 0


@pytest.mark.parametrize(("lease_ms", "overdue"), [(120_000, False), (7_200_000, True)])
def test_a_lease_that_outlasts_the_scenario_heals_nothing_in_the_matrix(
    lease_ms: int, overdue: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is applied when its worker dies; what comes when the lease runs out is seen, or known to be unseen."""
    monkeypatch.chdir(tmp_path)
    queue = f'[[queues]]\nname = "q"\nworkload = "payments"\npolicy = {{ lease_ms = {lease_ms} }}\n'
    kill = '[[faults]]\nkind = "kill"\njob = "pay-1"\nattempt = 1\nstep = "settle"\n'
    Path("long.toml").write_text(f'id = "long"\n{queue}{kill}')
    recorded, *_ = fencepost("matrix", "long.toml", "--json").json["rows"]
    assert recorded["policy"] == "as recorded"
    assert (recorded["heals"], recorded["overdue"]) == (False, overdue)
    assert recorded["violated"] == ([] if overdue else ["INV-001"])


def test_the_matrix_of_all_failure_modes_is_that_of_the_page() -> None:
    """The command and docs/03 state the same cells."""
    rows = fencepost("matrix", "--json").json["rows"]
    found = {(row["failure_mode"], row["policy"]): row for row in rows}
    for mode in failure_modes().values():
        own = mode.scenario.queues[0].policy.name
        assert found[mode.id, own]["violated"] == list(mode.violates)
        assert found[mode.id, mode.heals]["violated"] == []
    page = (Path(__file__).parents[2] / "docs" / "03-failure-modes.md").read_text()
    for name in presets():
        line = next(line for line in page.splitlines() if line.startswith(f"| [`{name}`]"))
        for mode, cell in zip(failure_modes(), line.split("|")[2:-1], strict=True):
            assert all(broken in cell for broken in found[mode, name]["violated"])


@pytest.mark.parametrize("command", ["recommend", "matrix"])
def test_bad_input_is_one_sentence(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording, a file, a failure mode that is not there; options that make no sense: exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text('id = "x"\n[[queues]]\nname = "q"\nworkload = "paymnts"\n')
    for arguments in (("nowhere",), ("no.toml",), ("FM-999",), ("bad.toml",), ("FM-001", "--faults", "9")):
        done = fencepost(command, *arguments)
        assert done.code == 2, done.out
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
