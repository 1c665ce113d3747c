"""Scenarios as data: round trips, and one sentence for everything that cannot be run as it is written."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from random_scenarios import random_scenario
from runtime.support import one_sentence

from fencepost_runtime.drive import SILENT
from fencepost_runtime.errors import RuntimeFault, ScenarioError
from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import DURABLE, KINDS, WHENS, Fault, Point, Scenario
from fencepost_runtime.scenario import SILENT as UNHEARD
from fencepost_runtime.steps import STEPS
from fencepost_runtime.workloads import jobs, workloads

QUEUE = {"name": "q", "workload": "payments", "jobs": 2}
KILL = {"kind": "kill", "job": "pay-1", "attempt": 1, "step": "write", "index": 0, "when": "after"}
LOSS = {"kind": "db_error", "job": "pay-1", "attempt": 1, "step": "write", "index": 0}
PAYMENT = jobs("payments", 1, "q")
PAUSE = {**KILL, "kind": "pause"}


def whole(**changes: Any) -> dict[str, Any]:
    """A small scenario with some fields changed."""
    return {"id": "s", "queues": [QUEUE], "faults": [KILL], **changes}


def refusal(data: Any) -> str:
    """What is said of data that is no scenario."""
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_dict(data)
    assert isinstance(caught.value, RuntimeFault)
    return one_sentence(caught.value)


def of_queue(**changes: Any) -> str:
    return refusal(whole(queues=[{**QUEUE, **changes}], faults=[]))


def of_fault(base: dict[str, Any] = KILL, **changes: Any) -> str:
    return refusal(whole(faults=[{**base, **changes}]))


def of_job(**changes: Any) -> str:
    job = {"id": "a", "effects": [{"key": "k", "amount": 1}], **changes}
    return refusal({"id": "s", "queues": [{"name": "q", "jobs": [job]}]})


@pytest.mark.parametrize("seed", range(30))
def test_a_scenario_survives_its_round_trip(seed: int) -> None:
    """Written to plain data, through JSON, and read back, a scenario is the same."""
    scenario = random_scenario(seed)
    plain = scenario.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert "null" not in json.dumps(plain), "TOML has no word for nothing"
    assert Scenario.from_dict(plain) == scenario


def test_people_write_scenarios_as_tables() -> None:
    """A fault's point may be written beside its kind; what is left out has its default."""
    text = """
        id = "by hand"
        [[queues]]
        name = "q"
        policy = { ack = "early" }
        jobs = [{ id = "a", effects = [{ key = "k" }, { key = "l", account = "x", amount = -3 }] }]
        [[faults]]
        kind = "pause"
        job = "a"
        step = "write"
        until = { job = "a", attempt = 2, step = "settle" }
        [[faults]]
        kind = "db_error"
        job = "a"
        step = "enqueue"
    """
    scenario = Scenario.from_dict(tomllib.loads(text))
    assert scenario.queues[0].policy == Policy(ack="early")
    assert (scenario.queues[0].workers, scenario.poll_ms, scenario.at_most_ms) == (2, 20, 60_000)
    assert Scenario.from_dict({"id": "s", "queues": [{"name": "q", "workload": "payments"}]}).jobs == PAYMENT
    (job,) = scenario.jobs
    assert (job.queue, job.name, job.work_ms) == ("q", "a", 0)
    assert [(effect.key, effect.account, effect.amount) for effect in job.effects] == [("k", "k", 0), ("l", "x", -3)]
    assert scenario.faults == (
        Fault("pause", Point("a", 1, "write"), Point("a", 2, "settle", 0, "after")),
        Fault("db_error", Point("a", 0, "enqueue")),
    )


def test_a_queue_takes_a_preset_or_a_table() -> None:
    """A queue's policy is a preset's name or a table of fields; without one it is naive."""
    for given, expected in (("safe", preset("safe")), ({"renew": True}, Policy(renew=True)), (None, preset("naive"))):
        queue = QUEUE if given is None else {**QUEUE, "policy": given}
        assert Scenario.from_dict(whole(queues=[queue])).queues[0].policy == expected


@pytest.mark.parametrize("name", presets())
def test_every_preset_can_be_swapped_in(name: str) -> None:
    """The same work and faults can be put under any policy, and be written down with it."""
    scenario = Scenario.from_dict(whole())
    changed = scenario.with_policy(preset(name))
    assert (changed.jobs, changed.faults) == (scenario.jobs, scenario.faults)
    assert {queue.policy for queue in changed.queues} == {preset(name)}
    assert Scenario.from_dict(changed.to_dict()) == changed


@pytest.mark.parametrize("name", workloads())
def test_a_workload_makes_jobs(name: str) -> None:
    """Each workload makes as many jobs as asked, each with effects of its own, and says what it is about."""
    made = jobs(name, 3, "q", work_ms=7)
    keys = [effect.key for job in made for effect in job.effects]
    assert len({job.id for job in made}) == 3
    assert len(set(keys)) == len(keys) >= 6
    assert {(job.queue, job.work_ms) for job in made} == {("q", 7)}
    assert workloads()[name]["about"].endswith(".")


def test_payments_conserve_money() -> None:
    """What a payment debits it credits."""
    effects = jobs("payments", 1, "q")[0].effects
    assert sum(effect.amount for effect in effects if effect.account in ("customer", "merchant")) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "A scenario is a table of id, queues, faults"),
        ([], "A scenario is a table of"),
        ("FM-001", "A scenario is a table of"),
        ({}, "at least one [[queues]] table"),
        (whole(id=""), "needs an id, a text of 1 to 200 characters"),
        (whole(id=7), "needs an id"),
        (whole(id="x" * 201), "needs an id"),
        (whole(id="half \ud800"), "half a character"),
        (whole(queues=[]), "at least one [[queues]] table"),
        (whole(queues={}), "queues is a list of tables, not {}"),
        (whole(queues="q"), "queues is a list of tables, not 'q'"),
        (whole(queues=[7]), "A queue is a table of name"),
        (whole(queues=[QUEUE] * 65), "queues has 65 entries; there may be 64"),
        (whole(queues=[QUEUE, QUEUE]), "2 queues called 'q'"),
        (whole(queues=[QUEUE, {**QUEUE, "name": "r"}]), "2 jobs called 'pay-1'"),
        (whole(faults=None), "faults is a list of tables, not None"),
        (whole(faults=[KILL] * 1_001), "faults has 1001 entries; there may be 1000"),
        (whole(queue=[]), "no field 'queue': did you mean queues?"),
        (whole(poll=3), "no field 'poll': did you mean poll_ms?"),
        (whole(poll_ms=0), "poll_ms takes a whole number from 1 to 60000, not 0"),
        (whole(at_most_ms=99), "at_most_ms takes a whole number from 100 to 3600000, not 99"),
        (whole(at_most_ms=3_600_001), "at_most_ms takes a whole number"),
        (whole(at_most_ms=True), "at_most_ms takes a whole number"),
        (whole(at_most_ms=1e3), "at_most_ms takes a whole number"),
    ],
)
def test_what_no_scenario_is(data: Any, words: str) -> None:
    """A scenario of the wrong shape is refused in one sentence that names the field and what it takes."""
    assert words in refusal(data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "A queue needs a name"),
        ({"name": None}, "A queue needs a name"),
        ({"workload": "payment"}, "no workload 'payment': did you mean payments?"),
        ({"workload": "zzz"}, "no workload 'zzz': there are payments, ai-pipeline"),
        ({"workload": 7}, "Queue 'q' needs a workload"),
        ({"jobs": 0}, "Queue 'q': jobs takes a whole number from 1 to 10000, not 0"),
        ({"jobs": 10_001}, "Queue 'q': jobs takes a whole number"),
        ({"jobs": "two"}, "Queue 'q': jobs takes a whole number"),
        ({"jobs": []}, "names its jobs one by one, so it takes no workload"),
        ({"jobs": [], "work_ms": 3}, "so it takes no workload"),
        ({"work_ms": -1}, "work_ms takes a whole number from 0 to 3600000, not -1"),
        ({"workers": 0}, "workers takes a whole number from 1 to 64, not 0"),
        ({"workers": 65}, "workers takes a whole number"),
        ({"worker": 1}, "no field 'worker': did you mean workers?"),
        ({"policy": "naiv"}, "Queue 'q': There is no policy 'naiv': did you mean naive?"),
        ({"policy": {"lease": 5}}, "Queue 'q': A policy has no field 'lease': did you mean lease_ms?"),
        ({"policy": 5}, "Queue 'q': A policy is a preset's name or a table"),
        ({"policy": None}, "Queue 'q': A policy is a preset's name or a table"),
        ({"policy": ["naive"]}, "Queue 'q': A policy is a preset's name or a table"),
    ],
)
def test_what_no_queue_is(changes: dict[str, Any], words: str) -> None:
    """So is a queue."""
    assert words in of_queue(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ""}, "A job needs an id"),
        ({"id": 5}, "A job needs an id"),
        ({"name": 5}, "Job 'a' needs a name"),
        ({"effect": []}, "no field 'effect': did you mean effects?"),
        ({"effects": {}}, "Job 'a': effects is a list of tables"),
        ({"effects": [5]}, "An effect is a table of key, account, amount, not 5"),
        ({"effects": [{"amount": 1}]}, "An effect of job 'a' needs a key"),
        ({"effects": [{"key": "k", "account": 5}]}, "Effect 'k' needs an account"),
        ({"effects": [{"key": "k", "amount": "1"}]}, "Effect 'k': amount takes a whole number"),
        ({"effects": [{"key": "k", "amount": 10**12 + 1}]}, "Effect 'k': amount takes a whole number"),
        ({"effects": [{"key": "k", "amout": 1}]}, "no field 'amout': did you mean amount?"),
        ({"effects": [{"key": "k"}, {"key": "k"}]}, "Job 'a' has 2 effects called 'k'"),
        ({"effects": [{"key": str(n)} for n in range(1_001)]}, "effects has 1001 entries; there may be 1000"),
        ({"work_ms": 0.5}, "Job 'a': work_ms takes a whole number"),
        ({"id": "\udfff"}, "half a character"),
    ],
)
def test_what_no_job_is(changes: dict[str, Any], words: str) -> None:
    """So are a job and its effects."""
    assert words in of_job(**changes)


def test_a_queue_has_so_many_jobs() -> None:
    """Jobs written one by one are bounded as well."""
    many = [{"id": str(number)} for number in range(10_001)]
    assert len(Scenario.from_dict({"id": "s", "queues": [{"name": "q", "jobs": many[1:]}]}).jobs) == 10_000
    assert "jobs has 10001 entries; there may be 10000" in refusal({"id": "s", "queues": [{"name": "q", "jobs": many}]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "kil"}, "no fault 'kil': did you mean kill?"),
        ({"kind": "explode"}, "no fault 'explode': there are kill, pause"),
        ({"kind": None}, "no fault None"),
        ({"kind": ["kill"]}, "no fault ['kill']"),
        ({"kind": {}}, "no fault {}"),
        ({"step": "writ"}, "no step 'writ': did you mean write?"),
        ({"step": None}, "no step None"),
        ({"step": []}, "no step []"),
        ({"when": "befor"}, "no when 'befor': did you mean before?"),
        ({"when": {}}, "no when {}"),
        ({"job": "pay-9"}, "strikes job 'pay-9', which is not there: did you mean pay-"),
        ({"job": "zzz"}, "strikes job 'zzz', which is not there: there are pay-1, pay-2."),
        ({"job": 1}, "A point needs a job"),
        ({"attempt": 0}, "The write step is inside an attempt: attempt counts from 1, not 0"),
        ({"attempt": 1_001}, "attempt takes a whole number from 0 to 1000"),
        ({"attempt": "1"}, "attempt takes a whole number"),
        ({"step": "enqueue"}, "The enqueue step is outside any attempt: attempt is 0, not 1"),
        ({"step": "reclaim", "attempt": 2}, "The reclaim step is outside any attempt"),
        (
            {"kind": "pause", "until": {"job": "pay-1", "step": "reclaim", "index": 1}},
            "A pause lasts until the next reclaim, so its until takes no index.",
        ),
        ({"index": 3}, "Job 'pay-1' has no write step 3: an attempt has 3, counted from 0"),
        ({"step": "work", "index": 4, "when": "before"}, "has no work step 4: an attempt has 4"),
        ({"step": "settle", "index": 1}, "has no settle step 1: an attempt has 1"),
        ({"index": -1}, "index takes a whole number"),
        ({"at_most_ms": 0}, "at_most_ms takes a whole number from 1"),
        ({"until": {"job": "pay-1", "step": "settle"}}, "A kill fault takes no until: that ends a pause"),
        ({"jobs": "pay-1"}, "no field 'jobs'"),
        ({"at": 5}, "A fault has no field 'job'"),
    ],
)
def test_what_no_fault_is(changes: dict[str, Any], words: str) -> None:
    """So is a fault, also one that could never strike."""
    assert words in of_fault(KILL, **changes)


@pytest.mark.parametrize("fault", [None, 5, "kill", [KILL], []])
def test_a_fault_is_a_table(fault: Any) -> None:
    """What is no table is refused as such."""
    assert "A fault is a table of kind" in refusal(whole(faults=[fault]))


@pytest.mark.parametrize("at", [None, 5, [], "pay-1"])
def test_a_point_is_a_table(at: Any) -> None:
    """So is a point, whether it says where a fault strikes or until when it lasts."""
    assert "A point is a table of job" in refusal(whole(faults=[{"kind": "kill", "at": at}]))
    if at is not None:
        assert "A point is a table of job" in of_fault(PAUSE, until=at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", WHENS)
def test_only_faults_that_can_strike_are_taken(kind: str, step: str, when: str) -> None:
    """Of all kinds, steps and moments exactly those are taken that can come to pass."""
    fault = {"kind": kind, "job": "pay-1", "step": step, "when": when}
    possible = {
        "kill": step in DURABLE if when in ("begun", "committed") else True,
        "pause": when in ("before", "after"),
        "slow": step == "work" and when == "before",
    }.get(kind, step in DURABLE and when == "before")
    if possible and step not in ("lease", "idle", "scan", "inventory"):
        assert Scenario.from_dict(whole(faults=[fault])).faults[0].kind == kind
    else:
        assert of_fault({}, **fault)


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ({"job": "pay-1", "step": "work"}, "cannot last until a work step"),
        ({"job": "pay-1", "step": "sleep"}, "cannot last until a sleep step"),
        ({"job": "pay-1", "step": "lease"}, "the lease step has none"),
        ({"job": "pay-1", "step": "settle", "when": "before"}, 'takes no when = "before"'),
        ({"job": "pay-9", "step": "settle"}, "strikes job 'pay-9'"),
        ({"job": "pay-1", "step": "write", "index": 3}, "has no write step 3"),
        ({"job": "pay-1"}, "no step None"),
        ({}, "no step None"),
        ({"job": "pay-1", "step": "settle", "form": 1}, "no field 'form'"),
    ],
)
def test_a_pause_ends_at_a_step_that_somebody_hears_of(until: dict[str, Any], words: str) -> None:
    """A pause that waits for what nobody is told of would never end by it."""
    assert words in of_fault(PAUSE, until=until)


def test_the_steps_that_nobody_hears_of_are_the_drivers_own() -> None:
    """What the scenario takes for silent is what the drivers answer by themselves; every name in it is a step."""
    assert UNHEARD == SILENT
    assert {*UNHEARD, *DURABLE} <= set(STEPS)


def test_hostile_names_are_shown_escaped() -> None:
    """A name with terminal escapes is quoted and escaped, wherever a message names it; a long one is cut."""
    hostile = "\x1b[2J\n" + "x" * 150
    queue = {"name": hostile, "jobs": [{"id": hostile, "effects": [{"key": hostile}] * 2}]}
    for data in (
        {"id": "s", "queues": [{**queue, "workers": 0}]},
        {"id": "s", "queues": [queue]},
        {"id": "s", "queues": [{**QUEUE, "workload": hostile}]},
        {"id": "s", "queues": [{"name": "q", "jobs": [{"id": hostile}]}], "faults": [KILL]},
        {"id": "s", "queues": [QUEUE], "faults": [{**KILL, "job": hostile}]},
        {"id": "s", "queues": [QUEUE], hostile: 1},
    ):
        assert len(refusal(data)) < 300
