"""What the commands share: their common options, and the session that these make."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.render import Output

if TYPE_CHECKING:
    from fencepost_analyzer.case import Case
    from fencepost_recorder import Recording

RECORDINGS = Path("recordings")

Recordings = Annotated[
    Path | None,
    typer.Option(
        "--recordings",
        metavar="DIR",
        help="The folder of recordings.  [default: $FENCEPOST_RECORDINGS, or ./recordings]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A recording: its id, a path to it, or `latest`.", show_default=False)
]
Mappings = Annotated[
    list[Path] | None,
    typer.Option("--mappings", metavar="DIR", help="A folder of your own mappings (*.sql), spans to events."),
]
Invariants = Annotated[
    list[Path] | None,
    typer.Option("--invariants", metavar="DIR", help="A folder of your own invariants (*.sql), beside ours."),
]
Postmortems = Annotated[
    Path, typer.Option("--postmortems", metavar="DIR", help="The folder of postmortems, made if it is not there.")
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", metavar="NAME", help="A policy by name; `fencepost policies` lists them."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change one field of the policy, such as lease_ms=2000 (times in ms); may be given several times.",
    ),
]


@dataclass(slots=True)
class Globals:
    """What was said before the command: `fencepost --json check latest` means `fencepost check latest --json`."""

    recordings: Path | None = None
    as_json: bool = False


@dataclass(slots=True)
class Session:
    """One command's surroundings."""

    recordings: Path
    out: Output = field(default_factory=Output)

    def open(self, ref: str) -> Recording:
        """The sealed recording that `ref` names. Raises RecorderError, with the nearest ids when there is none."""
        from fencepost_recorder import open_recording, resolve

        return open_recording(resolve(self.recordings, ref))

    @contextmanager
    def case(self, ref: str, invariants: list[Path] | None, mappings: list[Path] | None) -> Iterator[Case]:
        """The recording that `ref` names, opened beside the user's own SQL. Raises as `open` and `open_case` do."""
        from fencepost_analyzer.case import open_case

        with open_case(self.open(ref), invariants=invariants or (), mappings=mappings or ()) as case:
            yield case


def session(context: typer.Context, recordings: Path | None, as_json: bool) -> Session:
    """The session of a command, from its own options, those before it and the environment."""
    said = context.find_root().obj or Globals()
    chosen = recordings or said.recordings
    default = Path(os.environ.get("FENCEPOST_RECORDINGS") or RECORDINGS)
    program = f"{_invoked()} --recordings {shlex.quote(str(chosen))}" if chosen else _invoked()
    return Session(chosen or default, Output(as_json=as_json or said.as_json, program=program))


def own_sql(invariants: Iterable[Path] | None, mappings: Iterable[Path] | None) -> str:
    """The options that bring the user's own SQL along to the next command, as they have to be typed."""
    given = [("--invariants", path) for path in invariants or ()] + [("--mappings", path) for path in mappings or ()]
    return "".join(f" {option} {shlex.quote(str(path))}" for option, path in given)


def changes(pairs: Iterable[str] | None) -> dict[str, Any]:
    """`--set` as policy fields: numbers and truth values are recognised, everything else is text.

    Raises UsageError for what is not FIELD=VALUE, and for a policy's name: the same would pass for another policy."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise UsageError(f"--set {pair!r} is not FIELD=VALUE: write it like --set lease_ms=2000")
        found[name.strip()] = _value(value.strip())
    if "name" in found:
        raise UsageError("--set name: what a policy is called changes nothing; --policy NAME chooses another one")
    return found


def _value(text: str) -> Any:
    words: Mapping[str, bool] = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
    if text.lower() in words:
        return words[text.lower()]
    digits = text.replace("_", "")
    return int(digits) if digits.isdecimal() and digits.isascii() else text


def _invoked() -> str:
    """The command as it has to be typed again: its bare name where a shell would find it, else the way it came."""
    came = Path(sys.argv[0])
    found = came.name != "fencepost" or shutil.which("fencepost") is not None
    return "fencepost" if found else shlex.quote(str(came))
