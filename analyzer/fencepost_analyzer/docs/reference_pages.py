"""docs/reference/: policies, the scenario file, the command line and the recording format, as the code has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pyarrow as pa
import typer

from fencepost_analyzer.cli.app import build
from fencepost_analyzer.docs.markup import code, fenced, table, value
from fencepost_analyzer.docs.sections import Page, Section
from fencepost_analyzer.docs.states import SITUATIONS, moves
from fencepost_analyzer.docs.words import described
from fencepost_recorder import gaps, manifest, schema, wal
from fencepost_runtime import policy, scenario, workloads
from fencepost_runtime.operations import Effect, Job
from fencepost_runtime.policy import Policy, about, presets
from fencepost_runtime.steps import STEPS

FOLDER = "docs/reference"
STATES = "docs/02-state-model.md"
HELP_COLUMNS = 100


def pages() -> Iterator[Page]:
    yield Page(f"{FOLDER}/policies.md", "# Policies\n", _policies())
    yield Page(f"{FOLDER}/scenario-file.md", "# The scenario file\n", _scenario_file())
    yield Page(f"{FOLDER}/cli.md", "# The command line\n", _cli())
    yield Page(f"{FOLDER}/recording-format.md", "# The recording format\n", _recording_format())
    yield Page(STATES, "# The state model\n", {"moves": Section("## Every operation in every state", _moves())})


def _policies() -> dict[str, Section]:
    names = [field.name for field in fields(Policy) if field.name != "name"]
    default = Policy()
    meaning = described("policy", names)
    rows = [[code(name), _takes(name), code(value(getattr(default, name))), words] for name, words in meaning]
    titles = ["preset", "what it stands for", "differs from the defaults in"]
    return {
        "fields": Section("## Fields", table(["field", "takes", "default", "meaning"], rows)),
        "presets": Section("## Presets", table(titles, _presets())),
        "values": Section("## Every field of every preset", _values(names)),
    }


def _takes(name: str) -> str:
    ranges = policy._RANGES
    if name in policy._LITERALS:
        return ", ".join(code(value(choice)) for choice in policy._LITERALS[name])
    if name in ranges:
        low, high = ranges[name]
        return f"{value(low)} to {value(high)}{' ms' if name.endswith('_ms') else ''}"
    return "`true`, `false`"


def _presets() -> Iterator[list[str]]:
    default = Policy()
    for name, one in presets().items():
        differing = [field.name for field in fields(Policy) if getattr(one, field.name) != getattr(default, field.name)]
        said = [code(f"{field} = {value(getattr(one, field))}") for field in differing if field != "name"]
        yield [code(name), about(name), ", ".join(said) or "nothing"]


def _values(names: list[str]) -> str:
    rows = [[code(name), *(value(getattr(one, name)).strip('"') for one in presets().values())] for name in names]
    return table(["field", *presets()], rows)


def _scenario_file() -> dict[str, Section]:
    def rows(family: str, names: list[str]) -> str:
        return table(["field", "meaning"], [[code(name), words] for name, words in described(family, names)])

    job = [name for name in _fields(Job) if name not in ("queue", "carrier")]
    queue = ["name", "workload", "jobs", "work_ms", "policy", "workers"]
    fault = ["kind", "job", "attempt", "step", "index", "when", "until", "at_most_ms"]
    shapes = [[code(name), shape["about"], _effects(shape)] for name, shape in workloads.workloads().items()]
    kinds = [[code(name), words] for name, words in scenario.KINDS.items()]
    steps = [[code(name), words, _strikes(name)] for name, words in STEPS.items()]
    return {
        "scenario": Section("## The scenario", rows("scenario", _fields(scenario.Scenario))),
        "queue": Section("## `[[queues]]`", rows("queue", queue)),
        "job": Section("## `[[queues.jobs]]`", rows("job", job)),
        "effect": Section("## `[[queues.jobs.effects]]`", rows("effect", _fields(Effect))),
        "fault": Section("## `[[faults]]`", rows("fault", fault)),
        "kinds": Section("## Kinds of fault", table(["kind", "what it does"], kinds)),
        "steps": Section("## Steps", table(["step", "what it is", "faults can strike it"], steps)),
        "workloads": Section("## Workloads", table(["workload", "what it is", "effects of one job"], shapes)),
        "limits": Section("## Limits", _limits()),
    }


def _fields(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _effects(shape: dict[str, Any]) -> str:
    return ", ".join(code(f"{effect['key']} {effect['amount']:+}") for effect in shape["effects"])


def _strikes(step: str) -> str:
    if step in scenario.OF_NO_JOB:
        return "no"
    if step in scenario.DURABLE:
        return "kill, pause, lost_request, lost_reply, db_error"
    return "kill, pause, slow" if step == "work" else "kill, pause"


def _limits() -> str:
    limits = {
        "queues": scenario.MAX_QUEUES,
        "jobs": scenario.MAX_JOBS,
        "workers of a queue": scenario.MAX_WORKERS,
        "effects of a job": scenario.MAX_EFFECTS,
        "faults": scenario.MAX_FAULTS,
        "characters of a text": scenario.MAX_TEXT,
        "milliseconds": scenario.MAX_MS,
    }
    return table(["what", "at most"], [[name, f"{most:,}"] for name, most in limits.items()])


def _cli() -> dict[str, Section]:
    command: Any = typer.main.get_command(build())
    return {
        name.replace(" ", "-"): Section(f"## `{name}`", fenced(text))
        for name, text in _helps(command, "fencepost", None)
    }


def _helps(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    """A command's own help, then that of the commands below it, by their whole names."""
    sizes = {"terminal_width": HELP_COLUMNS, "max_content_width": HELP_COLUMNS}
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, **sizes)
    yield context.command_path, command.get_help(context)
    for inner, below in getattr(command, "commands", {}).items():
        yield from _helps(below, inner, context)


def _recording_format() -> dict[str, Section]:
    causes = [[code(name), words] for name, words in described("gaps", gaps.CAUSES)]
    entries = {"manifest.json": manifest.Manifest, "its files": manifest.FileEntry, "its producers": manifest.Producer}
    stated = [[name, ", ".join(code(field) for field in _fields(kind))] for name, kind in entries.items()]
    return {
        "spans": Section("## `spans/*.parquet`", f"{_columns(schema.SPANS)}\n\n{_notes(schema)}"),
        "gaps": Section("## `gaps.parquet`", f"{_columns(schema.GAPS)}\n\n{table(['cause', 'what it means'], causes)}"),
        "manifest": Section("## `manifest.json`", f"{_doc(manifest.Manifest)}\n\n{table(['where', 'fields'], stated)}"),
        "wal": Section("## `wal/`, until it is sealed", fenced(inspect.cleandoc(wal.__doc__ or ""))),
    }


def _columns(columns: pa.Schema) -> str:
    return table(["column", "type"], [[code(field.name), str(field.type)] for field in columns])


def _notes(module: Any) -> str:
    """A module's docstring without its first sentence, which names the module."""
    return inspect.cleandoc(module.__doc__ or "").partition("\n\n")[2]


def _doc(kind: Any) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


def _moves() -> str:
    rows = [[name, *(move.cell() for move in row.values())] for name, row in moves().items()]
    return table(["operation, by the first lease's holder", *(one.name for one in SITUATIONS)], rows)
