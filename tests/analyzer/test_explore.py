"""Explore: every schedule within a bound, each once, the same on any number of processes, and again after a kill."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import fencepost

import fencepost_analyzer
import fencepost_runtime
from fencepost_analyzer.catalogue import failure_mode
from fencepost_analyzer.lab import explore as exploring
from fencepost_analyzer.lab.explore import CHUNK, Exploration, Plan, Unit, around, explore
from fencepost_analyzer.lab.found import Found
from fencepost_analyzer.lab.ledger import Ledger, digest, rules
from fencepost_analyzer.lab.space import Bound, fault_of, following, plain
from fencepost_analyzer.placing import striking
from fencepost_analyzer.scenario_file import dump, load
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import DURABLE, OF_NO_JOB, Fault, Point, Scenario
from fencepost_runtime.simulate import Passed, explored, simulate
from fencepost_runtime.world import Simulated

ONE = Scenario.from_dict(
    {"id": "one job", "queues": [{"name": "payments", "workload": "payments", "jobs": 1, "workers": 2}]}
)
FEW = Bound(faults=1)


def under(policy: str, scenario: Scenario = ONE) -> Scenario:
    return scenario.with_policy(preset(policy))


def plan(policy: str, bound: Bound = FEW) -> Plan:
    return around(under(policy), 1, bound)


def durable(scenario: Scenario) -> tuple[Any, ...]:
    """What a run leaves behind: all that took a position, in that order."""
    sink = ColumnSink()
    simulate(scenario, sink, 1, all_told=True)
    rows = sorted((row for row in sink.rows() if row["position"] is not None), key=lambda row: row["position"])
    return tuple((row["event"], row["job_id"], row["attempt"], row["effect_key"], row["outcome"]) for row in rows)


@pytest.mark.parametrize("policy", ["naive", "early-ack", "transactional", "safe", "renewed"])
def test_every_crash_is_tried_and_none_twice(policy: str) -> None:
    """The crashes that are tried leave behind all that any nameable crash leaves behind, each something else."""
    scenario = under(policy)
    trail: list[Passed] = []
    ran = simulate(scenario, ColumnSink(), 1, trail=trail, all_told=True)
    tried = [fault for fault in following(scenario, (), ran, trail) if fault.kind == "kill"]
    named = []
    for passed in trail:
        step = passed.step
        if step.job_id is None or step.name in (*OF_NO_JOB, "sleep"):
            continue
        whens = ("before", "begun", "committed", "after") if step.names[0] in DURABLE else ("before", "after")
        for when in whens if step.operation is not None else ("before", "after"):
            named.append(Fault("kill", Point(step.job_id, step.attempt, step.names[0], step.index, when)))  # type: ignore[arg-type]
    assert len(named) > 2 * len(tried)
    left = {durable(replace(scenario, faults=(fault,))) for fault in tried}
    assert left == {durable(replace(scenario, faults=(fault,))) for fault in named}


def test_each_time_that_a_job_is_taken_back_is_tried() -> None:
    """Two workers die, so that the reclaimer comes twice: what befalls it then is as much a schedule as before."""
    deaths = tuple(Fault("kill", Point("pay-1", attempt, "start")) for attempt in (1, 2))
    scenario = replace(under("naive"), faults=deaths, queues=(replace(under("naive").queues[0], workers=3),))
    trail: list[Passed] = []
    ran = simulate(scenario, ColumnSink(), 1, trail=trail, all_told=True)
    tried = {fault.at.index for fault in following(scenario, (), ran, trail) if fault.at.step == "reclaim"}
    assert tried == {0, 1}
    dead = replace(scenario, faults=(*deaths, Fault("kill", Point("pay-1", 0, "reclaim", 1))))
    assert [row[0] for row in durable(dead)].count("reclaim") == 1


def test_nothing_breaks_without_a_fault() -> None:
    """A bound of none is one schedule, and it is certified."""
    done = explore(plan("naive", Bound(faults=0)))
    assert (done.found.schedules, done.certified, done.exit_code) == (1, True, 0)


def test_what_breaks_is_found_with_its_fewest_faults() -> None:
    """Under the naive policy one lost acknowledgement is enough for a duplicate effect, and the scenario repeats it."""
    done = explore(plan("naive", Bound(faults=2, crashes=2, pauses=0, losses=1)))
    one = done.found.shortest["INV-001"]
    assert len(one.added) == 1
    assert done.exit_code == 1
    assert {"INV-001"} <= set(explore(Plan(((done.scenario("INV-001"), Bound(faults=0)),), 1)).found.violated)


def test_a_pause_is_tried_until_after_each_step_of_another() -> None:
    """Stale writes and overlaps take a pause that ends at the right moment: fewer are found without those moments."""
    done = explore(plan("naive", Bound(faults=1, crashes=0, losses=0)))
    assert {"INV-001", "INV-002", "INV-003"} <= set(done.found.violated)
    untils = {one.added[0].until for one in done.found.shortest.values()}
    assert any(until is not None for until in untils)


def test_a_cure_is_certified_within_the_bound() -> None:
    """A crash and a loss break nothing where writes and acknowledgement are one transaction: all run, all decided."""
    done = explore(plan("transactional", Bound(faults=2, crashes=1, pauses=0, losses=1)))
    assert done.certified
    assert done.found.schedules > 20


def test_a_lease_that_nobody_is_left_to_take_back_is_stuck_however_soon_the_run_ends() -> None:
    """A worker and the reclaimer die, or there never was one: no policy is certified for that."""
    two = explore(plan("safe", Bound(faults=2, crashes=2, pauses=0, losses=0)))
    assert set(two.found.violated) == {"INV-010"}
    unclaimed = preset("safe").replace(reclaim="none")
    one = explore(around(plan("safe", Bound()).bases[0][0].with_policy(unclaimed), 1, Bound(1, 1, 0, 0)))
    assert set(one.found.violated) == {"INV-010"}
    [fault] = one.found.shortest["INV-010"].added
    assert fault.kind == "kill"


def test_long_leases_are_waited_for() -> None:
    """Simulated time costs nothing: what is explored has as much of it as the leases of its policy may take."""
    slow = preset("transactional").replace(lease_ms=60_000)
    done = explore(around(plan("safe", Bound()).bases[0][0].with_policy(slow), 1, Bound(2, 1, 0, 1)))
    assert (done.found.overdue, done.certified) == (0, True)


@pytest.mark.parametrize("mode", ["FM-001", "FM-002", "FM-003", "FM-004", "FM-005"])
def test_an_incident_s_own_faults_are_explored_on(mode: str) -> None:
    """Of an incident the invariants that its failure mode violates break, with the incident's faults and without."""
    scenario = failure_mode(mode).scenario
    done = explore(around(scenario, 1, FEW))
    assert set(failure_mode(mode).violates) <= set(done.found.violated)
    assert len(done.plan.bases) == 2


def told(done: Exploration) -> dict[str, Any]:
    return done.found.to_dict()


def test_any_number_of_processes_comes_to_the_same() -> None:
    """What is found, counted and shortest does not depend on how many explore."""
    wanted = plan("naive", Bound(faults=2, crashes=1, pauses=1, losses=0))
    assert told(explore(wanted)) == told(explore(wanted, workers=2))


def test_an_interrupted_exploration_goes_on(tmp_path: Path) -> None:
    """What was noted is not explored again, a torn line is, and the whole comes to the same."""
    wanted = around(failure_mode("FM-003").scenario, 1, FEW)
    ledger = Ledger(tmp_path / "progress.jsonl", wanted)

    def stop(unit: Unit, found: Found, number: int, _: int) -> None:
        ledger.note(unit, found)
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(wanted, explored=stop)
    path = tmp_path / "progress.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    known = ledger.known()
    assert len(known) == 4
    again: list[Unit] = []
    done = explore(wanted, known=known, explored=lambda unit, *_: again.append(unit))
    assert not set(again) & set(known)
    assert done.complete
    assert told(done) == told(explore(wanted))


def test_a_ledger_is_of_one_plan(tmp_path: Path) -> None:
    """What was explored under another bound or policy is not taken for this one's."""
    path = tmp_path / "progress.jsonl"
    Ledger(path, plan("naive")).note(Unit(0, None), Found(schedules=1))
    assert Ledger(path, plan("naive")).known() == {Unit(0, None): Found(schedules=1)}
    for other in (plan("fenced"), plan("naive", Bound(faults=2)), around(under("naive"), 2, FEW)):
        assert Ledger(path, other).known() == {}


@pytest.mark.parametrize("damage", ["emptied", "another unit", "unsigned", "another plan's"])
def test_a_line_that_was_changed_is_explored_again(tmp_path: Path, damage: str) -> None:
    """Whoever takes the violations out of a ledger, or moves a line, gets no certificate from it."""
    path, wanted = tmp_path / "progress.jsonl", plan("naive", Bound(1, 1, 0, 0))
    ledger = Ledger(path, wanted)
    was = explore(wanted, explored=lambda unit, found, *_: ledger.note(unit, found))
    assert was.found.violated
    assert len(ledger.known()) == was.units
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    for line in lines:
        if damage == "emptied":
            line["found"].update(ways=[], broken=0, schedules=line["found"]["schedules"] + 1)
        elif damage == "another unit":
            line["unit"]["base"] += 1
        elif damage == "unsigned":
            del line["checksum"]
        else:
            line["plan"] = digest(plan("fenced"))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ledger.known() == Ledger(path, plan("fenced")).known() == {}


def test_another_rule_under_the_same_version_is_another_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every SQL file that judges, the runtime's sources and the laboratory's own count."""
    path = tmp_path / "progress.jsonl"
    Ledger(path, plan("naive")).note(Unit(0, None), Found(schedules=1))
    homes = {package: Path(package.__file__ or "").parent for package in (fencepost_analyzer, fencepost_runtime)}
    analyzer, runtime = (shutil.copytree(home, tmp_path / home.name) for home in homes.values())
    uncached = rules.__wrapped__
    assert uncached(analyzer, runtime) == rules()
    for name in ("invariants/INV-001.sql", "goals/GOAL-001.sql", "views/leases.sql", "lab/space.py", "check.py"):
        before = uncached(analyzer, runtime)
        with (analyzer / name).open("a") as stream:
            stream.write("\n")
        assert uncached(analyzer, runtime) != before
    before = uncached(analyzer, runtime)
    (runtime / "rules.py").write_text("")
    assert uncached(analyzer, runtime) != before
    monkeypatch.setattr("fencepost_analyzer.lab.ledger.rules", lambda: "others")
    assert Ledger(path, plan("naive")).known() == {}


def test_faults_travel_as_plain_data() -> None:
    """A ledger's faults are read back as they were; anything else is refused."""
    fault = Fault("pause", Point("a", 1, "write", 1), Point("a", 2, "settle", 0, "after"), 7)
    assert fault_of(plain(fault)) == fault
    with pytest.raises(TypeError):
        fault_of({**plain(fault), "kind": "no such kind"})


def test_too_many_schedules_are_no_certificate() -> None:
    """Where not all was explored nothing is certified: exit code 3, though nothing was seen to break."""
    queue = {"name": "payments", "workload": "payments", "jobs": 40, "policy": "transactional"}
    many = around(Scenario.from_dict({"id": "many", "queues": [queue]}), 1, Bound(1, 1, 0, 0))
    done = explore(many, at_most=1)
    assert 0 < done.explored < done.units
    assert not done.found.violated
    assert (done.certified, done.exit_code) == (False, 3)
    assert explore(many).certified


def test_of_three_faults_each_first_one_is_done_by_itself() -> None:
    """What follows from one is thousands of schedules: they are kept, and told, before the next is begun."""
    three = explore(plan("naive", Bound(3, 3, 0, 0)), at_most=1)
    two = explore(plan("naive", Bound(2, 2, 0, 0)), at_most=1)
    assert (three.explored, two.explored) == (1, min(CHUNK, two.units))
    assert two.explored > 1


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fencepost("run", "FM-003", "--simulate", "--id", "was")
    return tmp_path


@pytest.mark.usefixtures("recorded")
def test_the_command_writes_what_breaks_as_a_scenario() -> None:
    """The file that it names, run in the simulator, breaks the invariant that it is called after."""
    done = fencepost("explore", "was", "--faults", "1", "--json")
    assert done.code == 1, done.err
    file = done.json["scenarios"]["INV-007"]
    assert fencepost("run", file, "--simulate", "--id", "again").code == 0
    assert "INV-007" in fencepost("check", "again", "--json").json["violated"]
    goes_on = fencepost("explore", "was", "--faults", "1", "--json")
    assert goes_on.json == done.json


def test_what_is_written_can_be_run_under_a_policy_that_never_comes_to_a_fault(tmp_path: Path) -> None:
    """The incident itself breaks it, whose second attempt there is no more: a file that names it would be refused."""
    kills = [Fault("kill", Point("pay-1", 1, "write", 1)), Fault("kill", Point("pay-1", 2, "settle"))]
    source = tmp_path / "twice.toml"
    source.write_text(dump(replace(ONE, faults=tuple(kills)), seed=1))
    into = ("--into", tmp_path / "found", "--workers", "1", "--faults", "0", "--json")
    done = fencepost("explore", source, "--policy", "one-attempt", *into)
    assert done.json["violated"] == {"INV-007": 1}
    scenario, _ = load(Path(done.json["scenarios"]["INV-007"]))
    assert scenario.faults == (kills[0],)


def test_no_pause_is_written_that_waits_for_what_never_comes() -> None:
    """Nobody takes anything back: the same pause, which ends by its own time."""
    waiting = Fault("pause", Point("pay-1", 1, "write"), Point("pay-1", 0, "reclaim", when="after"), 10_000)
    scenario = replace(ONE.with_changes({"reclaim": "none"}), faults=(waiting,))
    assert striking(scenario).faults == (replace(waiting, until=None),)
    assert striking(ONE.with_changes({"reclaim": "guarded"})).faults == ()


@pytest.mark.usefixtures("recorded")
def test_the_command_certifies_a_cure() -> None:
    """Under the healing policy: how many schedules, within which bound, and exit code 0."""
    done = fencepost("explore", "was", "--policy", "transactional", "--pauses", "0", "--crashes", "0")
    assert done.code == 0, done.out + done.err
    assert "certified: 0 violations in" in done.out
    assert "up to 2 faults" in done.out


@pytest.mark.parametrize(("notes", "words"), [(0, "nothing is kept yet"), (2, "2 of "), (None, "goes on from there")])
@pytest.mark.usefixtures("recorded")
def test_an_interrupted_command_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, notes: int | None, words: str
) -> None:
    """How many first faults of how many need not be explored again, or that there are none; also when it had not yet
    come to anything new."""
    note = Ledger.note
    numbers = iter(range(1_000))

    def interrupted(self: Ledger, unit: Unit, found: Found) -> None:
        if next(numbers) == (2 if notes is None else notes):
            raise KeyboardInterrupt
        note(self, unit, found)

    monkeypatch.setattr(Ledger, "note", interrupted)
    arguments = ("explore", "was", "--faults", "1", "--workers", "1")
    done = fencepost(*arguments)
    assert done.code == 130
    if notes is None:
        monkeypatch.setattr(Plan, "units", _interrupt)
        done = fencepost(*arguments)
        assert "what was explored before is kept" in done.err
    assert words in done.err
    assert ("goes on from there" in done.err) == (notes != 0)


def _interrupt(_: Plan) -> tuple[Unit, ...]:
    raise KeyboardInterrupt


def test_bad_input_is_one_sentence(recorded: Path) -> None:
    """What cannot be explored is said with the way out: exit code 2, no traceback."""
    for arguments in (
        ("explore", "nothing"),
        ("explore", "was", "--policy", "sage"),
        ("explore", "was", "--faults", "9"),
    ):
        done = fencepost(*arguments)
        assert done.code == 2
        assert "Traceback" not in done.err
    (recorded / "taken").write_text("")
    assert fencepost("explore", "was", "--into", "taken").code == 2


def test_no_schedule_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of others may come within one millisecond, in which slow work ends then, or be of one sort: a pause lasts
    until the next of these."""
    ran: list[tuple[Fault, ...]] = []

    def counted(scenario: Scenario, *run: Any, **how: Any) -> Simulated:
        ran.append(scenario.faults)
        return explored(scenario, *run, **how)

    monkeypatch.setattr(exploring, "explored", counted)
    explore(plan("naive", Bound()))
    assert len(ran) > 1_000
    assert [one for one, times in Counter(ran).items() if times > 1] == []
