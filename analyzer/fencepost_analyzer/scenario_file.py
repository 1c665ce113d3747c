"""Scenarios as files: TOML that people read, edit, keep in a repository and run again; JSON is read as well.

Every text of a scenario may come from a recording, so from an attacker: it is written as an escaped string or
comment, and never becomes TOML of its own.
"""

from __future__ import annotations

import errno
import json
import os
import textwrap
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fencepost_analyzer import text
from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.scenario_lines import given_twice, line_of, line_of_number, lines_of
from fencepost_recorder.plainfile import open_plain
from fencepost_runtime import workloads
from fencepost_runtime.errors import ScenarioError
from fencepost_runtime.operations import Effect, Job
from fencepost_runtime.policy import Policy, presets
from fencepost_runtime.scenario import Fault, Point, Queue, Scenario, lacking, surplus
from fencepost_runtime.wording import shown

MAX_BYTES = 5_000_000
MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
_COLUMNS = 110
_MAX_DIGITS = 1_000
_MAX_MARKS = 4
_DEFAULT = Policy()


class ScenarioFileError(AnalyzerError):
    """The file holds no scenario that can be run."""


def load(path: Path) -> tuple[Scenario, int]:
    """The scenario of a TOML or JSON (`.json`) file, and its seed, 0 if it names none.

    A failure mode's own file, and a postmortem's, hold the scenario in a table `scenario`, beside other things.
    Raises ScenarioFileError, in one sentence with the line, for what cannot be run, and OSError.
    """
    return loads(_content(path), path)


def loads(content: str, path: Path) -> tuple[Scenario, int]:
    """The same from the content of a file, whose `path` says what it is called and how it is written.

    Raises ScenarioFileError as `load` does."""
    table = _parsed(path, content)
    inside = ("scenario",) if isinstance(table, dict) and "scenario" in table else ()
    data = table["scenario"] if inside else table
    try:
        scenario = Scenario.from_dict(data, also=("seed",))
        _check_faults(scenario, data.get("faults", ()))
    except ScenarioError as error:
        raise _refused(path, content, (*inside, *error.path), str(error)) from error
    # A postmortem's file has the seed beside the scenario.
    holder, where = (data, inside) if "seed" in data else (table, ())
    seed = holder.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not MIN_SEED <= seed <= MAX_SEED:
        message = f"A scenario: seed takes a whole number of 64 bits, not {shown(seed)}."
        raise _refused(path, content, (*where, "seed"), message)
    return scenario, seed


def _check_faults(scenario: Scenario, written: Sequence[Any]) -> None:
    """Raises ScenarioError for a fault that can never strike, or a pause until what never comes, under the policy that
    the file itself names."""
    jobs = {job.id: (job, queue.policy) for queue in scenario.queues for job in queue.jobs}
    for number, (fault, entry) in enumerate(zip(scenario.faults, written, strict=True)):
        inside = ("at",) if "at" in entry else ()
        for point, where in ((fault.at, inside), (fault.until, ("until",))):
            if point is None:
                continue
            job, policy = jobs[point.job]
            what = "This fault can never strike" if point is fault.at else "This pause can never end so"
            for reason, key in ((lacking(point, policy, job), "step"), (surplus(point, policy), "attempt")):
                if reason is not None:
                    raise ScenarioError(f"{what}: {reason}.", ("faults", number, *where, key))


def dump(scenario: Scenario, *, seed: int = 0, comments: Sequence[str] = ()) -> str:
    """The scenario as TOML under its comments, one paragraph each: `load` reads back the same scenario and seed."""
    blocks = ["\n".join(_comment(comments))] if comments else []
    blocks.append("\n".join(_head(scenario, seed)))
    for queue in scenario.queues:
        blocks += _queue(queue)
    blocks += ["\n".join(_fault(fault)) for fault in scenario.faults]
    return "\n\n".join(blocks) + "\n"


def _content(path: Path) -> str:
    try:
        # A link may stand for a file.
        with open_plain(os.path.realpath(path)) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENXIO):
            raise ScenarioFileError(f"{path} is a pipe or a device, which could be waited for: name a file") from error
        error.filename = str(path)
        raise
    if len(data) > MAX_BYTES:
        raise ScenarioFileError(f"{path} is larger than {text.size(MAX_BYTES)}: that is no scenario")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScenarioFileError(f"{path}:{line}: this is not text in UTF-8: save it as such") from error


def _parsed(path: Path, content: str) -> Any:
    as_json = path.suffix == ".json"
    try:
        table = json.loads(content) if as_json else tomllib.loads(content)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        kind = path.suffix[1:].upper() or "TOML"
        said = "it is too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise ScenarioFileError(
            f"{path}{_syntax_line(error, content)}: this cannot be read as {kind}: {said}"
        ) from error
    except ValueError as error:
        # Of a text that is well formed as far as it was read, Python refuses only what costs it too much to read.
        raise _too_long(path, line_of_number(content, path.suffix, _MAX_DIGITS)) from error
    if as_json and (twice := given_twice(content)) is not None:
        key, on = twice
        raise ScenarioFileError(f"{path}:{on}: the key {shown(key)} is given twice: keep one of them")
    # In a base that Python reads at any length, but does not write.
    if (line := line_of_number(content, path.suffix, _MAX_DIGITS)) is not None:
        raise _too_long(path, line)
    return table


def _too_long(path: Path, line: int | None) -> ScenarioFileError:
    where = f"{path}:{line}" if line is not None else str(path)
    return ScenarioFileError(f"{where}: this number has {_MAX_DIGITS:,} digits or more: a scenario takes none as large")


def _syntax_line(error: Exception, content: str) -> str:
    """`:LINE`, where the parser's error tells one: json as a number, tomllib at the end of its message."""
    line = getattr(error, "lineno", None)
    if line is None:
        found = str(error).rpartition("(at line ")[2].partition(",")[0]
        at_end = "at end of document" in str(error)
        line = int(found) if found.isdecimal() else content.count("\n") + 1 if at_end else None
    return f":{line}" if line is not None else ""


def _refused(path: Path, content: str, where: tuple[str | int, ...], message: str) -> ScenarioFileError:
    """The message behind `file:line:`. What is missing has no line but that of its table; where none can be told, the
    table is named instead."""
    line, _ = line_of(lines_of(content, path.suffix), where)
    if line is not None:
        return ScenarioFileError(f"{path}:{line}: {message}")
    name = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in where).removeprefix(".")
    return ScenarioFileError(f"{path}: {name}: {message}" if len(where) > 1 else f"{path}: {message}")


def _comment(paragraphs: Sequence[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        words = text.safe(paragraph, None)
        wrapped = textwrap.wrap(words, _COLUMNS, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
        yield from (f"# {line}" for line in wrapped) if wrapped else ("#",)


def _head(scenario: Scenario, seed: int) -> Iterator[str]:
    yield f"id = {_string(scenario.id)}"
    yield f"seed = {seed}"
    yield f"poll_ms = {_number(scenario.poll_ms)}"
    yield f"at_most_ms = {_number(scenario.at_most_ms)}"


def _queue(queue: Queue) -> Iterator[str]:
    """The blocks of one queue: its own fields, a policy without a name of its own, jobs that follow no shape."""
    counted, known = _counted(queue), presets().get(queue.policy.name) == queue.policy
    lines = ["[[queues]]", f"name = {_string(queue.name)}", *counted]
    if not queue.jobs:
        lines.append("jobs = []")
    lines.append(f"workers = {queue.workers}")
    if known:
        lines.append(f"policy = {_string(queue.policy.name)}")
    yield "\n".join(lines)
    if not known:
        yield "\n".join(("[queues.policy]", *_policy(queue.policy)))
    if not counted:
        yield from ("\n".join(_job(job)) for job in queue.jobs)


def _counted(queue: Queue) -> list[str]:
    """The jobs as a number of a workload's shape, where that gives exactly these."""
    if not queue.jobs:
        return []
    work_ms = queue.jobs[0].work_ms
    for shape in workloads.workloads():
        if workloads.jobs(shape, len(queue.jobs), queue.name, work_ms) == queue.jobs:
            lines = [f"workload = {_string(shape)}", f"jobs = {_number(len(queue.jobs))}"]
            return [*lines, f"work_ms = {_number(work_ms)}"] if work_ms else lines
    return []


def _policy(policy: Policy) -> Iterator[str]:
    """The fields that differ from the defaults."""
    for name, value in policy.to_dict().items():
        if value != getattr(_DEFAULT, name):
            yield f"{name} = {_value(value)}"


def _job(job: Job) -> Iterator[str]:
    yield "[[queues.jobs]]"
    yield f"id = {_string(job.id)}"
    if job.name != job.id:
        yield f"name = {_string(job.name)}"
    if job.work_ms:
        yield f"work_ms = {_number(job.work_ms)}"
    if job.effects:
        yield "effects = ["
        yield from (f"    {_effect(effect)}," for effect in job.effects)
        yield "]"


def _effect(effect: Effect) -> str:
    fields = {"key": effect.key, "account": effect.account, "amount": effect.amount}
    return _inline({name: value for name, value in fields.items() if name != "account" or value != effect.key})


def _fault(fault: Fault) -> Iterator[str]:
    yield "[[faults]]"
    yield f"kind = {_string(fault.kind)}"
    yield from (f"{name} = {_value(value)}" for name, value in _point(fault.at, "before").items())
    if fault.until is not None:
        yield f"until = {_inline(_point(fault.until, 'after'))}"
    if fault.kind in ("pause", "slow") or fault.at_most_ms != Fault(fault.kind, fault.at).at_most_ms:
        yield f"at_most_ms = {_number(fault.at_most_ms)}"


def _point(point: Point, usual: str) -> dict[str, str | int]:
    """The fields of a point that say something; steps outside any attempt have none."""
    fields: dict[str, str | int] = {"job": point.job}
    if point.attempt:
        fields["attempt"] = point.attempt
    fields["step"] = point.step
    if point.index or point.step in ("write", "work"):
        fields["index"] = point.index
    if point.when != usual:
        fields["when"] = point.when
    return fields


def _inline(fields: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{name} = {_value(value)}" for name, value in fields.items()) + " }"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _number(value) if isinstance(value, int) else _string(value)


def _number(value: int) -> str:
    return f"{value:_}"


def _string(value: str) -> str:
    """A TOML basic string in which nothing acts on a terminal: no control, no override of direction, no heap of
    accents stands as itself."""
    return f'"{"".join(_letters(value))}"'


def _letters(value: str) -> Iterator[str]:
    marks = 0
    for letter in value:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        if letter in '"\\':
            yield f"\\{letter}"
        elif letter.isprintable() and marks <= _MAX_MARKS:
            yield letter
        else:
            yield f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"
