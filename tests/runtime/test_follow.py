"""A recorded schedule, followed, gives the recorded history: that is what verify rests on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from random_scenarios import random_scenario, schedule_of
from runtime.histories import Rows, digest, history

from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.errors import Diverged
from fencepost_runtime.following import Told, follow
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.world import EPOCH, Simulated

HERE = Path(__file__).parent
PLAIN = Scenario.from_dict({"id": "plain", "queues": [{"name": "q", "workload": "payments", "jobs": 2, "workers": 2}]})


def followed(scenario: Scenario, schedule: tuple[Told, ...]) -> tuple[Rows, Simulated]:
    sink = ColumnSink()
    result = follow(scenario, schedule, sink)
    return sink.rows(), result


def _is_repeated(seed: int) -> bool:
    scenario = random_scenario(seed)
    rows, result = history(scenario, seed)
    return followed(scenario, schedule_of(scenario, rows)) == (rows, result)


def test_histories_repeat_along_their_schedules() -> None:
    """For 250 random scenarios the history followed is the history simulated: every row, balance and moment."""
    assert [seed for seed in range(250) if not _is_repeated(seed)] == []


@pytest.mark.campaign
def test_many_histories_repeat_along_their_schedules() -> None:
    """The same for 20,000."""
    assert [seed for seed in range(250, 20_250) if not _is_repeated(seed)] == []


def test_the_same_seed_gives_the_same_history_anywhere() -> None:
    """In processes with other hash seeds the random scenarios have the same histories, bit for bit."""
    seeds = range(40)
    elsewhere = [
        subprocess.run(
            [sys.executable, str(HERE / "histories.py"), str(seeds.start), str(seeds.stop)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "4242")
    ]
    assert elsewhere == [digest(seeds)] * 2


def test_the_random_scenarios_leave_nothing_out() -> None:
    """The 250 meet every event, every outcome of it that there is, and every way that a step can end."""
    found = set()
    hows = set()
    for seed in range(250):
        scenario = random_scenario(seed)
        rows, _ = history(scenario, seed)
        found |= {(row["event"], row["outcome"]) for row in rows}
        hows |= {told.how for told in schedule_of(scenario, rows)}
    three = {(e, o) for e in ("enqueue", "run", "write", "ack", "renew", "retry") for o in ("ok", "failed", "unknown")}
    others = {(event, "ok") for event in ("lease", "scan", "crash", "pause", "resume", "inventory", "dead_letter")}
    assert three | others | {("reclaim", "ok"), ("reclaim", "unknown")} <= found
    assert hows == {
        *("normal", "begun", "committed", "lost_request", "lost_reply", "db_error", "rolled_back"),
        *("crash", "pause", "resume"),
    }


def test_a_schedule_without_one_entry_is_another_history() -> None:
    """Whichever entry of a schedule is missing, what follows from it is not the recorded history."""
    scenario = random_scenario(8)
    rows, result = history(scenario, 8)
    schedule = schedule_of(scenario, rows)
    for number in range(len(schedule)):
        try:
            assert followed(scenario, schedule[:number] + schedule[number + 1 :]) != (rows, result)
        except Diverged:
            continue


@pytest.mark.parametrize("name", ["early-ack", "transactional", "atomic"])
def test_another_policy_cannot_follow(name: str) -> None:
    """Under a policy with other steps a naive history's schedule diverges, or tells another history."""
    rows, result = history(PLAIN)
    try:
        assert followed(PLAIN.with_policy(preset(name)), schedule_of(PLAIN, rows)) != (rows, result)
    except Diverged as error:
        assert "nothing to tell" in str(error)


def test_an_unknown_actor_diverges() -> None:
    """A schedule that names an actor which the scenario does not cast is refused by name."""
    with pytest.raises(Diverged, match="'q-worker-3' that the scenario does not cast"):
        follow(PLAIN, (Told("q-worker-3", EPOCH),), ColumnSink())


def test_an_actor_with_nothing_to_tell_diverges() -> None:
    """A worker that told something while its queue is empty diverges, instead of polling for ever."""
    with pytest.raises(Diverged, match="q-worker-1 told something"):
        follow(PLAIN, (Told("q-worker-1", EPOCH),), ColumnSink())


def test_an_actor_that_ended_has_nothing_to_tell() -> None:
    """Nor has a producer whose jobs are all enqueued, or anybody who was killed."""
    three = tuple(Told("q-producer", EPOCH + number) for number in range(3))
    with pytest.raises(Diverged, match="q-producer told something"):
        follow(PLAIN, three, ColumnSink())
    with pytest.raises(Diverged, match="q-producer told something"):
        follow(PLAIN, (Told("q-producer", EPOCH, "crash", signal="SIGKILL"), three[1]), ColumnSink())


@pytest.mark.parametrize("how", ["lost_request", "lost_reply", "db_error"])
def test_a_step_that_is_not_durable_cannot_be_lost(how: str) -> None:
    """A schedule that loses an answer where there is none diverges; the error does not fall through to the caller."""
    begin = (Told("q-producer", EPOCH), Told("q-worker-1", EPOCH + 1))
    lost = replace(Told("q-worker-1", EPOCH + 2), how=how)
    with pytest.raises(Diverged, match=f"start step cannot end in {how}"):
        follow(PLAIN, (*begin, lost), ColumnSink())
