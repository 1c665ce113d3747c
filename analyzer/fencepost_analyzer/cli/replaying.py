"""`replay`: the recorded history again, or the same incident under another policy."""

from __future__ import annotations

import typer

from fencepost_analyzer.cli.options import (
    AsJson,
    Changes,
    Invariants,
    Mappings,
    PolicyName,
    Recordings,
    Run,
    changes,
    own_sql,
    session,
)
from fencepost_analyzer.render import word
from fencepost_analyzer.reports import print_fork, print_verify
from fencepost_analyzer.verdicts import exit_code


def register(app: typer.Typer) -> None:
    app.command("replay", short_help="The same incident again, or under another policy.")(replay)


def replay(
    context: typer.Context,
    run: Run,
    policy: PolicyName = None,
    changed: Changes = None,
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

    Exit code of a verify: 0 the histories are equal, 1 they are not. Of a fork: 0 every promise holds under the other
    policy, 1 some are broken, 3 nothing can be said. Runs of `fencepost run` can be replayed, imports cannot.
    Invariants of your own are judged in the replay, too; those that rest on spans of other scopes are unknown there,
    for the simulator does not make these.
    """
    from fencepost_analyzer import replay as replaying
    from fencepost_runtime.policy import preset

    here = session(context, recordings, as_json)
    wanted = changes(changed)
    chosen = preset(policy) if policy is not None else None
    own = own_sql(invariants, mappings)
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
