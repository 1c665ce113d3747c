"""`replay`: the recorded history again, the same incident under another policy, or the incident on real processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer.cli.backends import POSTGRES, Backend, Database, server
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import (
    AsJson,
    Changes,
    Invariants,
    Mappings,
    PolicyName,
    Recordings,
    Run,
    Session,
    changes,
    own_sql,
    session,
)
from fencepost_analyzer.render import dim, word
from fencepost_analyzer.reports import print_fork, print_live, print_verify
from fencepost_analyzer.verdicts import exit_code

if TYPE_CHECKING:
    from fencepost_analyzer.case import Case
    from fencepost_analyzer.live import Live
    from fencepost_recorder import Recording
    from fencepost_runtime.policy import Policy
    from fencepost_runtime.scenario import Scenario

# By the names of OpenTelemetry: what a run says of its database, as the option that asks for it and in words.
_SYSTEMS = {"sqlite": (Backend.SQLITE, "SQLite"), "postgresql": (Backend.POSTGRES, "PostgreSQL")}


def register(app: typer.Typer) -> None:
    app.command("replay", short_help="The same incident again, or under another policy.")(replay)


def replay(
    context: typer.Context,
    run: Run,
    policy: PolicyName = None,
    changed: Changes = None,
    live: Annotated[
        bool, typer.Option("--live", help="On real processes, as a new recording, instead of in the simulator.")
    ] = False,
    backend: Annotated[
        Backend | None,
        typer.Option("--backend", help="The database of the live run's queue.  [default: that of the recording]"),
    ] = None,
    database: Database = None,
    recording_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The live recording's id.  [default: made from time and name]"),
    ] = None,
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Run a recorded incident again, in the simulator, from the recording alone.

    \b
      fencepost replay latest                        verify: same policy; is the history the same, event by event?
      fencepost replay latest --policy safe          fork: same work and faults under another policy; does it heal?
      fencepost replay latest --set lease_ms=5000    fork: the recorded policy with one field changed
      fencepost replay latest --live                 the same work and faults on real processes, as a new recording
      fencepost replay latest --live --policy safe   the same under another policy
      fencepost replay latest --live --backend postgres --database postgresql://me@localhost/test

    Exit code of a verify: 0 the histories are equal, 1 they are not. Of a fork: 0 every promise holds under the other
    policy, 1 some are broken, 3 nothing can be said. With --live the verdicts are those of the new recording, which is
    verified as well; without another policy, 0 says that it breaks what the recording breaks, 1 that it does not. A
    fault that never struck live is said, and then nothing is shown: 3. A live run uses the database system that the
    recording ran on, SQLite if that was simulated; a recording never says where a PostgreSQL server is.

    Runs of `fencepost run` can be replayed, imports cannot. Invariants of your own are judged in the replay, too; those
    that rest on spans of other scopes are unknown there, for neither the simulator nor a live run makes these.
    """
    from fencepost_analyzer import replay as replaying
    from fencepost_runtime.policy import preset

    here = session(context, recordings, as_json)
    wanted = changes(changed)
    chosen = preset(policy) if policy is not None else None
    own = own_sql(invariants, mappings)
    if live:
        with here.case(run, invariants, mappings) as case:
            postgres = _database(case, backend, database)
            return _live(here, case, chosen, wanted, recording_id, postgres)
    _only_live(recording_id, backend, database)
    with here.out.working("replaying …"), here.case(run, invariants, mappings) as case:
        fork = chosen is not None or wanted
        done = replaying.fork(case, chosen, wanted or None) if fork else replaying.verify(case)
    if here.out.as_json:
        here.out.document(done.to_dict())
    elif done.mode == "verify":
        print_verify(here.out, done)
        here.out.blank()
        here.out.next_steps(f"replay {word(run)} --policy safe{own}")
    else:
        print_fork(here.out, done)
        here.out.blank()
        here.out.next_steps(f"postmortem new {word(run)}" + (f" --policy {policy}" if policy else "") + own)
    if done.mode == "verify":
        return 0 if done.equal else 1
    # Nothing broke, but that shows nothing: then nothing can be said.
    return exit_code("unknown") if done.doubts and not done.after.exit_code else done.after.exit_code


def _only_live(recording_id: str | None, backend: Backend | None, database: str | None) -> None:
    """Raises UsageError for what only a live replay could heed."""
    if recording_id is not None:
        raise UsageError("--id names the recording of a live replay: use it with --live")
    for given, name in ((backend, "--backend"), (database, "--database")):
        if given is not None:
            raise UsageError(f"{name} says on which database a live replay runs: use it with --live")


def _database(case: Case, backend: Backend | None, database: str | None) -> str | None:
    """The connection string of the PostgreSQL database to run on, None for SQLite: what was asked for, else the system
    that the recording ran on. Raises UsageError and BackendError."""
    from fencepost_analyzer.live import system_of

    if backend is None:
        system = system_of(case) or "sqlite"
        if system not in _SYSTEMS:
            raise UsageError(
                f"recording {case.recording.id} says that it ran on {system[:60]!r}, where no live run can "
                "be: choose by --backend sqlite or --backend postgres"
            )
        backend, _ = _SYSTEMS[system]
        if backend is Backend.POSTGRES and not (database or os.environ.get(POSTGRES)):
            raise UsageError(
                f"recording {case.recording.id} ran on PostgreSQL: name a database by --database "
                f"postgresql://user@host:5432/database, or in ${POSTGRES}, or add --backend sqlite to run it on SQLite"
            )
    return server(backend, database)


def _live(
    here: Session,
    case: Case,
    policy: Policy | None,
    wanted: dict[str, Any],
    recording_id: str | None,
    postgres: str | None,
) -> int:
    from fencepost_analyzer.live import live
    from fencepost_analyzer.run import run_processes

    def run(scenario: Scenario, seed: int) -> Recording:
        return run_processes(scenario, here.recordings, recording_id=recording_id, seed=seed, postgres=postgres)

    with here.out.working("running it on real processes …"):
        done = live(case, run, policy, wanted or None)
    if here.out.as_json:
        here.out.document(done.to_dict())
    else:
        print_live(here.out, done)
        here.out.line(dim(_where(done)))
        here.out.blank()
        here.out.next_steps(f"show {word(done.live)}", f"check {word(done.live)}", f"replay {word(done.live)}")
    return done.exit_code


def _where(done: Live) -> str:
    """On which databases the two runs were, as they say it themselves."""
    if done.recorded_on is None:
        return f"the live run was on {_words(done.ran_on)}, the recording in the simulator"
    if done.recorded_on == done.ran_on:
        return f"the live run was on {_words(done.ran_on)}, as the recording was"
    return f"the live run was on {_words(done.ran_on)}, the recording on {_words(done.recorded_on)}"


def _words(system: str | None) -> str:
    return _SYSTEMS[system][1] if system in _SYSTEMS else str(system)[:60]
