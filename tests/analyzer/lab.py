"""What the tests of the command share: the command in this process, recordings to ask it about, hostile traces."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fencepost_analyzer import postmortem
from fencepost_analyzer.case import open_case
from fencepost_analyzer.cli import main
from fencepost_analyzer.replay import Replay, fork, verify
from fencepost_recorder import Recording
from fencepost_runtime.policy import Policy

PROGRAM = (sys.executable, "-c", "import sys; from fencepost_analyzer.cli import main; sys.exit(main())")

# Each of them does harm somewhere: on a terminal, in Rich's markup, in Markdown, in HTML, in CSV.
HOSTILE = (
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "[bold red]markup[/bold red] :skull:",
    "two\nlines\r\x08\x00",
    "\u202eevil\u202c\u200b\u2066",
    "\x9b31m\udc80".encode("utf-8", "replace").decode(),
    "Z" + "\u0301" * 60,
    "long " + "x" * 5_000,
    "<script>alert(1)</script><!-- fencepost:end timeline -->",
    "![pwn](http://evil.example) @everyone `a` | b",
    "```\n<!-- fencepost:begin verdicts -->\n```",
    "=cmd|' /C calc'!A0",
    "{attempt} %s ${HOME} $(id)",
)


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def fencepost(*arguments: str | Path) -> Done:
    """Runs the command in this process; stdout is no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(one) for one in arguments])
    return Done(code, out.getvalue(), err.getvalue())


@cache
def asked(*arguments: str) -> Done:
    """`fencepost`, for commands that only read the shelf: asked once, however many tests look at the answer."""
    return fencepost(*arguments)


def spawn(*arguments: str | Path, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """Starts the command as a process of its own, in a group of its own."""
    command = [*PROGRAM, *map(str, arguments)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=dict(env), start_new_session=True, **{**streams, **options})


def one_line(message: str) -> bool:
    return message.endswith("\n") and message.count("\n") == 1


def hostile_lines() -> Iterator[str]:
    """OTLP JSON lines that say they are of the reference runtime: jobs, workers, queues and effects of hostile names,
    each job's first effect applied twice, and resources and scopes just as bad."""
    for number, name in enumerate(HOSTILE):
        spans = [
            span(number, 0, f"send {name}", name, {"job.settle.accepted": True, "job.effects.total": 2}),
            *(
                span(
                    number,
                    copy,
                    f"write {name}",
                    name,
                    {"job.effect.key": f"{name}/debit", "job.effect.index": 0, "job.effect.applied": True},
                )
                for copy in (1, 2)
            ),
            span(number, 3, "crash", None, {"job.signal": name}),
        ]
        resource = {"attributes": _attributes({"service.name": name, "host.name": name, "service.instance.id": name})}
        scopes = [{"scope": {"name": "fencepost.runtime"}, "spans": spans}]
        if number == 0:
            scopes.append({"scope": {"name": name}, "spans": [span(99, 0, name, name, {})]})
        yield json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]})


def span(number: int, index: int, name: str, job: str | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    start = 1_700_000_000_000_000_000 + number * 1_000_000 + index * 1_000
    about = {"job.worker.id": f"worker {name}", "messaging.destination.name": f"queue {name}", **attributes}
    if job is not None:
        about["messaging.message.id"] = job
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{number * 16 + index + 1:016x}",
        "name": name,
        "kind": 4,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 500),
        "attributes": _attributes(about),
        "status": {},
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def verified(recording: Recording, **own: Sequence[Path]) -> Replay:
    """The recording verified; `own` are `invariants` and `mappings` of the user's."""
    with open_case(recording, **own) as case:
        return verify(case)


def forked(
    recording: Recording,
    policy: Policy | None = None,
    changes: Mapping[str, Any] | None = None,
    **own: Sequence[Path],
) -> Replay:
    """The recording forked; `own` as above."""
    with open_case(recording, **own) as case:
        return fork(case, policy, changes)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fallen(folder: Path) -> list[str]:
    return [one.name for one in postmortem.verify(folder) if not one.stands]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def doubtful_lines() -> Iterator[str]:
    """OTLP JSON lines of two jobs; of the second, one effect was written and then perhaps again: nobody was told."""
    about = {"job.effect.key": "second/debit", "job.effect.index": 0}
    spans = [
        span(0, 0, "send q", "first", {"job.settle.accepted": True, "job.effects.total": 1}),
        span(0, 1, "send q", "second", {"job.settle.accepted": True, "job.effects.total": 1}),
        span(0, 2, "write debit", "second", {**about, "job.effect.applied": True}),
        span(0, 3, "write debit", "second", {**about, "error.type": "ConnectionLost"}),
    ]
    scope = {"scope": {"name": "fencepost.runtime"}, "spans": spans}
    yield json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]})
