"""`run`, `import`, `list` and `seal`: making recordings, and finding them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.backends import Backend, Database, server
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Changes, PolicyName, Recordings, Run, changes, session
from fencepost_analyzer.render import Column, Styled, bold, command, dim

if TYPE_CHECKING:
    from fencepost_recorder import Recording, RecordingSummary
    from fencepost_runtime.scenario import Scenario

_STATES = {"sealed": "green", "unsealed": "yellow", "damaged": "bold red"}


def register(app: typer.Typer) -> None:
    app.command("run", short_help="Run a scenario, faults included, and record it.")(run)
    app.command("list", short_help="What has been recorded.")(list_)
    app.command("import", short_help="Make a recording of traces from elsewhere.")(import_)
    app.command("seal", short_help="Finish a recording that a crash left open.")(seal)


def run(
    context: typer.Context,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="FM-003|FILE", help="A failure mode of the catalogue, or a scenario of yours (TOML or JSON)."
        ),
    ],
    policy: PolicyName = None,
    changed: Changes = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="In the simulator, in virtual time, instead of on real processes.")
    ] = False,
    backend: Annotated[
        Backend, typer.Option("--backend", help="The database of the processes' queue.")
    ] = Backend.SQLITE,
    database: Database = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="What decides the simulator's schedule.  [default: the file's own, or 0]"
        ),
    ] = None,
    near_miss: Annotated[
        bool, typer.Option("--near-miss", help="The failure mode's near-miss, which comes close and must stay clean.")
    ] = False,
    recording_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The recording's id.  [default: made from time and name]")
    ] = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Run a scenario, faults included, and record it.

    \b
      fencepost run FM-003                       a worker is killed between two writes
      fencepost run FM-003 --policy atomic       the same fault under another policy
      fencepost run FM-003 --set max_attempts=5  the same policy with one field changed
      fencepost run FM-003 --near-miss           almost the same, and harmless
      fencepost run mine.toml --simulate --seed 7
      fencepost run FM-003 --backend postgres --database postgresql://me@localhost/test

    Processes are really killed and stopped; the queue is a SQLite file, or a schema in your PostgreSQL database, made
    for the run and thrown away afterwards. What happened is kept as spans: judge it with `fencepost check`. The exit
    code says whether the run came to its end.
    """
    from fencepost_analyzer.catalogue import failure_modes

    here = session(context, recordings, as_json)
    chosen, own_seed = _scenario(scenario, near_miss=near_miss)
    seed = own_seed if seed is None else seed
    chosen = _under(chosen, policy, changes(changed))
    runner, where = _runner(simulate, server(backend, database, simulate=simulate))
    with here.out.working(f"running {chosen.id} {where} …"):
        try:
            made = runner(chosen, here.recordings, recording_id=recording_id, seed=seed)
        except KeyboardInterrupt:
            here.out.note("what was recorded until now is kept: `fencepost list` shows it")
            raise
    policies = {queue.name: queue.policy.name for queue in chosen.queues}
    here.out.line("recorded ", bold(made.id), f": {_contents(made)}")
    here.out.line(dim(f"scenario {chosen.id} {where}, {_policies(policies)}"))
    mode = failure_modes().get(chosen.id)
    heals = mode.heals if mode is not None and policy is None else "safe"
    here.out.next_steps(f"check {made.id}", f"show {made.id}", f"replay {made.id} --policy {heals}")
    if here.out.as_json:
        facts = {"scenario": chosen.id, "simulated": simulate, "seed": seed, "policies": policies}
        facts["backend"] = None if simulate else backend.value
        here.out.document({**_made(made), **facts})
    return 0


def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many to show, newest first.")] = 20,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """List the recordings, newest first: when, in what state, how many spans, known gaps and bytes.

    A look at manifests and sizes: whether every byte is what was sealed, `check` and all that reads one find out.

    \b
      fencepost list
      fencepost list --recordings /var/lib/fencepost --limit 100
    """
    from fencepost_recorder import list_recordings

    here = session(context, recordings, as_json)
    found = list_recordings(here.recordings)
    if here.out.as_json:
        here.out.document({"recordings": [_summary(one) for one in found[:limit]], "total": len(found)})
        return 0
    if not found:
        here.out.line(f"No recordings in {here.recordings} yet. Make one: ", command("fencepost run FM-003"))
        return 0
    columns = [
        Column("recording", style="bold", whole=True),
        Column("created", whole=True, spare=True),
        Column("state"),
        Column("spans", right=True),
        Column("gaps", right=True),
        Column("size", right=True, whole=True, spare=True),
    ]
    here.out.table(columns, [_row(one) for one in found[:limit]])
    if len(found) > limit:
        here.out.line(dim(f"… {len(found) - limit:,} more: --limit {len(found)}"))
    return 0


def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="OTLP files; .gz is read as it is.")],
    recording_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The recording's id.  [default: made from the time]")
    ] = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Make a recording of traces from elsewhere.

    \b
      fencepost import traces.jsonl            OTLP JSON lines: Collector's file exporter, SDK's JSON file exporter
      fencepost import traces.pb.gz            length-delimited OTLP protobuf
      fencepost import day-1.jsonl day-2.jsonl --id two-days

    A file carries no sequence, so what is missing from it cannot be known: what rests on absence will be *unknown*.
    """
    from fencepost_analyzer.version import __version__
    from fencepost_recorder import import_otlp

    here = session(context, recordings, as_json)
    with here.out.working(f"importing {text.counted(len(files), 'file')} …"):
        made = import_otlp(files, here.recordings, recording_id, tool_version=__version__)
    here.out.line("recorded ", bold(made.id), f": {_contents(made)}")
    here.out.next_steps(f"check {made.id}", f"show {made.id}")
    if here.out.as_json:
        here.out.document(_made(made))
    return 0


def seal(context: typer.Context, run: Run, recordings: Recordings = None, as_json: AsJson = False) -> int:
    """Finish a recording whose processes ended before it was sealed.

    \b
      fencepost seal latest

    Nothing of what was recorded is lost by a crash or a full disk: sealing turns the log into a recording, later just
    as well. Refused while one of its processes still records.
    """
    from fencepost_analyzer.version import __version__
    from fencepost_recorder import recover, resolve

    here = session(context, recordings, as_json)
    made = recover(resolve(here.recordings, run), tool_version=__version__)
    here.out.line("sealed ", bold(made.id), f": {_contents(made)}")
    # One that was named by its path may lie where its id alone says nothing.
    name = made.id if made.directory == here.recordings / made.id else shlex.quote(run)
    here.out.next_steps(f"check {name}", f"show {name}")
    if here.out.as_json:
        here.out.document(_made(made))
    return 0


def _runner(simulate: bool, postgres: str | None) -> tuple[Callable[..., Recording], str]:
    """What runs the scenario, and in words where."""
    from fencepost_analyzer.run import run_processes, run_simulated

    if simulate:
        return run_simulated, "in the simulator"
    over = " over PostgreSQL" if postgres is not None else ""
    return partial(run_processes, postgres=postgres), f"on real processes{over}"


def _scenario(name: str, *, near_miss: bool) -> tuple[Scenario, int]:
    """A failure mode's scenario, or that in a file, with its seed. Raises UsageError and ScenarioFileError."""
    from fencepost_analyzer.catalogue import failure_mode, failure_modes
    from fencepost_analyzer.scenario_file import load

    if Path(name).suffix not in (".toml", ".json"):
        if name.upper() not in failure_modes() and Path(name).exists():
            raise UsageError(f"{name} is not the file of a scenario: its name would end in .toml or .json")
        mode = failure_mode(name)
        return (mode.near_miss if near_miss else mode.scenario), 0
    if near_miss:
        raise UsageError("--near-miss is for failure modes; a file says itself what happens in it")
    return load(Path(name))


def _under(scenario: Scenario, policy: str | None, wanted: dict[str, Any]) -> Scenario:
    from fencepost_runtime.policy import preset

    chosen = scenario.with_policy(preset(policy)) if policy is not None else scenario
    return chosen.with_changes(wanted) if wanted else chosen


def _contents(made: Recording) -> str:
    return f"{text.counted(made.manifest.spans, 'span')}, {text.counted(made.manifest.gaps, 'gap')}"


def _policies(policies: dict[str, str]) -> str:
    return text.listed([f"queue {queue} under {policy}" for queue, policy in policies.items()])


def _made(made: Recording) -> dict[str, Any]:
    return {
        "recording": made.id,
        "directory": str(made.directory),
        "spans": made.manifest.spans,
        "gaps": made.manifest.gaps,
    }


def _summary(one: RecordingSummary) -> dict[str, Any]:
    return {
        "recording": one.id,
        "created": one.created,
        "state": one.state,
        "spans": one.spans,
        "gaps": one.gaps,
        "bytes": one.bytes,
        "directory": str(one.directory),
    }


def _row(one: RecordingSummary) -> list[str | Styled]:
    return [
        one.id,
        text.moment(one.created),
        Styled(one.state, _STATES.get(one.state, "")),
        "-" if one.spans is None else f"{one.spans:,}",
        "-" if one.gaps is None else Styled(f"{one.gaps:,}", "yellow" if one.gaps else ""),
        text.size(one.bytes),
    ]
