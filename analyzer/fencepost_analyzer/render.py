"""How results reach the user: colours and wrapping on a terminal, plain aligned lines in a pipe, or one JSON document.

Results go to stdout, progress and complaints to stderr. Every text that passes through here is made safe by
`text.safe`; callers hand over what they have, raw. Rich is imported only where there is a terminal.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from fencepost_analyzer import text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Long enough for any sentence of ours, short enough that one hostile value cannot flood the terminal.
_PART_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Styled:
    """Text with a style of Rich's for terminals, which also show `glyph` in front of it; a pipe sees the text alone."""

    text: object
    style: str = ""
    glyph: str = ""


Part = str | Styled


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `whole`: never wrapped, for ids that people copy. `spare`: left out where a terminal is too
    narrow for all, the last of them first."""

    title: str
    right: bool = False
    style: str = ""
    whole: bool = False
    spare: bool = False


_VERDICTS = {
    "holds": Styled("holds", "green", "✓ "),
    "violated": Styled("violated", "bold red", "✗ "),
    "unknown": Styled("unknown", "yellow", "? "),
}


def verdict(name: str) -> Styled:
    """A verdict in its colour."""
    return _VERDICTS.get(name, Styled(name, "yellow"))


def bold(value: object) -> Styled:
    return Styled(value, "bold")


def dim(value: object) -> Styled:
    return Styled(value, "dim")


def command(value: object) -> Styled:
    """Something to type."""
    return Styled(value, "cyan")


def word(value: object) -> str:
    """`value` as one word of a shell's command line."""
    return shlex.quote(str(value))


@dataclass(slots=True)
class Output:
    """One command's way out. With `as_json` everything but `document` and stderr is silent. `program` is how the
    commands that it suggests begin."""

    as_json: bool = False
    program: str = "fencepost"
    _consoles: dict[int, Console] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        """Whether a person reads stdout on a terminal."""
        return not self.as_json and sys.stdout.isatty()

    def line(self, *parts: Part, indent: int = 0) -> None:
        """One line of results; on a terminal it wraps, hanging by `indent`."""
        self.item("", *parts, indent=indent)

    def item(self, marker: Part, *parts: Part, indent: int = 0) -> None:
        """A line that begins with a marker ("1. "), under which it hangs when a terminal wraps it."""
        if self.as_json:
            return
        lead = (" " * indent, marker)
        if self.terminal:
            self._hang(lead, parts)
        else:
            _write(sys.stdout, _plain((*lead, *parts)).rstrip() + "\n")

    def blank(self) -> None:
        self.line()

    def raw(self, lines: str) -> None:
        """Several lines as they are, such as SQL; each of them made safe."""
        if not self.as_json:
            _write(sys.stdout, "".join(text.safe(line, None) + "\n" for line in lines.splitlines()))

    def next_steps(self, *commands: str) -> None:
        """What to type next, each on one line however narrow the terminal, so that it can be copied."""
        lines = [(dim("next:  ") if number == 0 else "       ", line) for number, line in enumerate(commands)]
        for lead, line in [] if self.as_json else lines:
            what, hash_sign, why = line.partition("  #")
            parts = (lead, command(f"{self.program} {what}"), dim(hash_sign + why))
            if self.terminal:
                self._console(sys.stdout).print(self._text(parts), soft_wrap=True)
            else:
                _write(sys.stdout, _plain(parts).rstrip() + "\n")

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[Part]], *, indent: int = 0, titles: bool = True
    ) -> None:
        """Rows under titles; a pipe gets them aligned by spaces, no row ever broken."""
        if self.as_json:
            return
        if self.terminal:
            self._rich_table(columns, rows, indent, titles)
        else:
            _plain_table(columns, rows, indent, titles)

    def document(self, data: Mapping[str, Any]) -> None:
        """The one JSON document of a command; ASCII only, so that it is safe on a terminal too."""
        _write(sys.stdout, json.dumps(plain_json(data), indent=2, allow_nan=False) + "\n")

    def separated(self, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Comma-separated values, one row a line: what is not printable is escaped, null is empty."""
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([text.safe(name, None) for name in names])
        for row in rows:
            writer.writerow(["" if value is None else text.safe(value, None) for value in row])

    def note(self, *parts: Part) -> None:
        """An aside on stderr: never part of the results."""
        if sys.stderr.isatty():
            self._console(sys.stderr).print(self._text((Styled(_plain(parts), "dim"),)))
        else:
            _write(sys.stderr, _plain(parts) + "\n")

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Says what takes its time while it does; on a terminal only. Yields what says it anew."""
        if self.as_json or not sys.stderr.isatty() or not sys.stdout.isatty():
            sys.stdout.flush()
            yield lambda _: None
            return
        status = self._console(sys.stderr).status(self._text((dim(what),)), spinner="dots", spinner_style="cyan")
        try:
            status.start()
            yield lambda now: status.update(self._text((dim(now),)))
        finally:
            with suppress(IndexError):  # it was only half started when a signal came
                status.stop()

    def _hang(self, lead: Sequence[Part], parts: Sequence[Part]) -> None:
        from rich.table import Table

        console = self._console(sys.stdout)
        before = self._text(lead)
        if not before.cell_len:
            console.print(self._text(parts))
            return
        grid = Table.grid()
        grid.add_column(width=before.cell_len, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(before, self._text(parts))
        console.print(grid)

    def _rich_table(self, columns: Sequence[Column], rows: Iterable[Sequence[Part]], indent: int, titles: bool) -> None:
        from rich.padding import Padding
        from rich.table import Table

        cells = [[self._text((cell,)) for cell in row] for row in rows]
        console = self._console(sys.stdout)
        columns, cells = _fitting(columns, cells, console.width - indent, titles)
        if _needed(columns, cells, titles) > console.width - indent:
            for number, row in enumerate(cells):
                if number and titles:
                    self.blank()
                self._stacked(columns, row, indent, titles)
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=titles)
        for column in columns:
            table.add_column(
                self._text((column.title,)),
                justify="right" if column.right else "left",
                style=column.style,
                no_wrap=column.whole,
                overflow="fold",
            )
        for row in cells:
            table.add_row(*row)
        console.print(Padding(table, (0, 0, 0, indent)))

    def _stacked(self, columns: Sequence[Column], row: Sequence[Text], indent: int, titles: bool) -> None:
        """A row that no line of this terminal can hold: with titles a line for each cell that is not empty, else the
        cells one after the other."""
        filled = [(column, cell) for column, cell in zip(columns, row, strict=True) if cell.plain.strip()]
        if titles:
            wide = max((text.width(column.title) for column in columns), default=0)
            for column, cell in filled:
                lead = (" " * indent, Styled(f"{column.title:<{wide}}  ", "dim"))
                self._hang(lead, (Styled(cell.plain, column.style or _style_of(cell)),))
            return
        parts: list[Part] = []
        for column, cell in filled:
            parts += [Styled(cell.plain.strip(), column.style or _style_of(cell)), "  "]
        self._hang((" " * indent + "- ",), parts[:-1])

    def _text(self, parts: Sequence[Part]) -> Text:
        from rich.text import Text

        assembled = Text()
        for part in parts:
            styled = part if isinstance(part, Styled) else Styled(part)
            assembled.append(styled.glyph + text.safe(styled.text, _PART_LIMIT), styled.style or None)
        return assembled

    def _console(self, stream: TextIO) -> Console:
        from rich.console import Console

        if id(stream) not in self._consoles:
            self._consoles[id(stream)] = Console(file=stream, markup=False, emoji=False, highlight=False)
        return self._consoles[id(stream)]


# What a column needs at least to be read: of sentences, as in a table without titles, and of a few words.
_SENTENCE, _WORDS = 24, 12


def _needed(columns: Sequence[Column], cells: Sequence[Sequence[Text]], titles: bool) -> int:
    """The width below which a table's cells would be broken into pieces that nobody can read."""
    needed = 2 * (len(columns) - 1)
    for index, column in enumerate(columns):
        widest = max((row[index].cell_len for row in cells), default=0)
        broken = widest if column.whole or column.right else min(widest, _WORDS if titles else _SENTENCE)
        needed += max(broken, text.width(column.title) if titles else 0)
    return needed


def _fitting(
    columns: Sequence[Column], cells: list[list[Text]], width: int, titles: bool
) -> tuple[Sequence[Column], list[list[Text]]]:
    """The table without as many spare columns as it takes to fit; all of it, where that does not help."""
    kept = list(range(len(columns)))
    for index in [at for at in reversed(kept) if columns[at].spare]:
        chosen = [columns[at] for at in kept]
        rows = [[row[at] for at in kept] for row in cells]
        if _needed(chosen, rows, titles) <= width:
            return chosen, rows
        kept.remove(index)
    chosen, rows = [columns[at] for at in kept], [[row[at] for at in kept] for row in cells]
    return (chosen, rows) if _needed(chosen, rows, titles) <= width else (columns, cells)


def _style_of(cell: Text) -> str:
    return str(cell.spans[0].style) if cell.spans else str(cell.style or "")


class _Unfailing:
    """A text stream that is not told from another but by what it does not take: that is lost, without an error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: str) -> int:
        with suppress(OSError):
            self._stream.write(content)
        return len(content)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def heard_or_not(*names: str) -> Iterator[None]:
    """For what matters more than the words about it: while this is entered, a terminal that has closed, a full disk or
    a reader who is gone is no error for the streams named, "stdout" or "stderr"."""
    before: dict[str, TextIO] = {name: getattr(sys, name) for name in names}
    for name, stream in before.items():
        setattr(sys, name, _Unfailing(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
            try:
                stream.flush()
            except OSError:
                abandon(stream)


def abandon(stream: TextIO) -> None:
    """Nothing more is written there, not even when the interpreter flushes at its end, which would be an exit code."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(message: object) -> None:
    """One sentence on stderr: what went wrong and the way out."""
    line = f"fencepost: {text.sentence(message)}"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        line = f"\x1b[31m{line}\x1b[0m"
    # Whoever cannot be told still gets the exit code.
    with suppress(OSError):
        _write(sys.stderr, line + "\n")
        sys.stderr.flush()


def plain_json(value: Any) -> Any:
    """`value` as types that JSON has: keys become text, times, bytes and what is not finite too."""
    match value:
        case None | str() | bool() | int():
            return value
        case Mapping():
            return {str(key): plain_json(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain_json(inner) for inner in value]
        case float() | Decimal():
            return _number(value)
        case bytes():
            return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _number(value: float | Decimal) -> int | float | str:
    """A number as JSON's readers can hold it; as text where none of theirs is the same."""
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, float):
        return value
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _plain(parts: Sequence[Part]) -> str:
    return "".join(text.safe(part.text if isinstance(part, Styled) else part, _PART_LIMIT) for part in parts)


def _plain_table(columns: Sequence[Column], rows: Iterable[Sequence[Part]], indent: int, titles: bool) -> None:
    head = [[column.title for column in columns]] if titles else []
    cells = [*head, *([_plain((cell,)) for cell in row] for row in rows)]
    widths = [max((text.width(row[index]) for row in cells), default=0) for index in range(len(columns))]
    for row in cells:
        padded = [_pad(cell, wide, column.right) for cell, wide, column in zip(row, widths, columns, strict=True)]
        _write(sys.stdout, (" " * indent + "  ".join(padded)).rstrip() + "\n")


def _pad(cell: str, wide: int, right: bool) -> str:
    blanks = " " * (wide - text.width(cell))
    return blanks + cell if right else cell + blanks


def _write(stream: TextIO, content: str) -> None:
    stream.write(content)
