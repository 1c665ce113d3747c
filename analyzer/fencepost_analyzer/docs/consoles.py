"""The commands that pages show: run as they stand, in an empty folder, and their output compared or written again.

A fenced block of language `console` is run: `$ ` begins a command, `> ` continues it, what follows is its output. A
block after a line `<!-- file: NAME -->` is written to that file first. The blocks of one page run in their order, in
one folder that also has the checkout's `tests`. Ids, times and process names differ from run to run, so they are
compared as what they are, not by their value.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fencepost_analyzer.docs.errors import DocsError

TIMEOUT_S = 120

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>[\w./-]+) -->\n\n?)?(?P<fence>```+)(?P<language>\w*)\n(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)

# In this order: what is longer, or holds the others, first.
_DIFFERING = (
    (re.compile(r"\b\d{8}-\d{6}-[a-z0-9-]+-[0-9a-f]{4}\b"), "RECORDING"),
    (re.compile(r"\b[\w-]+-\d+-[0-9a-f]{8}\b"), "PROCESS"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?: UTC)?)?"), "DATE"),
    (re.compile(r"[+-]?\d[\d,]*(?:\.\d+)? (?:ns|µs|ms|s|min)\b"), "TIME"),
    (re.compile(r"\b\d[\d,]*(?:\.\d+)? (?:B|kB|MB)\b"), "SIZE"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b…?|\b\d{16,}\b"), "ID"),
    (re.compile(r"\bprocess \d+\b"), "process N"),
    # Which of two workers is the first to get a job, and under which of the queue's leases, is chance.
    (re.compile(r"-worker-\d+\b"), "-worker-N"),
    (re.compile(r"\blease \d+\b"), "lease N"),
    (re.compile(r" {2,}"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; `start` and `end` bound its body. `file` is where it is to be written, if anywhere."""

    file: str | None
    language: str
    body: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A command whose output is not what the page shows; both as lines of which ids and times were taken out."""

    command: str
    shown: tuple[str, ...]
    printed: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"$ {self.command}", "the page shows:", *self.shown, "it prints:", *self.printed]
        return "\n".join(lines)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(text):
        yield Block(found["file"], found["language"], found["body"], found.start("body"), found.end("body"))


def commands(body: str) -> list[tuple[str, str]]:
    """(command, output) of each command of a console block. Raises DocsError if it does not begin with one."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise DocsError(f"A console block begins with a command after `$ `, not with: {line}")
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in found]


def told(text: str) -> tuple[str, ...]:
    """Output without what differs from run to run, nor blank lines at its ends, as lines."""
    for pattern, word in _DIFFERING:
        text = pattern.sub(word, text)
    return tuple(line.strip() for line in text.strip("\n").splitlines())


def races(text: str) -> bool:
    """Whether a page runs real processes, so that lines of its output may come in another order each time."""
    run = (command for block in blocks(text) if block.language == "console" for command, _ in commands(block.body))
    return any(re.search(r"fencepost (demo|run (?!.*--simulate))", command) for command in run)


def differences(text: str, root: Path) -> list[Difference]:
    """Runs the console blocks of a page; the commands that print something else than it shows."""
    racing = races(text)
    found = []
    for command, shown, printed in _run(text, root):
        if not _same(shown, printed, racing):
            found.append(Difference(command, told(shown), told(printed)))
    return found


def refreshed(text: str, root: Path) -> str:
    """The page with the output that its commands print now; what differs only in ids and times stays as it is."""
    racing = races(text)
    printed = iter(_run(text, root))
    pieces, last = [], 0
    for block in blocks(text):
        if block.language != "console":
            continue
        lines = []
        for command, shown in commands(block.body):
            _, _, now = next(printed)
            output = shown if _same(shown, now, racing) else now
            lines += [_prompted(command), *([output] if output.strip("\n") else [])]
        pieces += [text[last : block.start], "".join(f"{line.rstrip()}\n" for line in "\n".join(lines).split("\n"))]
        last = block.end
    return "".join([*pieces, text[last:]])


def _same(shown: str, printed: str, racing: bool) -> bool:
    one, other = told(shown), told(printed)
    return sorted(one) == sorted(other) if racing else one == other


def _run(text: str, root: Path) -> Iterator[tuple[str, str, str]]:
    """(command, output shown, output printed) of every command of a page, run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="fencepost-page-") as folder:
        Path(folder, "tests").symlink_to(root / "tests")
        environment = _environment(Path(folder))
        for block in blocks(text):
            if block.file is not None:
                path = Path(folder, block.file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body, "utf-8")
            if block.language == "console":
                for command, shown in commands(block.body):
                    yield command, shown, _output(command, Path(folder), environment)


def _output(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints. Raises DocsError when it fails: a page that means to show a failure says `|| echo`."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise DocsError(f"`{command}` ended with exit code {done.returncode}: {done.stdout.strip()}")
    return done.stdout.rstrip("\n")


def _environment(folder: Path) -> dict[str, str]:
    """Bare, but for the PATH, on which this Python's own scripts come first."""
    scripts = Path(sys.executable).parent
    return {
        "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _prompted(command: str) -> str:
    return "$ " + "\n> ".join(command.split("\n"))


def pages(root: Path) -> Sequence[Path]:
    """The pages whose commands are run: the README and the how-to pages."""
    return [root / "README.md", *sorted((root / "docs" / "how-to").glob("*.md"))]
