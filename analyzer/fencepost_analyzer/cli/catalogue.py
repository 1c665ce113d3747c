"""`policies`, `failure-modes` and `invariants`: what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, session
from fencepost_analyzer.render import Column, Output, bold, dim


def register(app: typer.Typer) -> None:
    app.command("policies", short_help="The policies to choose from.")(policies)
    app.command("failure-modes", short_help="The failure modes to run.")(failure_modes)
    app.command("invariants", short_help="The promises that check judges, and their SQL.")(invariants)


def policies(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show the fields of this one.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the policies by name, or show one's fields (times in ms).

    \b
      fencepost policies
      fencepost policies safe
    """
    from fencepost_runtime.policy import about, preset, presets

    out = session(context, None, as_json).out
    chosen = {name: preset(name)} if name is not None else presets()
    if out.as_json:
        described = [{**one.to_dict(), "about": about(key)} for key, one in chosen.items()]
        out.document({"policies": described})
        return 0
    if name is None:
        _names(out, "policy", [(key, about(key)) for key in chosen])
        return 0
    out.line(bold(name), f"  {about(name)}")
    fields = [
        [key, str(value).lower() if isinstance(value, bool) else str(value)] for key, value in _fields(chosen[name])
    ]
    out.table([Column("field"), Column("value")], fields, indent=2)
    return 0


def failure_modes(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[FM-003]", help="Tell this one in full.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the failure modes that can be run, or tell one in full.

    \b
      fencepost failure-modes
      fencepost failure-modes FM-003
    """
    from fencepost_analyzer.catalogue import FailureMode, failure_mode
    from fencepost_analyzer.catalogue import failure_modes as known

    def described(mode: FailureMode) -> dict[str, Any]:
        lists = {"violates": mode.violates, "strategies": mode.strategies, "sources": mode.sources}
        seems = [{"policy": one.policy, "why": one.why, "violates": one.violates} for one in mode.seems]
        texts = {"id": mode.id, "title": mode.title, "story": mode.story, "near_miss": mode.near_miss_story}
        return {**texts, **lists, "heals": mode.heals, "seems": seems}

    out = session(context, None, as_json).out
    chosen = [failure_mode(name)] if name is not None else list(known().values())
    if out.as_json:
        out.document({"failure_modes": [described(mode) for mode in chosen]})
    elif name is None:
        columns = [Column("id", style="bold", whole=True), Column("what happens"), Column("violates"), Column("heals")]
        out.table(columns, [[one.id, one.title, ", ".join(one.violates), one.heals] for one in chosen])
        out.next_steps(f"run {chosen[0].id}", f"failure-modes {chosen[0].id}")
    else:
        _tell(out, described(chosen[0]))
    return 0


def invariants(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[INV-001]", help="Show this one, with its SQL.")] = None,
    directories: Annotated[
        list[Path] | None, typer.Option("--invariants", metavar="DIR", help="A folder of your own, beside ours.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List the promises that `check` judges, or show one with the SQL that judges it.

    \b
      fencepost invariants
      fencepost invariants INV-003
    """
    from fencepost_analyzer.invariants import load
    from fencepost_analyzer.strategies import not_yet

    out = session(context, None, as_json).out
    found = {one.id: one for one in load(directories or ())}
    wanted = name.upper() if name is not None else None
    if wanted is not None and wanted not in found:
        planned = not_yet()["invariants"].get(wanted)
        hint = text.nearest(wanted, found, see="fencepost invariants")
        if planned is not None:
            hint = f"it is in the catalogue ({planned}), but cannot be judged yet; there are {', '.join(found)}"
        raise UsageError(f"there is no invariant {name!r}: {hint}")
    chosen = [found[wanted]] if wanted is not None else list(found.values())
    if out.as_json:
        keys = ("id", "title", "severity", "principle", "polarity", "claim", "sql")
        out.document({"invariants": [{key: getattr(one, key) for key in keys} for one in chosen]})
    elif wanted is None:
        columns = [Column("id", style="bold", whole=True), Column("promise"), Column("severity"), Column("claim")]
        out.table(columns, [[one.id, one.title, one.severity, one.claim] for one in chosen])
    else:
        one = chosen[0]
        out.line(bold(one.id), f" {one.title}", dim(f"  {one.severity}, {one.principle}, polarity {one.polarity}"))
        out.line(one.claim)
        out.blank()
        out.raw(one.sql)
    return 0


def _names(out: Output, title: str, rows: list[tuple[str, str]]) -> None:
    out.table([Column(title, style="bold", whole=True), Column("what it stands for")], rows)


def _fields(policy: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in policy.to_dict().items() if key != "name"]


def _tell(out: Output, mode: dict[str, Any]) -> None:
    out.line(bold(mode["id"]), f" {mode['title']}")
    out.line(mode["story"])
    out.blank()
    for label, value in (
        ("violates", ", ".join(mode["violates"])),
        ("heals", f"policy {mode['heals']} ({', '.join(mode['strategies'])})"),
        ("near-miss", mode["near_miss"]),
        ("seen in", ", ".join(mode["sources"])),
    ):
        if value:
            out.item(f"{label:<12}", value)
    for one in mode["seems"]:
        out.item("only seems  ", f"policy {one['policy']}: {one['why']} Leaves {', '.join(one['violates'])} broken.")
    out.blank()
    run = f"run {mode['id']}"
    out.next_steps(run, f"{run} --policy {mode['heals']}", f"{run} --near-miss")
