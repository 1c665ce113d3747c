"""Runs of real processes: faults that really happen, ends that leave nobody behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from runtime.real_run import running, state, until

from fencepost_runtime.__main__ import main
from fencepost_runtime.backends import Database
from fencepost_runtime.policy import preset
from fencepost_runtime.processes import Spec
from fencepost_runtime.scenario import Scenario

MS = 1_000_000
PAID = {"customer": -100, "merchant": 100, "receipts": 1}
# Short, so that a lost lease is soon taken back; long enough that a busy machine loses none by itself.
QUICK = preset("naive").replace(lease_ms=700)


def scenario(*faults: dict[str, Any], at_most_ms: int = 25_000, **queue: Any) -> Scenario:
    """One payment and two workers, unless `queue` says otherwise; faults are of pay-1's first attempt."""
    table = {"name": "q", "workload": "payments", "jobs": 1, "workers": 2, "policy": QUICK.to_dict(), **queue}
    marked = [{"job": "pay-1", **fault} for fault in faults]
    return Scenario.from_dict({"id": "real", "queues": [table], "faults": marked, "at_most_ms": at_most_ms})


def test_an_undisturbed_run_does_all_work_and_ends_at_once(tmp_path: Path) -> None:
    """Eight jobs on three workers: each enqueued, leased, run, written and settled once; then everybody ends in order,
    the database is consistent, and the end does not wait for any deadline."""
    with running(tmp_path, scenario(jobs=8, workers=3)) as run:
        assert run.ended() == (0, "")
        assert run.held() == {}
        assert run.balances() == {account: 8 * amount for account, amount in PAID.items()}
        assert [len(run.told(name)) for name in ("send", "receive", "process", "settle")] == [8, 8, 8, 8]
        assert len(run.told("write")) == 24
        assert all(span.end is not None for span in run.spans())
        assert run.orderly() == {
            *("q-producer", "q-worker-1", "q-worker-2", "q-worker-3", "q-reclaimer", "supervisor"),
        }
        (inventory,) = run.told("inventory")
        last = max(span.end or 0 for span in run.told("process"))
        assert 0 < inventory.start - last < 3_000 * MS
        positions = [span.attributes.get("job.transaction.position") for span in run.spans()]
        taken = sorted(position for position in positions if position is not None)
        assert taken == list(range(1, len(taken) + 1))
        (announced,) = run.told("scenario")
        assert announced.attributes["job.scenario.id"] == "real"


def test_a_killed_worker_is_really_dead(tmp_path: Path) -> None:
    """SIGKILL at a step: the process is gone, its attempt stays open, the crash is told with its pid, and another
    worker does the job."""
    fault = {"kind": "kill", "step": "write", "index": 0, "when": "after"}
    with running(tmp_path, scenario(fault)) as run:
        crash = run.await_told("crash")
        assert state(crash.attributes["process.pid"]) in ("", "Z")
        assert run.ended() == (0, "")
        (first,) = run.told("process", attempt=1)
        assert (first.end, crash.attributes["job.signal"]) == (None, "SIGKILL")
        assert crash.attributes["job.worker.id"] == first.actor
        assert first.actor not in run.orderly()
        assert run.balances() == {**PAID, "customer": -200}
        assert run.held() == {}


@pytest.mark.parametrize(("when", "customer"), [("begun", -100), ("committed", -200)])
def test_a_kill_in_the_middle_of_a_write(tmp_path: Path, when: str, customer: int) -> None:
    """Killed before the commit the write is not there, killed after it it is; told it is as open in both cases."""
    fault = {"kind": "kill", "step": "write", "index": 0, "when": when}
    with running(tmp_path, scenario(fault)) as run:
        assert run.ended() == (0, "")
        (write,) = run.told("write", attempt=1)
        assert write.end is None
        assert run.balances() == {**PAID, "customer": customer}


def test_a_paused_worker_is_really_stopped(tmp_path: Path) -> None:
    """SIGSTOP at a step: Linux says that the process is stopped, until at_most_ms have passed; then it goes on."""
    fault = {"kind": "pause", "step": "write", "index": 1, "when": "before", "at_most_ms": 400}
    with running(tmp_path, scenario(fault)) as run:
        pause = run.await_told("pause")
        pid = pause.attributes["process.pid"]
        seen = state(pid)
        resumed = run.told("resume")
        assert seen == "T" or resumed
        assert run.ended() == (0, "")
        (resume,) = run.told("resume")
        assert resume.attributes["process.pid"] == pid
        assert 395 * MS <= resume.start - pause.start < 2_000 * MS
        assert run.balances() == PAID


def test_a_pause_ends_when_its_point_is_reached(tmp_path: Path) -> None:
    """A worker stopped until another has settled its job is resumed then, no earlier nor much later, and writes."""
    settled = {"job": "pay-1", "attempt": 2, "step": "settle"}
    fault = {"kind": "pause", "step": "write", "index": 1, "until": settled, "at_most_ms": 60_000}
    with running(tmp_path, scenario(fault)) as run:
        assert run.ended() == (0, "")
        (pause,), (resume,) = run.told("pause"), run.told("resume")
        (settle,) = run.told("settle", attempt=2)
        assert pause.start < settle.attributes["job.transaction.time_unix_nano"] <= resume.start
        assert resume.start - (settle.end or 0) < 2_000 * MS
        assert run.balances() == {"customer": -200, "merchant": 200, "receipts": 2}


@pytest.mark.parametrize("step", ["scan", "reclaim"])
def test_a_pause_waits_for_the_next_of_what_comes_again(step: str, tmp_path: Path) -> None:
    """The lease of the first attempt was found and taken back before the second attempt stops; that one waits for its
    own, and no longer."""
    faults = [
        {"kind": "kill", "step": "start"},
        {"kind": "pause", "attempt": 2, "step": "write", "until": {"job": "pay-1", "step": step}, "at_most_ms": 60_000},
    ]
    with running(tmp_path, scenario(*faults, workers=3)) as run:
        assert run.ended() == (0, "")
        (pause,), (resume,) = run.told("pause"), run.told("resume")
        first, second = (span.attributes["job.transaction.time_unix_nano"] for span in run.told("reclaim"))
        assert first < pause.start
        assert resume.start - pause.start < 3_000 * MS
        assert resume.start >= (second if step == "reclaim" else first)


def test_a_pause_until_what_has_happened_is_short(tmp_path: Path) -> None:
    """An until that was reached before the pause ends it at once, in processes as in the simulator; also a process that
    is stopped after its last step is woken to end."""
    faults = [
        {
            "kind": "pause",
            "step": "write",
            "index": 1,
            "when": "after",
            "until": {"job": "pay-1", "step": "write", "index": 0},
            "at_most_ms": 60_000,
        },
        {"kind": "pause", "step": "enqueue", "when": "after", "at_most_ms": 50},
    ]
    with running(tmp_path, scenario(*faults)) as run:
        assert run.ended() == (0, "")
        assert len(run.told("pause")) == len(run.told("resume")) == 2
        assert {"q-producer", "q-worker-1", "q-worker-2"} <= run.orderly()
        assert run.balances() == PAID


@pytest.mark.parametrize(
    ("kind", "error", "balances"),
    [
        ("lost_request", "ConnectionLost", PAID),
        ("lost_reply", "ConnectionLost", {**PAID, "customer": -200}),
        ("db_error", "BackendError", PAID),
    ],
)
def test_a_lost_write(tmp_path: Path, kind: str, error: str, balances: dict[str, int]) -> None:
    """A lost request and a database error leave no write, a lost reply leaves it; the span names the error."""
    with running(tmp_path, scenario({"kind": kind, "step": "write", "index": 0})) as run:
        assert run.ended() == (0, "")
        (write,) = run.told("write", attempt=1)
        assert (write.error, write.attributes["error.type"]) == (error, error)
        assert run.balances() == balances


# Nobody gets further than this: one worker sleeps, the other is stopped.
STUCK = (
    {"kind": "slow", "step": "work", "index": 0, "at_most_ms": 600_000},
    {"kind": "pause", "job": "pay-2", "step": "write", "index": 0, "at_most_ms": 600_000},
)
SMALLEST = '{"id": "x", "queues": [{"name": "q", "workload": "payments"}]}'
PATIENT = preset("naive").replace(lease_ms=600_000).to_dict()


def test_nobody_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """When the supervisor is SIGKILLed all of its actors die with it, working, idle or stopped."""
    with running(tmp_path, scenario(*STUCK, jobs=2, workers=3, policy=PATIENT)) as run:
        run.await_told("pause")
        run.await_told("process", attempt=1)
        pids = run.children()
        assert len(pids) == 5 - ("q-producer" in run.orderly())
        run.process.kill()
        assert run.ended()[0] == -signal.SIGKILL
        until(lambda: all(state(pid) in ("", "Z") for pid in pids), "the end of all actors")


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_kills_its_actors_and_takes_stock(tmp_path: Path, word: signal.Signals) -> None:
    """Ctrl-C, which reaches the whole group, and SIGTERM end a run: every actor is killed and told as crashed, by
    whose hand as well, the inventory is taken, and the exit code is 130."""
    with running(tmp_path, scenario(*STUCK, jobs=2, workers=2, policy=PATIENT)) as run:
        run.await_told("pause")
        until(lambda: len(run.told("process")) == 2 and "q-producer" in run.orderly(), "both attempts")
        pids = run.children()
        if word == signal.SIGINT:
            os.killpg(run.process.pid, word)
        else:
            run.process.send_signal(word)
        assert run.ended() == (130, "")
        assert {state(pid) for pid in pids} <= {"", "Z"}
        crashed = {span.attributes["job.worker.id"]: span.attributes["job.signal"] for span in run.told("crash")}
        assert crashed == dict.fromkeys(("q-worker-1", "q-worker-2", "q-reclaimer"), "SIGKILL, interrupted")
        (inventory,) = run.told("inventory")
        assert list(inventory.attributes["job.inventory.states"]) == ["leased", "leased"]


def test_a_run_does_not_outlast_its_deadline(tmp_path: Path) -> None:
    """When at_most_ms have passed whoever is left is killed, which nobody can take for a crash of theirs, the jobs are
    counted as they lie, and the exit code says so."""
    with running(tmp_path, scenario(*STUCK, jobs=2, policy=PATIENT, at_most_ms=1_000)) as run:
        assert run.ended() == (4, "")
        assert len(run.told("crash")) >= 2
        assert {span.attributes["job.signal"] for span in run.told("crash")} == {"SIGKILL, out of time"}
        assert run.held()["pay-1"] == "leased"


def test_a_worker_can_be_ended_from_outside(tmp_path: Path) -> None:
    """SIGTERM ends a single worker: its crash is told with the signal, and another worker does its job."""
    slow = {"kind": "slow", "step": "work", "index": 1, "at_most_ms": 600_000}
    with running(tmp_path, scenario(slow)) as run:
        victim = run.await_told("write", attempt=1).actor
        # The actors' order of birth: the producer, the workers, the reclaimer.
        until(lambda: "q-producer" in run.orderly(), "the producer's end")
        until(lambda: len(run.children()) == 3, "the producer's death")
        os.kill(run.children()[int(victim[-1]) - 1], signal.SIGTERM)
        assert run.ended() == (0, "")
        (crash,) = run.told("crash")
        assert (crash.attributes["job.worker.id"], crash.attributes["job.signal"]) == (victim, "SIGTERM")
        assert run.held() == {}


def test_an_actor_that_fails_by_itself_is_a_crash(tmp_path: Path) -> None:
    """An actor that raises says why on standard error and is told as crashed; the others do the work."""
    with running(tmp_path, scenario(), telemetry="telemetry:to_files_but_for_worker_1") as run:
        code, errors = run.ended()
        assert (code, errors) == (0, "q-worker-1: ZeroDivisionError: bad code\n")
        (crash,) = run.told("crash")
        assert (crash.attributes["job.worker.id"], crash.attributes["job.signal"]) == ("q-worker-1", "exit 1")
        assert run.balances() == PAID


def test_a_run_in_which_nobody_can_go_on_ends(tmp_path: Path) -> None:
    """With every worker dead, or with the reclaimer dead and a lease orphaned, a run ends long before its deadline."""
    deaths = [
        {"kind": "kill", "step": "start", "when": "after", "attempt": 1},
        {"kind": "kill", "step": "start", "when": "after", "attempt": 2},
    ]
    orphan = {"kind": "kill", "step": "reclaim", "when": "before"}
    for number, (faults, left) in enumerate(((deaths, "ready"), ([deaths[0], orphan], "leased"))):
        directory = tmp_path / str(number)
        directory.mkdir()
        with running(directory, scenario(*faults, at_most_ms=3_600_000)) as run:
            assert run.ended() == (0, "")
            assert len(run.told("crash")) == 2
            assert run.held() == {"pay-1": left}


def test_a_dead_producer_s_jobs_never_come(tmp_path: Path) -> None:
    """A producer killed between two jobs leaves the rest unknown to the queue; the run ends with what there is."""
    fault = {"kind": "kill", "step": "enqueue", "when": "after"}
    with running(tmp_path, scenario(fault, jobs=3)) as run:
        assert run.ended() == (0, "")
        assert [span.attributes["messaging.message.id"] for span in run.told("send")] == ["pay-1"]
        assert run.balances() == PAID


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    """Queue and job names with quotes, newlines, escapes and any script run through processes, pipes and spans."""
    name = "'; DROP TABLE jobs;--\n\x1b[31m{job}%s日本😀-worker-1"
    queue = {"name": name, "jobs": [{"id": name, "effects": [{"key": name, "amount": 1}]}]}
    with running(tmp_path, Scenario.from_dict({"id": name, "queues": [queue], "at_most_ms": 25_000})) as run:
        assert run.ended() == (0, "")
        assert run.balances() == {name: 1}
        assert {span.attributes["messaging.message.id"] for span in run.told("settle")} == {name}
        assert f"{name}-producer" in run.orderly()


def test_a_simulated_run_tells_the_same_spans(tmp_path: Path) -> None:
    """With `simulated` the same command runs the scenario in virtual time, in one process, without any database."""
    fault = {"kind": "kill", "step": "write", "index": 0, "when": "after"}
    with running(tmp_path, scenario(fault), simulated=True) as run:
        assert run.ended() == (0, "")
        assert {span.actor for span in run.spans()} == {"simulator"}
        assert [len(run.told(name)) for name in ("scenario", "crash", "inventory", "settle")] == [1, 1, 1, 1]
        assert not Path(run.spec.database.address).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a run's specification"),
        ("{", "is not a run's specification"),
        ("[]", "is not a run's specification"),
        ('{"scenario": {"id": "x"}}', "at least one [[queues]] table"),
        (
            f'{{"scenario": {SMALLEST}, "database": {{"system": "oracle", "address": ""}}}}',
            "no database system 'oracle'",
        ),
        (f'{{"scenario": {SMALLEST}, "database": {{"file": "x"}}}}', "is not a run's specification"),
    ],
)
def test_a_bad_specification_is_one_sentence(
    tmp_path: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no specification ends with exit code 2 and one line that says so."""
    path = tmp_path / "spec.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_specification_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Nobody else may read it, for a database's address may hold a password; it is never put into a file that somebody
    else has made, and says all that was put into it."""
    path = tmp_path / "spec.json"
    spec = Spec(scenario(), Database("postgresql", "postgresql://u:secret@h/db", "s"), 7, "module:function")
    spec.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Spec.read(path) == spec
    with pytest.raises(FileExistsError):
        spec.write(path)


def test_without_a_specification_the_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """No argument, or more than one, is answered with the usage."""
    assert main([]) == main(["a", "b"]) == 2
    assert capsys.readouterr().err == "usage: python -m fencepost_runtime SPEC.json\n" * 2


@pytest.mark.parametrize("telemetry", ["telemetry:nobody", "no_such_module:install", "telemetry"])
def test_a_hook_that_is_not_there_is_one_sentence(tmp_path: Path, telemetry: str) -> None:
    """A telemetry hook that cannot be found ends the run before it began."""
    with running(tmp_path, scenario(), telemetry=telemetry) as run:
        code, errors = run.ended()
        assert (code, errors.count("\n")) == (2, 1)
        assert f"no telemetry hook '{telemetry}'" in errors
