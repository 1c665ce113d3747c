"""`replay`: the recorded history again, the same incident under another policy, or the incident on real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from fencepost_analyzer.render import word
from fencepost_analyzer.reports import print_fork, print_live, print_verify
from fencepost_analyzer.verdicts import exit_code

if TYPE_CHECKING:
    from fencepost_analyzer.case import Case
    from fencepost_recorder import Recording
    from fencepost_runtime.policy import Policy
    from fencepost_runtime.scenario import Scenario


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

    Exit code of a verify: 0 the histories are equal, 1 they are not. Of a fork: 0 every promise holds under the other
    policy, 1 some are broken, 3 nothing can be said. With --live the verdicts are those of the new recording, which is
    verified as well; without another policy, 0 says that it breaks what the recording breaks, 1 that it does not. A
    fault that never struck live is said, and then nothing is shown: 3.

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
            return _live(here, case, chosen, wanted, recording_id)
    if recording_id is not None:
        raise UsageError("--id names the recording of a live replay: use it with --live")
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


def _live(here: Session, case: Case, policy: Policy | None, wanted: dict[str, Any], recording_id: str | None) -> int:
    from fencepost_analyzer.live import live
    from fencepost_analyzer.run import run_processes

    def run(scenario: Scenario, seed: int) -> Recording:
        return run_processes(scenario, here.recordings, recording_id=recording_id, seed=seed)

    with here.out.working("running it on real processes …"):
        done = live(case, run, policy, wanted or None)
    if here.out.as_json:
        here.out.document(done.to_dict())
    else:
        print_live(here.out, done)
        here.out.blank()
        here.out.next_steps(f"show {word(done.live)}", f"check {word(done.live)}", f"replay {word(done.live)}")
    return done.exit_code
